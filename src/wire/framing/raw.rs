//! Raw framing: what one receive returns is one message, but for a character that was cut.

use std::borrow::Cow;

use super::{CR, LF, MAX_HELD, Message, Protocol, Run, Step};
use crate::wire::InvalidUtf8;
use crate::wire::utf8::{self, Behind};

/// Raw framing's state: the beginning of a character.
#[derive(Debug, Default)]
pub struct Raw {
    bytes: [u8; MAX_HELD],
    held: u8,
    /// The text before a bad byte was given; the next step says so.
    is_bad: bool,
}

impl Raw {
    pub(super) fn held(&self) -> &[u8] {
        &self.bytes[..usize::from(self.held)]
    }

    /// Whether a character has begun and not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        self.held > 0
    }

    fn hold(&mut self, cut: &[u8]) {
        self.bytes[..cut.len()].copy_from_slice(cut);
        self.held = u8::try_from(cut.len()).expect("a cut character has at most three bytes");
    }

    /// `chunk` begins with the bytes held before it.
    pub(super) fn next<'a>(
        &mut self,
        protocol: &Protocol,
        chunk: &'a [u8],
        at: &mut usize,
    ) -> Step<'a> {
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

    pub(super) fn next_run(
        &self,
        protocol: &Protocol,
        chunk: &[u8],
        at: &mut usize,
    ) -> Option<Run> {
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

    pub(super) fn finish(&mut self, protocol: &Protocol) -> Step<'static> {
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

fn without_line_ending(chunk: &[u8]) -> &[u8] {
    match chunk.strip_suffix(&[LF]) {
        Some(line) => line.strip_suffix(&[CR]).unwrap_or(line),
        None => chunk,
    }
}
