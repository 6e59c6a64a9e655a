//! The registry of one server and the handles that its threads count with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::names::{self, AcceptError, CloseReason, LateReplyRefusal, Metric, Rejection};

/// Everything one server counts. Children are looked up once, here.
pub struct Instruments {
    registry: Registry,
    listeners: Vec<ListenerInstruments>,
    workers: Vec<WorkerInstruments>,
    /// Worker threads alive.
    pub workers_alive: IntGauge,
    /// Panics caught in workers, acceptors and responders.
    pub worker_panics: IntCounter,
    log_lines_dropped: IntCounter,
    /// Where the program that logs counts what its sink did not take.
    log: OnceLock<Arc<AtomicU64>>,
    /// 1 from the stop signal on.
    pub draining: IntGauge,
    /// Most connections open at once.
    pub connections_limit: IntGauge,
    late_replies_refused: Vec<IntCounter>,
    scrapes: IntCounterVec,
    scrapes_rejected: IntCounterVec,
    /// Two scrapes at once would both add the same busy time.
    rendering: Mutex<()>,
}

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

struct WorkerInstruments {
    busy: Counter,
    turn: Gauge,
    connections: IntGauge,
}

/// What is asked of a worker when someone scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerReading {
    /// Time outside epoll_wait(2) since its start.
    pub busy: Duration,
    /// Age of the turn it is in; zero while it waits.
    pub turn: Duration,
    /// Connections it owns.
    pub connections: usize,
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

impl Instruments {
    /// Registers every metric, each with all values of its labels at 0.
    ///
    /// # Errors
    /// Those of the registry, as for two listeners of one name.
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = &'a str>,
        workers: usize,
        scrapes: &[(&str, &str)],
        scrape_rejections: &[&str],
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = ListenerFamilies::register(&registry)?;
        let late = int_counters(&registry, &names::LATE_REPLIES_REFUSED)?;
        let build = int_gauges(&registry, &names::BUILD_INFO)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("TALKBACK_RUSTC")]).set(1);
        let instruments = Self {
            listeners: listeners.into_iter().map(|name| families.listener(name)).collect(),
            workers: worker_instruments(&registry, workers)?,
            workers_alive: int_gauge(&registry, &names::WORKERS)?,
            worker_panics: int_counter(&registry, &names::WORKER_PANICS)?,
            log_lines_dropped: int_counter(&registry, &names::LOG_LINES_DROPPED)?,
            log: OnceLock::new(),
            draining: int_gauge(&registry, &names::DRAINING)?,
            connections_limit: int_gauge(&registry, &names::CONNECTIONS_LIMIT)?,
            late_replies_refused: children(&late, LateReplyRefusal::ALL.iter().map(|d| d.label())),
            scrapes: int_counters(&registry, &names::SCRAPES)?,
            scrapes_rejected: int_counters(&registry, &names::SCRAPES_REJECTED)?,
            rendering: Mutex::new(()),
            registry,
        };
        for (path, code) in scrapes {
            instruments.scrapes.with_label_values(&[path, code]);
        }
        for reason in scrape_rejections {
            instruments.scrapes_rejected.with_label_values(&[reason]);
        }
        Ok(instruments)
    }

    /// The listener of that index.
    #[must_use]
    pub fn listener(&self, index: usize) -> &ListenerInstruments {
        &self.listeners[index]
    }

    /// Counts an answer of the sidecar.
    pub fn count_scrape(&self, path: &str, code: &str) {
        self.scrapes.with_label_values(&[path, code]).inc();
    }

    /// Counts a request that the sidecar's door turned away.
    pub fn count_scrape_rejected(&self, reason: &str) {
        self.scrapes_rejected.with_label_values(&[reason]).inc();
    }

    /// Counts a late reply that found no taker.
    pub fn count_late_reply_refused(&self, reason: LateReplyRefusal) {
        self.late_replies_refused[reason as usize].inc();
    }

    /// From now on `dropped` is what the log's sink did not take; the first one said stays.
    pub fn observe_log(&self, dropped: Arc<AtomicU64>) {
        // A second log would make the counter jump between the two.
        let _ = self.log.set(dropped);
    }

    /// The text format 0.0.4, with what `read` says of each worker now.
    #[must_use]
    pub fn render(&self, mut read: impl FnMut(usize) -> WorkerReading) -> Vec<u8> {
        let _one_at_a_time = self.rendering.lock();
        for (index, worker) in self.workers.iter().enumerate() {
            let reading = read(index);
            worker.busy.inc_by((reading.busy.as_secs_f64() - worker.busy.get()).max(0.0));
            worker.turn.set(reading.turn.as_secs_f64());
            worker.connections.set(as_gauge(reading.connections));
        }
        if let Some(log) = self.log.get() {
            let dropped = log.load(Ordering::Relaxed);
            self.log_lines_dropped.inc_by(dropped.saturating_sub(self.log_lines_dropped.get()));
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail, and no family is empty");
        text
    }
}

impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instruments").finish_non_exhaustive()
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
struct ListenerFamilies {
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
}

impl ListenerFamilies {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
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
        })
    }

    fn listener(&self, name: &str) -> ListenerInstruments {
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

fn worker_instruments(
    registry: &Registry,
    workers: usize,
) -> prometheus::Result<Vec<WorkerInstruments>> {
    let busy = counters(registry, &names::WORKER_BUSY_SECONDS)?;
    let turn = GaugeVec::new(
        Opts::new(names::WORKER_TURN_SECONDS.name, names::WORKER_TURN_SECONDS.help),
        names::WORKER_TURN_SECONDS.labels,
    )?;
    registry.register(Box::new(turn.clone()))?;
    let connections = int_gauges(registry, &names::WORKER_CONNECTIONS)?;
    Ok((0..workers)
        .map(|index| {
            let label = index.to_string();
            WorkerInstruments {
                busy: busy.with_label_values(&[&label]),
                turn: turn.with_label_values(&[&label]),
                connections: connections.with_label_values(&[&label]),
            }
        })
        .collect())
}

fn counters(registry: &Registry, metric: &Metric) -> prometheus::Result<CounterVec> {
    let family = CounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn int_counters(registry: &Registry, metric: &Metric) -> prometheus::Result<IntCounterVec> {
    let family = IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn int_gauges(registry: &Registry, metric: &Metric) -> prometheus::Result<IntGaugeVec> {
    let family = IntGaugeVec::new(Opts::new(metric.name, metric.help), metric.labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn int_counter(registry: &Registry, metric: &Metric) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(metric.name, metric.help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn int_gauge(registry: &Registry, metric: &Metric) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(metric.name, metric.help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn children(family: &IntCounterVec, labels: impl Iterator<Item = &'static str>) -> Vec<IntCounter> {
    labels.map(|label| family.with_label_values(&[label])).collect()
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
