//! Bytes to messages and messages to bytes. Pure: no socket, clock, thread or metric is known here.

mod framing;
mod utf8;

#[doc(hidden)]
pub use framing::{Framer, MAX_HELD, Message, Protocol, Run, Step};

/// The most that one receive, and so one message in raw framing, can hold.
pub const MAX_RECEIVE_BYTES: usize = 65_536;

/// How a stream of bytes is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// What one receive returns is one message; a cut character waits for its rest.
    #[default]
    Raw,
    /// A message ends with LF; one CR before it is dropped.
    Line,
}

/// What becomes of bytes that are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InvalidUtf8 {
    /// The valid text before the first bad byte is answered, then the connection closes.
    #[default]
    Close,
    /// Each maximal bad sequence becomes one U+FFFD, as `String::from_utf8_lossy` does it.
    Replace,
}

#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod trial;
