//! The keeper's thread: every process of the server, what is due for each, and the one loop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Registry, Token};
use rustix::process::{Pid, Signal};
use tracing::{debug, warn};

use super::child::{Child, End, Phase};
use super::members;
use super::order::{Order, ProcessId, Shared, SpawnError, WAKER};
use super::orphans;
use super::program::Program;
use super::spawn::{self, Berths, Spawned};
use super::standard_error::{Found, SHARE_BYTES};
use super::starts::{PATIENCE, Starts};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A stop does not wait for longer than that after SIGKILL: who is still there hangs in the kernel.
const GRACE_OF_THE_KERNEL: Duration = Duration::from_secs(1);

/// After the end of a process its standard error is read for so long, if somebody else has it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Between two looks at the standard error of a process: it costs the keeper a share each.
const PACE: Duration = Duration::from_millis(20);

/// Between two looks for who is left of process groups: each goes through all of /proc.
const MEMBERS_PACE: Duration = Duration::from_millis(20);

/// How often orphans are looked for.
const ORPHANS_PACE: Duration = Duration::from_secs(1);

/// A spawn takes its time; so many pass before the ends of processes are looked at again.
const SPAWNS_A_TURN: usize = 8;

const EVENTS_A_TURN: usize = 256;

/// Every process of a server.
pub(super) struct Processes {
    poll: Poll,
    shared: Arc<Shared>,
    berths: Berths,
    /// Those of pools, which few connections or many wait for, and those of connections.
    orders: [Receiver<Order>; 2],
    /// The first of the latter, which waits until others have done with their work.
    held: Option<Order>,
    starts: Starts,
    children: BTreeMap<usize, Child>,
    /// What is to be done for whom, and when. What has become needless is passed over.
    due: BTreeSet<(Instant, usize, Due)>,
    /// The next number of a process.
    next: usize,
    /// When it began to stop.
    stopping: Option<Instant>,
    /// The groups whose leaders have ended, and nobody who is left is watched.
    bereaved: HashMap<Pid, usize>,
    /// When these may be looked for.
    look_at: Instant,
    /// When orphans are looked for next; `None` = they do not come here.
    orphans: Option<Instant>,
    buffer: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The time that SIGTERM or the end of a leader gave is over.
    Kill,
    /// Its standard error may be read again.
    Look,
    /// Nobody is listened to any more who has its standard error.
    Forget,
}

impl Processes {
    pub(super) fn new(
        poll: Poll,
        shared: Arc<Shared>,
        orders: [Receiver<Order>; 2],
        berths: Berths,
    ) -> Self {
        Self {
            poll,
            shared,
            berths,
            orders,
            held: None,
            starts: Starts::new(),
            children: BTreeMap::new(),
            due: BTreeSet::new(),
            next: 0,
            stopping: None,
            bereaved: HashMap::new(),
            look_at: Instant::now(),
            orphans: orphans::come_here().then(Instant::now),
            buffer: vec![0; SHARE_BYTES].into(),
        }
    }

    /// Runs until the stop is done.
    pub(super) fn run(&mut self, panicked: impl Fn() -> bool) {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn(&mut events))) {
                Ok(true) => {}
                Ok(false) => break,
                // The table is whole after each step, so that the loop can start anew.
                Err(_) if panicked() => self.shared.is_stopping.store(true, Ordering::SeqCst),
                Err(_) => {}
            }
        }
        for (_, mut child) in mem::take(&mut self.children) {
            if child.phase != Phase::Over {
                let program = child.program();
                warn!(
                    listener = program.listener,
                    pid = child.id.pid(),
                    "a process outlives SIGKILL"
                );
            }
            child.hear_out(&mut self.buffer);
        }
    }

    /// Does what is to be done, then waits; says whether to go on.
    fn turn(&mut self, events: &mut Events) -> bool {
        let now = Instant::now();
        self.take_orders();
        self.take_ends();
        self.act(now);
        if self.shared.is_stopping.load(Ordering::SeqCst) && !self.stop(now) {
            return false;
        }
        match self.poll.poll(events, self.wait()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => panic!("epoll_wait fails: {error}"),
        }
        for event in &*events {
            match event.token() {
                WAKER => {}
                Token(token) if token % 2 == 0 => self.look_at_end(token / 2),
                Token(token) => self.look_at_words(token / 2),
            }
        }
        true
    }

    fn wait(&self) -> Option<Duration> {
        let [of_pools, behind] = &self.orders;
        let is_ordered = !of_pools.is_empty() || (self.held.is_none() && !behind.is_empty());
        if is_ordered || !self.shared.ends.lock().is_empty() {
            return Some(Duration::ZERO);
        }
        let held_until = self.held.as_ref().map(|order| order.ordered + PATIENCE);
        let start_at = held_until.map(|until| self.starts.wake().map_or(until, |at| at.min(until)));
        let first = self.due.first().map(|(at, ..)| *at);
        let latest = self.stopping.map(|since| since + GRACE + GRACE_OF_THE_KERNEL);
        let look_at = (!self.bereaved.is_empty()).then_some(self.look_at);
        let next = [start_at, first, latest, look_at, self.orphans].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    // ---- what is wanted ----

    fn take_orders(&mut self) {
        let most = if self.stopping.is_some() { usize::MAX } else { SPAWNS_A_TURN };
        for _ in 0..most {
            let Some(order) = self.next_order() else { break };
            self.take(order);
        }
    }

    fn next_order(&mut self) -> Option<Order> {
        let [first, behind] = &self.orders;
        if let Ok(order) = first.try_recv() {
            return Some(order);
        }
        if self.held.is_none() {
            self.held = behind.try_recv().ok();
        }
        let held = self.held.as_ref()?;
        let (ordered, program) = (held.ordered, name_of(&held.program));
        if self.may_start(ordered, program) { self.held.take() } else { None }
    }

    /// Whether the process of a connection may start now that was ordered then. If not, it is
    /// looked again, and whoever orders more need not wake this thread.
    fn may_start(&mut self, ordered: Instant, program: usize) -> bool {
        let now = Instant::now();
        let has_room = self.starts.has_room(now, program);
        let may_start = has_room || self.stopping.is_some() || now >= ordered + PATIENCE;
        self.shared.is_full.store(!may_start, Ordering::Relaxed);
        // An order whose sender has not seen this is seen by the look that follows.
        fence(Ordering::SeqCst);
        may_start
    }

    fn take(&mut self, order: Order) {
        let Order { program, environment, ends, connection, started, ended, .. } = order;
        let Some(ends) = ends() else { return started(Err(SpawnError::Unwanted)) };
        if self.shared.is_stopping.load(Ordering::SeqCst) {
            return started(Err(SpawnError::Stopped));
        }
        let spawned = match self.berths.spawn(&program, &environment, &ends) {
            Ok(spawned) => spawned,
            Err(error) => return started(Err(error)),
        };
        let Spawned { pid, pidfd, standard_error } = spawned;
        let id = ProcessId { number: self.next, pid: pid.as_raw_pid().cast_unsigned() };
        self.next += 1;
        debug!(listener = program.listener, pid = id.pid(), "process started");
        let is_survived = connection.is_some();
        let name = name_of(&program);
        let mut child = Child::new(id, program, (pid, pidfd), standard_error, ended, is_survived);
        let (end, said) = (Token(id.number * 2), said(id.number));
        if let Err(error) = child.register(self.poll.registry(), end, said) {
            spawn::discard(pid);
            return started(Err(error.into()));
        }
        self.shared.groups.insert(pid);
        self.children.insert(id.number, child);
        if let Some(watch) = connection {
            self.starts.begin(Instant::now(), name, id.pid(), watch);
        }
        started(Ok(id));
    }

    fn take_ends(&mut self) {
        let ends = mem::take(&mut *self.shared.ends.lock());
        for process in ends {
            self.end(process.number);
        }
    }

    fn end(&mut self, number: usize) {
        let Some(child) = self.children.get_mut(&number) else { return };
        if mem::replace(&mut child.is_told, true) {
            return;
        }
        child.signal(Signal::TERM);
        if child.phase == Phase::Running {
            child.phase = Phase::Ending;
            self.give_time(number);
        }
    }

    /// Who is there of its group is killed if it has not gone by then.
    fn give_time(&mut self, number: usize) {
        // From now on: this turn may have begun before it was asked for.
        self.due.insert((Instant::now() + GRACE, number, Due::Kill));
    }

    /// Says whether there is something left to wait for.
    fn stop(&mut self, now: Instant) -> bool {
        let since = *self.stopping.get_or_insert(now);
        self.take_orders();
        let numbers: Vec<_> = self.children.keys().copied().collect();
        for number in numbers {
            self.end(number);
        }
        let is_left = self.children.values().any(|child| child.phase != Phase::Over);
        is_left && now < since + GRACE + GRACE_OF_THE_KERNEL
    }

    // ---- what is due ----

    fn act(&mut self, now: Instant) {
        while let Some(&(at, number, due)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            match due {
                Due::Kill => self.kill(number, now),
                Due::Look => self.look_at_words(number),
                Due::Forget => {
                    if let Some(mut child) = self.children.remove(&number) {
                        child.hear_out(&mut self.buffer);
                    }
                }
            }
        }
        if !self.bereaved.is_empty() && self.look_at <= now {
            self.look_for_members(now);
        }
        if self.orphans.is_some_and(|at| at <= now) {
            self.orphans = Some(now + ORPHANS_PACE);
            orphans::reap(|pid| {
                self.children
                    .values()
                    .any(|child| child.id.pid() == pid && child.phase != Phase::Over)
            });
        }
    }

    fn kill(&mut self, number: usize, now: Instant) {
        let Some(child) = self.children.get_mut(&number) else { return };
        match child.phase {
            Phase::Ending => {
                let (listener, pid) = (&child.program().listener, child.id.pid());
                warn!(listener, pid, "a process ignored SIGTERM for 2 s and was killed");
                child.signal(Signal::KILL);
                child.phase = Phase::Killed;
            }
            Phase::Left => {
                let (listener, pid) = (&child.program().listener, child.id.pid());
                warn!(listener, pid, "what a process left was there for 2 s more and was killed");
                self.bury(number, now);
            }
            Phase::Running | Phase::Killed | Phase::Over => {}
        }
    }

    // ---- what processes do ----

    /// It, or who was watched of its group, may have ended.
    fn look_at_end(&mut self, number: usize) {
        let Some(child) = self.children.get_mut(&number) else { return };
        let is_left = child.phase == Phase::Left;
        if child.phase == Phase::Over || (!is_left && child.peek() == End::NotYet) {
            return;
        }
        // Mostly that is the end of it.
        let _ = (0..2).any(|_| child.read(&mut self.buffer) == Found::End);
        // In a pool one that was not told to end leaves nobody any time: who is left says nothing
        // that anybody waits for.
        let leaves_time = child.phase == Phase::Running && child.is_survived;
        if child.phase == Phase::Ending || leaves_time {
            child.reap();
        }
        if child.phase != Phase::Left || child.is_last() {
            return self.bury(number, Instant::now());
        }
        self.bereaved.insert(child.leader(), number);
        if leaves_time {
            self.give_time(number);
        }
    }

    /// Watches somebody of each group that is left without its leader. One that has nobody is over,
    /// but for zombies, whom another process is to reap.
    fn look_for_members(&mut self, now: Instant) {
        let groups = mem::take(&mut self.bereaved);
        let found = members::find(&groups);
        self.look_at = Instant::now() + MEMBERS_PACE;
        // Where nobody can tell who is there, all have the rest of their time.
        let Ok(mut found) = found else { return };
        for number in groups.into_values() {
            let Some(child) = self.children.get_mut(&number) else { continue };
            match found.remove(&number) {
                Some(member) => {
                    let end = Token(number * 2);
                    // The same where the kernel does not watch.
                    let _ = child.watch_member(self.poll.registry(), member, end);
                }
                None => self.bury(number, now),
            }
        }
    }

    fn bury(&mut self, number: usize, now: Instant) {
        let Some(child) = self.children.get_mut(&number) else { return };
        self.shared.groups.remove(child.leader());
        self.bereaved.remove(&child.leader());
        child.bury();
        if child.may_speak() {
            self.due.insert((now + LAST_WORDS, number, Due::Forget));
        } else {
            self.children.remove(&number);
        }
    }

    /// It may have said something.
    fn look_at_words(&mut self, number: usize) {
        let Some(child) = self.children.get_mut(&number) else { return };
        let found = child.read(&mut self.buffer);
        let now = Instant::now();
        let registry: &Registry = self.poll.registry();
        let watched = match found {
            Found::Some => {
                self.due.insert((now + PACE, number, Due::Look));
                child.ignore(registry)
            }
            Found::Nothing => child.watch(registry, said(number)),
            Found::End => Ok(()),
        };
        if let Err(error) = watched {
            // Its end is told of by the pidfd.
            debug!(%error, pid = child.id.pid(), "standard error is not read any more");
            child.hear_out(&mut self.buffer);
        }
        if !child.may_speak() && child.phase == Phase::Over {
            self.children.remove(&number);
        }
    }
}

/// What a program is called here, which lives as long as the server.
fn name_of(program: &Arc<Program>) -> usize {
    Arc::as_ptr(program).addr()
}

/// The token of a process's standard error.
fn said(number: usize) -> Token {
    Token(number * 2 + 1)
}
