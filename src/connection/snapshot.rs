//! A connection as an operator sees it: plain values of one moment, read between two turns.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Connection, Phase};

/// What a connection came to so far, and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The listener's place in the config.
    pub(crate) listener: usize,
    /// `None` on a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// When accept(2) returned it.
    pub(crate) accepted: Instant,
    /// When the last byte came, or the kernel last took one.
    pub(crate) last_byte: Instant,
    /// Messages received.
    pub(crate) messages: u64,
    /// Taken from the kernel.
    pub(crate) received_bytes: u64,
    /// Given to the kernel.
    pub(crate) sent_bytes: u64,
    /// Replies that the kernel has not taken.
    pub(crate) pending_bytes: u64,
    /// What it waits for.
    pub(crate) state: State,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its client's next bytes.
    Reading,
    /// Its next turn: work is left.
    Answering,
    /// A reply that comes later.
    AwaitingReply,
    /// The kernel, which has not taken all replies.
    Sending,
    /// The same at its end: nothing is read any more, and something is owed.
    Closing,
    /// The peer's FIN, behind ours.
    Lingering,
}

impl State {
    /// The word that operators see.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Answering => "answering",
            Self::AwaitingReply => "awaiting_reply",
            Self::Sending => "sending",
            Self::Closing => "closing",
            Self::Lingering => "lingering",
        }
    }
}

impl Connection {
    /// It as of now; `is_queued` says whether it has another turn coming.
    #[must_use]
    pub(crate) fn snapshot(&self, is_queued: bool) -> Snapshot {
        Snapshot {
            listener: self.conversation.listener,
            peer: self.peer,
            accepted: self.times.accepted,
            last_byte: self.times.last_byte,
            messages: self.messages,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            pending_bytes: self.pending.len() as u64,
            state: self.state(is_queued),
        }
    }

    fn state(&self, is_queued: bool) -> State {
        match self.phase {
            Phase::Lingering(_) => State::Lingering,
            Phase::Flushing(_) => State::Closing,
            Phase::Reading if self.awaited.is_some() => State::AwaitingReply,
            Phase::Reading if is_queued => State::Answering,
            Phase::Reading if !self.pending.is_empty() => State::Sending,
            Phase::Reading => State::Reading,
        }
    }
}
