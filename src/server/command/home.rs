//! The programs that live with one worker: their pipes are in its own epoll set, apart from its
//! connections.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use mio::Registry;
use mio::event::Event;
use slab::Slab;

use super::conduit::Notes;
use super::inquiries::Inquiries;
use super::keeper::Keeper;
use super::news::{News, Reporter, Started};
use super::order::SpawnError;
use super::outbox::Outbox;
use super::pool::Key;
use super::proof::Proof;
use super::relays::{Output, RelayPlan, Relays};
use super::shared::{Desk, Plan, SharedProgram};
use super::tokens::{Pipe, Tokens};
use crate::connection::earlier;
use crate::metrics::CommandRecorders;
use crate::responder::Mailbox;

/// What is read of a process at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// News taken between two waits.
const NEWS_A_TURN: usize = 128;

pub(in crate::server) struct Home {
    registry: Registry,
    news: Receiver<News>,
    reporter: Reporter,
    programs: Vec<SharedProgram>,
    /// By the number in their tokens, whose pipes they are: of which program and process.
    pipes: Slab<(usize, Key)>,
    relays: Relays,
    outbox: Outbox,
    /// There once there is something to be read.
    buffer: Box<[u8]>,
}

impl Home {
    /// A home without programs; `mailbox` is its worker's, which `ring` makes look for news.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    pub(in crate::server) fn new(
        registry: &Registry,
        mailbox: Arc<dyn Mailbox>,
        ring: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (reporter, news) = Reporter::new(ring);
        Ok(Self {
            registry: registry.try_clone()?,
            news,
            reporter,
            programs: Vec::new(),
            pipes: Slab::new(),
            relays: Relays::default(),
            outbox: Outbox::new(mailbox),
            buffer: Box::default(),
        })
    }

    /// How others make this worker look.
    pub(in crate::server) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// One more program lives here; what it has shown when it can serve is told.
    pub(in crate::server) fn adopt(
        &mut self,
        plan: Plan,
        keeper: Keeper,
        recorders: CommandRecorders,
        proof: Proof,
        inquiries: Inquiries,
    ) {
        self.buffer = vec![0; BUFFER_BYTES].into();
        let reporter = self.reporter.clone();
        self.programs.push(SharedProgram::new(plan, keeper, reporter, recorders, proof, inquiries));
    }

    /// Connections of that listener get a process each.
    pub(in crate::server) fn adopt_relays(&mut self, listener: usize, plan: RelayPlan) {
        self.buffer = vec![0; BUFFER_BYTES].into();
        self.relays.adopt(listener, plan);
    }

    /// Where the responders of connections that have a process each leave word.
    pub(in crate::server) fn notes(&self) -> Notes {
        self.relays.notes()
    }

    /// Reads what they have left.
    pub(in crate::server) fn take_notes(&mut self, now: Instant) {
        self.relays.take_notes(&self.registry, now);
    }

    /// What becomes of this worker's connections that have a process each.
    pub(in crate::server) fn relays(&mut self) -> &mut Relays {
        &mut self.relays
    }

    /// Reads what a connection's process wrote.
    pub(in crate::server) fn read_relay(&mut self, place: usize, now: Instant) -> Output {
        self.relays.read(place, &mut self.buffer, now)
    }

    /// The buffer with what was read last, lent; without it nothing can be read.
    pub(in crate::server) fn take_buffer(&mut self) -> Box<[u8]> {
        std::mem::take(&mut self.buffer)
    }

    /// Gives it back.
    pub(in crate::server) fn put_back(&mut self, buffer: Box<[u8]>) {
        self.buffer = buffer;
    }

    /// Asks the programs what they were asked, so many times each.
    pub(in crate::server) fn take_inquiries(&mut self, most: usize) {
        if !self.programs.iter().any(SharedProgram::is_asked) {
            return;
        }
        let (programs, mut desk) = self.at_desk(Instant::now());
        programs.iter_mut().for_each(|program| program.take_inquiries(most, &mut desk));
    }

    /// What the worker's own connections are answered.
    pub(in crate::server) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether something is to be done at once.
    pub(in crate::server) fn is_busy(&self) -> bool {
        self.relays.is_busy()
            || !self.outbox.is_empty()
            || self.programs.iter().any(SharedProgram::is_asked)
    }

    /// Whether no shared program lives here.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// When to call [`Home::tick`].
    pub(in crate::server) fn wake(&self) -> Option<Instant> {
        let programs = self.programs.iter().map(SharedProgram::wake);
        programs.fold(self.relays.wake(), earlier)
    }

    pub(in crate::server) fn begin(&mut self, now: Instant) {
        self.each(now, SharedProgram::begin);
    }

    pub(in crate::server) fn tick(&mut self, now: Instant) {
        self.each(now, SharedProgram::tick);
        self.relays.tick(now);
    }

    pub(in crate::server) fn stop(&mut self, now: Instant) {
        self.each(now, SharedProgram::stop);
    }

    pub(in crate::server) fn begin_anew(&mut self, now: Instant) {
        // What a panic interrupted had them in its hands.
        self.buffer = vec![0; BUFFER_BYTES].into();
        drop(self.outbox.take());
        self.each(now, SharedProgram::begin_anew);
    }

    /// What epoll told of something that is no connection.
    pub(in crate::server) fn take_event(&mut self, event: &Event, now: Instant) {
        match Tokens::pipe(event.token()) {
            Some(Pipe::Shared { place, is_output }) => {
                self.take_pipe_event(place, is_output, event, now);
            }
            Some(Pipe::Relay { place, is_output: false }) => self.relays.writable(place),
            Some(Pipe::Relay { place, is_output: true }) => {
                self.relays.readable(place);
            }
            None => {}
        }
    }

    fn take_pipe_event(&mut self, place: usize, is_output: bool, event: &Event, now: Instant) {
        // An event may outlive its process, within one batch.
        let Some(&(program, key)) = self.pipes.get(place) else { return };
        let (programs, mut desk) = self.at_desk(now);
        let program = &mut programs[program];
        if is_output {
            program.readable(key, event.is_read_closed() || event.is_error(), &mut desk);
        } else {
            program.writable(key, &mut desk);
        }
    }

    /// What the keeper tells. There may be some whenever somebody has rung.
    pub(in crate::server) fn take_news(&mut self) {
        // Requests are given to who has started, and their time begins then.
        let now = Instant::now();
        for _ in 0..NEWS_A_TURN {
            let Ok(news) = self.news.try_recv() else { return };
            match news {
                News::Started(listener, key, result) => self.started(listener, key, result, now),
                News::Ended(listener, key, status) => self.ended(listener, key, status, now),
                News::RelayEnded(conduit) => self.relays.ended(&conduit),
            }
        }
        // There may be more.
        self.reporter.ring();
    }

    fn started(
        &mut self,
        listener: usize,
        key: Key,
        result: Result<Started, SpawnError>,
        now: Instant,
    ) {
        let Some(at) = self.program(listener) else { return };
        let place = if result.is_ok() { self.pipes.insert((at, key)) } else { 0 };
        let (programs, mut desk) = self.at_desk(now);
        programs[at].started(key, result, Tokens::of_shared(place), &mut desk);
    }

    fn ended(&mut self, listener: usize, key: Key, status: ExitStatus, now: Instant) {
        let Some(at) = self.program(listener) else { return };
        let (programs, mut desk) = self.at_desk(now);
        programs[at].ended(key, status, &mut desk);
        self.pipes.retain(|_, pipes| *pipes != (at, key));
    }

    fn program(&self, listener: usize) -> Option<usize> {
        self.programs.iter().position(|program| program.listener() == listener)
    }

    fn each(&mut self, now: Instant, act: impl Fn(&mut SharedProgram, &mut Desk<'_>)) {
        let (programs, mut desk) = self.at_desk(now);
        programs.iter_mut().for_each(|program| act(program, &mut desk));
    }

    fn at_desk(&mut self, now: Instant) -> (&mut [SharedProgram], Desk<'_>) {
        let Self { registry, programs, buffer, outbox, .. } = self;
        (programs, Desk { registry, buffer, outbox, now })
    }
}
