//! The processes of a worker's connections that have one each: their pipes, and what they lead to.
//! Output is read only while its connection has room for it; that there is some is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::io::Errno;
use slab::Slab;
use tracing::{info, warn};

use crate::metrics::names::{CommandRefusal, ProcessEnd, ProcessState};
use crate::metrics::{CommandInstruments, ProcessGauge};
use crate::responder::{Late, Ticket};

use super::conduit::Conduit;
use super::keeper::Keeper;
use super::order::{SpawnError, Started};
use super::pipes::{Input, read_into};
use super::pool::LAST_BREATH;
use super::relay::START_TIMEOUT;
use super::status::{by_itself, is_ours};
use super::tokens::Tokens;

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
    /// Those with something to do.
    ready: VecDeque<usize>,
    /// Answers that take effect at once.
    answers: VecDeque<(Ticket, Late)>,
    /// Not later than the first time at which one that is waited for is idle for too long.
    wake: Option<Instant>,
}

/// The worker's end of a relay.
struct RelayEnd {
    conduit: Arc<Conduit>,
    /// `None` once the process has ended.
    gauge: Option<ProcessGauge>,
    is_input_registered: bool,
    /// `None` once it has ended.
    output: Option<OwnedFd>,
    is_readable: bool,
    is_queued: bool,
    /// Its connection has no room for more output.
    is_held: bool,
    has_ended: bool,
    /// When it is ended, if it has not ended by itself.
    ends_at: Option<Instant>,
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

impl RelayEnd {
    fn enter(&mut self, state: ProcessState) {
        if let Some(gauge) = &mut self.gauge {
            gauge.enter(state);
        }
    }
}

impl Relays {
    pub(super) fn adopt(&mut self, listener: usize, plan: RelayPlan) {
        self.plans.insert(listener, plan);
    }

    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// A process was ordered.
    pub(super) fn ordered(&mut self, conduit: Arc<Conduit>) {
        let Some(plan) = self.plans.get(&conduit.listener) else { return };
        let (slot, _) = conduit.connection();
        let place = self.relays.insert(RelayEnd {
            gauge: Some(plan.instruments.process()),
            conduit: conduit.clone(),
            is_input_registered: false,
            output: None,
            is_readable: false,
            is_queued: false,
            is_held: false,
            has_ended: false,
            ends_at: None,
            idle_since: None,
            unread: 0,
        });
        conduit.state.lock().place = Some(place);
        self.by_slot.insert(slot, place);
    }

    /// The process that was ordered runs, or does not.
    pub(super) fn started(
        &mut self,
        conduit: &Conduit,
        result: Result<Started, SpawnError>,
        registry: &Registry,
    ) {
        let Some(place) = conduit.place() else { return };
        let plan = &self.plans[&conduit.listener];
        let Started { process, input, output } = match result {
            Ok(started) => started,
            Err(SpawnError::Unwanted) => return self.remove(place),
            Err(error) => {
                warn!(listener = plan.name, %error, "a process could not be started");
                plan.instruments.start_failed();
                plan.instruments.refused(CommandRefusal::StartFailed);
                let opening = conduit.state.lock().opening.take();
                self.answers.extend(opening.map(|ticket| (ticket, Late::Failed)));
                return self.remove(place);
            }
        };
        plan.instruments.started();
        let relay = &mut self.relays[place];
        let mut state = conduit.state.lock();
        state.process = Some(process);
        if state.is_over {
            state.is_told = true;
            return plan.keeper.end(process);
        }
        relay.enter(ProcessState::Busy);
        state.input = Some(Input::new(input));
        let (pipe, token) = (output.as_raw_fd(), Tokens::of_relay(place).output);
        let registered = registry.register(&mut SourceFd(&pipe), token, Interest::READABLE);
        let late = if registered.is_ok() { Late::Silence } else { Late::Failed };
        self.answers.extend(state.opening.take().map(|ticket| (ticket, late)));
        relay.output = Some(output);
    }

    /// The process takes less than it is written: the pipe's room is waited for.
    pub(super) fn blocked(&mut self, conduit: &Conduit, registry: &Registry, now: Instant) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        let state = conduit.state.lock();
        let Some(input) = state.input.as_ref().filter(|_| state.blocked.is_some()) else { return };
        relay.unread = input.unread();
        let plan = &self.plans[&conduit.listener];
        relay.wait_for(now, plan, &mut self.wake);
        if relay.is_input_registered {
            return;
        }
        let tokens = Tokens::of_relay(place);
        let pipe = input.pipe().as_raw_fd();
        let registered = registry.register(&mut SourceFd(&pipe), tokens.input, Interest::WRITABLE);
        // Where the kernel refuses, the wait ends as if the process were stuck.
        relay.is_input_registered = registered.is_ok();
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
    pub(super) fn finishes(&mut self, conduit: &Conduit, now: Instant) {
        let Some(place) = conduit.place() else { return };
        let plan = &self.plans[&conduit.listener];
        let Some(relay) = self.relays.get_mut(place) else { return };
        relay.unread = 0;
        relay.wait_for(now, plan, &mut self.wake);
        // It may have ended before.
        self.queue(place);
    }

    /// The connection has ended.
    pub(super) fn over(&mut self, conduit: &Conduit, now: Instant) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        relay.output = None;
        relay.enter(ProcessState::Ending);
        let (slot, _) = conduit.connection();
        if self.by_slot.get(&slot) == Some(&place) {
            self.by_slot.remove(&slot);
        }
        relay.idle_since = None;
        let (is_late, has_said_all) = {
            let state = conduit.state.lock();
            (state.is_late, state.has_said_all)
        };
        if is_late {
            let plan = &self.plans[&conduit.listener];
            let (listener, seconds) = (&plan.name, START_TIMEOUT.as_secs());
            warn!(listener, seconds, "a process was not started in time");
            plan.instruments.refused(CommandRefusal::StartFailed);
        }
        if relay.has_ended {
            self.remove(place);
        } else if has_said_all {
            let at = now + LAST_BREATH;
            relay.ends_at = Some(at);
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    /// The process has ended.
    pub(super) fn ended(&mut self, conduit: &Conduit, status: ExitStatus) {
        let Some(place) = conduit.place() else { return };
        let Some(relay) = self.relays.get_mut(place) else { return };
        let (is_told, is_over, process) = {
            let state = conduit.state.lock();
            (state.is_told, state.is_over, state.process)
        };
        let reason = match by_itself(status) {
            // One that crashes or succeeds meanwhile has still done so by itself. With a failure
            // ends also who cleans up at SIGTERM, or minds a pipe that nobody reads.
            ProcessEnd::Signalled if is_told && is_ours(status) => ProcessEnd::ConnectionClosed,
            ProcessEnd::Failed if is_told => ProcessEnd::ConnectionClosed,
            reason => reason,
        };
        self.plans[&conduit.listener].instruments.ended(reason);
        // Its connection may last longer.
        relay.gauge = None;
        if matches!(reason, ProcessEnd::Failed | ProcessEnd::Signalled) {
            // Its client may have had no word of why.
            let (listener, pid) = (&self.plans[&conduit.listener].name, process.map(|id| id.pid()));
            info!(listener, pid, %status, "a process ended");
        }
        if is_over {
            return self.remove(place);
        }
        relay.has_ended = true;
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
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    pub(in crate::server) fn next_answer(&mut self) -> Option<(Ticket, Late)> {
        self.answers.pop_front()
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
        match read_into(output, buffer) {
            Ok(length) if length > 0 => {
                relay.idle_since = relay.idle_since.map(|_| now);
                Output::Bytes(length)
            }
            // What it has started itself may hold its output for ever.
            Err(Errno::AGAIN) if !relay.has_ended => {
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

    /// The process says no more. Answers the client's end of input, if it has come; if not, the
    /// connection is to close.
    pub(in crate::server) fn conclude(&mut self, place: usize) -> bool {
        let Some(relay) = self.relays.get_mut(place) else { return false };
        let mut state = relay.conduit.state.lock();
        let finishing = state.finishing.take();
        let is_answered = finishing.is_some();
        self.answers.extend(finishing.map(|ticket| (ticket, Late::Silence)));
        if !is_answered && let Some(blocked) = state.blocked.take() {
            blocked.forgo();
        }
        !is_answered && !state.is_over
    }

    /// Whose process is waited for and has neither read nor written anything for too long.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        self.wake = None;
        for (_, relay) in &mut self.relays {
            let plan = &self.plans[&relay.conduit.listener];
            if relay.ends_at.is_some_and(|at| now >= at) {
                relay.ends_at = None;
                let mut state = relay.conduit.state.lock();
                state.is_told = true;
                state.process.iter().for_each(|id| plan.keeper.end(*id));
            }
            let idle_until = |relay: &RelayEnd| Some(relay.idle_since? + plan.reply_timeout);
            if idle_until(relay).is_some_and(|until| now >= until) {
                // Held, it is the client that does not read.
                let is_alive = relay.has_read_on() || relay.is_held;
                relay.idle_since = is_alive.then_some(now);
                if !is_alive {
                    let state = &mut *relay.conduit.state.lock();
                    let waits = state.finishing.take().or_else(|| state.blocked.take());
                    self.answers.extend(waits.map(|ticket| (ticket, Late::TimedOut)));
                }
            }
            self.wake = [self.wake, idle_until(relay), relay.ends_at].into_iter().flatten().min();
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
    /// Its connection waits for it from now on.
    fn wait_for(&mut self, now: Instant, plan: &RelayPlan, wake: &mut Option<Instant>) {
        self.idle_since = Some(now);
        let until = now + plan.reply_timeout;
        *wake = Some(wake.map_or(until, |wake| wake.min(until)));
    }

    /// Whether its process has read some of what it was written since this was last asked.
    fn has_read_on(&mut self) -> bool {
        let state = self.conduit.state.lock();
        let unread = state.input.as_ref().map_or(0, Input::unread);
        unread < std::mem::replace(&mut self.unread, unread)
    }
}
