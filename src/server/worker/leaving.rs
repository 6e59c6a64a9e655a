//! How connections leave a worker: by the one exit that counts them, or all at once after a panic
//! of its loop.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::LogLevel;
use crate::connection::{Connection, Conversation, Ending, Totals, peer_name};
use crate::metrics::{CloseReason, WorkerRecorders};
use crate::server::pool::Seated;

use super::Worker;

/// How often a worker that has given up looks whether the stop has come.
const LOOK_FOR_DRAIN: Duration = Duration::from_millis(50);

impl Worker {
    /// The one exit: every connection that was served is counted here, once.
    pub(super) fn close(&mut self, slot: usize, ending: Ending) {
        let mut entry = self.connections.remove(slot);
        self.timers.disarm(slot);
        self.errands.note_freed(entry.connection.input_bytes() as u64);
        if let Some(until) = entry.connection.delayed_until() {
            self.errands.forget(until, entry.generation, slot);
        }
        if entry.connection.end_responder(ending.reason).is_err() {
            self.shared.instruments.worker_panics.inc();
        }
        let line = CloseLine::of(&entry.connection, ending.reason);
        {
            // Until its place is given back: a stop that abandons this worker counts what is open.
            let Some(_counted_once) = self.seat.begin_close() else { return };
            // Taken over, so that it is dropped before the guard.
            let entry = entry;
            let connection = &entry.connection;
            observe_end(&mut self.recorders, connection);
            let listener = connection.conversation().listener;
            self.errands.note_pending(self.tallies[listener].pending_bytes);
            self.shared.instruments.listener(listener).take(&mut self.tallies[listener]);
            self.shared.instruments.listener(listener).count_closed(ending.reason);
            if ending.is_reset {
                connection.reset_on_close();
            }
        }
        // Last: where the library's user logs in a way that hangs or panics, nothing is owed any
        // more.
        line.log(self.shared.close_level);
    }

    /// Tells the registry what was counted since the last time.
    pub(super) fn settle(&mut self) {
        if self.seat.is_abandoned() {
            return;
        }
        for (listener, tally) in self.tallies.iter_mut().enumerate() {
            if !tally.is_empty() {
                self.errands.note_pending(tally.pending_bytes);
                self.shared.instruments.listener(listener).take(tally);
            }
        }
    }

    /// After a panic of the loop: no connection is in a state to trust.
    pub(super) fn recover(&mut self) {
        let gathered = std::mem::take(&mut self.outgoing).len();
        self.run_again.clear();
        if let Some(entry) = self.in_turn.take().and_then(|slot| self.connections.get_mut(slot)) {
            let tally = &mut self.tallies[entry.connection.conversation().listener];
            entry.connection.discard(gathered, tally);
        }
        for slot in self.slots() {
            let connection = &mut self.connections[slot].connection;
            let ending = connection.abandon(&mut self.tallies[connection.conversation().listener]);
            // What panicked may do so again.
            if catch_unwind(AssertUnwindSafe(|| self.close(slot, ending))).is_err() {
                self.shared.instruments.worker_panics.inc();
            }
        }
        self.settle();
    }

    /// After it gave up on itself, until the stop that follows: nobody is served, everybody is
    /// counted. Waits elsewhere than in epoll, which may be what fails.
    pub(super) fn refuse(&mut self) {
        self.end_programs();
        // As the acceptors see it, this worker is stalled from now on.
        self.seat.pass_over();
        while self.shared.lifecycle.drain_until().is_none() {
            if let Ok(seated) = self.inboxes.arrivals.recv_timeout(LOOK_FOR_DRAIN) {
                self.refuse_one(seated);
            }
        }
        while let Ok(seated) = self.inboxes.arrivals.try_recv() {
            self.refuse_one(seated);
        }
    }

    fn refuse_one(&mut self, seated: Seated) {
        let slot = self.seat(seated);
        let ending = Ending { reason: CloseReason::WorkerPanic, is_reset: false };
        self.close(slot, ending);
    }
}

/// Its life, and what the kernel knows of its path.
fn observe_end(recorders: &mut WorkerRecorders, connection: &Connection) {
    let recorders = &mut recorders.listeners[connection.conversation().listener];
    recorders.connection_duration.observe_time(connection.accepted().elapsed());
    if let Some(path) = &mut recorders.path
        && let Some((rtt, retransmits)) = connection.path()
    {
        path.count(rtt, retransmits);
    }
}

/// To the microsecond, and never with an exponent.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What the line at a close tells.
struct CloseLine {
    conversation: Arc<Conversation>,
    peer: Option<SocketAddr>,
    reason: CloseReason,
    totals: Totals,
    accepted: Instant,
}

impl CloseLine {
    fn of(connection: &Connection, reason: CloseReason) -> Self {
        Self {
            conversation: connection.shared_conversation(),
            peer: connection.peer(),
            reason,
            totals: connection.totals(),
            accepted: connection.accepted(),
        }
    }

    fn log(&self, level: LogLevel) {
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    tracing::Level::$level,
                    listener = self.conversation.name,
                    peer = peer_name(self.peer),
                    reason = self.reason.label(),
                    received_bytes = self.totals.received_bytes,
                    sent_bytes = self.totals.sent_bytes,
                    discarded_bytes = self.totals.discarded_bytes,
                    messages = self.totals.messages,
                    duration_ms = milliseconds(self.accepted.elapsed()),
                    "connection closed"
                )
            };
        }
        match level {
            LogLevel::Error => line!(ERROR),
            LogLevel::Warn => line!(WARN),
            LogLevel::Info => line!(INFO),
            LogLevel::Debug => line!(DEBUG),
            LogLevel::Trace => line!(TRACE),
        }
    }
}
