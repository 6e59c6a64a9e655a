//! What is counted and observed of one listener's connections: by its acceptor, and by each worker
//! for itself.

use std::time::Duration;

use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::{counters, int_counters, int_gauges};
use super::histogram::{Histogram, LIVES, Recorder, SIZES, TICKS, WAITS};
use super::names::{self, AcceptError, CloseReason, Rejection};

/// One listener's counters, by the index of their reason where they have one.
pub struct ListenerInstruments {
    /// Returned by accept(2).
    pub accepted: IntCounter,
    /// Open now.
    pub connections: IntGauge,
    rejected: Vec<IntCounter>,
    closed: Vec<IntCounter>,
    accept_errors: Vec<IntCounter>,
    accept_held: Counter,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    discarded_bytes: IntCounter,
    messages: IntCounter,
    replies: IntCounter,
    pending_bytes: IntGauge,
}

/// What one worker observes of one listener's connections.
#[derive(Debug)]
pub struct ListenerRecorders {
    /// From a message until the kernel has its replies, with the wait for a busy worker.
    pub respond: Recorder,
    /// The size of each message, in bytes.
    pub message_bytes: Recorder,
    /// From accept to close.
    pub connection_duration: Recorder,
    /// What the kernel knows of the path, where there is one.
    pub path: Option<PathInstruments>,
}

/// What the kernel knows of the path to a client, told at its close.
#[derive(Debug)]
pub struct PathInstruments {
    rtt: Recorder,
    retransmits: IntCounter,
}

impl PathInstruments {
    /// Counts the path of a connection that closes: its smoothed round trip time, if there was one
    /// to measure, and the segments sent again.
    pub fn count(&mut self, rtt: Duration, retransmits: u32) {
        if !rtt.is_zero() {
            self.rtt.observe_time(rtt);
        }
        if retransmits > 0 {
            self.retransmits.inc_by(retransmits.into());
        }
    }
}

/// What one worker counted for one listener since it last told the registry. The way of a message
/// adds here, to memory that no other thread touches.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Bytes taken from the kernel.
    pub received_bytes: u64,
    /// Bytes given to the kernel.
    pub sent_bytes: u64,
    /// Bytes of replies thrown away.
    pub discarded_bytes: u64,
    /// Messages received.
    pub messages: u64,
    /// Replies made.
    pub replies: u64,
    /// How much more is pending than before.
    pub pending_bytes: i64,
}

impl Tally {
    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ListenerInstruments {
    /// Counts a connection closed before service.
    pub fn count_rejected(&self, reason: Rejection) {
        self.rejected[reason as usize].inc();
    }

    /// Counts a connection served and ended.
    pub fn count_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].inc();
    }

    /// Counts an error of accept(2).
    pub fn count_accept_error(&self, error: AcceptError) {
        self.accept_errors[error as usize].inc();
    }

    /// Counts a time for which the acceptor left somebody in the kernel's queue.
    pub fn count_accept_held(&self, held: Duration) {
        self.accept_held.inc_by(held.as_secs_f64());
    }

    /// Connections closed so far for that reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].get()
    }

    /// Adds what a worker counted, and empties its tally.
    pub fn take(&self, tally: &mut Tally) {
        let counted = std::mem::take(tally);
        if !super::MEASURED {
            return;
        }
        for (counter, count) in [
            (&self.received_bytes, counted.received_bytes),
            (&self.sent_bytes, counted.sent_bytes),
            (&self.discarded_bytes, counted.discarded_bytes),
            (&self.messages, counted.messages),
            (&self.replies, counted.replies),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        if counted.pending_bytes != 0 {
            self.pending_bytes.add(counted.pending_bytes);
        }
    }
}

/// The vectors whose children belong to listeners.
pub(super) struct ListenerFamilies {
    accepted: IntCounterVec,
    rejected: IntCounterVec,
    closed: IntCounterVec,
    connections: IntGaugeVec,
    received_bytes: IntCounterVec,
    sent_bytes: IntCounterVec,
    discarded_bytes: IntCounterVec,
    messages: IntCounterVec,
    replies: IntCounterVec,
    pending_bytes: IntGaugeVec,
    accept_errors: IntCounterVec,
    accept_held: CounterVec,
    accept_wait: Histogram,
    respond: Histogram,
    message_bytes: Histogram,
    connection_duration: Histogram,
    tcp_rtt: Histogram,
    tcp_retransmits: IntCounterVec,
}

impl ListenerFamilies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |metric, scale| Histogram::register(registry, metric, scale);
        Ok(Self {
            accepted: int_counters(registry, &names::CONNECTIONS_ACCEPTED)?,
            rejected: int_counters(registry, &names::CONNECTIONS_REJECTED)?,
            closed: int_counters(registry, &names::CONNECTIONS_CLOSED)?,
            connections: int_gauges(registry, &names::CONNECTIONS)?,
            received_bytes: int_counters(registry, &names::RECEIVED_BYTES)?,
            sent_bytes: int_counters(registry, &names::SENT_BYTES)?,
            discarded_bytes: int_counters(registry, &names::DISCARDED_BYTES)?,
            messages: int_counters(registry, &names::MESSAGES)?,
            replies: int_counters(registry, &names::REPLIES)?,
            pending_bytes: int_gauges(registry, &names::PENDING_BYTES)?,
            accept_errors: int_counters(registry, &names::ACCEPT_ERRORS)?,
            accept_held: counters(registry, &names::ACCEPT_HELD_SECONDS)?,
            accept_wait: histogram(&names::ACCEPT_WAIT, &TICKS)?,
            respond: histogram(&names::RESPOND, &WAITS)?,
            message_bytes: histogram(&names::MESSAGE_BYTES, &SIZES)?,
            connection_duration: histogram(&names::CONNECTION_DURATION, &LIVES)?,
            tcp_rtt: histogram(&names::TCP_RTT, &WAITS)?,
            tcp_retransmits: int_counters(registry, &names::TCP_RETRANSMITS)?,
        })
    }

    /// The recorders of one more worker for that listener.
    pub(super) fn recorders(&self, name: &str, is_tcp: bool) -> ListenerRecorders {
        ListenerRecorders {
            respond: self.respond.recorder(&[name]),
            message_bytes: self.message_bytes.recorder(&[name]),
            connection_duration: self.connection_duration.recorder(&[name]),
            path: is_tcp.then(|| PathInstruments {
                rtt: self.tcp_rtt.recorder(&[name]),
                retransmits: self.tcp_retransmits.with_label_values(&[name]),
            }),
        }
    }

    /// The acceptor's recorder.
    pub(super) fn accept_wait(&self, name: &str) -> Recorder {
        self.accept_wait.recorder(&[name])
    }

    pub(super) fn listener(&self, name: &str) -> ListenerInstruments {
        let labelled = |family: &IntCounterVec, labels: Vec<&'static str>| {
            labels.iter().map(|label| family.with_label_values(&[name, label])).collect()
        };
        ListenerInstruments {
            accepted: self.accepted.with_label_values(&[name]),
            connections: self.connections.with_label_values(&[name]),
            rejected: labelled(&self.rejected, Rejection::ALL.iter().map(|r| r.label()).collect()),
            closed: labelled(&self.closed, CloseReason::ALL.iter().map(|r| r.label()).collect()),
            accept_errors: labelled(
                &self.accept_errors,
                AcceptError::ALL.iter().map(|e| e.label()).collect(),
            ),
            accept_held: self.accept_held.with_label_values(&[name]),
            received_bytes: self.received_bytes.with_label_values(&[name]),
            sent_bytes: self.sent_bytes.with_label_values(&[name]),
            discarded_bytes: self.discarded_bytes.with_label_values(&[name]),
            messages: self.messages.with_label_values(&[name]),
            replies: self.replies.with_label_values(&[name]),
            pending_bytes: self.pending_bytes.with_label_values(&[name]),
        }
    }
}
