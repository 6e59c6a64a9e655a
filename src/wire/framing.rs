//! Bytes into messages, one at a time, however the network cut the bytes.

use std::borrow::Cow;
use std::ops::Range;

use super::utf8::{self, Behind};
use super::{Framing, InvalidUtf8};

/// The longest beginning of a character that a raw framer holds for the next receive.
pub const MAX_HELD: usize = 3;

const LF: u8 = b'\n';
const CR: u8 = b'\r';

/// What a listener's conversations have in common.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// How bytes become messages.
    pub framing: Framing,
    /// What becomes of bytes that are not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// The word that ends a conversation; empty = none. Not longer than `max_message_bytes`, or
    /// whether it is heard would depend on how the bytes were cut.
    pub exit_word: Box<[u8]>,
    /// The longest line, without its ending.
    pub max_message_bytes: usize,
}

impl Protocol {
    /// What stands behind each reply on the wire.
    #[must_use]
    pub fn terminator(&self) -> &'static str {
        match self.framing {
            Framing::Raw => "",
            Framing::Line => "\n",
        }
    }

    fn is_exit(&self, word: &[u8]) -> bool {
        !self.exit_word.is_empty() && *word == *self.exit_word
    }
}

/// One text from the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it says, without the line's ending.
    pub text: Cow<'a, str>,
    /// Where the chunk holds exactly what an echo of it is on the wire, terminator included.
    pub verbatim: Option<Range<usize>>,
}

/// Messages that lie behind each other in a chunk, each of them its own echo on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Where, terminators included.
    pub bytes: Range<usize>,
    /// How many.
    pub messages: usize,
}

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A message to answer; there may be more.
    Message(Message<'a>),
    /// The chunk is used up; what is unfinished is kept.
    More,
    /// The exit word.
    Exit,
    /// A byte that no continuation could mend, under `invalid_utf8 = "close"`.
    InvalidUtf8,
    /// A line longer than `max_message_bytes`.
    TooLong,
}

/// Cuts one connection's bytes into messages.
///
/// The caller hands each chunk to [`Framer::next`] again and again, with the offset that `next`
/// moves on, until it answers [`Step::More`]; after `Exit`, `InvalidUtf8` or `TooLong` it stops.
/// An unfinished character or line lives here, never in the caller's chunk.
#[derive(Debug)]
pub enum Framer {
    /// One chunk, one message.
    Raw(Raw),
    /// One line, one message.
    Line(Line),
}

impl Framer {
    /// A framer at the start of a connection; it has allocated nothing.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Raw => Self::Raw(Raw::default()),
            Framing::Line => Self::Line(Line::default()),
        }
    }

    /// The bytes to put in front of the next received chunk (raw framing; at most [`MAX_HELD`]).
    #[must_use]
    pub fn held(&self) -> &[u8] {
        match self {
            Self::Raw(raw) => raw.held(),
            Self::Line(_) => &[],
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.held > 0,
            Self::Line(line) => !line.is_given && !line.partial.is_empty(),
        }
    }

    /// The next step in `chunk[*at..]`; moves `*at` behind what it used.
    pub fn next<'a>(
        &'a mut self,
        protocol: &Protocol,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Step<'a> {
        match self {
            Self::Raw(raw) => raw.next(protocol, chunk, at),
            Self::Line(line) => line.next(protocol, chunk, at),
        }
    }

    /// As many of the next messages as are their own echoes where they lie: at most `most`, and
    /// none after `room` bytes. Judges them in one pass, for who needs no message of its own;
    /// `None` where that cannot be done, and [`Framer::next`] tells what is there. `each` is told
    /// the length of each message without its ending; after `None` that was not so.
    pub fn next_run(
        &mut self,
        protocol: &Protocol,
        chunk: &[u8],
        at: &mut usize,
        most: usize,
        room: usize,
        mut each: impl FnMut(usize),
    ) -> Option<Run> {
        match self {
            Self::Raw(raw) => {
                let run = raw.next_run(protocol, chunk, at)?;
                each(chunk.len());
                Some(run)
            }
            Self::Line(line) => line.next_run(protocol, chunk, at, most, room, each),
        }
    }

    /// Gives back the memory of a message that was given out, for who goes on only later. The
    /// next step would do it too.
    pub fn forget_given(&mut self) {
        match self {
            Self::Raw(_) => {}
            Self::Line(line) => line.forget_given(),
        }
    }

    /// Memory allocated for an unfinished message.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match self {
            Self::Raw(_) => 0,
            Self::Line(line) => line.partial.capacity(),
        }
    }

    /// The end of input: what an unfinished message comes to. Then [`Step::More`].
    pub fn finish(&mut self, protocol: &Protocol) -> Step<'_> {
        match self {
            Self::Raw(raw) => raw.finish(protocol),
            Self::Line(line) => line.finish(protocol),
        }
    }

    /// What was just refused as [`Step::InvalidUtf8`] or [`Step::TooLong`]: the chunk (raw
    /// framing) or the line, as far as it was read. Nothing is left of a character cut by the end
    /// of input.
    #[must_use]
    pub fn refused<'a>(&'a self, chunk: &'a [u8], at: usize) -> &'a [u8] {
        match self {
            Self::Raw(_) => chunk,
            Self::Line(line) if line.partial.is_empty() => {
                let read = &chunk[..at];
                let read = read.strip_suffix(&[LF]).unwrap_or(read);
                &read[memchr::memrchr(LF, read).map_or(0, |lf| lf + 1)..]
            }
            Self::Line(line) => &line.partial,
        }
    }
}

/// Raw framing's state: the beginning of a character.
#[derive(Debug, Default)]
pub struct Raw {
    bytes: [u8; MAX_HELD],
    held: u8,
    /// The text before a bad byte was given; the next step says so.
    is_bad: bool,
}

impl Raw {
    fn held(&self) -> &[u8] {
        &self.bytes[..usize::from(self.held)]
    }

    fn hold(&mut self, cut: &[u8]) {
        self.bytes[..cut.len()].copy_from_slice(cut);
        self.held = u8::try_from(cut.len()).expect("a cut character has at most three bytes");
    }

    /// `chunk` begins with the bytes held before it.
    fn next<'a>(&mut self, protocol: &Protocol, chunk: &'a [u8], at: &mut usize) -> Step<'a> {
        if *at == chunk.len() {
            return if self.is_bad { Step::InvalidUtf8 } else { Step::More };
        }
        *at = chunk.len();
        if self.held == 0 && protocol.is_exit(without_line_ending(chunk)) {
            return Step::Exit;
        }
        let (text, verbatim) = match protocol.invalid_utf8 {
            InvalidUtf8::Close => {
                let (text, behind) = utf8::split(chunk);
                self.is_bad = behind == Behind::Bad;
                let cut = if let Behind::Cut(cut) = behind { cut } else { 0 };
                self.hold(&chunk[chunk.len() - cut..]);
                (Cow::Borrowed(text), Some(0..text.len()))
            }
            InvalidUtf8::Replace => {
                let (text, cut) = utf8::split_lossy(chunk);
                self.hold(&chunk[chunk.len() - cut..]);
                let verbatim = matches!(text, Cow::Borrowed(_)).then_some(0..text.len());
                (text, verbatim)
            }
        };
        match text.is_empty() {
            false => Step::Message(Message { text, verbatim }),
            true if self.is_bad => Step::InvalidUtf8,
            true => Step::More,
        }
    }

    fn next_run(&self, protocol: &Protocol, chunk: &[u8], at: &mut usize) -> Option<Run> {
        let is_plain = *at == 0
            && !chunk.is_empty()
            && self.held == 0
            && utf8::cut_at_end(chunk) == 0
            && !protocol.is_exit(without_line_ending(chunk))
            && simdutf8::basic::from_utf8(chunk).is_ok();
        if !is_plain {
            return None;
        }
        *at = chunk.len();
        Some(Run { bytes: 0..chunk.len(), messages: 1 })
    }

    fn finish(&mut self, protocol: &Protocol) -> Step<'static> {
        let is_cut = self.held > 0;
        self.held = 0;
        match protocol.invalid_utf8 {
            _ if !is_cut => Step::More,
            InvalidUtf8::Close => Step::InvalidUtf8,
            InvalidUtf8::Replace => {
                Step::Message(Message { text: Cow::Borrowed("\u{FFFD}"), verbatim: None })
            }
        }
    }
}

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
    fn next<'a>(&'a mut self, protocol: &Protocol, chunk: &'a [u8], at: &mut usize) -> Step<'a> {
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

    fn next_run(
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

    fn finish(&mut self, protocol: &Protocol) -> Step<'_> {
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

    fn forget_given(&mut self) {
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

fn without_line_ending(chunk: &[u8]) -> &[u8] {
    match chunk.strip_suffix(&[LF]) {
        Some(line) => line.strip_suffix(&[CR]).unwrap_or(line),
        None => chunk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
