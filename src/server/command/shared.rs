//! A program that all clients of a listener share, at the worker that it lives with: its pool, and
//! the pipes of its processes.

mod actions;
mod replies;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use tracing::{info, warn};

use crate::connection::earlier;
use crate::metrics::names::{ProcessEnd, ProcessState};
use crate::metrics::{CommandInstruments, CommandRecorders, ProcessGauge};
use crate::responder::{Late, Ticket};

use super::inquiries::{Inquiries, Inquiry};
use super::keeper::Keeper;
use super::news::{Reporter, Started};
use super::order::{ProcessId, SpawnError};
use super::outbox::Outbox;
use super::pipes::{Input, Lines};
use super::pool::{Key, Limits, Pool, Why};
use super::program::Program;
use super::proof::Proof;
use super::status::{by_itself, trouble};
use super::tokens::Tokens;

/// What the keeper ends a process with, unless it stays.
const SIGTERM: i32 = rustix::process::Signal::TERM.as_raw();

/// An answer that found its worker's inbox full is offered again so much later.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

/// What a shared program is made of.
pub(in crate::server) struct Plan {
    /// The listener's place in the config.
    pub(in crate::server) listener: usize,
    /// The listener's name.
    pub(in crate::server) name: String,
    pub(in crate::server) program: Arc<Program>,
    pub(in crate::server) limits: Limits,
    pub(in crate::server) max_reply_bytes: usize,
    /// What is answered where no process can; empty = the connection closes.
    pub(in crate::server) overload_reply: String,
    /// It is there for its proof alone.
    pub(in crate::server) is_trial: bool,
    pub(in crate::server) instruments: Arc<CommandInstruments>,
}

/// Whom a reply is for.
pub(super) enum Asker {
    /// Gone when nobody holds the other any more.
    Client(Ticket, Weak<()>),
    /// The start of the server.
    Proof,
}

impl Asker {
    fn is_gone(&self) -> bool {
        matches!(self, Self::Client(_, client) if client.strong_count() == 0)
    }
}

pub(super) struct SharedProgram {
    plan: Plan,
    pool: Pool<Asker>,
    keeper: Keeper,
    reporter: Reporter,
    recorders: CommandRecorders,
    processes: BTreeMap<Key, Process>,
    /// The pool's first; those before it were of a pool that a panic ended.
    first_key: Key,
    proof: Option<Proof>,
    inquiries: Inquiries,
    /// Answers that found the inbox full, and when they are offered again.
    unsent: VecDeque<(Ticket, Late)>,
    offer_at: Option<Instant>,
    shown_queue: usize,
}

struct Process {
    gauge: ProcessGauge,
    /// `None` while it is being started.
    running: Option<Running>,
}

struct Running {
    id: ProcessId,
    tokens: Tokens,
    input: Input,
    is_input_registered: bool,
    /// `None` once it is not read any more.
    output: Option<OwnedFd>,
    lines: Lines,
}

/// What a worker lends its programs.
pub(super) struct Desk<'h> {
    pub(super) registry: &'h Registry,
    pub(super) buffer: &'h mut [u8],
    pub(super) outbox: &'h mut Outbox,
    pub(super) now: Instant,
}

impl SharedProgram {
    pub(super) fn new(
        plan: Plan,
        keeper: Keeper,
        reporter: Reporter,
        recorders: CommandRecorders,
        proof: Proof,
        inquiries: Inquiries,
    ) -> Self {
        Self {
            pool: pool(&plan.limits, &proof, 0),
            plan,
            keeper,
            reporter,
            recorders,
            processes: BTreeMap::new(),
            first_key: Key(0),
            proof: Some(proof),
            inquiries,
            unsent: VecDeque::new(),
            offer_at: None,
            shown_queue: 0,
        }
    }

    pub(super) fn listener(&self) -> usize {
        self.plan.listener
    }

    /// When to call [`SharedProgram::tick`].
    pub(super) fn wake(&self) -> Option<Instant> {
        let proof = self.proof.as_ref().and_then(Proof::until);
        earlier(earlier(self.pool.wake(), self.offer_at), proof)
    }

    /// Starts the first processes, and shows that the program answers.
    pub(super) fn begin(&mut self, desk: &mut Desk<'_>) {
        self.pool.begin(desk.now);
        if let Some(line) = self.proof.as_mut().and_then(|proof| proof.begin(desk.now)) {
            self.pool.request(desk.now, Asker::Proof, line);
        }
        self.act(desk);
        self.conclude_proof(desk);
    }

    /// Whether something waits to be taken.
    pub(super) fn is_asked(&self) -> bool {
        !self.inquiries.is_empty()
    }

    /// Takes what it is asked, so many times.
    pub(super) fn take_inquiries(&mut self, most: usize, desk: &mut Desk<'_>) {
        for _ in 0..most {
            let Some(Inquiry { ticket, line, client }) = self.inquiries.next() else { return };
            self.pool.request(desk.now, Asker::Client(ticket, client), line);
            self.act(desk);
        }
    }

    pub(super) fn tick(&mut self, desk: &mut Desk<'_>) {
        if self.offer_at.is_some_and(|at| desk.now >= at) {
            self.offer_at = None;
            for _ in 0..self.unsent.len() {
                let Some((ticket, late)) = self.unsent.pop_front() else { break };
                self.answer(ticket, late, desk);
            }
        }
        if let Some(proof) = &mut self.proof {
            proof.check_time(desk.now, &begun(&self.processes));
        }
        self.conclude_proof(desk);
        self.pool.tick(desk.now);
        self.act(desk);
    }

    pub(super) fn started(
        &mut self,
        key: Key,
        result: Result<Started, SpawnError>,
        tokens: Tokens,
        desk: &mut Desk<'_>,
    ) {
        let result = result.map_err(|error| error.to_string()).and_then(|started| {
            let output = started.ends.output.as_raw_fd();
            let readable = Interest::READABLE;
            desk.registry.register(&mut SourceFd(&output), tokens.output, readable).map_err(
                |error| {
                    self.keeper.end(started.process);
                    error.to_string()
                },
            )?;
            Ok(started)
        });
        let Some(process) = self.processes.get_mut(&key) else { return };
        match result {
            Ok(Started { process: id, ends }) => {
                process.running = Some(Running {
                    id,
                    tokens,
                    input: Input::new(ends.input),
                    is_input_registered: false,
                    output: Some(ends.output),
                    lines: Lines::default(),
                });
                self.plan.instruments.started();
                self.pool.started(desk.now, key);
                if let Some(proof) = &mut self.proof {
                    proof.note_start();
                }
                self.show(key);
            }
            Err(error) => {
                warn!(listener = self.plan.name, error, "a process could not be started");
                self.plan.instruments.start_failed();
                self.note_trouble(&format!("cannot be started: {error}"));
                self.processes.remove(&key);
                if let Some(proof) = &mut self.proof {
                    proof.fail_start(&error);
                }
                self.pool.start_failed(desk.now, key);
            }
        }
        self.act(desk);
        self.conclude_proof(desk);
    }
}

impl SharedProgram {
    /// The process may take more.
    pub(super) fn writable(&mut self, key: Key, desk: &mut Desk<'_>) {
        if let Some(running) = self.running(key) {
            running.input.flush();
            running.register_input(desk);
        }
    }

    /// The process may have written something. What it could not say here it says again.
    pub(super) fn readable(&mut self, key: Key, until_empty: bool, desk: &mut Desk<'_>) {
        self.read(key, until_empty, desk);
        self.check_idle(key, desk);
        if self.pool.queue_length() > 0 {
            // The next request's time begins when it is written.
            desk.now = Instant::now();
        }
        self.pool.settle(desk.now);
        self.act(desk);
        self.conclude_proof(desk);
    }

    /// The process has ended; what it wrote before is read.
    pub(super) fn ended(&mut self, key: Key, status: ExitStatus, desk: &mut Desk<'_>) {
        self.read(key, true, desk);
        let Some(process) = self.processes.remove(&key) else { return };
        let unread = process.running.as_ref().map_or(0, |running| running.input.unread());
        if let Some(proof) = &mut self.proof {
            proof.note_end(status);
        }
        let has_replied = self.pool.has_replied(key);
        let why = if key < self.first_key {
            Some(Why::Stopped)
        } else {
            self.pool.ended(desk.now, key, unread)
        };
        let reason = match why {
            Some(Why::Idle) => ProcessEnd::Idle,
            Some(Why::MaxRequests) => ProcessEnd::MaxRequests,
            Some(Why::Timeout) => ProcessEnd::Timeout,
            Some(Why::Protocol) => ProcessEnd::Protocol,
            Some(Why::Stopped) => ProcessEnd::Stopped,
            Some(Why::LivedOn) if status.signal() == Some(SIGTERM) => ProcessEnd::Protocol,
            Some(Why::HungUp | Why::LivedOn) | None => by_itself(status),
        };
        self.plan.instruments.ended(reason);
        if let Some(trouble) = trouble(why, status).filter(|_| !has_replied) {
            self.note_trouble(&trouble);
        }
        if let Some(running) = &process.running
            && matches!(why, None | Some(Why::Timeout))
        {
            let (listener, pid) = (&self.plan.name, running.id.pid());
            info!(listener, pid, %status, "a process ended");
        }
        self.act(desk);
        self.conclude_proof(desk);
    }

    /// Ends every process; whoever waits gets no reply.
    pub(super) fn stop(&mut self, desk: &mut Desk<'_>) {
        self.proof = None;
        self.pool.stop();
        self.act(desk);
        self.unsent.clear();
    }

    /// After a panic nothing here is to be trusted but which processes there are: they end, whoever
    /// waits gets no reply, and new ones are started.
    pub(super) fn begin_anew(&mut self, desk: &mut Desk<'_>) {
        self.first_key = Key(self.pool.next_key());
        self.pool = match &self.proof {
            Some(proof) => pool(&self.plan.limits, proof, self.first_key.0),
            None => Pool::new(self.plan.limits.clone(), self.first_key.0, Asker::is_gone),
        };
        self.unsent.clear();
        self.inquiries.forget_own();
        self.offer_at = None;
        self.plan.instruments.circuit(false);
        for process in self.processes.values_mut() {
            process.gauge.enter(ProcessState::Ending);
            if let Some(running) = &process.running {
                self.keeper.end(running.id);
            }
        }
        self.begin(desk);
    }

    fn note_trouble(&self, trouble: &str) {
        let file = self.plan.program.file.display();
        self.plan.instruments.note_trouble(format!("its program {file} {trouble}"));
    }

    fn running(&mut self, key: Key) -> Option<&mut Running> {
        self.processes.get_mut(&key)?.running.as_mut()
    }
}

/// The pool before its program is proven, whose answer has a time of its own.
fn pool(limits: &Limits, proof: &Proof, first: u64) -> Pool<Asker> {
    let reply_timeout = limits.reply_timeout.filter(|_| !proof.is_asking());
    Pool::new(Limits { reply_timeout, ..limits.clone() }, first, Asker::is_gone)
}

/// What has come of a line from the first process.
fn begun(processes: &BTreeMap<Key, Process>) -> Vec<u8> {
    let begun = |process: &Process| Some(process.running.as_ref()?.lines.begun().to_vec());
    processes.values().find_map(begun).unwrap_or_default()
}

impl Running {
    /// The pipe's room is waited for only while something is left, and then all the time.
    fn register_input(&mut self, desk: &Desk<'_>) {
        if self.input.is_waiting() && !self.is_input_registered {
            let pipe = self.input.pipe().as_raw_fd();
            let writable = Interest::WRITABLE;
            let registered =
                desk.registry.register(&mut SourceFd(&pipe), self.tokens.input, writable);
            // Where the kernel refuses, the reply's deadline ends the process.
            self.is_input_registered = registered.is_ok();
        }
    }
}
