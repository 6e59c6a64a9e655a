//! Line framing: what stands before LF is one message, be it in the chunk or begun before it.

use std::borrow::Cow;
use std::ops::Range;

use super::{CR, LF, Message, Protocol, Run, Step};
use crate::wire::InvalidUtf8;
use crate::wire::utf8::{self, Behind};

/// Line framing's state: the beginning of a line.
#[derive(Debug, Default)]
pub struct Line {
    /// Holds no LF but as its last byte, and that only while `is_given`. At most
    /// `max_message_bytes` and a line ending.
    partial: Vec<u8>,
    /// So many bytes of `partial` are known to be text.
    checked: u32,
    /// `partial` was a whole line and was given out; the next step forgets it.
    is_given: bool,
}

impl Line {
    pub(super) fn next<'a>(
        &'a mut self,
        protocol: &Protocol,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Step<'a> {
        self.forget_given();
        let unread = &chunk[*at..];
        let end = memchr::memchr(LF, unread);
        if self.partial.is_empty() {
            if let Some(end) = end {
                let start = *at;
                *at += end + 1;
                return whole_line(protocol, &unread[..end], Some(start));
            }
            if unread.is_empty() {
                return Step::More;
            }
        }
        // No more is copied than tells that the line is too long.
        let room = (protocol.max_message_bytes + 2).saturating_sub(self.partial.len());
        let part = end.unwrap_or(unread.len());
        self.keep(&unread[..part.min(room)], protocol.max_message_bytes + 2);
        *at += part + usize::from(end.is_some());
        if end.is_some() {
            self.is_given = true;
            return whole_line(protocol, &self.partial, None);
        }
        self.check_partial(protocol)
    }

    pub(super) fn next_run(
        &mut self,
        protocol: &Protocol,
        chunk: &[u8],
        at: &mut usize,
        most: usize,
        room: usize,
        mut each: impl FnMut(usize),
    ) -> Option<Run> {
        self.forget_given();
        if !self.partial.is_empty() {
            return None;
        }
        let unread = &chunk[*at..];
        let (mut end, mut messages) = (0, 0);
        for lf in memchr::memchr_iter(LF, unread) {
            let line = &unread[end..lf];
            let is_plain = line.last() != Some(&CR)
                && line.len() <= protocol.max_message_bytes
                && !protocol.is_exit(line);
            if messages == most || end > room || !is_plain {
                break;
            }
            each(line.len());
            end = lf + 1;
            messages += 1;
        }
        if messages == 0 || simdutf8::basic::from_utf8(&unread[..end]).is_err() {
            return None;
        }
        let bytes = *at..*at + end;
        *at = bytes.end;
        Some(Run { bytes, messages })
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.is_given && !self.partial.is_empty()
    }

    pub(super) fn capacity(&self) -> usize {
        self.partial.capacity()
    }

    /// The line that was just refused, as far as it was read.
    pub(super) fn refused<'a>(&'a self, chunk: &'a [u8], at: usize) -> &'a [u8] {
        if !self.partial.is_empty() {
            return &self.partial;
        }
        let read = &chunk[..at];
        let read = read.strip_suffix(&[LF]).unwrap_or(read);
        &read[memchr::memrchr(LF, read).map_or(0, |lf| lf + 1)..]
    }

    /// Adds to the partial line; its memory grows by doubling, but never past `most` bytes.
    fn keep(&mut self, part: &[u8], most: usize) {
        let length = self.partial.len() + part.len();
        if length > self.partial.capacity() {
            let wanted = length.max((2 * self.partial.capacity()).min(most));
            self.partial.reserve_exact(wanted - self.partial.len());
        }
        self.partial.extend_from_slice(part);
    }

    /// Ends a hopeless line as soon as it is one, not when its LF comes.
    fn check_partial(&mut self, protocol: &Protocol) -> Step<'static> {
        if let Some(cut) = too_long_at(protocol, &self.partial, LineEnd::Open) {
            return too_long(protocol, &self.partial[..cut]);
        }
        if protocol.invalid_utf8 == InvalidUtf8::Close {
            let (text, behind) = utf8::split(&self.partial[self.checked as usize..]);
            // Where a line can be that long, its text is looked at again.
            let checked = self.checked as usize + text.len();
            self.checked = u32::try_from(checked).unwrap_or(self.checked);
            if behind == Behind::Bad {
                return Step::InvalidUtf8;
            }
        }
        Step::More
    }

    pub(super) fn finish(&mut self, protocol: &Protocol) -> Step<'_> {
        self.forget_given();
        if self.partial.is_empty() {
            return Step::More;
        }
        self.is_given = true;
        if let Some(cut) = too_long_at(protocol, &self.partial, LineEnd::EndOfInput) {
            return too_long(protocol, &self.partial[..cut]);
        }
        if protocol.is_exit(&self.partial) {
            return Step::Exit;
        }
        text_of(protocol, &self.partial, None)
    }

    pub(super) fn forget_given(&mut self) {
        if self.is_given {
            // The memory too: a connection between two messages owns no buffer.
            *self = Self::default();
        }
    }
}

/// What stands behind a line's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    /// LF.
    Lf,
    /// Nothing yet.
    Open,
    /// Nothing any more.
    EndOfInput,
}

/// A line without its LF; `start` is its place in the chunk, if it lies there as a whole.
fn whole_line<'a>(protocol: &Protocol, line: &'a [u8], start: Option<usize>) -> Step<'a> {
    // Before the exit word: a longer one than a line may be never gets here when the line is cut.
    if let Some(cut) = too_long_at(protocol, line, LineEnd::Lf) {
        return too_long(protocol, &line[..cut]);
    }
    let content = line.strip_suffix(&[CR]).unwrap_or(line);
    if protocol.is_exit(content) {
        return Step::Exit;
    }
    let is_plain = content.len() == line.len();
    let verbatim = start.filter(|_| is_plain).map(|start| start..start + line.len() + 1);
    text_of(protocol, content, verbatim)
}

fn text_of<'a>(protocol: &Protocol, line: &'a [u8], verbatim: Option<Range<usize>>) -> Step<'a> {
    match (simdutf8::basic::from_utf8(line), protocol.invalid_utf8) {
        (Ok(text), _) => Step::Message(Message { text: Cow::Borrowed(text), verbatim }),
        (Err(_), InvalidUtf8::Close) => Step::InvalidUtf8,
        (Err(_), InvalidUtf8::Replace) => {
            Step::Message(Message { text: String::from_utf8_lossy(line), verbatim: None })
        }
    }
}

/// The number of bytes before the one that makes the line too long, if there is such a byte. A
/// CR in that place is forgiven where LF follows, or still may.
fn too_long_at(protocol: &Protocol, line: &[u8], end: LineEnd) -> Option<usize> {
    let max = protocol.max_message_bytes;
    if line.len() <= max {
        return None;
    }
    if line[max] != CR {
        return Some(max);
    }
    match (line.len() == max + 1, end) {
        (true, LineEnd::Lf | LineEnd::Open) => None,
        _ => Some(max + 1),
    }
}

/// Whichever came first on the wire decides: a bad byte, or the one byte too many.
fn too_long(protocol: &Protocol, before: &[u8]) -> Step<'static> {
    match protocol.invalid_utf8 {
        InvalidUtf8::Close if utf8::is_bad(before) => Step::InvalidUtf8,
        _ => Step::TooLong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Framing;

    #[test]
    fn an_unfinished_line_takes_no_more_memory_than_the_longest_line() {
        let protocol = Protocol {
            framing: Framing::Line,
            invalid_utf8: InvalidUtf8::Close,
            exit_word: Box::default(),
            max_message_bytes: 3000,
        };
        for step in [1, 7, 1000, 2999] {
            let mut line = Line::default();
            for part in [b'x'; 3000].chunks(step) {
                assert_eq!(line.next(&protocol, part, &mut 0), Step::More);
            }
            assert_eq!(line.next(&protocol, b"\r", &mut 0), Step::More);
            assert!(line.partial.capacity() <= 3002, "{} by {step}", line.partial.capacity());
        }
    }
}
