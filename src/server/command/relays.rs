//! The processes of a worker's connections that have one each: their pipes, and what they lead to.
//! Output is read only while its connection has room for it; that there is some is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::io::Errno;
use slab::Slab;
use tracing::{error, warn};

use crate::connection::earlier;
use crate::metrics::names::CommandRefusal;
use crate::metrics::{CloseReason, CommandInstruments};
use crate::responder::{Late, Ticket};

use super::conduit::{Conduit, Note, Notes};
use super::keeper::Keeper;
use super::pipes::{Input, read_into};
use super::pool::LAST_BREATH;
use super::tokens::Tokens;

/// How long a process may take to start, with all those that were ordered before it.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener whose connections have a process each.
pub(in crate::server) struct RelayPlan {
    /// The listener's name.
    pub(in crate::server) name: String,
    pub(in crate::server) instruments: Arc<CommandInstruments>,
    pub(in crate::server) keeper: Keeper,
    /// How long a process may neither read nor write while its connection waits for it.
    pub(in crate::server) reply_timeout: Duration,
}

#[derive(Default)]
pub(in crate::server) struct Relays {
    /// By the index of their listener.
    plans: BTreeMap<usize, RelayPlan>,
    relays: Slab<RelayEnd>,
    /// By the slot of their connection.
    by_slot: BTreeMap<usize, usize>,
    notes: Notes,
    /// Those with something to do.
    ready: VecDeque<usize>,
    /// Answers that take effect at once.
    answers: VecDeque<(Ticket, Late)>,
    /// Connections that end at once: slot, generation and why.
    endings: VecDeque<(usize, u64, CloseReason)>,
    /// Whose connection has ended, and who is to end by itself until then; the first ones first.
    last_breaths: VecDeque<(Instant, Arc<Conduit>)>,
    /// Not later than the first time at which one was not started in time, or that is waited for
    /// is idle for too long, or has not ended by itself.
    wake: Option<Instant>,
}

/// The worker's end of a relay.
struct RelayEnd {
    conduit: Arc<Conduit>,
    /// When it is too late to start; `None` once that is settled.
    starts_until: Option<Instant>,
    is_input_registered: bool,
    /// `None` once it has ended.
    output: Option<OwnedFd>,
    is_readable: bool,
    is_queued: bool,
    /// Its connection has no room for more output.
    is_held: bool,
    /// Its connection waits until it has read what it was written, or until it has said its last.
    /// Since then it has written nothing, nor was it seen to have read anything.
    idle_since: Option<Instant>,
    /// What it had not read then.
    unread: usize,
}

/// What reading a process's output came to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Output {
    /// So many bytes, in the buffer.
    Bytes(usize),
    /// Nothing now.
    WouldBlock,
    /// There will be no more.
    End,
}

impl Relays {
    pub(super) fn adopt(&mut self, listener: usize, plan: RelayPlan) {
        self.plans.insert(listener, plan);
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Where its connections' responders leave word.
    pub(in crate::server) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Whether they have left any.
    fn has_notes(&self) -> bool {
        !self.plans.is_empty() && !self.notes.is_empty()
    }

    /// Reads what they have left.
    pub(super) fn take_notes(&mut self, registry: &Registry, now: Instant) {
        if !self.has_notes() {
            return;
        }
        while let Some(note) = self.notes.next() {
            match note {
                Note::Ordered(conduit, output) => self.ordered(&conduit, output, registry, now),
                Note::Blocked(conduit) => self.blocked(&conduit, registry, now),
                Note::Finishes(conduit) => self.finishes(&conduit, now),
                Note::Over(conduit) => self.over(conduit, now),
            }
        }
    }

    fn ordered(
        &mut self,
        conduit: &Arc<Conduit>,
        output: OwnedFd,
        registry: &Registry,
        now: Instant,
    ) {
        let (slot, _) = conduit.connection();
        let until = now + START_TIMEOUT;
        let pipe = output.as_raw_fd();
        let place = self.relays.insert(RelayEnd {
            conduit: conduit.clone(),
            starts_until: Some(until),
            is_input_registered: false,
            output: Some(output),
            is_readable: false,
            is_queued: false,
            is_held: false,
            idle_since: None,
            unread: 0,
        });
        conduit.state.lock().place = Some(place);
        self.by_slot.insert(slot, place);
        self.wake_at(until);
        let token = Tokens::of_relay(place).output;
        if let Err(error) = registry.register(&mut SourceFd(&pipe), token, Interest::READABLE) {
            error!(%error, "epoll_ctl failed");
            self.fail(place, Late::Failed, CloseReason::ResponderError);
        }
    }

    /// The process takes less than it is written: the pipe's room is waited for.
    fn blocked(&mut self, conduit: &Conduit, registry: &Registry, now: Instant) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        let state = conduit.state.lock();
        let Some(input) = state.input.as_ref().filter(|_| state.blocked.is_some()) else { return };
        relay.unread = input.unread();
        relay.idle_since = Some(now);
        if !relay.is_input_registered {
            let tokens = Tokens::of_relay(place);
            let pipe = input.pipe().as_raw_fd();
            let registered =
                registry.register(&mut SourceFd(&pipe), tokens.input, Interest::WRITABLE);
            // Where the kernel refuses, the wait ends as if the process were stuck.
            relay.is_input_registered = registered.is_ok();
        }
        drop(state);
        self.wake_at(now + self.plans[&conduit.listener].reply_timeout);
    }

    /// The process may take more.
    pub(super) fn writable(&mut self, place: usize) {
        let Some(relay) = self.relays.get_mut(place) else { return };
        let mut state = relay.conduit.state.lock();
        let Some(input) = &mut state.input else { return };
        input.flush();
        if !input.is_waiting()
            && let Some(blocked) = state.blocked.take()
        {
            relay.idle_since = None;
            self.answers.push_back((blocked, Late::Silence));
        }
    }

    /// The process may have written something.
    pub(super) fn readable(&mut self, place: usize) {
        if let Some(relay) = self.relays.get_mut(place) {
            relay.is_readable = true;
            self.queue(place);
        }
    }

    /// The client says no more: the process may say its last.
    fn finishes(&mut self, conduit: &Conduit, now: Instant) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        relay.unread = 0;
        relay.idle_since = Some(now);
        if relay.output.is_none() {
            // It has said its last before.
            self.queue(place);
        }
        self.wake_at(now + self.plans[&conduit.listener].reply_timeout);
    }

    /// The connection has ended.
    fn over(&mut self, conduit: Arc<Conduit>, now: Instant) {
        let Some(place) = conduit.place() else { return };
        self.remove(place);
        self.forget_ended();
        if conduit.state.lock().has_said_all && !conduit.life.has_ended() {
            let at = now + LAST_BREATH;
            self.last_breaths.push_back((at, conduit));
            self.wake_at(at);
        }
    }

    /// The process has ended, and its connection has not.
    pub(super) fn ended(&mut self, conduit: &Conduit) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        relay.is_readable = true;
        self.queue(place);
    }

    /// The connection in that slot has room again.
    pub(in crate::server) fn note_room(&mut self, slot: usize) {
        let Some(&place) = self.by_slot.get(&slot) else { return };
        if let Some(relay) = self.relays.get_mut(place)
            && std::mem::take(&mut relay.is_held)
        {
            self.queue(place);
        }
    }

    /// Whether something is to be done at once.
    pub(in crate::server) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
            || !self.answers.is_empty()
            || !self.endings.is_empty()
            || self.has_notes()
    }

    pub(in crate::server) fn next_answer(&mut self) -> Option<(Ticket, Late)> {
        self.answers.pop_front()
    }

    /// The next connection that ends: its slot and generation, and why.
    pub(in crate::server) fn next_ending(&mut self) -> Option<(usize, u64, CloseReason)> {
        self.endings.pop_front()
    }

    pub(in crate::server) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next one with something to do: its place, and its connection's slot and generation.
    pub(in crate::server) fn next_ready(&mut self) -> Option<(usize, usize, u64)> {
        while let Some(place) = self.ready.pop_front() {
            if let Some(relay) = self.relays.get_mut(place) {
                relay.is_queued = false;
                let (slot, generation) = relay.conduit.connection();
                return Some((place, slot, generation));
            }
        }
        None
    }

    /// Reads what the process wrote.
    pub(super) fn read(&mut self, place: usize, buffer: &mut [u8], now: Instant) -> Output {
        let Some(relay) = self.relays.get_mut(place) else { return Output::WouldBlock };
        if !relay.is_readable {
            return Output::WouldBlock;
        }
        let Some(output) = &relay.output else { return Output::End };
        // Before the look: what it wrote before its end is there then.
        let has_ended = relay.conduit.life.has_ended();
        let read = read_into(output, buffer);
        if read != Err(Errno::AGAIN) {
            relay.conduit.life.note_word();
        }
        match read {
            Ok(length) if length > 0 => {
                relay.idle_since = relay.idle_since.map(|_| now);
                Output::Bytes(length)
            }
            // What it has started itself may hold its output for ever.
            Err(Errno::AGAIN) if !has_ended => {
                relay.is_readable = false;
                Output::WouldBlock
            }
            _ => {
                relay.output = None;
                relay.conduit.state.lock().has_said_all = true;
                Output::End
            }
        }
    }

    /// The turn is over before all was read.
    pub(in crate::server) fn queue(&mut self, place: usize) {
        if let Some(relay) = self.relays.get_mut(place)
            && !std::mem::replace(&mut relay.is_queued, true)
        {
            self.ready.push_back(place);
        }
    }

    /// Its connection has no room: see [`Relays::note_room`].
    pub(in crate::server) fn hold(&mut self, place: usize) {
        if let Some(relay) = self.relays.get_mut(place) {
            relay.is_held = true;
        }
    }

    /// The process says no more, or was not started. Answers the client's end of input, if it has
    /// come; if not, the connection is to close.
    pub(in crate::server) fn conclude(&mut self, place: usize) {
        let Some(relay) = self.relays.get_mut(place) else { return };
        if relay.conduit.life.has_failed() {
            return self.fail(place, Late::Failed, CloseReason::ResponderError);
        }
        let mut state = relay.conduit.state.lock();
        if let Some(finishing) = state.finishing.take() {
            self.answers.push_back((finishing, Late::Silence));
        } else {
            if let Some(blocked) = state.blocked.take() {
                blocked.forgo();
            }
            let (slot, generation) = relay.conduit.connection();
            self.endings.push_back((slot, generation, CloseReason::ResponderClosed));
        }
    }

    /// Ends the connection, which may be waiting for an answer.
    fn fail(&mut self, place: usize, late: Late, reason: CloseReason) {
        let Some(relay) = self.relays.get_mut(place) else { return };
        let mut state = relay.conduit.state.lock();
        match state.finishing.take().or_else(|| state.blocked.take()) {
            Some(ticket) => self.answers.push_back((ticket, late)),
            None => {
                let (slot, generation) = relay.conduit.connection();
                self.endings.push_back((slot, generation, reason));
            }
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Of those that end by themselves, whose time has not come before somebody's who has not.
    fn forget_ended(&mut self) {
        while self.last_breaths.front().is_some_and(|(_, conduit)| conduit.life.has_ended()) {
            self.last_breaths.pop_front();
        }
    }

    /// Whose process was not started in time, or is waited for and has neither read nor written
    /// anything for too long, or has not ended by itself.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        self.end_breathless(now);
        self.wake = self.last_breaths.front().map(|(at, _)| *at);
        let places: Vec<_> = self.relays.iter().map(|(place, _)| place).collect();
        for place in places {
            let relay = &mut self.relays[place];
            let plan = &self.plans[&relay.conduit.listener];
            let failure = relay.check_time(now, plan);
            self.wake = earlier(self.wake, relay.wake(now, plan));
            if let Some(late) = failure {
                self.fail(place, late, CloseReason::ResponderTimeout);
            }
        }
    }

    fn end_breathless(&mut self, now: Instant) {
        self.forget_ended();
        while let Some((at, conduit)) = self.last_breaths.pop_front() {
            if now < at {
                self.last_breaths.push_front((at, conduit));
                return;
            }
            if let Some(process) = conduit.life.tell() {
                self.plans[&conduit.listener].keeper.end(process);
            }
            self.forget_ended();
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(relay) = self.relays.try_remove(place) else { return };
        let (slot, _) = relay.conduit.connection();
        relay.conduit.state.lock().place = None;
        if self.by_slot.get(&slot) == Some(&place) {
            self.by_slot.remove(&slot);
        }
    }
}

impl RelayEnd {
    /// Says with what its connection ends, if its process has had too much time.
    fn check_time(&mut self, now: Instant, plan: &RelayPlan) -> Option<Late> {
        if self.conduit.life.is_decided() {
            self.starts_until = None;
        } else if self.starts_until.take_if(|until| now >= *until).is_some() {
            let (listener, seconds) = (&plan.name, START_TIMEOUT.as_secs());
            warn!(listener, seconds, "a process was not started in time");
            plan.instruments.refused(CommandRefusal::StartFailed);
            if let Some(process) = self.conduit.life.tell() {
                plan.keeper.end(process);
            }
            self.conduit.close_ends();
            return Some(Late::TimedOut);
        }
        let until = self.idle_until(plan)?;
        if now < until {
            return None;
        }
        // Held, it is the client that does not read.
        let is_alive = self.has_read_on() || self.is_held;
        self.idle_since = is_alive.then_some(now);
        (!is_alive).then_some(Late::TimedOut)
    }

    /// It is not to blame for the time before it ran.
    fn idle_until(&self, plan: &RelayPlan) -> Option<Instant> {
        let (since, (_, started)) = (self.idle_since?, self.conduit.life.process()?);
        Some(since.max(started) + plan.reply_timeout)
    }

    /// When its time is to be looked at again.
    fn wake(&self, now: Instant, plan: &RelayPlan) -> Option<Instant> {
        // Of its start nobody tells.
        let soon = self.idle_since.map(|_| now + plan.reply_timeout);
        earlier(self.idle_until(plan).or(soon), self.starts_until)
    }

    /// Whether its process has read some of what it was written since this was last asked.
    fn has_read_on(&mut self) -> bool {
        let state = self.conduit.state.lock();
        let unread = state.input.as_ref().map_or(0, Input::unread);
        unread < std::mem::replace(&mut self.unread, unread)
    }
}
