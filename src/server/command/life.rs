//! The process of one connection as its worker and the keeper both know it. Neither waits for the
//! other, and neither is woken: what has happened is one number that both change.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::metrics::ProcessGauge;
use crate::metrics::names::ProcessState;

use super::order::{ProcessId, Progress};

/// What has happened, a bit each.
const STARTED: u8 = 1;
const NOT_STARTED: u8 = 2;
const ENDED: u8 = 4;
/// Its connection has ended,
const LEFT: u8 = 8;
/// and it was told to end, or is to be when it has started.
const TOLD: u8 = 16;

pub(super) struct Life {
    happened: AtomicU8,
    gauge: ProcessGauge,
    process: OnceLock<(ProcessId, Instant)>,
    spoke: OnceLock<Instant>,
}

impl Life {
    pub(super) fn new(gauge: ProcessGauge) -> Self {
        Self { happened: AtomicU8::new(0), gauge, process: OnceLock::new(), spoke: OnceLock::new() }
    }

    /// Returns what had happened before.
    fn happen(&self, what: u8) -> u8 {
        self.happened.fetch_or(what, Ordering::AcqRel)
    }

    fn has(&self, happened: u8) -> bool {
        self.happened.load(Ordering::Acquire) & happened != 0
    }

    // ---- the keeper's ----

    /// It runs; says whether it is to end, as its connection has.
    pub(super) fn start(&self, process: ProcessId) -> bool {
        // Nobody else sets it.
        let _ = self.process.set((process, Instant::now()));
        self.gauge.enter(ProcessState::Busy);
        let before = self.happen(STARTED);
        if before & LEFT != 0 {
            self.gauge.enter(ProcessState::Ending);
        }
        before & TOLD != 0
    }

    /// It will not run.
    pub(super) fn fail(&self) {
        self.happen(NOT_STARTED);
        self.gauge.leave();
    }

    /// It has ended; says whether its connection is still there.
    pub(super) fn end(&self) -> bool {
        self.gauge.leave();
        self.happen(ENDED) & LEFT == 0
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { spoke: self.spoke.get().copied(), has_ended: self.has(ENDED) }
    }

    /// Whether its connection has ended.
    pub(super) fn is_left(&self) -> bool {
        self.has(LEFT)
    }

    /// Whether it was told to end.
    pub(super) fn is_told(&self) -> bool {
        self.has(TOLD)
    }

    // ---- the worker's ----

    /// Its number and since when it runs.
    pub(super) fn process(&self) -> Option<(ProcessId, Instant)> {
        if self.has(STARTED) { self.process.get().copied() } else { None }
    }

    /// Whether it is clear whether it runs.
    pub(super) fn is_decided(&self) -> bool {
        self.has(STARTED | NOT_STARTED)
    }

    /// It has said something.
    pub(super) fn note_word(&self) {
        if self.spoke.get().is_none() {
            // Nobody else sets it.
            let _ = self.spoke.set(Instant::now());
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has(NOT_STARTED)
    }

    /// Whether there is no process any more, or never will be.
    pub(super) fn has_ended(&self) -> bool {
        self.has(ENDED | NOT_STARTED)
    }

    /// Its connection has ended. `is_told`: it is to end too. Returns who must be told so; one that
    /// has not started will be told by who starts it.
    pub(super) fn leave(&self, is_told: bool) -> Option<ProcessId> {
        let before = self.happen(if is_told { LEFT | TOLD } else { LEFT });
        if before & STARTED == 0 {
            return None;
        }
        self.gauge.enter(ProcessState::Ending);
        self.process.get().filter(|_| is_told).map(|(process, _)| *process)
    }

    /// It is to end now, or as soon as it runs. Returns who must be told so.
    pub(super) fn tell(&self) -> Option<ProcessId> {
        let before = self.happen(TOLD);
        if before & STARTED == 0 { None } else { self.process.get().map(|(process, _)| *process) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CommandInstruments, Instruments, WorkerReading};
    use std::sync::{Arc, Barrier};

    const PROCESS: ProcessId = ProcessId { number: 7, pid: 77 };

    struct Stage {
        instruments: Instruments,
        life: Life,
    }

    impl Stage {
        fn new() -> Self {
            let instruments = Instruments::new([("a", true)], 0, &[], &[]).unwrap();
            let command: Arc<CommandInstruments> = instruments.command(0);
            Self { instruments, life: Life::new(command.process()) }
        }

        /// The states that have a process.
        fn shown(&self) -> Vec<String> {
            let no_worker = |_| -> WorkerReading { unreachable!("there is none") };
            let text = String::from_utf8(self.instruments.render(no_worker, |_| None)).unwrap();
            let states = text.lines().filter_map(|line| line.strip_suffix("\"} 1"));
            let state = |line: &str| line.rsplit_once('"').unwrap().1.to_owned();
            states
                .filter(|line| line.starts_with("talkback_command_processes"))
                .map(state)
                .collect()
        }
    }

    #[test]
    fn a_process_whose_connection_ends_is_told_once_by_whoever_comes_second() {
        let Stage { life, .. } = &Stage::new();
        assert!(!life.start(PROCESS));
        assert_eq!(life.leave(true), Some(PROCESS));
        let Stage { life, .. } = &Stage::new();
        assert_eq!(life.leave(true), None);
        assert!(life.start(PROCESS));
        // One that may end by itself is told later.
        let Stage { life, .. } = &Stage::new();
        assert_eq!(life.leave(false), None);
        assert!(!life.start(PROCESS));
        assert_eq!(life.tell(), Some(PROCESS));
        let Stage { life, .. } = &Stage::new();
        assert_eq!((life.leave(false), life.tell()), (None, None));
        assert!(life.start(PROCESS));
    }

    #[test]
    fn the_two_sides_agree_however_they_meet() {
        for _ in 0..2000 {
            let stage = Stage::new();
            let (life, gate) = (&stage.life, &Barrier::new(2));
            let (by_keeper, by_worker) = std::thread::scope(|threads| {
                let keeper = threads.spawn(move || {
                    gate.wait();
                    let is_told = life.start(PROCESS);
                    (is_told, life.end())
                });
                gate.wait();
                let told = life.leave(true);
                (keeper.join().unwrap(), told)
            });
            let (is_told, is_awaited) = by_keeper;
            assert_ne!(is_told, by_worker.is_some(), "told twice or never");
            assert!(!(is_told && is_awaited));
            assert_eq!(stage.shown(), [""; 0]);
        }
    }

    #[test]
    fn its_state_is_shown_from_its_order_to_its_end() {
        let stage = Stage::new();
        assert_eq!(stage.shown(), ["starting"]);
        stage.life.start(PROCESS);
        assert_eq!(stage.shown(), ["busy"]);
        stage.life.leave(false);
        assert_eq!(stage.shown(), ["ending"]);
        assert!(!stage.life.end());
        assert_eq!(stage.shown(), [""; 0]);
        let stage = Stage::new();
        stage.life.leave(true);
        assert_eq!(stage.shown(), ["starting"]);
        stage.life.start(PROCESS);
        assert_eq!(stage.shown(), ["ending"]);
        let stage = Stage::new();
        stage.life.fail();
        assert!(stage.life.is_decided() && stage.life.has_failed() && stage.life.has_ended());
        assert_eq!(stage.shown(), [""; 0]);
    }
}
