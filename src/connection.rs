//! One connection from its first byte to its close reason: receive, frame, respond, send, close, in
//! the order of [`Connection::advance`]. It never waits; who waits for it is the worker's business.

mod ask;
mod close;
mod recv;
mod send;
mod snapshot;
mod times;

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::metrics::{CloseReason, ListenerRecorders, Tally};
use crate::responder::{Mailbox, Responder, Service};
use crate::wire::{Framer, MAX_HELD, MAX_RECEIVE_BYTES, Protocol};

use ask::Awaited;
use recv::{Received, Stop};
use send::Pending;
use times::Times;

pub(crate) use ask::Cause;
pub(crate) use close::{Ending, Expiry, Totals, earlier};
pub(crate) use send::Outgoing;
pub(crate) use snapshot::Snapshot;
#[cfg(test)]
pub(crate) use snapshot::State;

/// A worker's receive buffer: what one receive takes, behind room for a held character.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = MAX_HELD + MAX_RECEIVE_BYTES;

/// A turn ends when so much was received in it: neighbours wait no longer than that takes.
const TURN_BYTES: usize = MAX_RECEIVE_BYTES;

/// What the connections of one listener have in common.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The listener's place in the config, and its tally's.
    pub(crate) listener: usize,
    /// The listener's name.
    pub(crate) name: String,
    /// How bytes become messages.
    pub(crate) protocol: Protocol,
    /// How messages are answered.
    pub(crate) service: Service,
    /// At a stop, at the exit word and at what is refused the responder is asked to finish, as at
    /// the client's end of input.
    pub(crate) is_heard_out: bool,
    /// How long an answer that comes later may take.
    pub(crate) reply_timeout: Duration,
    /// The most one receive takes, at most [`MAX_RECEIVE_BYTES`].
    pub(crate) receive_bytes: usize,
    /// Unsent replies above which the client is not read.
    pub(crate) max_pending_bytes: usize,
    /// Messages after which the worker turns to the next connection.
    pub(crate) messages_per_turn: usize,
    /// The bounds in time.
    pub(crate) timeouts: Timeouts,
}

/// How long a connection may stay in a state; `None` = for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Nothing received or sent, nothing unfinished, nothing owed.
    pub(crate) idle: Option<Duration>,
    /// From the first byte of an unfinished message, while the client is read.
    pub(crate) message: Option<Duration>,
    /// Replies pending and the kernel took no byte.
    pub(crate) send: Option<Duration>,
    /// From our FIN to the peer's.
    pub(crate) linger: Option<Duration>,
}

/// What a worker lends a connection for one turn.
pub(crate) struct Turn<'w> {
    /// Where replies are gathered; empty between turns.
    pub(crate) outgoing: &'w mut Outgoing,
    /// The listener's tally.
    pub(crate) tally: &'w mut Tally,
    /// What is observed of that listener.
    pub(crate) recorders: &'w mut ListenerRecorders,
    /// What is here to receive has been there no longer than since then.
    pub(crate) there_since: Instant,
    /// What responders are given.
    pub(crate) services: &'w Services,
    /// The connection's place with its worker, and its generation.
    pub(crate) place: (usize, u64),
}

/// What a worker has for the responders of its connections.
pub(crate) struct Services {
    /// Where late replies to its connections go.
    pub(crate) mailbox: Arc<dyn Mailbox>,
    /// Counts panics of responders.
    pub(crate) panics: IntCounter,
}

/// What a turn led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// Nothing to do before an event, a late reply or a deadline.
    Waiting,
    /// The same, and at [`Connection::delayed_until`] a delayed answer takes effect.
    Delayed,
    /// Work is left and no event will tell of it: the connection wants another turn.
    Again,
    /// It is over: count, then drop.
    Ended(Ending),
}

/// What epoll said, kept until a system call shows otherwise: on edge-triggered readiness nothing
/// is said twice.
#[derive(Debug, Clone, Copy, Default)]
struct Readiness {
    readable: bool,
    writable: bool,
    /// FIN, reset or urgent data: a short receive does not show that the socket is drained.
    until_empty: bool,
    error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Messages are received and answered.
    Reading,
    /// Nothing is read any more; what is owed is sent, an answer that is still awaited too.
    Flushing(CloseReason),
    /// Our FIN is sent; input is discarded until the peer's.
    Lingering(CloseReason),
}

/// One connection.
///
/// Received bytes that were not yet cut into messages are in `rest`; while there are any, or
/// `is_stopped`, the socket is not read. An idle connection owns no buffer.
pub(crate) struct Connection {
    socket: OwnedFd,
    conversation: Arc<Conversation>,
    peer: Option<SocketAddr>,
    /// Its first turn makes the responder.
    is_open: bool,
    /// `None` for the built-in services, and after a panic.
    responder: Option<Box<dyn Responder>>,
    framer: Framer,
    rest: Box<[u8]>,
    rest_at: u32,
    /// The framer was stopped before it had used up what it was given.
    is_stopped: bool,
    /// The peer's FIN was received.
    has_input_ended: bool,
    /// The responder was told of that.
    is_finished: bool,
    /// The responder wants a reset.
    is_cut: bool,
    /// Bytes that may still be received before a stop; `None` while no stop is under way.
    last_receive: Option<u32>,
    pending: Pending,
    /// How much of it the tally knows of.
    tallied_pending: u32,
    readiness: Readiness,
    phase: Phase,
    awaited: Option<Box<Awaited>>,
    /// Lingering: bytes that the peer had not acknowledged when we last looked.
    unacknowledged: u32,
    times: Times,
    received_bytes: u64,
    sent_bytes: u64,
    discarded_bytes: u32,
    messages: u64,
}

impl Connection {
    /// A connection just accepted.
    #[must_use]
    pub(crate) fn new(
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        accepted: Instant,
        conversation: Arc<Conversation>,
    ) -> Self {
        Self {
            socket,
            is_open: false,
            framer: Framer::new(conversation.protocol.framing),
            conversation,
            peer,
            responder: None,
            rest: Box::default(),
            rest_at: 0,
            is_stopped: false,
            has_input_ended: false,
            is_finished: false,
            is_cut: false,
            last_receive: None,
            pending: Pending::default(),
            tallied_pending: 0,
            // The first turn tries; it needs no event.
            readiness: Readiness { readable: true, writable: true, ..Readiness::default() },
            phase: Phase::Reading,
            awaited: None,
            unacknowledged: 0,
            times: Times::new(accepted),
            received_bytes: 0,
            sent_bytes: 0,
            discarded_bytes: 0,
            messages: 0,
        }
    }

    /// Takes what epoll said; a turn must follow.
    pub(crate) fn note_readiness(
        &mut self,
        readable: bool,
        writable: bool,
        until_empty: bool,
        error: bool,
    ) {
        self.readiness.readable |= readable;
        self.readiness.writable |= writable;
        self.readiness.until_empty |= until_empty;
        self.readiness.error |= error;
    }

    /// One turn: goes on with everything that can go on without waiting, within the turn's bounds.
    /// `cause` is what led to it beside what epoll said.
    pub(crate) fn advance(
        &mut self,
        cause: Option<&Cause<'_>>,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Outcome {
        let before = self.marks();
        if !self.is_open {
            self.open(turn);
        }
        let mut outcome = cause.and_then(|cause| self.take_effect(cause, turn));
        let outcome = loop {
            if let Some(outcome) = outcome {
                break outcome;
            }
            outcome = match self.phase {
                Phase::Reading => self.converse(buffer, turn),
                Phase::Flushing(reason) => self.flush_and_close(reason, buffer, turn),
                Phase::Lingering(reason) => self.linger(reason, buffer, turn),
            };
        };
        self.tally_pending(turn.tally);
        self.note_turn(&before, matches!(outcome, Outcome::Ended(_)), turn);
        outcome
    }

    #[cold]
    fn open(&mut self, turn: &mut Turn<'_>) {
        self.is_open = true;
        if self.peer.is_none() {
            // A Unix socket takes nothing over from its listener. Where the kernel refuses, urgent
            // data is lost, but nothing waits behind it.
            let _ = rustix::net::sockopt::set_socket_oobinline(&self.socket, true);
        }
        self.make_responder(turn);
    }

    /// Receives and answers until something stops it; `None`: the phase has changed.
    fn converse(&mut self, buffer: &mut [u8], turn: &mut Turn<'_>) -> Option<Outcome> {
        let mut budget =
            Budget { messages: self.conversation.messages_per_turn, bytes: TURN_BYTES };
        loop {
            if !self.pending.is_empty() {
                if let Err(error) = self.flush(turn) {
                    return Some(self.failed(error, turn));
                }
                // A client that sends on while it takes replies would else never be observed.
                if self.times.unanswered.is_some() && self.pending.is_empty() {
                    self.note_answered(Instant::now(), turn);
                }
            }
            if self.awaited.is_some() {
                self.note_last_receive();
                return Some(self.check_error(turn).unwrap_or_else(|| self.awaiting()));
            }
            if self.pending.len() > self.conversation.max_pending_bytes {
                return Some(Outcome::Waiting);
            }
            if budget.is_spent() {
                return Some(Outcome::Again);
            }
            let stop = if self.is_stopped {
                self.answer_rest(turn, &mut budget)
            } else {
                match self.receive(buffer, turn, &mut budget) {
                    Received::Bytes(chunk) => self.answer_chunk(&buffer[chunk], turn, &mut budget),
                    Received::EndOfInput => self.answer_end(turn, &mut budget),
                    Received::WouldBlock => return Some(Outcome::Waiting),
                    Received::StopDue if self.has_said_all() => self.answer_end(turn, &mut budget),
                    Received::StopDue => match self.ask_to_leave(turn) {
                        Some(stop) => stop,
                        None => return self.stop_reading(CloseReason::Shutdown),
                    },
                    Received::Failed(error) => return Some(self.failed(error, turn)),
                }
            };
            if !matches!(stop, Stop::UsedUp | Stop::Held) {
                return self.follow(stop, turn);
            }
        }
    }

    /// What follows from the end of answering.
    fn follow(&mut self, stop: Stop, turn: &mut Turn<'_>) -> Option<Outcome> {
        match stop {
            Stop::UsedUp | Stop::Held => None,
            Stop::End(reason) => self.stop_reading(reason),
            Stop::Leave(reason) => self.leave(reason, turn),
            Stop::Cut => {
                self.is_cut = true;
                self.stop_reading(CloseReason::ResponderClosed)
            }
            Stop::Panicked => self.panicked(turn),
            Stop::Failed(error) => Some(self.failed(error, turn)),
        }
    }

    /// A stop has begun: one last receive, then the end. A turn must follow.
    pub(crate) fn begin_drain(&mut self) {
        let bytes = u32::try_from(self.conversation.receive_bytes);
        self.last_receive.get_or_insert(bytes.unwrap_or(u32::MAX));
        self.readiness.readable = true;
    }

    /// A stop is under way, and what waits for an answer was received since: that was the last
    /// receive. A client that sends on with each reply would else never come to its end.
    #[cold]
    #[inline(never)]
    fn note_last_receive(&mut self) {
        if let Some(left) = &mut self.last_receive
            && (*left as usize) < self.conversation.receive_bytes
        {
            *left = 0;
        }
    }

    /// Whether the worker should hear when the socket takes bytes again.
    #[must_use]
    pub(crate) fn wants_write(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The socket, to register it.
    #[must_use]
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Memory that holds received bytes.
    #[must_use]
    pub(crate) fn input_bytes(&self) -> usize {
        self.rest.len() + self.framer.capacity()
    }

    /// What it has in common with its listener's others.
    #[must_use]
    pub(crate) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The same, to keep.
    #[must_use]
    pub(crate) fn shared_conversation(&self) -> Arc<Conversation> {
        self.conversation.clone()
    }

    /// The peer's address; `None` on a Unix socket.
    #[must_use]
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// When accept(2) returned it.
    #[must_use]
    pub(crate) fn accepted(&self) -> Instant {
        self.times.accepted
    }

    /// What epoll tells us while the socket is not read must not be lost; this is all that matters
    /// while a late reply is awaited.
    fn check_error(&mut self, turn: &mut Turn<'_>) -> Option<Outcome> {
        if !std::mem::take(&mut self.readiness.error) {
            return None;
        }
        let error = rustix::net::sockopt::socket_error(&self.socket).ok()?.err()?;
        Some(self.failed(error, turn))
    }

    fn stop_reading(&mut self, reason: CloseReason) -> Option<Outcome> {
        self.phase = Phase::Flushing(reason);
        self.rest = Box::default();
        None
    }

    /// Tells the tally what is pending now.
    fn tally_pending(&mut self, tally: &mut Tally) {
        // Bounded by max_pending_bytes and one reply, which are far from 4 GiB.
        let pending = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        tally.pending_bytes += i64::from(pending) - i64::from(self.tallied_pending);
        self.tallied_pending = pending;
    }

    fn is_read(&self) -> bool {
        self.phase == Phase::Reading
            && self.awaited.is_none()
            && !self.is_stopped
            && self.pending.len() <= self.conversation.max_pending_bytes
    }
}

/// A client's address as the log has it.
pub(crate) fn peer_name(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
}

/// What is left of a turn's bounds.
struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
