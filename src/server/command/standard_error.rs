//! What a process says on standard error: by line into the log, escaped, and never so much that it
//! could keep the keeper from its other work.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::{Errno, read};
use tracing::info;

use super::program::Program;
use crate::client_text::ClientText;

/// By which a log may tell these events from those of the server.
const TARGET: &str = "standard_error";

/// A longer line is cut.
const MAX_LINE_BYTES: usize = 4096;

/// What is read at a time, which is all that a pipe holds by default.
pub(super) const SHARE_BYTES: usize = 64 * 1024;

/// Of a share so many lines are logged; the others are counted.
const SHARE_LINES: u64 = 64;

/// Our end of the pipe, and the unfinished line.
#[derive(Debug)]
pub(super) struct StandardError {
    pipe: OwnedFd,
    lines: Lines,
}

/// What a look into the pipe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Something, and there may be more.
    Some,
    /// Nothing, for now.
    Nothing,
    /// The end: nobody has the other end any more.
    End,
}

/// Cuts what comes into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of an unfinished line.
    start: Vec<u8>,
    /// What more of it there was.
    left_out: usize,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    text: &'a [u8],
    left_out: usize,
}

impl StandardError {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe, lines: Lines::default() }
    }

    /// Reads a share of what is there and logs it.
    pub(super) fn read(&mut self, program: &Program, pid: u32, buffer: &mut [u8]) -> Found {
        let (found, chunk) = match read(&self.pipe, &mut *buffer) {
            Ok(0) => (Found::End, &[][..]),
            Ok(length) => (Found::Some, &buffer[..length]),
            Err(Errno::INTR) => return Found::Some,
            Err(Errno::AGAIN) => return Found::Nothing,
            // There is no way to go on, and nothing that an operator could do.
            Err(_) => (Found::End, &[][..]),
        };
        let mut count = 0;
        let mut show = |line: Line<'_>| {
            count += 1;
            if count <= SHARE_LINES {
                log(program, pid, &line);
            }
        };
        self.lines.cut(chunk, &mut show);
        if found == Found::End {
            self.lines.finish(&mut show);
        }
        if let Some(left_out) = count.checked_sub(SHARE_LINES).filter(|left_out| *left_out > 0) {
            info!(listener = program.listener, pid, left_out, "lines on standard error left out");
        }
        if count > 0 {
            (program.count_lines)(count);
        }
        found
    }

    /// The unfinished line, where nothing more is read.
    pub(super) fn finish(&mut self, program: &Program, pid: u32) {
        self.lines.finish(|line| {
            log(program, pid, &line);
            (program.count_lines)(1);
        });
    }
}

impl AsFd for StandardError {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Source for StandardError {
    fn register(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        SourceFd(&self.pipe.as_raw_fd()).register(registry, token, to)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, to: Interest) -> io::Result<()> {
        SourceFd(&self.pipe.as_raw_fd()).reregister(registry, token, to)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.pipe.as_raw_fd()).deregister(registry)
    }
}

fn log(program: &Program, pid: u32, line: &Line<'_>) {
    let text = ClientText::new(line.text).at_most(MAX_LINE_BYTES);
    let left_out_bytes = (line.left_out > 0).then_some(line.left_out);
    let listener = &program.listener;
    info!(target: TARGET, listener, pid, %text, left_out_bytes, "standard error");
}

impl Lines {
    fn cut(&mut self, mut chunk: &[u8], mut show: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            chunk = rest;
            if self.start.is_empty() {
                // Not copied, which most lines need not be.
                show(Line::of(line, 0));
            } else {
                self.keep(line);
                self.finish(&mut show);
            }
        }
        self.keep(chunk);
    }

    fn keep(&mut self, part: &[u8]) {
        let kept = part.len().min(MAX_LINE_BYTES - self.start.len());
        self.start.extend_from_slice(&part[..kept]);
        self.left_out += part.len() - kept;
    }

    fn finish(&mut self, mut show: impl FnMut(Line<'_>)) {
        if !self.start.is_empty() {
            show(Line::of(&self.start, self.left_out));
        }
        *self = Self::default();
    }
}

impl<'a> Line<'a> {
    fn of(text: &'a [u8], left_out: usize) -> Self {
        let kept = text.len().min(MAX_LINE_BYTES);
        let left_out = left_out + text.len() - kept;
        let text = &text[..kept];
        let text = if left_out == 0 { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        Self { text, left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of chunks that come one after the other, each with what was left out of it.
    #[track_caller]
    fn check(chunks: &[&str], expected: &[(&str, usize)]) {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut show = |line: Line<'_>| {
            found.push((String::from_utf8_lossy(line.text).into_owned(), line.left_out));
        };
        for chunk in chunks {
            lines.cut(chunk.as_bytes(), &mut show);
        }
        lines.finish(&mut show);
        let found: Vec<_> = found.iter().map(|(text, left)| (text.as_str(), *left)).collect();
        assert_eq!(found, expected, "{chunks:?}");
    }

    #[test]
    fn lines_are_whole_wherever_a_read_ends() {
        check(&["one\ntwo\n"], &[("one", 0), ("two", 0)]);
        check(&["o", "n", "e\r\n\ntwo", "\n"], &[("one", 0), ("", 0), ("two", 0)]);
        check(&["one\r", "\ntwo"], &[("one", 0), ("two", 0)]);
        check(&["", "\n"], &[("", 0)]);
    }

    #[test]
    fn a_long_line_is_cut_and_what_is_left_out_is_counted() {
        let long = "x".repeat(MAX_LINE_BYTES);
        check(&[&long, "\n"], &[(&long, 0)]);
        check(&[&format!("{long}yz\nnext\n")], &[(&long, 2), ("next", 0)]);
        check(&[&long, "y", "z", "\nnext"], &[(&long, 2), ("next", 0)]);
        check(&[&long, "y"], &[(&long, 1)]);
    }
}
