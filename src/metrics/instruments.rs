//! The registry of one server and the handles that its threads count with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Counter, Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use super::command::{CommandFamilies, CommandInstruments, CommandRecorders};
use super::families::{
    children, counters, gauges, int_counter, int_counters, int_gauge, int_gauges,
};
use super::histogram::{Histogram, Recorder, WAITS};
use super::kernel::{KernelInstruments, ListenReading};
use super::listener::{ListenerFamilies, ListenerInstruments, ListenerRecorders};
use super::names::{self, LateReplyRefusal};
use super::process::ProcessInstruments;

/// Everything one server counts. Children are looked up once, here.
pub struct Instruments {
    registry: Registry,
    listeners: Vec<ListenerInstruments>,
    /// Each one's name, and whether the kernel tells something of its queue and paths.
    labels: Vec<(String, bool)>,
    families: ListenerFamilies,
    commands: CommandFamilies,
    inbox_wait: Histogram,
    workers: Vec<WorkerInstruments>,
    kernel: KernelInstruments,
    process: ProcessInstruments,
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
    /// Two scrapes at once would both add the same busy time or drops.
    rendering: Mutex<()>,
}

struct WorkerInstruments {
    busy: Counter,
    turn: Gauge,
    connections: IntGauge,
    inbox_connections: IntGauge,
    yields: IntCounter,
}

/// What one worker observes; nobody else writes to it.
#[derive(Debug)]
pub struct WorkerRecorders {
    /// From accept to the worker's first touch.
    pub inbox_wait: Recorder,
    /// By the index of the listener.
    pub listeners: Vec<ListenerRecorders>,
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
    /// Those of them that still lie in its inbox.
    pub inbox_connections: usize,
    /// Turns that ended with work left, since its start.
    pub yields: u64,
}

impl Instruments {
    /// Registers every metric, each with all values of its labels at 0. A listener is a name, and
    /// whether it is one of TCP, of whose connections the kernel tells more.
    ///
    /// # Errors
    /// Those of the registry, as for two listeners of one name.
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = (&'a str, bool)>,
        workers: usize,
        scrapes: &[(&str, &str)],
        scrape_rejections: &[&str],
    ) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let labels: Vec<(&str, bool)> = listeners.into_iter().collect();
        let families = ListenerFamilies::register(&registry)?;
        let late = int_counters(&registry, &names::LATE_REPLIES_REFUSED)?;
        let build = int_gauges(&registry, &names::BUILD_INFO)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("TALKBACK_RUSTC")]).set(1);
        let instruments = Self {
            listeners: labels.iter().map(|(name, _)| families.listener(name)).collect(),
            families,
            commands: CommandFamilies::register(&registry)?,
            inbox_wait: Histogram::register(&registry, &names::INBOX_WAIT, &WAITS)?,
            kernel: KernelInstruments::register(&registry, &labels)?,
            process: ProcessInstruments::register(&registry)?,
            labels: labels.iter().map(|&(name, is_tcp)| (name.to_owned(), is_tcp)).collect(),
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

    /// What one more worker observes with.
    #[must_use]
    pub fn worker_recorders(&self) -> WorkerRecorders {
        let of = |(name, is_tcp): &(String, bool)| self.families.recorders(name, *is_tcp);
        WorkerRecorders {
            inbox_wait: self.inbox_wait.recorder(&[]),
            listeners: self.labels.iter().map(of).collect(),
        }
    }

    /// What the acceptor of that listener observes the kernel's accept queue with; nothing on a
    /// Unix socket.
    #[must_use]
    pub fn accept_wait_recorder(&self, listener: usize) -> Option<Recorder> {
        let (name, is_tcp) = &self.labels[listener];
        is_tcp.then(|| self.families.accept_wait(name))
    }

    /// What is counted of the processes that answer on that listener. Asking for it makes its
    /// series stand at 0; asked for again, it is the same.
    pub fn command(&self, listener: usize) -> Arc<CommandInstruments> {
        self.commands.command(&self.labels[listener].0)
    }

    /// What one more thread observes of the processes that answer on that listener.
    #[must_use]
    pub fn command_recorders(&self, listener: usize) -> CommandRecorders {
        self.commands.recorders(&self.labels[listener].0)
    }

    /// Counts what the socket of that listener has dropped until it closes.
    pub fn count_drops(&self, listener: usize, drops: u32) {
        self.kernel.count_drops(listener, drops);
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

    /// The text format 0.0.4, with what is read of each worker and each listener now.
    #[must_use]
    pub fn render(
        &self,
        mut worker: impl FnMut(usize) -> WorkerReading,
        mut listener: impl FnMut(usize) -> Option<ListenReading>,
    ) -> Vec<u8> {
        let _one_at_a_time = self.rendering.lock();
        for (index, instruments) in self.workers.iter().enumerate() {
            instruments.show(worker(index));
        }
        for index in 0..self.listeners.len() {
            self.kernel.show(index, listener(index));
        }
        self.kernel.refresh_overflows();
        self.process.refresh();
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

impl WorkerInstruments {
    fn show(&self, reading: WorkerReading) {
        self.busy.inc_by((reading.busy.as_secs_f64() - self.busy.get()).max(0.0));
        self.turn.set(reading.turn.as_secs_f64());
        self.connections.set(as_gauge(reading.connections));
        self.inbox_connections.set(as_gauge(reading.inbox_connections));
        self.yields.inc_by(reading.yields.saturating_sub(self.yields.get()));
    }
}

impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instruments").finish_non_exhaustive()
    }
}

fn worker_instruments(
    registry: &Registry,
    workers: usize,
) -> prometheus::Result<Vec<WorkerInstruments>> {
    let busy = counters(registry, &names::WORKER_BUSY_SECONDS)?;
    let turn = gauges(registry, &names::WORKER_TURN_SECONDS)?;
    let inbox = int_gauges(registry, &names::WORKER_INBOX_CONNECTIONS)?;
    let yields = int_counters(registry, &names::WORKER_YIELDS)?;
    let connections = int_gauges(registry, &names::WORKER_CONNECTIONS)?;
    Ok((0..workers)
        .map(|index| {
            let label = index.to_string();
            WorkerInstruments {
                busy: busy.with_label_values(&[&label]),
                turn: turn.with_label_values(&[&label]),
                connections: connections.with_label_values(&[&label]),
                inbox_connections: inbox.with_label_values(&[&label]),
                yields: yields.with_label_values(&[&label]),
            }
        })
        .collect())
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
