//! What the pool of a shared program wants is done here: processes are started, written to and
//! ended, and clients are answered.

use std::time::Instant;

use tracing::{info, warn};

use crate::metrics::names::{CommandRefusal, ProcessState};
use crate::responder::{Late, Ticket};
use crate::server::command::pool::{Action, Doing, Failure, Key, Why};
use crate::server::command::proof::Proof;

use super::{Asker, Desk, OFFER_AGAIN, Process, SharedProgram};

/// Said of a process that is given up.
const NO_REPLY: &str = "a process is ended: no reply within reply_timeout";

impl SharedProgram {
    /// Does what the pool wants done.
    pub(super) fn act(&mut self, desk: &mut Desk<'_>) {
        while let Some(action) = self.pool.next_action() {
            match action {
                Action::Start(key) => {
                    let gauge = self.plan.instruments.process();
                    self.processes.insert(key, Process { gauge, running: None });
                    let (keeper, program) = (&self.keeper, &self.plan.program);
                    self.reporter.order(keeper, self.plan.listener, key, program);
                }
                Action::Write { process: key, waited } => {
                    self.recorders.observe_wait(waited);
                    let line = self.pool.unwritten(key);
                    let process = self.processes.get_mut(&key);
                    let running = process.and_then(|process| process.running.as_mut());
                    if let Some((line, running)) = line.zip(running) {
                        running.input.write(line);
                        running.register_input(desk);
                    }
                    self.show(key);
                }
                Action::Fail(asker, failure) => self.fail(asker, failure, desk),
                Action::End(key) => {
                    self.tell_given_up(key);
                    if let Some(running) = self.running(key) {
                        let id = running.id;
                        self.keeper.end(id);
                    }
                    self.show(key);
                }
                Action::CircuitOpened(delay) => {
                    let (listener, next_try_seconds) = (&self.plan.name, delay.as_secs_f64());
                    let longest = self.plan.limits.max_restart_delay;
                    let why = self.plan.instruments.trouble();
                    self.plan.instruments.circuit(true);
                    warn!(
                        listener,
                        why,
                        next_try_seconds,
                        max_restart_delay_seconds = longest.as_secs_f64(),
                        "messages are refused until a process lives"
                    );
                }
                Action::CircuitClosed => {
                    self.plan.instruments.circuit(false);
                    let listener = &self.plan.name;
                    info!(listener, "messages are answered again: a process lives");
                }
            }
        }
        let length = self.pool.queue_length();
        if length != self.shown_queue {
            self.shown_queue = length;
            self.plan.instruments.queue_length(length);
        }
    }

    /// Who looks for why a client was closed finds it at that time: the process may stay for
    /// another while.
    fn tell_given_up(&mut self, key: Key) {
        if self.pool.why(key) != Some(Why::Timeout) {
            return;
        }
        let (pid, listener) = (self.pid(key), &self.plan.name);
        if self.pool.has_replied(key) {
            warn!(listener, pid, "{NO_REPLY}");
        } else {
            // Whoever has just written the program meets this first.
            warn!(
                listener,
                pid, "{NO_REPLY}, nor ever before: is each line flushed (python3 -u, stdbuf -oL)?"
            );
        }
    }

    /// The gauge tells what the process does.
    pub(super) fn show(&mut self, key: Key) {
        let state = match self.pool.doing(key) {
            None => return,
            Some(Doing::Waits) => ProcessState::Idle,
            Some(Doing::Works) => ProcessState::Busy,
            Some(Doing::Ends) => ProcessState::Ending,
        };
        if let Some(process) = self.processes.get_mut(&key) {
            process.gauge.enter(state);
        }
    }

    fn fail(&mut self, asker: Asker, failure: Failure, desk: &mut Desk<'_>) {
        let Asker::Client(ticket, _) = asker else {
            if let Some(proof) = &mut self.proof {
                proof.fail(failure);
            }
            return;
        };
        let instruments = &self.plan.instruments;
        let refusal = match failure {
            Failure::QueueFull => CommandRefusal::QueueFull,
            Failure::QueueTimeout => CommandRefusal::QueueTimeout,
            Failure::CircuitOpen => CommandRefusal::CircuitOpen,
            Failure::StartFailed => CommandRefusal::StartFailed,
            Failure::ReplyTimeout => {
                instruments.timed_out();
                return self.answer(ticket, Late::TimedOut, desk);
            }
            Failure::ClientGone => return ticket.forgo(),
            Failure::ProcessEnded => return self.answer(ticket, Late::Failed, desk),
        };
        instruments.refused(refusal);
        let late = match self.plan.overload_reply.as_str() {
            "" => Late::Failed,
            reply => Late::Reply(reply.to_owned()),
        };
        self.answer(ticket, late, desk);
    }

    pub(super) fn answer(&mut self, ticket: Ticket, late: Late, desk: &mut Desk<'_>) {
        let answered = desk.outbox.answer(ticket, late);
        self.keep_unsent(answered, desk.now);
    }

    /// What found no room is offered again.
    pub(super) fn keep_unsent(&mut self, answered: Result<(), (Ticket, Late)>, now: Instant) {
        if let Err(unsent) = answered {
            self.unsent.push_back(unsent);
            self.offer_at.get_or_insert(now + OFFER_AGAIN);
        }
    }

    pub(super) fn conclude_proof(&mut self, desk: &mut Desk<'_>) {
        if self.proof.as_mut().is_some_and(Proof::is_concluded) {
            self.proof = None;
            self.pool.bound_replies(self.plan.limits.reply_timeout);
            if self.plan.is_trial {
                self.pool.stop();
                self.act(desk);
            }
        }
    }
}
