//! The programs that live with a worker, between its connections: their events, their mail, their
//! time, and why it stays in a drain until nobody can ask them any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Poll;
use mio::event::Event;

use crate::server::command::{Home, Reporter};
use crate::server::pool::{Inboxes, Seat};

use super::Worker;

/// At a drain's deadline the other workers cut their connections; so much longer the answers to
/// them are held back, which would else seem to have failed.
const FAREWELL: Duration = Duration::from_millis(250);

/// What a worker is given: its seat, its ends of the inboxes, its epoll set, and the programs that
/// live with it.
pub(in crate::server) struct Post {
    pub(in crate::server) seat: Arc<Seat>,
    pub(in crate::server) inboxes: Inboxes,
    pub(in crate::server) poll: Poll,
    pub(in crate::server) home: Home,
}

impl Worker {
    /// What epoll told of something that is no connection of this worker.
    #[cold]
    pub(super) fn take_program_event(&mut self, event: &Event) {
        self.home.take_event(event, Instant::now());
        self.note_programs();
    }

    /// What was to be done at a time of its own.
    pub(super) fn tick_programs(&mut self, now: Instant) {
        self.home.tick(now);
        self.note_programs();
    }

    /// The programs may have something to do at another time than before.
    pub(super) fn note_programs(&mut self) {
        self.errands.wake_programs(self.home.wake());
    }

    /// At the first start, or after a panic.
    pub(super) fn begin_programs(&mut self) {
        let now = Instant::now();
        if std::mem::replace(&mut self.has_begun, true) {
            self.home.begin_anew(now);
        } else {
            self.home.begin(now);
        }
        self.note_programs();
    }

    /// Whether nobody asks its programs any more: while a drain is under way, every worker says
    /// once that it has no connection left.
    pub(super) fn is_home_deserted(&mut self) -> bool {
        if !std::mem::replace(&mut self.has_left, true) {
            self.shared.occupied.fetch_sub(1, Ordering::SeqCst);
            self.shared.homes.iter().for_each(Reporter::ring);
        }
        let is_late = || {
            let until = self.shared.lifecycle.drain_until();
            until.is_some_and(|until| Instant::now() >= until + FAREWELL)
        };
        self.home.is_empty() || self.shared.occupied.load(Ordering::SeqCst) == 0 || is_late()
    }
}
