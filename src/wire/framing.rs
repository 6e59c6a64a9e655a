//! Bytes into messages, one at a time, however the network cut the bytes.

mod line;
mod raw;

use std::borrow::Cow;
use std::ops::Range;

use super::{Framing, InvalidUtf8};

use line::Line;
use raw::Raw;

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
            Self::Raw(raw) => raw.is_unfinished(),
            Self::Line(line) => line.is_unfinished(),
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
            Self::Line(line) => line.capacity(),
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
            Self::Line(line) => line.refused(chunk, at),
        }
    }
}
