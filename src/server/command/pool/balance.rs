//! Who is given what, who is started and who is ended, so that requests and processes balance.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Action, Failure, Key, LAST_BREATH, Owed, Pool, Process, Request, SWEEP, State, Why};

impl<R> Pool<R> {
    pub(super) fn arm(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.wake.is_none_or(|wake| at < wake)
        {
            self.wake = Some(at);
        }
    }

    /// Gives what waits to whom it can be given to, and starts what is wanted.
    pub(super) fn balance(&mut self, now: Instant) {
        if self.is_settled() {
            return;
        }
        while !self.queue.is_empty()
            && let Some(key) = self.free()
        {
            let request = self.queue.pop_front().expect("it is not empty");
            if (self.is_gone)(&request.token) {
                self.actions.push_back(Action::Fail(request.token, Failure::ClientGone));
            } else {
                self.give(now, key, request);
            }
        }
        while self.is_one_wanted() {
            if let Some(at) = self.circuit.not_before(now) {
                return self.arm(Some(at));
            }
            self.start(now);
            self.circuit.note_start(now);
        }
    }

    /// Whether nobody waits and nobody is wanted; at a glance, as it is asked for each message.
    fn is_settled(&self) -> bool {
        let waiting = self.queue.len() + self.behind + self.replacements;
        waiting == 0 && self.alive >= self.limits.min_processes
    }

    /// Whether a request would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.max_queue && self.free().is_none()
    }

    /// Requests whose clients are gone give their places up; yes: there is room now.
    pub(super) fn make_room(&mut self, now: Instant) -> bool {
        // In proportion to what it costs.
        let pause = SWEEP * (1 + u32::try_from(self.queue.len() / 10_000).unwrap_or(u32::MAX));
        if self.swept.is_some_and(|swept| now < swept + pause) {
            return false;
        }
        self.swept = Some(now);
        let waiting = std::mem::take(&mut self.queue).into_iter();
        let (gone, waiting) = waiting.partition(|request| (self.is_gone)(&request.token));
        self.queue = waiting;
        let gone: VecDeque<Request<R>> = gone;
        let fail = |request: Request<R>| Action::Fail(request.token, Failure::ClientGone);
        self.actions.extend(gone.into_iter().map(fail));
        !self.is_full()
    }

    /// Whom to ask next: an idle one, else the one with the least to do that may be given more.
    pub(super) fn free(&self) -> Option<Key> {
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

    pub(super) fn give(&mut self, now: Instant, key: Key, request: Request<R>) {
        self.idle.pop_if(|(idle, _)| *idle == key);
        let process = self.processes.get_mut(&key).expect("it is free");
        self.behind += usize::from(!process.owed.is_empty());
        process.given += 1;
        let waited = now.saturating_duration_since(request.arrived);
        self.actions.push_back(Action::Write { process: key, waited });
        process.owed.push_back(Owed { request, written: now });
        if self.limits.max_requests.is_some_and(|most| process.given >= most) {
            process.is_retiring = true;
            self.alive -= 1;
            self.replacements += 1;
        }
        self.arm(self.limits.reply_timeout.map(|timeout| now + timeout));
    }

    pub(super) fn is_one_wanted(&self) -> bool {
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

    pub(super) fn start(&mut self, now: Instant) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        let process = Process {
            state: State::Starting,
            since: now,
            hung_up: None,
            owed: VecDeque::new(),
            written: 0,
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

    pub(super) fn make_idle(&mut self, now: Instant, key: Key) {
        self.idle.push((key, now));
        if self.alive > self.limits.min_processes {
            self.arm(self.limits.idle_timeout.map(|timeout| now + timeout));
        }
    }

    /// From now on the process is not asked.
    pub(super) fn leave(&mut self, key: Key, why: Why) {
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

    pub(super) fn end(&mut self, key: Key, why: Why) {
        self.leave(key, why);
        self.actions.push_back(Action::End(key));
    }

    /// Ends a process, and the wait of whom it would have had to answer next. Those behind wait for
    /// its end, which shows what it has read of them.
    pub(super) fn fail_first(&mut self, now: Instant, key: Key, failure: Failure, why: Why) {
        let is_live = |process: &&mut Process<R>| process.state == State::Live;
        if self.processes.get_mut(&key).filter(is_live).is_none() {
            return;
        }
        self.end(key, why);
        let process = self.processes.get_mut(&key).expect("it has not ended yet");
        if let Some(owed) = process.take_first() {
            self.actions.push_back(Action::Fail(owed.request.token, failure));
        }
        self.balance(now);
    }

    /// What an ended process owed: the last of it, of which it read nothing, is asked again.
    pub(super) fn put_back(&mut self, mut owed: VecDeque<Owed<R>>, mut unread: usize) {
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

    pub(super) fn refuse_queue(&mut self, failure: Failure) {
        for request in self.queue.drain(..) {
            self.actions.push_back(Action::Fail(request.token, failure));
        }
    }

    pub(super) fn time_out_queue(&mut self, now: Instant) {
        let Some(timeout) = self.limits.queue_timeout else { return };
        while let Some(request) = self.queue.pop_front_if(|first| now >= first.arrived + timeout) {
            self.actions.push_back(Action::Fail(request.token, Failure::QueueTimeout));
        }
    }

    /// Processes that have owed their next reply for too long.
    pub(super) fn late(&self, now: Instant) -> impl Iterator<Item = Key> {
        let timeout = self.limits.reply_timeout;
        let is_late = move |process: &Process<R>| {
            let first = process.owed.front();
            process.state == State::Live
                && first.zip(timeout).is_some_and(|(first, timeout)| now >= first.written + timeout)
        };
        let late = self.processes.iter().filter(move |(_, process)| is_late(process));
        late.map(|(key, _)| *key)
    }

    pub(super) fn end_idle(&mut self, now: Instant) {
        let Some(timeout) = self.limits.idle_timeout else { return };
        while self.is_one_surplus()
            && let Some(&(key, since)) = self.idle.first()
            && now >= since + timeout
        {
            self.end(key, Why::Idle);
        }
    }

    /// While the circuit is open, the process that is tried stays.
    pub(super) fn is_one_surplus(&self) -> bool {
        self.alive > self.limits.min_processes && !self.circuit.is_open()
    }

    /// The exact next moment at which time alone changes something.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let limits = &self.limits;
        let after = |since: Instant, timeout: Option<Duration>| timeout.map(|time| since + time);
        let of_process = |process: &Process<R>| match process.state {
            State::Live => {
                process.owed.front().and_then(|owed| after(owed.written, limits.reply_timeout))
            }
            State::Ending(Why::HungUp) => process.hung_up.map(|at| at + LAST_BREATH),
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
