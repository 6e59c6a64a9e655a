//! How a connection ends: what is owed is sent, then our FIN, then the peer's input is discarded
//! until its FIN, so that the kernel does not reset replies on their way. And the one rule for the
//! reason.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::metrics::{CloseReason, MEASURED, Tally};
use crate::sys;

use super::ask::Awaited;
use super::recv::receive_into;
use super::send::Pending;
use super::{Connection, MAX_HELD, Outcome, Phase, TURN_BYTES, Turn};

/// How often it is looked, within `send_timeout`, whether the kernel takes more; a timeout may be
/// late by a tenth, or by a second.
const LOOKS: u32 = 20;
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The close reason.
    pub(crate) reason: CloseReason,
    /// Close by a reset, so that the kernel lets go of replies it holds.
    pub(crate) is_reset: bool,
}

/// What a deadline that has passed asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Expiry {
    /// None has passed.
    NotYet,
    /// The connection ends in an orderly way: it wants a turn.
    Turn,
    /// It is over.
    Ended(Ending),
}

/// What one connection came to so far, for the line at its close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Taken from the kernel.
    pub(crate) received_bytes: u64,
    /// Given to the kernel.
    pub(crate) sent_bytes: u64,
    /// Replies thrown away.
    pub(crate) discarded_bytes: u64,
    /// Messages received.
    pub(crate) messages: u64,
}

impl Connection {
    /// When one of the timeouts passes, if nothing happens before.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timeouts = &self.conversation.timeouts;
        let after = |since: Instant, timeout: Option<_>| timeout.map(|timeout| since + timeout);
        if let Phase::Lingering(_) = self.phase {
            return after(self.times.progress, timeouts.linger);
        }
        if self.owes() {
            let send = (!self.pending.is_empty()).then_some(self.times.progress);
            let send = send.and_then(|since| after(since, timeouts.send));
            let owed = earlier(send, self.awaited.as_deref().and_then(Awaited::until));
            let began = self.times.message.filter(|_| self.is_read());
            return earlier(owed, began.and_then(|began| after(began, timeouts.message)));
        }
        match self.times.message {
            Some(began) if self.is_read() => after(began, timeouts.message),
            Some(_) => None,
            None => after(self.times.last_byte, timeouts.idle),
        }
    }

    /// When the worker has to look at it: at its deadline, and before that now and then whether the
    /// kernel takes more of what is stuck. It says so only once it has much room; what it has taken
    /// without a word, of a client that reads slowly or not any more, would else be found out at
    /// the deadline alone, and put that off as if it were news.
    #[cold]
    pub(crate) fn next_look(&self, now: Instant) -> Option<Instant> {
        let send = self.conversation.timeouts.send.filter(|_| !self.pending.is_empty());
        let look = send.map(|send| now + LEAST_BETWEEN_LOOKS.max(send / LOOKS));
        earlier(self.deadline(), look)
    }

    /// Whether a deadline has passed at `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Acts on the timeout that has passed at `now`.
    pub(crate) fn expire(&mut self, now: Instant, tally: &mut Tally) -> Expiry {
        if !self.is_due(now) {
            return Expiry::NotYet;
        }
        if let Phase::Lingering(reason) = self.phase {
            // The peer still takes replies, in front of our FIN: it has not been told the end yet.
            let before = self.unacknowledged;
            self.unacknowledged = sys::unacknowledged(self.socket.as_fd()).unwrap_or(0);
            if (1..before).contains(&self.unacknowledged) {
                self.times.progress = now;
                return Expiry::NotYet;
            }
            return Expiry::Ended(Ending { reason, is_reset: false });
        }
        let send_timeout = self.conversation.timeouts.send;
        let is_stuck = !self.pending.is_empty()
            && send_timeout.is_some_and(|timeout| now >= self.times.progress + timeout);
        if is_stuck {
            return Expiry::Ended(self.lost(CloseReason::SendTimeout, true, tally));
        }
        let reason = match self.awaited.take() {
            Some(_) => CloseReason::ResponderTimeout,
            None if self.times.message.is_some() => CloseReason::MessageTimeout,
            None => CloseReason::IdleTimeout,
        };
        self.stop_reading(reason);
        Expiry::Turn
    }

    /// The end at a stop's deadline.
    pub(crate) fn cut(&mut self, tally: &mut Tally) -> Ending {
        match self.phase {
            Phase::Lingering(reason) => Ending { reason, is_reset: false },
            _ => self.lost(CloseReason::ShutdownForced, true, tally),
        }
    }

    /// The end by an error that is ours, not the peer's.
    pub(crate) fn io_error(&mut self, tally: &mut Tally) -> Ending {
        self.lost(CloseReason::IoError, false, tally)
    }

    /// What it came to so far.
    #[must_use]
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            discarded_bytes: self.discarded_bytes.into(),
            messages: self.messages,
        }
    }

    /// What the kernel knows of the path to the peer: the smoothed round trip time, and how many
    /// segments were sent again. Nothing on a Unix socket.
    #[must_use]
    pub(crate) fn path(&self) -> Option<(Duration, u32)> {
        if !MEASURED || self.peer.is_none() {
            return None;
        }
        let info = sys::tcp_info(self.socket.as_fd()).ok()?;
        Some((info.rtt, info.retransmits))
    }

    /// From now on a close(2) resets the connection and makes the kernel forget what it has not
    /// sent.
    pub(crate) fn reset_on_close(&self) {
        // A socket that is beyond this is closed all the same.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// The end of a connection whose worker panicked.
    pub(crate) fn abandon(&mut self, tally: &mut Tally) -> Ending {
        match self.phase {
            Phase::Lingering(reason) => Ending { reason, is_reset: false },
            _ => {
                let is_reset = self.owes();
                self.lost(CloseReason::WorkerPanic, is_reset, tally)
            }
        }
    }

    /// Sends what is owed, then begins the orderly close.
    pub(super) fn flush_and_close(
        &mut self,
        reason: CloseReason,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Option<Outcome> {
        if self.is_cut {
            return Some(Outcome::Ended(self.lost(reason, true, turn.tally)));
        }
        if let Err(error) = self.flush(turn) {
            return Some(self.failed(error, turn));
        }
        if self.owes() {
            return Some(self.check_error(turn).unwrap_or(Outcome::Waiting));
        }
        if self.has_input_ended {
            return Some(ended(reason));
        }
        // A FIN that is already there saves the wait for it.
        if self.readiness.readable
            && let outcome @ Some(Outcome::Ended(_)) = self.linger(reason, buffer, turn)
        {
            return outcome;
        }
        if rustix::net::shutdown(&self.socket, Shutdown::Write).is_err() {
            return Some(ended(reason));
        }
        self.unacknowledged = sys::unacknowledged(self.socket.as_fd()).unwrap_or(0);
        self.times.progress = Instant::now();
        self.phase = Phase::Lingering(reason);
        None
    }

    /// Discards input until the peer's FIN. Nothing that happens here changes the reason.
    pub(super) fn linger(
        &mut self,
        reason: CloseReason,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Option<Outcome> {
        let mut room = TURN_BYTES;
        while self.readiness.readable {
            if room == 0 {
                return Some(Outcome::Again);
            }
            match receive_into(&self.socket, &mut buffer[MAX_HELD..]) {
                Ok(0) => return Some(ended(reason)),
                Ok(length) => {
                    self.received_bytes += length as u64;
                    turn.tally.received_bytes += length as u64;
                    room = room.saturating_sub(length);
                }
                Err(Errno::AGAIN) => self.readiness.readable = false,
                Err(_) => return Some(ended(reason)),
            }
        }
        Some(Outcome::Waiting)
    }

    /// The end by an error of the socket.
    pub(super) fn failed(&mut self, error: Errno, turn: &mut Turn<'_>) -> Outcome {
        let by_error = self.reason_of(error);
        let reason = match self.phase {
            Phase::Reading => by_error,
            // Replies are lost, and that is what an operator must see.
            Phase::Flushing(_) if self.owes() => by_error,
            Phase::Flushing(reason) | Phase::Lingering(reason) => reason,
        };
        Outcome::Ended(self.lost(reason, false, turn.tally))
    }

    /// The end of a connection whose responder panicked: what was answered before is sent if the
    /// kernel takes it now.
    pub(super) fn panicked(&mut self, turn: &mut Turn<'_>) -> Option<Outcome> {
        // It may be in any state; it is not asked again.
        turn.services.panics.inc_by(u64::from(self.drop_responder().is_err()));
        if self.pending.is_empty() {
            return self.stop_reading(CloseReason::ResponderPanic);
        }
        Some(Outcome::Ended(self.lost(CloseReason::ResponderPanic, true, turn.tally)))
    }

    /// Whether a reply is pending or awaited.
    pub(super) fn owes(&self) -> bool {
        !self.pending.is_empty() || self.awaited.is_some()
    }

    fn lost(&mut self, reason: CloseReason, is_reset: bool, tally: &mut Tally) -> Ending {
        let held = self.awaited.as_deref_mut().map_or(0, Awaited::drop_held);
        self.discard(self.pending.len() + held, tally);
        self.pending = Pending::default();
        self.tally_pending(tally);
        Ending { reason, is_reset }
    }

    /// So many bytes of replies are thrown away, pending ones or what a turn had gathered when the
    /// worker panicked.
    pub(crate) fn discard(&mut self, bytes: usize, tally: &mut Tally) {
        // What may be pending is far from 4 GiB.
        let lost = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.discarded_bytes = self.discarded_bytes.saturating_add(lost);
        tally.discarded_bytes += bytes as u64;
    }

    fn reason_of(&self, error: Errno) -> CloseReason {
        match error {
            Errno::CONNRESET | Errno::PIPE if self.received_bytes == 0 => CloseReason::Unused,
            Errno::CONNRESET | Errno::PIPE => CloseReason::PeerReset,
            Errno::TIMEDOUT if self.is_window_closed() => CloseReason::SendTimeout,
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => {
                CloseReason::PeerDead
            }
            _ => CloseReason::IoError,
        }
    }

    /// A live peer that takes nothing and a dead one both end as ETIMEDOUT.
    fn is_window_closed(&self) -> bool {
        self.sent_bytes > 0
            && sys::tcp_info(self.socket.as_fd()).is_ok_and(|info| info.send_window == 0)
    }
}

fn ended(reason: CloseReason) -> Outcome {
    Outcome::Ended(Ending { reason, is_reset: false })
}

/// The earlier of two times, if there is one.
#[inline]
pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
