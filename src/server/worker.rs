//! A worker: one thread that owns its connections and serves whichever has input. It waits in one
//! place, in epoll, and blocks on nothing else.

mod arriving;
mod inspection;
mod leaving;
mod mail;
mod programs;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tracing::error;

use crate::config::LogLevel;
use crate::connection::{
    Cause, Connection, Conversation, Expiry, Outcome, Outgoing, RECEIVE_BUFFER_BYTES, Services,
    Turn,
};
use crate::metrics::{Instruments, Tally, WorkerRecorders};

use super::admit::Slot;
use super::alarm::Alarm;
use super::command::{Home, Reporter};
use super::errands::Errands;
use super::failures::Failures;
use super::inspect::Survey;
use super::lifecycle::Lifecycle;
use super::pool::{Inboxes, Place, Seat};

pub(super) use programs::Post;

/// The waker's token; slots never reach it.
pub(super) const WAKER: Token = Token(usize::MAX);

/// The alarm's.
pub(super) const ALARM: Token = Token(usize::MAX - 1);

/// Events taken from one wait.
const EVENTS: usize = 1024;

/// Taken from each inbox between two waits, so that a flood does not hold up conversations.
const INBOX_ITEMS_A_TURN: usize = 128;

/// What all workers look at.
pub(super) struct Shared {
    pub(super) instruments: Arc<Instruments>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) failures: Arc<Failures>,
    /// Workers that a drain has not emptied yet.
    pub(super) occupied: AtomicUsize,
    /// The ways to those with programs.
    pub(super) homes: Vec<Reporter>,
    /// The level of the line at each close.
    pub(super) close_level: LogLevel,
}

/// One worker's own state. Fields of an [`Entry`] are dropped in their order: the socket is closed
/// before its place and slot are given back.
pub(super) struct Worker {
    shared: Arc<Shared>,
    conversations: Vec<Arc<Conversation>>,
    seat: Arc<Seat>,
    services: Services,
    inboxes: Inboxes,
    poll: Poll,
    alarm: Alarm,
    connections: Slab<Entry>,
    /// Never used twice: a late reply names its connection by it.
    next_generation: u64,
    /// Connections with work left that no event will tell of.
    run_again: VecDeque<(usize, u64)>,
    timers: super::timers::Timers,
    due: Vec<usize>,
    buffer: Box<[u8]>,
    outgoing: Outgoing,
    /// Whose turn it is: if the loop panics, what it had gathered is lost to this connection.
    in_turn: Option<usize>,
    tallies: Vec<Tally>,
    recorders: WorkerRecorders,
    errands: Errands,
    /// When it last came out of its wait.
    began: Instant,
    /// When it last lay down.
    lay_down: Instant,
    /// How long it had been up then.
    worked: Duration,
    /// What epoll told of last has been there no longer than since then.
    there_since: Instant,
    /// An answer under way to who wants to see the connections.
    survey: Option<Survey>,
    /// The programs that live here.
    home: Option<Box<Home>>,
    has_begun: bool,
    is_draining: bool,
    /// Said that no connection is left.
    has_left: bool,
}

/// A worker's thread, and how its end is told.
pub(super) struct WorkerThread {
    pub(super) thread: JoinHandle<()>,
    /// Disconnected when the thread has ended, in whatever way.
    pub(super) ended: Receiver<()>,
}

struct Entry {
    connection: Connection,
    generation: u64,
    is_write_registered: bool,
    is_queued: bool,
    _place: Place,
    _slot: Slot,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, post: Post, origin: Instant) -> Self {
        let Post { seat, inboxes, poll, alarm, home, conversations } = post;
        let panics = shared.instruments.worker_panics.clone();
        let services = Services { mailbox: seat.clone(), panics };
        Self {
            tallies: vec![Tally::default(); conversations.len()],
            conversations,
            recorders: shared.instruments.worker_recorders(),
            shared,
            services,
            seat,
            inboxes,
            poll,
            alarm,
            connections: Slab::new(),
            next_generation: 0,
            run_again: VecDeque::new(),
            timers: super::timers::Timers::new(origin),
            due: Vec::new(),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into(),
            outgoing: Outgoing::default(),
            errands: Errands::default(),
            in_turn: None,
            began: origin,
            lay_down: origin,
            worked: Duration::ZERO,
            there_since: origin,
            survey: None,
            home,
            has_begun: false,
            is_draining: false,
            has_left: false,
        }
    }

    /// Works until the drain is done. A panic of the loop itself costs its connections, not the
    /// worker; only a row of them costs the server.
    pub(super) fn run(mut self) {
        self.shared.instruments.workers_alive.inc();
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            self.shared.instruments.worker_panics.inc();
            self.recover();
            // What was rung for is still in the inboxes.
            self.seat.doorbell().keep_ringing();
            if self.shared.failures.note(Instant::now()) {
                self.shared.instruments.workers_alive.dec();
                return self.refuse();
            }
        }
        self.shared.instruments.workers_alive.dec();
    }

    /// Wait, serve, again.
    fn serve(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        self.begin_programs();
        while !self.is_done() {
            self.settle();
            let is_short = self.lie_down();
            let polled = self.poll.poll(&mut events, is_short.then_some(Duration::ZERO));
            let began = self.get_up();
            match polled {
                Ok(()) => events.iter().for_each(|event| self.take_event(event)),
                // A stop and a continue interrupt the wait. Nothing may be judged late before the
                // events have been seen that came meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("epoll_wait failed on a set that is ours: {error}"),
            }
            let is_called = self.seat.doorbell().take_ring();
            if is_called {
                self.take_mail();
            }
            self.run_again();
            if is_called {
                self.take_arrivals();
            }
            if self.home.is_some() {
                self.serve_programs(is_called);
            }
            self.take_due(began);
            self.take_drain();
            if is_called || self.survey.is_some() {
                self.answer_questions(began);
            }
            if self.errands.is_due(began) {
                self.run_errands(began);
            }
        }
        self.end_programs();
        self.settle();
        // Else it would show as stalled until the stop is over.
        self.seat.end_turn(self.began.elapsed());
    }

    /// Says that this worker is up, and since when what woke it may have been there: if it slept
    /// for longer than it had worked, it was woken at once; if not, that came while it worked.
    fn get_up(&mut self) -> Instant {
        self.seat.doorbell().get_up();
        let began = Instant::now();
        let slept = began.saturating_duration_since(self.lay_down);
        self.there_since = if slept > self.worked { began } else { self.began };
        self.began = began;
        self.seat.begin_turn(began);
        began
    }

    /// Says that this worker waits, and sets its alarm; yes: there is no time to wait.
    fn lie_down(&mut self) -> bool {
        let now = Instant::now();
        self.lay_down = now;
        self.worked = now.saturating_duration_since(self.began);
        self.seat.end_turn(self.worked);
        if !self.run_again.is_empty() {
            return true;
        }
        self.seat.doorbell().lie_down();
        let has_news = self.seat.doorbell().has_rung()
            || self.survey.is_some()
            || self.home.as_deref().is_some_and(Home::is_busy)
            || (!self.is_draining && self.shared.lifecycle.drain_until().is_some());
        let until = [self.timers.next(), self.shared.lifecycle.drain_until(), self.errands.next()];
        let until = until.into_iter().flatten().min();
        let is_short = has_news || until.is_some_and(|until| until <= now);
        if !is_short {
            self.alarm.set(until, now);
        }
        is_short
    }

    fn take_event(&mut self, event: &Event) {
        // An event may outlive its connection, within one batch.
        let Some(entry) = self.connections.get_mut(event.token().0) else {
            return self.take_program_event(event);
        };
        let is_ending = event.is_read_closed() || event.is_error();
        entry.connection.note_readiness(
            event.is_readable() || is_ending,
            event.is_writable() || event.is_error(),
            is_ending || event.is_priority(),
            event.is_error(),
        );
        // One turn between two waits, and it has one coming.
        if !entry.is_queued {
            self.turn(event.token().0);
        }
    }

    /// One turn of one connection, and what follows from it.
    fn turn(&mut self, slot: usize) {
        self.turn_upon(slot, None);
    }

    /// The same, where there is a cause beside what epoll said.
    fn turn_upon(&mut self, slot: usize, cause: Option<&Cause<'_>>) {
        let Some(entry) = self.connections.get_mut(slot) else { return };
        self.in_turn = Some(slot);
        let listener = entry.connection.conversation().listener;
        let mut turn = Turn {
            outgoing: &mut self.outgoing,
            tally: &mut self.tallies[listener],
            recorders: &mut self.recorders.listeners[listener],
            there_since: self.there_since,
            services: &self.services,
            place: (slot, entry.generation),
        };
        let outcome = entry.connection.advance(cause, &mut self.buffer, &mut turn);
        self.in_turn = None;
        match outcome {
            Outcome::Ended(ending) => return self.close(slot, ending),
            Outcome::Again => {
                self.seat.note_yield();
                if !entry.is_queued {
                    entry.is_queued = true;
                    self.run_again.push_back((slot, entry.generation));
                }
            }
            Outcome::Waiting => {}
            Outcome::Delayed => {
                if let Some(until) = entry.connection.delayed_until() {
                    self.errands.delay(until, entry.generation, slot);
                }
            }
        }
        self.timers.arm(slot, entry.connection.deadline());
        if entry.connection.wants_write() != entry.is_write_registered {
            self.change_interest(slot);
        }
    }

    /// Has epoll tell of room in the socket, or not any more.
    fn change_interest(&mut self, slot: usize) {
        let Some(entry) = self.connections.get_mut(slot) else { return };
        match register_write(&self.poll, slot, entry) {
            Ok(()) if !entry.is_write_registered => self.note_room(slot),
            Ok(()) => self.timers.arm(slot, entry.connection.next_look(Instant::now())),
            Err(error) => {
                error!(%error, "epoll_ctl failed");
                let tally = &mut self.tallies[entry.connection.conversation().listener];
                let ending = entry.connection.io_error(tally);
                self.close(slot, ending);
            }
        }
    }

    /// The turns that an earlier turn left, once each.
    fn run_again(&mut self) {
        for _ in 0..self.run_again.len() {
            let Some((slot, generation)) = self.run_again.pop_front() else { return };
            let Some(entry) = self.connections.get_mut(slot) else { continue };
            if entry.generation == generation {
                entry.is_queued = false;
                self.turn(slot);
            }
        }
    }

    /// What has its own time: delayed answers, programs, and memory that goes back.
    #[cold]
    fn run_errands(&mut self, now: Instant) {
        while let Some((slot, generation)) = self.errands.take_delayed(now) {
            let Some(entry) = self.connections.get_mut(slot) else { continue };
            if entry.generation == generation && entry.connection.is_to_be_released(now) {
                self.turn_upon(slot, Some(&Cause::Released));
            }
        }
        if self.errands.are_programs_due(now) {
            self.tick_programs(now);
        }
        self.errands.reclaim(now);
    }

    fn take_due(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.timers.take_due(now, &mut due);
        if !due.is_empty() {
            // A reply that is here is in time.
            for _ in 0..self.inboxes.mail.len() {
                let Ok(mail) = self.inboxes.mail.try_recv() else { break };
                self.open_mail(mail);
            }
        }
        for slot in due.drain(..) {
            self.check_deadline(slot, now);
        }
        self.due = due;
    }

    /// Acts on a deadline that has passed, but not before one more look at what the kernel and the
    /// inbox hold: a worker that was stalled or stopped has not seen it yet.
    fn check_deadline(&mut self, slot: usize, now: Instant) {
        let Some(entry) = self.connections.get_mut(slot) else { return };
        let is_due = entry.connection.is_due(now);
        if is_due || entry.connection.wants_write() {
            entry.connection.note_readiness(is_due, true, false, false);
            self.turn(slot);
        }
        let Some(entry) = self.connections.get_mut(slot) else { return };
        let tally = &mut self.tallies[entry.connection.conversation().listener];
        match entry.connection.expire(now, tally) {
            Expiry::NotYet => self.timers.arm(slot, entry.connection.next_look(now)),
            Expiry::Turn => self.turn(slot),
            Expiry::Ended(ending) => self.close(slot, ending),
        }
    }

    /// A stop: every connection gets its last receive; at the deadline what is left is cut.
    fn take_drain(&mut self) {
        let Some(until) = self.shared.lifecycle.drain_until() else { return };
        if !self.is_draining {
            self.is_draining = true;
            for slot in self.slots() {
                self.connections[slot].connection.begin_drain();
                self.turn(slot);
            }
        }
        if Instant::now() >= until {
            // What lies in the inbox is connections too.
            while let Ok(seated) = self.inboxes.arrivals.try_recv() {
                self.adopt(seated);
            }
            for slot in self.slots() {
                let connection = &mut self.connections[slot].connection;
                let ending = connection.cut(&mut self.tallies[connection.conversation().listener]);
                self.close(slot, ending);
            }
        }
    }

    /// The acceptors have ended before a drain begins, so that nothing comes into an empty inbox.
    fn is_done(&mut self) -> bool {
        self.is_draining
            && self.connections.is_empty()
            && self.inboxes.arrivals.is_empty()
            && self.is_home_deserted()
    }

    fn slots(&self) -> Vec<usize> {
        self.connections.iter().map(|(slot, _)| slot).collect()
    }
}

// With the 16 bytes of its timer that is all an idle connection costs.
const _: () = assert!(size_of::<Entry>() <= 352);

const READ: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// Interest in writing only while something is pending: else every acknowledgement is an event.
fn register_write(poll: &Poll, slot: usize, entry: &mut Entry) -> std::io::Result<()> {
    let wants_write = entry.connection.wants_write();
    let interest = if wants_write { READ | Interest::WRITABLE } else { READ };
    let socket = entry.connection.socket().as_raw_fd();
    poll.registry().reregister(&mut SourceFd(&socket), Token(slot), interest)?;
    entry.is_write_registered = wants_write;
    Ok(())
}
