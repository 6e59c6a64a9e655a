//! The programs that live with a worker, between its connections: their events, their mail, their
//! time, and why it stays in a drain until nobody can ask them any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Poll;
use mio::event::Event;

use crate::connection::Conversation;
use crate::responder::LateReply;
use crate::server::command::{Home, Output, Reporter};
use crate::server::pool::{Inboxes, Seat};

use super::Worker;

/// At a drain's deadline the other workers cut their connections; so much longer the answers to
/// them are held back, which would else seem to have failed.
const FAREWELL: Duration = Duration::from_millis(250);

/// What a process says is passed on so far before it is another's turn.
const OUTPUT_BYTES_A_TURN: usize = 64 * 1024;

/// What a worker is given: its seat, its ends of the inboxes, its epoll set, and the programs that
/// live with it and how it holds conversations.
pub(in crate::server) struct Post {
    pub(in crate::server) seat: Arc<Seat>,
    pub(in crate::server) inboxes: Inboxes,
    pub(in crate::server) poll: Poll,
    pub(in crate::server) home: Home,
    /// By the index of their listener.
    pub(in crate::server) conversations: Vec<Arc<Conversation>>,
}

impl Worker {
    /// What epoll told of something that is no connection of this worker.
    #[cold]
    pub(super) fn take_program_event(&mut self, event: &Event) {
        let now = Instant::now();
        self.home.take_event(event, now);
        self.serve_relays(now);
        self.note_programs();
    }

    /// What was to be done at a time of its own.
    pub(super) fn tick_programs(&mut self, now: Instant) {
        self.home.tick(now);
        self.serve_relays(now);
        self.note_programs();
    }

    /// The programs may have something to do at another time than before.
    pub(super) fn note_programs(&mut self) {
        let is_busy = self.home.relays().is_busy();
        self.errands.wake_programs(if is_busy { Some(self.began) } else { self.home.wake() });
    }

    /// The connection in that slot takes more than before.
    #[cold]
    pub(super) fn note_room(&mut self, slot: usize) {
        self.home.relays().note_room(slot);
        self.note_programs();
    }

    /// What the processes of connections have said, and what that leads to.
    fn serve_relays(&mut self, now: Instant) {
        for _ in 0..self.home.relays().ready() {
            let Some((place, slot, generation)) = self.home.relays().next_ready() else { break };
            self.serve_relay(place, slot, generation, now);
        }
        while let Some((ticket, late)) = self.home.relays().next_answer() {
            let address = ticket.address();
            ticket.forgo();
            self.take_reply(LateReply { address, late });
        }
    }

    fn serve_relay(&mut self, place: usize, slot: usize, generation: u64, now: Instant) {
        let mut budget = OUTPUT_BYTES_A_TURN;
        while budget > 0 {
            let entry = self.connections.get_mut(slot);
            let Some(entry) = entry.filter(|entry| entry.generation == generation) else { return };
            let connection = &mut entry.connection;
            if !connection.has_room() {
                return self.home.relays().hold(place);
            }
            match self.home.read_relay(place, now) {
                Output::Bytes(length) => {
                    let tally = &mut self.tallies[connection.conversation().listener];
                    connection.give(&self.home.buffer()[..length], tally);
                    self.turn(slot);
                    budget = budget.saturating_sub(length);
                }
                Output::WouldBlock => return,
                Output::End => {
                    if self.home.relays().conclude(place) {
                        connection.end_by_responder();
                        self.turn(slot);
                    }
                    return;
                }
            }
        }
        self.home.relays().queue(place);
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
