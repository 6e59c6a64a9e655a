//! When what last happened on a connection: what its timeouts and its latency are reckoned from.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::metrics::{CloseReason, MEASURED};

use super::{Connection, Phase, Turn};

/// When what last happened, as the timeouts need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) accepted: Instant,
    pub(super) last_byte: Instant,
    /// The first byte of the unfinished message.
    pub(super) message: Option<Instant>,
    /// Since when we do not read, while a message is unfinished.
    pub(super) unread: Option<Instant>,
    /// Since when a whole message is here whose reply the kernel has not taken.
    pub(super) unanswered: Option<SinceAccepted>,
    /// Something pending: the kernel last took a byte of it. Lingering: our FIN was sent.
    pub(super) progress: Instant,
}

/// A moment in nanoseconds after accept(2): half as long as an [`Instant`].
pub(super) type SinceAccepted = NonZeroU64;

impl Times {
    pub(super) fn new(accepted: Instant) -> Self {
        Self {
            accepted,
            last_byte: accepted,
            message: None,
            unread: None,
            unanswered: None,
            progress: accepted,
        }
    }

    fn since_accepted(&self, moment: Instant) -> SinceAccepted {
        let nanoseconds = moment.saturating_duration_since(self.accepted).as_nanos();
        u64::try_from(nanoseconds).ok().and_then(NonZeroU64::new).unwrap_or(NonZeroU64::MIN)
    }
}

/// How far a connection had come before a turn.
pub(super) struct Marks {
    received_bytes: u64,
    sent_bytes: u64,
    messages: u64,
    was_pending: bool,
}

impl Connection {
    pub(super) fn marks(&self) -> Marks {
        Marks {
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            messages: self.messages,
            was_pending: !self.pending.is_empty(),
        }
    }

    /// Records a turn. The clock is read after its system calls, so that a process that was stopped
    /// in between never ends a connection early.
    pub(super) fn note_turn(&mut self, before: &Marks, has_ended: bool, turn: &mut Turn<'_>) {
        let now = Instant::now();
        if self.times.unanswered.is_some() {
            self.note_answered(now, turn);
        } else if MEASURED && self.messages != before.messages {
            // A newcomer was not there yet.
            let since = turn.there_since.max(self.times.accepted);
            if self.is_answered() {
                turn.recorders.respond.observe_time(now.saturating_duration_since(since));
            } else {
                self.times.unanswered = Some(self.times.since_accepted(since));
            }
        }
        if !has_ended {
            self.note_times(now, before);
        }
    }

    /// Whether the kernel has the replies to everything that was received whole. Replies that were
    /// thrown away, or that the responder never gave, are not owed any more and do not count.
    fn is_answered(&self) -> bool {
        let is_given_up = match self.phase {
            Phase::Reading => false,
            Phase::Flushing(reason) | Phase::Lingering(reason) => matches!(
                reason,
                CloseReason::ResponderTimeout
                    | CloseReason::ResponderError
                    | CloseReason::ResponderPanic
            ),
        };
        !self.is_stopped && !self.owes() && self.discarded_bytes == 0 && !is_given_up
    }

    /// Observes how long what was received waited for its replies, once the kernel has all of
    /// them.
    pub(super) fn note_answered(&mut self, now: Instant, turn: &mut Turn<'_>) {
        if self.is_answered()
            && let Some(since) = self.times.unanswered.take()
        {
            let lasted = self.times.since_accepted(now).get().saturating_sub(since.get());
            turn.recorders.respond.observe_time(Duration::from_nanos(lasted));
        }
    }

    /// Records what the timeouts need.
    fn note_times(&mut self, now: Instant, before: &Marks) {
        let has_sent = self.sent_bytes != before.sent_bytes;
        if has_sent || self.received_bytes != before.received_bytes {
            self.times.last_byte = now;
        }
        let is_lingering = matches!(self.phase, Phase::Lingering(_));
        if !is_lingering && (has_sent || !before.was_pending) {
            self.times.progress = now;
        }
        if !self.framer.is_unfinished() {
            self.times.message = None;
            self.times.unread = None;
            return;
        }
        if self.messages != before.messages || self.times.message.is_none() {
            self.times.message = Some(now);
            self.times.unread = None;
        }
        if !self.is_read() {
            self.times.unread.get_or_insert(now);
        } else if let Some(since) = self.times.unread.take() {
            self.times.message = self.times.message.map(|began| began + now.duration_since(since));
        }
    }
}
