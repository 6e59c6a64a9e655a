//! The pipes of a process, which never wait: bytes that it did not take yet, and lines cut out of
//! what it wrote.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread, read, write, writev};

/// One side's ends of the pipes to and from a process: those of its standard input and output.
#[derive(Debug)]
pub(in crate::server) struct Ends {
    pub(in crate::server) input: OwnedFd,
    pub(in crate::server) output: OwnedFd,
}

/// The pipes of a process: our ends, which never block, and its own, which do. All are
/// close-on-exec.
///
/// # Errors
/// If the system has no descriptors for them.
pub(super) fn pipes() -> io::Result<(Ends, Ends)> {
    let (their_input, input) = io::pipe()?;
    let (output, their_output) = io::pipe()?;
    let ours = Ends { input: input.into(), output: output.into() };
    // Each end of a pipe has a mode of its own.
    ioctl_fionbio(&ours.input, true)?;
    ioctl_fionbio(&ours.output, true)?;
    Ok((ours, Ends { input: their_input.into(), output: their_output.into() }))
}

/// What is written to a process. Nothing is lost but what it did not read before its end, or before
/// it closed its input.
#[derive(Debug)]
pub(super) struct Input {
    pipe: OwnedFd,
    /// What the pipe did not take yet, of the first one from `at` on.
    rest: VecDeque<Box<[u8]>>,
    at: usize,
    /// The process reads no more; so many bytes found the pipe closed.
    lost: Option<usize>,
}

impl Input {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe, rest: VecDeque::new(), at: 0, lost: None }
    }

    pub(super) fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    /// Writes behind what is left; kept is only what the pipe does not take.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let taken = if self.is_free() { write(&self.pipe, bytes).unwrap_or(0) } else { 0 };
        self.keep(&bytes[taken..]);
    }

    /// The same with two parts.
    pub(super) fn send(&mut self, text: &[u8], terminator: &[u8]) {
        let parts = [IoSlice::new(text), IoSlice::new(terminator)];
        let taken = if self.is_free() { writev(&self.pipe, &parts).unwrap_or(0) } else { 0 };
        if taken < text.len() + terminator.len() {
            self.keep(&[text, terminator].concat()[taken..]);
        }
    }

    fn is_free(&self) -> bool {
        self.rest.is_empty() && self.lost.is_none()
    }

    /// What an error said to who wrote, it says again to who flushes.
    fn keep(&mut self, rest: &[u8]) {
        if let Some(lost) = &mut self.lost {
            *lost += rest.len();
        } else if !rest.is_empty() {
            self.rest.push_back(rest.into());
            if self.rest.len() == 1 {
                self.flush();
            }
        }
    }

    /// Whether something is left, so that the pipe's room is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Goes on with what is left.
    pub(super) fn flush(&mut self) {
        while let Some(first) = self.rest.front() {
            match write(&self.pipe, &first[self.at..]) {
                Ok(taken) if self.at + taken == first.len() => {
                    self.rest.pop_front();
                    self.at = 0;
                }
                Ok(taken) => self.at += taken,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.give_up(),
            }
        }
    }

    /// Nobody will ever read what is left; how much it was is told by `unread`.
    fn give_up(&mut self) {
        self.lost = Some(self.left());
        self.rest = VecDeque::new();
        self.at = 0;
    }

    fn left(&self) -> usize {
        self.rest.iter().map(|bytes| bytes.len()).sum::<usize>() - self.at
    }

    /// Bytes of the end of all that was written that the process has not read.
    pub(super) fn unread(&self) -> usize {
        // The pipe outlives its reader: what lies in it was never read.
        let piped = ioctl_fionread(&self.pipe).unwrap_or(0);
        usize::try_from(piped).unwrap_or(0) + self.left() + self.lost.unwrap_or(0)
    }
}

/// One read(2); an interrupted one is tried again.
pub(super) fn read_into(pipe: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match read(pipe, &mut *buffer) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Cuts lines out of what a process wrote. A line ends with LF; a CR before it is not part of it.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come, or a line in parts that was told last.
    begun: Vec<u8>,
    is_told: bool,
}

/// A line is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// The next line of `chunk`, from `at` on; `None`: its end has not come yet.
    ///
    /// # Errors
    /// It is longer than `most`, or will be.
    pub(super) fn next<'a>(
        &'a mut self,
        chunk: &'a [u8],
        at: &mut usize,
        most: usize,
    ) -> Option<Result<&'a [u8], TooLong>> {
        if std::mem::take(&mut self.is_told) {
            self.begun = Vec::new();
        }
        let rest = &chunk[*at..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            // One byte more may be a CR.
            if self.begun.len() + rest.len() > most + 1 {
                return Some(Err(TooLong));
            }
            self.begun.extend_from_slice(rest);
            *at = chunk.len();
            return None;
        };
        *at += end + 1;
        let mut line = &rest[..end];
        if !self.begun.is_empty() {
            self.begun.extend_from_slice(line);
            self.is_told = true;
            line = &self.begun;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(if line.len() > most { Err(TooLong) } else { Ok(line) })
    }

    /// What has come of a line so far.
    pub(super) fn begun(&self) -> &[u8] {
        if self.is_told { &[] } else { &self.begun }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 5;

    #[track_caller]
    fn check(chunks: &[&str], expected: &[Result<&str, TooLong>]) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            let mut at = 0;
            while let Some(line) = lines.next(chunk.as_bytes(), &mut at, MOST) {
                let is_over = line.is_err();
                found.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
                if is_over {
                    break;
                }
            }
        }
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.as_ref().map(|line| (*line).to_owned()).map_err(|_| TooLong))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        check(&["one\n\ntwo\r\n"], &[Ok("one"), Ok(""), Ok("two")]);
        check(&["o", "ne", "\n\nt", "wo\r", "\nx"], &[Ok("one"), Ok(""), Ok("two")]);
        check(&["a\rb\n"], &[Ok("a\rb")]);
    }

    #[test]
    fn a_line_over_the_limit_is_noticed_before_its_end() {
        check(&["12345\r\n12345\n"], &[Ok("12345"), Ok("12345")]);
        check(&["123456\n"], &[Err(TooLong)]);
        check(&["1234567"], &[Err(TooLong)]);
        check(&["12345", "67"], &[Err(TooLong)]);
    }

    #[test]
    fn what_nobody_has_read_of_a_pipe_is_known_after_the_reader_is_gone() {
        let (ours, theirs) = pipes().unwrap();
        let (reader, mut input) = (theirs.input, Input::new(ours.input));
        input.write(b"hello\n");
        input.write(&vec![b'x'; 100_000]);
        assert!(input.is_waiting());
        let mut buffer = [0; 4];
        assert_eq!(read_into(&reader, &mut buffer), Ok(4));
        assert_eq!(input.unread(), 100_002);
        drop(reader);
        input.flush();
        assert_eq!(input.unread(), 100_002);
        assert!(!input.is_waiting());
        input.write(b"more");
        assert_eq!(input.unread(), 100_006);
        input.send(b"and more", b"\n");
        assert_eq!(input.unread(), 100_015);
        assert!(input.rest.is_empty(), "what nobody will read is kept");
    }
}
