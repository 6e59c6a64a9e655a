//! A shared pool of processes as a state machine: who is asked what, when one is started or ended,
//! and who is refused. Pure: time comes in as a value, and what is to be done comes out as actions.
//!
//! A request is given to a second process only where the first one provably read no byte of it:
//! nobody knows whether what was read was also carried out.

mod balance;
mod circuit;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use circuit::Circuit;

/// A process that has lived so long without being asked did not die at once.
pub(super) const STEADY: Duration = Duration::from_secs(5);

/// A full queue is gone through for clients that are gone no more often than that, a long one less.
const SWEEP: Duration = Duration::from_millis(10);

/// A process that has closed its output is given so long to end by itself.
pub(super) const LAST_BREATH: Duration = Duration::from_secs(1);

/// The bounds of a pool; `None` = without one.
#[derive(Debug, Clone)]
pub(in crate::server) struct Limits {
    pub(in crate::server) min_processes: usize,
    pub(in crate::server) max_processes: usize,
    /// Requests at one process at a time.
    pub(in crate::server) pipeline: usize,
    pub(in crate::server) max_queue: usize,
    pub(in crate::server) queue_timeout: Option<Duration>,
    /// From the write of a request to its reply.
    pub(in crate::server) reply_timeout: Option<Duration>,
    pub(in crate::server) idle_timeout: Option<Duration>,
    pub(in crate::server) max_requests: Option<u64>,
    pub(in crate::server) restart_delay: Duration,
    pub(in crate::server) max_restart_delay: Duration,
}

/// Names a process of the pool; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// What the pool wants done.
#[derive(Debug)]
pub(super) enum Action<R> {
    /// Start a process.
    Start(Key),
    /// Add [`Pool::unwritten`] to what the process reads.
    Write {
        process: Key,
        /// How long it waited for a process.
        waited: Duration,
    },
    /// The request gets no reply of a process.
    Fail(R, Failure),
    /// End the process, which is not asked again; its end has to be told all the same.
    End(Key),
    /// Requests are refused from now on, and a process is tried after so long.
    CircuitOpened(Duration),
    CircuitClosed,
}

/// What a line of a process is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<R> {
    /// The reply to this request, which was written so long ago.
    Reply(R, Duration),
    /// Nobody asked; the process is ended.
    Unasked,
    /// Nobody listens to the process any more.
    Unheard,
}

/// Why a request got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    QueueFull,
    QueueTimeout,
    CircuitOpen,
    StartFailed,
    /// Its process took longer than `reply_timeout`.
    ReplyTimeout,
    /// Its process ended, or wrote what is no reply.
    ProcessEnded,
    /// Nobody waits for a reply any more, and no process was asked.
    ClientGone,
}

/// Why the pool ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Idle,
    MaxRequests,
    Timeout,
    Protocol,
    /// It closed its output.
    HungUp,
    /// It closed its output, and did not end by itself.
    LivedOn,
    Stopped,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Waits,
    Works,
    Ends,
}

/// Processes by state.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) starting: usize,
    pub(super) idle: usize,
    pub(super) busy: usize,
    pub(super) ending: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Live,
    Ending(Why),
}

struct Process<R> {
    state: State,
    /// When it was ordered, and then when it started.
    since: Instant,
    /// When it closed its output.
    hung_up: Option<Instant>,
    /// In the order they were written.
    owed: VecDeque<Owed<R>>,
    /// How many of them were written, and not only given.
    written: usize,
    given: u64,
    has_replied: bool,
    /// It has been given its last request.
    is_retiring: bool,
}

impl<R> Process<R> {
    /// What it owes next, and from now on does not.
    fn take_first(&mut self) -> Option<Owed<R>> {
        let first = self.owed.pop_front()?;
        self.written = self.written.saturating_sub(1);
        Some(first)
    }
}

struct Owed<R> {
    request: Request<R>,
    written: Instant,
}

struct Request<R> {
    token: R,
    line: Vec<u8>,
    arrived: Instant,
}

/// The pool. `R` is what the answer to a request is given to.
///
/// Alive are processes that start or may be asked: at most `max_processes`. Beside them those that
/// end or do their last request, so that a replacement need not wait: at most twice as many in all.
pub(super) struct Pool<R> {
    limits: Limits,
    processes: BTreeMap<Key, Process<R>>,
    next_key: u64,
    /// In the order of arrival.
    queue: VecDeque<Request<R>>,
    /// When it was last gone through for those whose clients are gone.
    swept: Option<Instant>,
    /// Whether nobody waits for the answer any more.
    is_gone: fn(&R) -> bool,
    /// Since when, the one asked last on top: those that are not needed stay below and end.
    idle: Vec<(Key, Instant)>,
    starting: usize,
    alive: usize,
    /// Requests written behind another one to the same process.
    behind: usize,
    /// To be started for one that does its last request.
    replacements: usize,
    circuit: Circuit,
    /// When a process last answered.
    answered: Option<Instant>,
    actions: VecDeque<Action<R>>,
    /// Not later than the next moment at which time alone changes something.
    wake: Option<Instant>,
    is_stopping: bool,
}

impl<R> Pool<R> {
    /// Its processes are numbered from `first` on.
    pub(super) fn new(limits: Limits, first: u64, is_gone: fn(&R) -> bool) -> Self {
        Self {
            circuit: Circuit::new(limits.restart_delay, limits.max_restart_delay),
            limits,
            processes: BTreeMap::new(),
            next_key: first,
            queue: VecDeque::new(),
            swept: None,
            is_gone,
            idle: Vec::new(),
            starting: 0,
            alive: 0,
            behind: 0,
            replacements: 0,
            answered: None,
            actions: VecDeque::new(),
            wake: None,
            is_stopping: false,
        }
    }

    /// From the next request on a reply may take so long.
    pub(super) fn bound_replies(&mut self, reply_timeout: Option<Duration>) {
        self.limits.reply_timeout = reply_timeout;
    }

    /// The number of the next process.
    pub(super) fn next_key(&self) -> u64 {
        self.next_key
    }

    /// What is to be done next. To be asked after every call until there is nothing.
    pub(super) fn next_action(&mut self) -> Option<Action<R>> {
        self.actions.pop_front()
    }

    /// When to call [`Pool::tick`]; `None` = time alone changes nothing.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts {
            starting: self.starting,
            idle: self.idle.len(),
            busy: 0,
            ending: self.processes.len(),
        };
        let retiring = |process: &&Process<R>| process.is_retiring && process.state == State::Live;
        let retiring = match self.limits.max_requests {
            Some(_) => self.processes.values().filter(retiring).count(),
            None => 0,
        };
        counts.busy = self.alive + retiring - self.starting - self.idle.len();
        counts.ending -= self.alive + retiring;
        counts
    }

    /// Whether the process waits for a request, owes a reply or is on its way out; `None`: it is
    /// not there yet, or no more.
    pub(super) fn doing(&self, key: Key) -> Option<Doing> {
        let process = self.processes.get(&key)?;
        match process.state {
            State::Starting => None,
            State::Live if process.owed.is_empty() => Some(Doing::Waits),
            State::Live => Some(Doing::Works),
            State::Ending(_) => Some(Doing::Ends),
        }
    }

    /// Why the process is on its way out, if it is.
    pub(super) fn why(&self, key: Key) -> Option<Why> {
        match self.processes.get(&key)?.state {
            State::Ending(why) => Some(why),
            State::Starting | State::Live => None,
        }
    }

    /// The next line that the process is to read.
    pub(super) fn unwritten(&mut self, key: Key) -> Option<&[u8]> {
        let process = self.processes.get_mut(&key)?;
        let owed = process.owed.get(process.written)?;
        process.written += 1;
        Some(&owed.request.line)
    }

    /// Whether the process has ever answered.
    pub(super) fn has_replied(&self, key: Key) -> bool {
        self.processes.get(&key).is_some_and(|process| process.has_replied)
    }

    pub(super) fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// Whether requests are refused because no process lives long enough to answer.
    #[cfg(test)]
    pub(super) fn is_circuit_open(&self) -> bool {
        self.circuit.is_open()
    }

    /// A message that wants a reply; `line` is what the process is to read.
    pub(super) fn request(&mut self, now: Instant, token: R, line: Vec<u8>) {
        let request = Request { token, line, arrived: now };
        let refusal = if self.is_stopping {
            Some(Failure::ProcessEnded)
        } else if self.circuit.is_open() && !self.is_trial_free() {
            Some(Failure::CircuitOpen)
        } else if self.is_full() && !self.make_room(now) {
            Some(Failure::QueueFull)
        } else {
            None
        };
        if let Some(failure) = refusal {
            return self.actions.push_back(Action::Fail(request.token, failure));
        }
        self.queue.push_back(request);
        self.balance(now);
        if !self.queue.is_empty() {
            self.arm(self.limits.queue_timeout.map(|timeout| now + timeout));
        }
    }

    /// The process that was to be started runs.
    pub(super) fn started(&mut self, now: Instant, key: Key) {
        let process = self.processes.get_mut(&key);
        let Some(process) = process.filter(|process| process.state == State::Starting) else {
            // It was to end before it had begun, or the pool before this one had ordered it.
            return self.actions.push_back(Action::End(key));
        };
        process.since = now;
        process.state = State::Live;
        self.starting -= 1;
        self.make_idle(now, key);
        if self.circuit.is_open() {
            self.arm(Some(now + STEADY));
        }
        self.balance(now);
    }

    /// The process that was to be started does not run.
    pub(super) fn start_failed(&mut self, now: Instant, key: Key) {
        let Some(process) = self.processes.remove(&key) else { return };
        if process.state == State::Starting {
            self.starting -= 1;
            self.alive -= 1;
        }
        if self.alive == 0 {
            self.refuse_queue(Failure::StartFailed);
        }
        self.note_death(now, key);
        self.check_circuit(now);
        self.balance(now);
    }

    /// The process wrote a line. Nobody is given more work before [`Pool::settle`], which has to
    /// follow when all is read that is there: what is left over then was not asked for by who
    /// comes next.
    pub(super) fn line(&mut self, now: Instant, key: Key) -> Line<R> {
        let Some(process) = self.processes.get_mut(&key) else { return Line::Unheard };
        if process.state != State::Live {
            return Line::Unheard;
        }
        let Some(owed) = process.take_first() else {
            self.end(key, Why::Protocol);
            return Line::Unasked;
        };
        process.has_replied = true;
        self.answered = Some(now);
        let is_last = process.owed.is_empty();
        let is_retiring = process.is_retiring;
        if self.circuit.note_reply(key) {
            self.actions.push_back(Action::CircuitClosed);
        }
        match (is_last, is_retiring) {
            (false, _) => self.behind -= 1,
            (true, true) => self.end(key, Why::MaxRequests),
            (true, false) => self.make_idle(now, key),
        }
        Line::Reply(owed.request.token, now.saturating_duration_since(owed.written))
    }

    /// All lines that are there were told: who is free is given what waits.
    pub(super) fn settle(&mut self, now: Instant) {
        self.balance(now);
    }

    /// What the process wrote can be no reply.
    pub(super) fn violated(&mut self, now: Instant, key: Key) {
        self.fail_first(now, key, Failure::ProcessEnded, Why::Protocol);
    }

    /// The process has closed its output: it cannot answer any more.
    pub(super) fn hung_up(&mut self, now: Instant, key: Key) {
        let is_live = self.processes.get(&key).is_some_and(|process| process.state == State::Live);
        if !is_live {
            return;
        }
        self.leave(key, Why::HungUp);
        if let Some(process) = self.processes.get_mut(&key) {
            process.hung_up = Some(now);
        }
        self.arm(Some(now + LAST_BREATH));
        self.balance(now);
    }

    /// The process has ended, and everything that it wrote has been told. Of the bytes written to
    /// it, it did not read the last `unread`. Returns why the pool had ended it, if it had.
    pub(super) fn ended(&mut self, now: Instant, key: Key, unread: usize) -> Option<Why> {
        let state = self.processes.get(&key)?.state;
        let why = match state {
            State::Ending(why) => Some(why),
            State::Starting | State::Live => {
                self.leave(key, Why::HungUp);
                None
            }
        };
        let process = self.processes.remove(&key)?;
        let was_asked = !process.owed.is_empty() || why == Some(Why::Timeout);
        let asked = process.owed.front().map(|owed| owed.written);
        let was_steady = asked.is_some_and(|at| at >= process.since + STEADY);
        let was_brief = now.saturating_duration_since(process.since) < STEADY;
        let is_ours = matches!(why, Some(Why::Idle | Why::MaxRequests | Why::Stopped));
        let written: usize = process.owed.iter().map(|owed| owed.request.line.len()).sum();
        let has_read = written > unread || why == Some(Why::Timeout);
        self.put_back(process.owed, unread);
        // While others answer, it is the message that kills, and not the program that is broken.
        let others_answer = self.answered.is_some_and(|at| now < at + STEADY);
        if process.has_replied || (has_read && others_answer) {
            self.circuit.allow_one();
        } else if !is_ours {
            // One that lived long before it was asked died of that message, or was killed.
            if (was_asked && !was_steady) || was_brief || why == Some(Why::Protocol) {
                self.note_death(now, key);
            } else {
                self.circuit.pause(now);
            }
        }
        self.check_circuit(now);
        self.balance(now);
        why.filter(|&why| why != Why::HungUp)
    }

    /// Does what is due at `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        self.time_out_queue(now);
        let late: Vec<Key> = self.late(now).collect();
        for key in late {
            self.fail_first(now, key, Failure::ReplyTimeout, Why::Timeout);
        }
        for (key, process) in &mut self.processes {
            let has_breathed = process.hung_up.is_some_and(|at| now >= at + LAST_BREATH);
            if process.state == State::Ending(Why::HungUp) && has_breathed {
                process.state = State::Ending(Why::LivedOn);
                self.actions.push_back(Action::End(*key));
            }
        }
        self.try_circuit(now);
        self.balance(now);
        self.end_idle(now);
        self.wake = None;
        self.arm(self.next(now));
    }

    /// Starts the least number of processes; nothing is started before.
    pub(super) fn begin(&mut self, now: Instant) {
        self.balance(now);
    }

    /// Nothing is asked any more: every process is to end, and what was asked fails.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.refuse_queue(Failure::ProcessEnded);
        let keys: Vec<Key> = self.processes.keys().copied().collect();
        for key in keys {
            let Some(process) = self.processes.get_mut(&key) else { continue };
            for owed in process.owed.drain(..).rev() {
                self.actions.push_back(Action::Fail(owed.request.token, Failure::ProcessEnded));
            }
            match process.state {
                // Its end is asked for when it has begun.
                State::Starting => self.leave(key, Why::Stopped),
                State::Live => self.end(key, Why::Stopped),
                State::Ending(_) => {}
            }
        }
        self.behind = 0;
    }
}

#[cfg(test)]
mod tests;
