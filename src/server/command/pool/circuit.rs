//! When a process may be started again: at growing distances while they die before they answer, and
//! after a row of such deaths not until one that is tried lives. Requests are refused meanwhile.

use std::time::{Duration, Instant};

use super::{Action, Failure, Key, Pool, Process, STEADY, State};

/// So many deaths in a row, none of which had answered, open the circuit.
const MOST_DEATHS: u32 = 5;

#[derive(Debug)]
pub(super) struct Circuit {
    restart_delay: Duration,
    max_restart_delay: Duration,
    /// In a row: no process that was started after the last of those has answered.
    deaths: u32,
    /// The last of those that were started.
    last_dead: Option<Key>,
    /// Nothing is started before.
    not_before: Option<Instant>,
    position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Closed,
    /// Nothing is started until then.
    Open(Instant),
    /// Whether this one lives will show.
    Trial(Key),
}

impl Circuit {
    pub(super) fn new(restart_delay: Duration, max_restart_delay: Duration) -> Self {
        let position = Position::Closed;
        let (deaths, last_dead, not_before) = (0, None, None);
        Self { restart_delay, max_restart_delay, deaths, last_dead, not_before, position }
    }

    pub(super) fn is_open(&self) -> bool {
        self.position != Position::Closed
    }

    /// When the next one may be started, if not at `now`.
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&at| now < at)
    }

    /// One was started: while they die, the next one waits to see how this one does.
    pub(super) fn note_start(&mut self, now: Instant) {
        self.not_before = (self.deaths > 0).then(|| now + self.delay());
    }

    /// One ended that nobody had asked anything.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + self.restart_delay);
    }

    /// One ended that had answered: another one may take its place at once.
    pub(super) fn allow_one(&mut self) {
        self.not_before = None;
    }

    /// A process answered. Says whether that closed the circuit.
    pub(super) fn note_reply(&mut self, key: Key) -> bool {
        // That an older one lives tells nothing of those that are started now.
        if self.is_open() || self.last_dead < Some(key) {
            self.deaths = 0;
            self.last_dead = None;
            self.not_before = None;
        }
        self.is_open() && {
            self.position = Position::Closed;
            true
        }
    }

    /// When time alone changes something; `idle_since` tells of a process that runs and owes
    /// nothing.
    pub(super) fn next(&self, idle_since: impl Fn(Key) -> Option<Instant>) -> Option<Instant> {
        match self.position {
            Position::Closed => None,
            Position::Open(until) => Some(until),
            Position::Trial(key) => idle_since(key).map(|since| since + STEADY),
        }
    }

    /// Doubled with each death.
    fn delay(&self) -> Duration {
        let times = 2_u32.saturating_pow(self.deaths.saturating_sub(1));
        self.restart_delay.saturating_mul(times).min(self.max_restart_delay)
    }
}

impl<R> Pool<R> {
    /// A process died before it had answered anything, or could not be started.
    pub(super) fn note_death(&mut self, now: Instant, key: Key) {
        self.circuit.deaths = self.circuit.deaths.saturating_add(1);
        self.circuit.last_dead = self.circuit.last_dead.max(Some(key));
        self.circuit.not_before = Some(now + self.circuit.delay());
    }

    /// Opens the circuit where deaths have left nobody who could answer, or a trial has failed.
    pub(super) fn check_circuit(&mut self, now: Instant) {
        let until = now + self.circuit.delay();
        match self.circuit.position {
            Position::Closed
                if self.circuit.deaths < MOST_DEATHS
                    || self.circuit.not_before(now).is_none()
                    || self.is_one_live() => {}
            Position::Closed => {
                self.actions.push_back(Action::CircuitOpened(self.circuit.delay()));
                self.refuse_queue(Failure::CircuitOpen);
                self.open_circuit(until);
            }
            Position::Trial(key) if !self.is_alive(key) => {
                self.refuse_queue(Failure::CircuitOpen);
                self.open_circuit(until);
            }
            Position::Trial(_) | Position::Open(_) => {}
        }
    }

    /// Tries a process when the time has come, and closes the circuit when it lives.
    pub(super) fn try_circuit(&mut self, now: Instant) {
        match self.circuit.position {
            Position::Open(until) if now >= until => {
                let alive = self.processes.keys().copied().find(|&key| self.is_alive(key));
                let is_room = self.processes.len() < 2 * self.limits.max_processes;
                match alive {
                    Some(key) => self.circuit.position = Position::Trial(key),
                    None if is_room => {
                        self.circuit.position = Position::Trial(self.start(now));
                    }
                    None => self.open_circuit(now + self.circuit.delay()),
                }
            }
            Position::Trial(key) => {
                if self.idle_since(key).is_some_and(|since| now >= since + STEADY) {
                    self.circuit.position = Position::Closed;
                    self.actions.push_back(Action::CircuitClosed);
                }
            }
            Position::Closed | Position::Open(_) => {}
        }
    }

    /// Whether the one that is tried could take a request now or when it has started.
    pub(super) fn is_trial_free(&self) -> bool {
        let Position::Trial(key) = self.circuit.position else { return false };
        let is_free = |process: &Process<R>| process.owed.is_empty();
        self.queue.is_empty() && self.is_alive(key) && self.processes.get(&key).is_some_and(is_free)
    }

    /// Since when the process runs, if it runs and owes nothing.
    pub(super) fn idle_since(&self, key: Key) -> Option<Instant> {
        let process = self.processes.get(&key)?;
        let is_idle = process.state == State::Live && process.owed.is_empty();
        is_idle.then_some(process.since)
    }

    fn open_circuit(&mut self, until: Instant) {
        self.circuit.position = Position::Open(until);
        self.arm(Some(until));
    }

    fn is_alive(&self, key: Key) -> bool {
        let is_alive = |process: &Process<R>| !matches!(process.state, State::Ending(_));
        self.processes.get(&key).is_some_and(is_alive)
    }

    fn is_one_live(&self) -> bool {
        self.processes.values().any(|process| process.state == State::Live)
    }
}
