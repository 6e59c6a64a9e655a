//! What is counted of the processes that answer on a listener. Its threads are several: the keeper
//! of processes and the workers, so the counts are the library's own; the way of a message that no
//! process answers never comes here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::{int_counters, int_gauges};
use super::histogram::{Histogram, Recorder, WAITS};
use super::names::{self, CommandRefusal, ProcessEnd, ProcessState};

/// What is counted of one listener's processes.
pub struct CommandInstruments {
    processes: Vec<IntGauge>,
    starts: IntCounter,
    start_failures: IntCounter,
    ends: Vec<IntCounter>,
    queue_length: IntGauge,
    timeouts: IntCounter,
    refused: Vec<IntCounter>,
    circuit_open: IntGauge,
    /// What became of the last process that did not answer, as a clause.
    trouble: Mutex<String>,
    standard_error_lines: IntCounter,
}

/// What one thread observes of one listener's processes.
#[derive(Debug)]
pub struct CommandRecorders {
    queue_wait: Recorder,
    reply: Recorder,
}

/// A process in the gauge of processes, in one state at a time, until it leaves.
#[derive(Debug)]
pub struct ProcessGauge {
    instruments: Arc<CommandInstruments>,
    /// As a number, or [`GONE`].
    state: AtomicUsize,
}

const GONE: usize = usize::MAX;

impl CommandInstruments {
    /// One more process, which is being started.
    #[must_use]
    pub fn process(self: &Arc<Self>) -> ProcessGauge {
        let state = ProcessState::Starting as usize;
        self.processes[state].inc();
        ProcessGauge { instruments: self.clone(), state: state.into() }
    }

    /// Counts a process that has started.
    pub fn started(&self) {
        self.starts.inc();
    }

    /// Counts a process that could not be started.
    pub fn start_failed(&self) {
        self.start_failures.inc();
    }

    /// Counts the end of a process that had started.
    pub fn ended(&self, reason: ProcessEnd) {
        self.ends[reason as usize].inc();
    }

    /// Shows how many messages wait for a process.
    pub fn queue_length(&self, length: usize) {
        self.queue_length.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// Counts a message that a process did not answer within `reply_timeout`.
    pub fn timed_out(&self) {
        self.timeouts.inc();
    }

    /// Counts a message, or with a process for each connection a connection, that got no process.
    pub fn refused(&self, reason: CommandRefusal) {
        self.refused[reason as usize].inc();
    }

    /// Shows whether no process is started for now, because the last ones died at once.
    pub fn circuit(&self, is_open: bool) {
        self.circuit_open.set(is_open.into());
    }

    /// What [`CommandInstruments::circuit`] was told last.
    #[must_use]
    pub fn is_circuit_open(&self) -> bool {
        self.circuit_open.get() != 0
    }

    /// Keeps why a process has not answered, for those who ask why none is started.
    pub fn note_trouble(&self, trouble: String) {
        *self.trouble.lock() = trouble;
    }

    /// What [`CommandInstruments::note_trouble`] was told last.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.trouble.lock().clone()
    }

    /// Counts lines that processes wrote to their standard error, logged or not.
    pub fn standard_error_lines(&self, count: u64) {
        self.standard_error_lines.inc_by(count);
    }
}

impl CommandRecorders {
    /// Observes how long a message waited for a process that took it.
    pub fn observe_wait(&mut self, wait: Duration) {
        self.queue_wait.observe_time(wait);
    }

    /// Observes the time from a message's being written to a process until its reply was read.
    pub fn observe_reply(&mut self, time: Duration) {
        self.reply.observe_time(time);
    }
}

impl ProcessGauge {
    /// The process is in this state now, unless it has left.
    pub fn enter(&self, state: ProcessState) {
        let state = state as usize;
        // Up first, so that a scrape in between does not miss a process.
        self.instruments.processes[state].inc();
        let change = |before| (before != GONE).then_some(state);
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.instruments.processes[before.unwrap_or(state)].dec();
    }

    /// The process is gone, for good.
    pub fn leave(&self) {
        let before = self.state.swap(GONE, Ordering::AcqRel);
        if before != GONE {
            self.instruments.processes[before].dec();
        }
    }

    /// What counts the rest of it.
    #[must_use]
    pub fn instruments(&self) -> &Arc<CommandInstruments> {
        &self.instruments
    }
}

impl Drop for ProcessGauge {
    fn drop(&mut self) {
        self.leave();
    }
}

impl std::fmt::Debug for CommandInstruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandInstruments").finish_non_exhaustive()
    }
}

/// The vectors whose children belong to listeners with a command; without one they show nothing.
pub(super) struct CommandFamilies {
    processes: IntGaugeVec,
    starts: IntCounterVec,
    start_failures: IntCounterVec,
    ends: IntCounterVec,
    queue_length: IntGaugeVec,
    queue_wait: Histogram,
    reply: Histogram,
    timeouts: IntCounterVec,
    refused: IntCounterVec,
    circuit_open: IntGaugeVec,
    standard_error_lines: IntCounterVec,
    /// By the listener's name.
    made: Mutex<BTreeMap<String, Arc<CommandInstruments>>>,
}

impl CommandFamilies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            processes: int_gauges(registry, &names::COMMAND_PROCESSES)?,
            starts: int_counters(registry, &names::COMMAND_STARTS)?,
            start_failures: int_counters(registry, &names::COMMAND_START_FAILURES)?,
            ends: int_counters(registry, &names::COMMAND_ENDS)?,
            queue_length: int_gauges(registry, &names::COMMAND_QUEUE_LENGTH)?,
            queue_wait: Histogram::register(registry, &names::COMMAND_QUEUE_WAIT, &WAITS)?,
            reply: Histogram::register(registry, &names::COMMAND_REPLY, &WAITS)?,
            timeouts: int_counters(registry, &names::COMMAND_TIMEOUTS)?,
            refused: int_counters(registry, &names::COMMAND_REFUSED)?,
            circuit_open: int_gauges(registry, &names::COMMAND_CIRCUIT_OPEN)?,
            standard_error_lines: int_counters(registry, &names::COMMAND_STANDARD_ERROR_LINES)?,
            made: Mutex::default(),
        })
    }

    /// The counts of that listener, which stand at 0 from now on; the same for all who ask.
    pub(super) fn command(&self, listener: &str) -> Arc<CommandInstruments> {
        let mut made = self.made.lock();
        made.entry(listener.to_owned()).or_insert_with(|| Arc::new(self.make(listener))).clone()
    }

    fn make(&self, listener: &str) -> CommandInstruments {
        let plain = |family: &IntCounterVec| family.with_label_values(&[listener]);
        let labelled = |family: &IntCounterVec, label| family.with_label_values(&[listener, label]);
        self.queue_wait.child(&[listener]);
        self.reply.child(&[listener]);
        let processes = ProcessState::ALL
            .iter()
            .map(|state| self.processes.with_label_values(&[listener, state.label()]));
        let ends = ProcessEnd::ALL.iter().map(|end| labelled(&self.ends, end.label()));
        let refused =
            CommandRefusal::ALL.iter().map(|reason| labelled(&self.refused, reason.label()));
        CommandInstruments {
            processes: processes.collect(),
            starts: plain(&self.starts),
            start_failures: plain(&self.start_failures),
            ends: ends.collect(),
            queue_length: self.queue_length.with_label_values(&[listener]),
            timeouts: plain(&self.timeouts),
            refused: refused.collect(),
            circuit_open: self.circuit_open.with_label_values(&[listener]),
            trouble: Mutex::default(),
            standard_error_lines: plain(&self.standard_error_lines),
        }
    }

    /// What one more thread observes of that listener's processes.
    pub(super) fn recorders(&self, listener: &str) -> CommandRecorders {
        CommandRecorders {
            queue_wait: self.queue_wait.recorder(&[listener]),
            reply: self.reply.recorder(&[listener]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Instruments, WorkerReading};

    fn instruments() -> Instruments {
        Instruments::new([("a", true), ("b", true)], 0, &[], &[]).unwrap()
    }

    fn rendered(instruments: &Instruments) -> String {
        let no_worker = |_| -> WorkerReading { unreachable!("there is none") };
        String::from_utf8(instruments.render(no_worker, |_| None)).unwrap()
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        for line in expected {
            assert!(text.lines().any(|found| found == *line), "{line}\nis missing in\n{text}");
        }
    }

    #[test]
    fn only_a_listener_with_a_command_has_series_and_all_of_them_from_the_start() {
        let instruments = instruments();
        assert!(!rendered(&instruments).contains("talkback_command_"));
        let _command = instruments.command(1);
        let text = rendered(&instruments);
        let of_a = |line: &str| line.starts_with("talkback_command_") && line.contains("\"a\"");
        assert!(!text.lines().any(of_a), "{text}");
        for state in ProcessState::ALL {
            let state = state.label();
            let line = format!("talkback_command_processes{{listener=\"b\",state=\"{state}\"}} 0");
            check(&text, &[&line]);
        }
        check(
            &text,
            &[
                "talkback_command_ends_total{listener=\"b\",reason=\"signalled\"} 0",
                "talkback_command_refused_total{listener=\"b\",reason=\"circuit_open\"} 0",
                "talkback_command_queue_wait_seconds_count{listener=\"b\"} 0",
                "talkback_command_reply_seconds_count{listener=\"b\"} 0",
                "talkback_command_circuit_open{listener=\"b\"} 0",
            ],
        );
    }

    #[test]
    fn a_process_is_in_one_state_until_it_leaves_or_nobody_holds_it() {
        let instruments = instruments();
        let command = instruments.command(0);
        let in_state = |state: ProcessState| command.processes[state as usize].get();
        let all = || ProcessState::ALL.iter().map(|state| in_state(*state)).collect::<Vec<_>>();
        let (one, other) = (command.process(), command.process());
        assert_eq!(all(), [2, 0, 0, 0]);
        one.enter(ProcessState::Busy);
        one.enter(ProcessState::Busy);
        assert_eq!(all(), [1, 0, 1, 0]);
        one.enter(ProcessState::Ending);
        drop(other);
        assert_eq!(all(), [0, 0, 0, 1]);
        one.leave();
        assert_eq!(all(), [0, 0, 0, 0]);
        one.enter(ProcessState::Busy);
        drop(one);
        assert_eq!(all(), [0, 0, 0, 0]);
    }

    #[test]
    fn every_count_stands_under_its_name() {
        let instruments = instruments();
        // Asked for twice, as by keeper and worker, they are the same series.
        let (command, again) = (instruments.command(0), instruments.command(0));
        command.started();
        again.started();
        command.start_failed();
        command.ended(ProcessEnd::Protocol);
        command.queue_length(7);
        command.timed_out();
        command.refused(CommandRefusal::QueueTimeout);
        command.circuit(true);
        command.standard_error_lines(7);
        let mut recorders = instruments.command_recorders(0);
        recorders.observe_wait(Duration::from_millis(250));
        recorders.observe_reply(Duration::from_millis(500));
        check(
            &rendered(&instruments),
            &[
                "talkback_command_starts_total{listener=\"a\"} 2",
                "talkback_command_start_failures_total{listener=\"a\"} 1",
                "talkback_command_ends_total{listener=\"a\",reason=\"protocol\"} 1",
                "talkback_command_ends_total{listener=\"a\",reason=\"exited\"} 0",
                "talkback_command_queue_length{listener=\"a\"} 7",
                "talkback_command_timeouts_total{listener=\"a\"} 1",
                "talkback_command_refused_total{listener=\"a\",reason=\"queue_timeout\"} 1",
                "talkback_command_circuit_open{listener=\"a\"} 1",
                "talkback_command_standard_error_lines_total{listener=\"a\"} 7",
                "talkback_command_queue_wait_seconds_sum{listener=\"a\"} 0.25",
                "talkback_command_reply_seconds_sum{listener=\"a\"} 0.5",
            ],
        );
        command.circuit(false);
        check(&rendered(&instruments), &["talkback_command_circuit_open{listener=\"a\"} 0"]);
    }
}
