//! A run of messages that are their own echoes where they lie.

use std::ops::Range;

use super::Framing;
use super::framing::{LF, Protocol};

/// Messages that lie behind each other in a chunk, each of them its own echo on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Where, terminators included.
    pub bytes: Range<usize>,
    /// How many.
    pub messages: usize,
}

impl Run {
    /// Tells the length of each message in `chunk`, in bytes and without its ending.
    pub fn each_length(&self, protocol: &Protocol, chunk: &[u8], mut tell: impl FnMut(usize)) {
        if self.messages == 1 {
            return tell(self.bytes.len() - protocol.terminator().len());
        }
        debug_assert_eq!(protocol.framing, Framing::Line, "a raw chunk is one message");
        let mut start = 0;
        for lf in memchr::memchr_iter(LF, &chunk[self.bytes.clone()]) {
            tell(lf - start);
            start = lf + 1;
        }
    }
}
