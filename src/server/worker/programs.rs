//! The programs that live with a worker, between its connections: their events, their mail, their
//! time, and why it stays in a drain until nobody can ask them any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Poll;
use mio::event::Event;

use crate::connection::{Cause, Conversation};
use crate::responder::LateReply;
use crate::server::alarm::Alarm;
use crate::server::command::{Home, Output, Own, Reporter};
use crate::server::pool::{Inboxes, Seat};

use super::{INBOX_ITEMS_A_TURN, Worker};

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
    pub(in crate::server) alarm: Alarm,
    /// `None` while nothing lives there.
    pub(in crate::server) home: Option<Box<Home>>,
    /// By the index of their listener.
    pub(in crate::server) conversations: Vec<Arc<Conversation>>,
}

impl Post {
    /// Where programs live with this worker.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    pub(in crate::server) fn home(&mut self) -> io::Result<&mut Home> {
        if self.home.is_none() {
            let (mailbox, seat) = (self.seat.clone(), self.seat.clone());
            let ring = move || seat.doorbell().ring();
            self.home = Some(Box::new(Home::new(self.poll.registry(), mailbox, ring)?));
        }
        Ok(self.home.as_mut().expect("it was just made"))
    }
}

impl Worker {
    /// What epoll told of something that is no connection of this worker.
    #[cold]
    pub(super) fn take_program_event(&mut self, event: &Event) {
        let Some(home) = &mut self.home else { return };
        // What there is to be read has been there since then.
        home.take_event(event, self.began);
    }

    /// What this worker's own connections ask the programs that live here, and what those answer
    /// them. Also sees to it that the programs have their time. `is_called`: there may be news.
    pub(super) fn serve_programs(&mut self, is_called: bool) {
        if let Some(home) = &mut self.home {
            if is_called {
                home.take_news();
            }
            home.take_inquiries(INBOX_ITEMS_A_TURN);
            home.take_notes(self.began);
        }
        self.serve_relays(self.began);
        self.deliver();
        if let Some(home) = &mut self.home {
            // Of those that have ended meanwhile.
            home.take_notes(self.began);
        }
        self.note_programs();
    }

    /// Answers this worker's own connections. What they ask upon that has its turn later.
    fn deliver(&mut self) {
        let Some(home) = &mut self.home else { return };
        if home.outbox().is_empty() {
            return;
        }
        let mut own = home.outbox().take();
        for (address, answer) in own.answers.drain(..) {
            match answer {
                Own::Line(line) => self.take_line(address, &own.lines[line]),
                Own::Late(late) => self.take_reply(LateReply { address, late }),
            }
        }
        if let Some(home) = &mut self.home {
            home.outbox().put_back(own);
        }
    }

    /// What was to be done at a time of its own.
    pub(super) fn tick_programs(&mut self, now: Instant) {
        let Some(home) = &mut self.home else { return };
        home.tick(now);
        self.note_programs();
    }

    /// The programs may have something to do at another time than before.
    pub(super) fn note_programs(&mut self) {
        let Some(home) = &mut self.home else { return };
        self.errands.wake_programs(home.wake());
    }

    /// The connection in that slot takes more than before.
    #[cold]
    pub(super) fn note_room(&mut self, slot: usize) {
        let Some(home) = &mut self.home else { return };
        home.relays().note_room(slot);
    }

    /// What the processes of connections have said, and what that leads to.
    fn serve_relays(&mut self, now: Instant) {
        let ready = self.home.as_mut().map_or(0, |home| home.relays().ready());
        for _ in 0..ready {
            let next = self.home.as_mut().and_then(|home| home.relays().next_ready());
            let Some((place, slot, generation)) = next else { break };
            self.serve_relay(place, slot, generation, now);
        }
        while let Some((ticket, late)) =
            self.home.as_mut().and_then(|home| home.relays().next_answer())
        {
            let address = ticket.address();
            ticket.forgo();
            self.take_reply(LateReply { address, late });
        }
        while let Some((slot, generation, reason)) =
            self.home.as_mut().and_then(|home| home.relays().next_ending())
        {
            let entry = self.connections.get_mut(slot);
            if let Some(entry) = entry.filter(|entry| entry.generation == generation) {
                entry.connection.end_by_responder(reason);
                self.turn(slot);
            }
        }
    }

    fn serve_relay(&mut self, place: usize, slot: usize, generation: u64, now: Instant) {
        let mut budget = OUTPUT_BYTES_A_TURN;
        while budget > 0 {
            let Some(home) = &mut self.home else { return };
            let entry = self.connections.get_mut(slot);
            let Some(entry) = entry.filter(|entry| entry.generation == generation) else { return };
            if !entry.connection.has_room() {
                return home.relays().hold(place);
            }
            match home.read_relay(place, now) {
                Output::Bytes(length) => {
                    let output = home.take_buffer();
                    self.turn_upon(slot, Some(&Cause::Given(&output[..length])));
                    if let Some(home) = &mut self.home {
                        home.put_back(output);
                    }
                    budget = budget.saturating_sub(length);
                }
                Output::WouldBlock => return,
                Output::End => return home.relays().conclude(place),
            }
        }
        if let Some(home) = &mut self.home {
            home.relays().queue(place);
        }
    }

    /// Nobody is to be answered any more: the processes end.
    pub(super) fn end_programs(&mut self) {
        if let Some(home) = &mut self.home {
            home.stop(Instant::now());
        }
    }

    /// At the first start, or after a panic.
    pub(super) fn begin_programs(&mut self) {
        let Some(home) = &mut self.home else { return };
        let now = Instant::now();
        if std::mem::replace(&mut self.has_begun, true) {
            home.begin_anew(now);
        } else {
            home.begin(now);
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
        let is_shared = self.home.as_ref().is_some_and(|home| !home.is_empty());
        !is_shared || self.shared.occupied.load(Ordering::SeqCst) == 0 || is_late()
    }
}
