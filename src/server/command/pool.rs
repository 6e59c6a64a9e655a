//! A shared pool of processes as a state machine: who is asked what, when one is started or ended,
//! and who is refused. Pure: time comes in as a value, and what is to be done comes out as actions.
//!
//! A request is given to a second process only where the first one provably read no byte of it:
//! nobody knows whether what was read was also carried out.

mod circuit;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use circuit::Circuit;

/// A process that has lived so long without being asked did not die at once.
pub(super) const STEADY: Duration = Duration::from_secs(5);

/// A process that has closed its output is given so long to end by itself.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// The bounds of a pool; `None` = without one.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) min_processes: usize,
    pub(super) max_processes: usize,
    /// Requests at one process at a time.
    pub(super) pipeline: usize,
    pub(super) max_queue: usize,
    pub(super) queue_timeout: Option<Duration>,
    /// From the write of a request to its reply.
    pub(super) reply_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_requests: Option<u64>,
    pub(super) restart_delay: Duration,
    pub(super) max_restart_delay: Duration,
}

/// Names a process of the pool; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u64);

/// What the pool wants done.
#[derive(Debug)]
pub(super) enum Action<R> {
    /// Start a process.
    Start(Key),
    /// Add the line to what the process reads.
    Write {
        process: Key,
        line: Arc<[u8]>,
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
    Stopped,
}

/// Processes by state.
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
    since: Instant,
    /// In the order they were written.
    owed: VecDeque<Owed<R>>,
    given: u64,
    has_replied: bool,
    /// It has been given its last request.
    is_retiring: bool,
}

struct Owed<R> {
    request: Request<R>,
    written: Instant,
}

struct Request<R> {
    token: R,
    line: Arc<[u8]>,
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
    /// Since when, the one asked last on top: those that are not needed stay below and end.
    idle: Vec<(Key, Instant)>,
    starting: usize,
    alive: usize,
    /// Requests written behind another one to the same process.
    behind: usize,
    /// To be started for one that does its last request.
    replacements: usize,
    circuit: Circuit,
    actions: VecDeque<Action<R>>,
    /// Not later than the next moment at which time alone changes something.
    wake: Option<Instant>,
    is_stopping: bool,
}

impl<R> Pool<R> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            circuit: Circuit::new(limits.restart_delay, limits.max_restart_delay),
            limits,
            processes: BTreeMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            idle: Vec::new(),
            starting: 0,
            alive: 0,
            behind: 0,
            replacements: 0,
            actions: VecDeque::new(),
            wake: None,
            is_stopping: false,
        }
    }

    /// What is to be done next. To be asked after every call until there is nothing.
    pub(super) fn next_action(&mut self) -> Option<Action<R>> {
        self.actions.pop_front()
    }

    /// When to call [`Pool::tick`]; `None` = time alone changes nothing.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

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

    pub(super) fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// Whether requests are refused because no process lives long enough to answer.
    pub(super) fn is_circuit_open(&self) -> bool {
        self.circuit.is_open()
    }

    /// A message that wants a reply; `line` is what the process is to read.
    pub(super) fn request(&mut self, now: Instant, token: R, line: Arc<[u8]>) {
        let request = Request { token, line, arrived: now };
        let refusal = if self.is_stopping {
            Some(Failure::ProcessEnded)
        } else if self.circuit.is_open() && !self.is_trial_free() {
            Some(Failure::CircuitOpen)
        } else if self.queue.len() >= self.limits.max_queue && self.free().is_none() {
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
        let Some(process) = self.processes.get_mut(&key) else { return };
        process.since = now;
        if process.state != State::Starting {
            // It was to end before it had begun.
            return self.actions.push_back(Action::End(key));
        }
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
        self.note_death(now);
        self.check_circuit(now);
        self.balance(now);
    }

    /// The process wrote a line. It answers the returned request, which was written so long ago;
    /// `None`: nobody asked, and the process is ended.
    pub(super) fn reply(&mut self, now: Instant, key: Key) -> Option<(R, Duration)> {
        let process = self.processes.get_mut(&key)?;
        if process.state != State::Live {
            return None;
        }
        let Some(owed) = process.owed.pop_front() else {
            self.end(key, Why::Protocol);
            self.balance(now);
            return None;
        };
        process.has_replied = true;
        let is_last = process.owed.is_empty();
        let is_retiring = process.is_retiring;
        if self.circuit.note_reply() {
            self.actions.push_back(Action::CircuitClosed);
        }
        match (is_last, is_retiring) {
            (false, _) => self.behind -= 1,
            (true, true) => self.end(key, Why::MaxRequests),
            (true, false) => self.make_idle(now, key),
        }
        self.balance(now);
        Some((owed.request.token, now.saturating_duration_since(owed.written)))
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
            process.since = now;
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
        let was_brief = now.saturating_duration_since(process.since) < STEADY;
        let is_ours = matches!(why, Some(Why::Idle | Why::MaxRequests | Why::Stopped));
        self.put_back(process.owed, unread);
        if !is_ours && !process.has_replied {
            if was_asked || was_brief || why == Some(Why::Protocol) {
                self.note_death(now);
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
            if process.state == State::Ending(Why::HungUp) && now >= process.since + LAST_BREATH {
                process.state = State::Ending(Why::Protocol);
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

impl<R> Pool<R> {
    fn arm(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.wake.is_none_or(|wake| at < wake)
        {
            self.wake = Some(at);
        }
    }

    /// Gives what waits to whom it can be given to, and starts what is wanted.
    fn balance(&mut self, now: Instant) {
        while !self.queue.is_empty()
            && let Some(key) = self.free()
        {
            let request = self.queue.pop_front().expect("it is not empty");
            self.give(now, key, request);
        }
        while self.is_one_wanted() {
            if let Some(at) = self.circuit.not_before(now) {
                return self.arm(Some(at));
            }
            self.start(now);
            self.circuit.note_start(now);
        }
    }

    /// Whom to ask next: an idle one, else the one with the least to do that may be given more.
    fn free(&self) -> Option<Key> {
        if let Some(&(key, _)) = self.idle.last() {
            return Some(key);
        }
        if self.limits.pipeline == 1 {
            return None;
        }
        let has_room = |process: &Process<R>| {
            process.state == State::Live
                && !process.is_retiring
                && process.owed.len() < self.limits.pipeline
        };
        let processes = self.processes.iter().filter(|(_, process)| has_room(process));
        processes.min_by_key(|(_, process)| process.owed.len()).map(|(key, _)| *key)
    }

    fn give(&mut self, now: Instant, key: Key, request: Request<R>) {
        self.idle.pop_if(|(idle, _)| *idle == key);
        let process = self.processes.get_mut(&key).expect("it is free");
        self.behind += usize::from(!process.owed.is_empty());
        process.given += 1;
        let waited = now.saturating_duration_since(request.arrived);
        self.actions.push_back(Action::Write { process: key, line: request.line.clone(), waited });
        process.owed.push_back(Owed { request, written: now });
        if self.limits.max_requests.is_some_and(|most| process.given >= most) {
            process.is_retiring = true;
            self.alive -= 1;
            self.replacements += 1;
        }
        self.arm(self.limits.reply_timeout.map(|timeout| now + timeout));
    }

    fn is_one_wanted(&self) -> bool {
        let waiting = self.queue.len() + self.behind;
        let has_demand = self.starting < waiting || self.replacements > 0;
        let is_wanted =
            self.alive < self.limits.min_processes || (has_demand && self.idle.is_empty());
        is_wanted
            && !self.is_stopping
            && !self.circuit.is_open()
            && self.alive < self.limits.max_processes
            && self.processes.len() < 2 * self.limits.max_processes
    }

    fn start(&mut self, now: Instant) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        let process = Process {
            state: State::Starting,
            since: now,
            owed: VecDeque::new(),
            given: 0,
            has_replied: false,
            is_retiring: false,
        };
        self.processes.insert(key, process);
        self.starting += 1;
        self.alive += 1;
        self.replacements = self.replacements.saturating_sub(1);
        self.actions.push_back(Action::Start(key));
        key
    }

    fn make_idle(&mut self, now: Instant, key: Key) {
        self.idle.push((key, now));
        if self.alive > self.limits.min_processes {
            self.arm(self.limits.idle_timeout.map(|timeout| now + timeout));
        }
    }

    /// From now on the process is not asked.
    fn leave(&mut self, key: Key, why: Why) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        match process.state {
            State::Starting => self.starting -= 1,
            State::Live => {
                self.idle.retain(|(idle, _)| *idle != key);
                self.behind -= process.owed.len().saturating_sub(1);
            }
            State::Ending(_) => return,
        }
        self.alive -= usize::from(!process.is_retiring);
        process.state = State::Ending(why);
    }

    fn end(&mut self, key: Key, why: Why) {
        self.leave(key, why);
        self.actions.push_back(Action::End(key));
    }

    /// Ends a process, and the wait of whom it would have had to answer next. Those behind wait for
    /// its end, which shows what it has read of them.
    fn fail_first(&mut self, now: Instant, key: Key, failure: Failure, why: Why) {
        let is_live = |process: &&mut Process<R>| process.state == State::Live;
        if self.processes.get_mut(&key).filter(is_live).is_none() {
            return;
        }
        self.end(key, why);
        let process = self.processes.get_mut(&key).expect("it has not ended yet");
        if let Some(owed) = process.owed.pop_front() {
            self.actions.push_back(Action::Fail(owed.request.token, failure));
        }
        self.balance(now);
    }

    /// What an ended process owed: the last of it, of which it read nothing, is asked again.
    fn put_back(&mut self, mut owed: VecDeque<Owed<R>>, mut unread: usize) {
        while let Some(last) = owed.pop_back_if(|last| last.request.line.len() <= unread) {
            unread -= last.request.line.len();
            let request = last.request;
            let at = self.queue.partition_point(|other| other.arrived < request.arrived);
            self.arm(self.limits.queue_timeout.map(|timeout| request.arrived + timeout));
            self.queue.insert(at, request);
        }
        for owed in owed {
            self.actions.push_back(Action::Fail(owed.request.token, Failure::ProcessEnded));
        }
    }

    fn refuse_queue(&mut self, failure: Failure) {
        for request in self.queue.drain(..) {
            self.actions.push_back(Action::Fail(request.token, failure));
        }
    }

    fn time_out_queue(&mut self, now: Instant) {
        let Some(timeout) = self.limits.queue_timeout else { return };
        while let Some(request) = self.queue.pop_front_if(|first| now >= first.arrived + timeout) {
            self.actions.push_back(Action::Fail(request.token, Failure::QueueTimeout));
        }
    }

    /// Processes that have owed their next reply for too long.
    fn late(&self, now: Instant) -> impl Iterator<Item = Key> {
        let timeout = self.limits.reply_timeout;
        let is_late = move |process: &Process<R>| {
            let first = process.owed.front();
            process.state == State::Live
                && first.zip(timeout).is_some_and(|(first, timeout)| now >= first.written + timeout)
        };
        let late = self.processes.iter().filter(move |(_, process)| is_late(process));
        late.map(|(key, _)| *key)
    }

    fn end_idle(&mut self, now: Instant) {
        let Some(timeout) = self.limits.idle_timeout else { return };
        while self.is_one_surplus()
            && let Some(&(key, since)) = self.idle.first()
            && now >= since + timeout
        {
            self.end(key, Why::Idle);
        }
    }

    /// While the circuit is open, the process that is tried stays.
    fn is_one_surplus(&self) -> bool {
        self.alive > self.limits.min_processes && !self.circuit.is_open()
    }

    /// The exact next moment at which time alone changes something.
    fn next(&self, now: Instant) -> Option<Instant> {
        let limits = &self.limits;
        let after = |since: Instant, timeout: Option<Duration>| timeout.map(|time| since + time);
        let of_process = |process: &Process<R>| match process.state {
            State::Live => {
                process.owed.front().and_then(|owed| after(owed.written, limits.reply_timeout))
            }
            State::Ending(Why::HungUp) => Some(process.since + LAST_BREATH),
            State::Starting | State::Ending(_) => None,
        };
        let queue = self.queue.front().and_then(|first| after(first.arrived, limits.queue_timeout));
        let idle = self.idle.first().filter(|_| self.is_one_surplus());
        let idle = idle.and_then(|(_, since)| after(*since, limits.idle_timeout));
        let start = self.is_one_wanted().then(|| self.circuit.not_before(now)).flatten();
        let trial = self.circuit.next(|key| self.idle_since(key));
        let processes = self.processes.values().filter_map(of_process);
        processes.chain([queue, idle, start, trial].into_iter().flatten()).min()
    }
}

#[cfg(test)]
mod tests;
