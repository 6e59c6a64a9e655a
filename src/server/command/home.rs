//! The programs that live with one worker: their pipes are in its own epoll set, apart from its
//! connections, and what the keeper tells of their processes comes by a bell of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::keeper::Keeper;
use super::news::{News, Newsroom, Reporter, newsroom};
use super::pool::Key;
use super::proof::Proof;
use super::shared::{Desk, Plan, SharedProgram, Tokens};
use crate::metrics::CommandRecorders;
use crate::responder::Ticket;

/// Tokens from here on are not of connections, which are never so many.
const FIRST_TOKEN: usize = 1 << 62;

/// The bell's token; the pipes' are above.
const BELL: Token = Token(FIRST_TOKEN);

/// What is read of a process at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// News taken between two waits.
const NEWS_A_TURN: usize = 128;

pub(in crate::server) struct Home {
    registry: Registry,
    newsroom: Newsroom,
    reporter: Reporter,
    programs: Vec<SharedProgram>,
    /// By the number in their tokens, whose pipes they are: of which program and process.
    pipes: Slab<(usize, Key)>,
    /// There once there is something to be read.
    buffer: Box<[u8]>,
}

impl Home {
    /// A home without programs.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    pub(in crate::server) fn new(registry: &Registry) -> io::Result<Self> {
        let (newsroom, reporter) = newsroom()?;
        let registry = registry.try_clone()?;
        let bell = newsroom.bell.as_raw_fd();
        registry.register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        let (programs, pipes) = (Vec::new(), Slab::new());
        Ok(Self { registry, newsroom, reporter, programs, pipes, buffer: Box::default() })
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
    ) {
        self.buffer = vec![0; BUFFER_BYTES].into();
        let reporter = self.reporter.clone();
        self.programs.push(SharedProgram::new(plan, keeper, reporter, recorders, proof));
    }

    pub(in crate::server) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// When to call [`Home::tick`].
    pub(in crate::server) fn wake(&self) -> Option<Instant> {
        self.programs.iter().filter_map(SharedProgram::wake).min()
    }

    pub(in crate::server) fn begin(&mut self, now: Instant) {
        self.each(now, SharedProgram::begin);
    }

    pub(in crate::server) fn tick(&mut self, now: Instant) {
        self.each(now, SharedProgram::tick);
    }

    pub(in crate::server) fn stop(&mut self, now: Instant) {
        self.each(now, SharedProgram::stop);
    }

    pub(in crate::server) fn begin_anew(&mut self, now: Instant) {
        self.each(now, SharedProgram::begin_anew);
    }

    /// A message for the program of that listener. If none lives here, the ticket says so.
    pub(in crate::server) fn request(
        &mut self,
        listener: usize,
        ticket: Ticket,
        line: Arc<[u8]>,
        now: Instant,
    ) {
        let mut programs = self.programs.iter_mut();
        let program = programs.find(|program| program.listener() == listener);
        let mut desk = Desk { registry: &self.registry, buffer: &mut self.buffer, now };
        if let Some(program) = program {
            program.request(ticket, line, &mut desk);
        }
    }

    /// What epoll told of something that is no connection.
    pub(in crate::server) fn take_event(&mut self, event: &Event, now: Instant) {
        if event.token() == BELL {
            return self.take_news(now);
        }
        let Some(number) = event.token().0.checked_sub(FIRST_TOKEN + 1) else { return };
        // An event may outlive its process, within one batch.
        let Some(&(program, key)) = self.pipes.get(number / 2) else { return };
        let mut desk = Desk { registry: &self.registry, buffer: &mut self.buffer, now };
        let program = &mut self.programs[program];
        if number % 2 == 0 {
            program.writable(key, &mut desk);
        } else {
            program.readable(key, event.is_read_closed() || event.is_error(), &mut desk);
        }
    }

    fn take_news(&mut self, now: Instant) {
        self.newsroom.silence();
        for _ in 0..NEWS_A_TURN {
            let Ok(news) = self.newsroom.news.try_recv() else { return };
            let (News::Started(listener, ..) | News::Ended(listener, ..)) = &news;
            let mut programs = self.programs.iter();
            let at = programs.position(|program| program.listener() == *listener);
            let Some(at) = at else { continue };
            let program = &mut self.programs[at];
            let mut desk = Desk { registry: &self.registry, buffer: &mut self.buffer, now };
            match news {
                News::Started(_, key, result) => {
                    let number = if result.is_ok() { self.pipes.insert((at, key)) } else { 0 };
                    let tokens = Tokens {
                        input: Token(FIRST_TOKEN + 1 + 2 * number),
                        output: Token(FIRST_TOKEN + 2 + 2 * number),
                    };
                    program.started(key, result, tokens, &mut desk);
                }
                News::Ended(_, key, status) => {
                    program.ended(key, status, &mut desk);
                    self.pipes.retain(|_, pipes| *pipes != (at, key));
                }
            }
        }
        // There may be more.
        self.reporter.ring();
    }

    fn each(&mut self, now: Instant, act: impl Fn(&mut SharedProgram, &mut Desk<'_>)) {
        for program in &mut self.programs {
            let desk = &mut Desk { registry: &self.registry, buffer: &mut self.buffer, now };
            act(program, desk);
        }
    }
}
