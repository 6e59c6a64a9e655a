//! Messages on their way to the shared program that answers them: from the connections of the
//! worker that it lives with through a queue of that thread's own, from those of others through a
//! channel. None of them is ever waited for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use crate::responder::Ticket;

/// A message that wants a reply of a program.
#[derive(Debug)]
pub(in crate::server) struct Inquiry {
    pub(in crate::server) ticket: Ticket,
    /// What the program is to read.
    pub(in crate::server) line: Vec<u8>,
    /// Lives as long as the connection.
    pub(in crate::server) client: Weak<()>,
}

/// Takes a message to its program. Gives it back where there is no room.
pub(in crate::server) type Deliver = Arc<dyn Fn(Inquiry) -> Result<(), Inquiry> + Send + Sync>;

/// The end at which a program takes what it is asked.
#[derive(Debug)]
pub(in crate::server) struct Inquiries {
    own: Arc<Own>,
    others: Receiver<Inquiry>,
    /// In that channel, or about to be.
    others_count: Arc<AtomicUsize>,
    to_others: Sender<Inquiry>,
    /// The most that the channel holds.
    room: usize,
}

/// Of the worker's own connections, each of which has one here at most. Both sides are on one
/// thread, so that the lock is never waited for.
#[derive(Debug, Default)]
struct Own {
    /// So that a look needs no lock.
    count: AtomicUsize,
    waiting: Mutex<VecDeque<Inquiry>>,
}

impl Inquiries {
    /// So many of other workers' connections find room. The channel takes memory only for those
    /// that are there.
    pub(in crate::server) fn with_room(room: usize) -> Self {
        let (to_others, others) = unbounded();
        Self { own: Arc::default(), others, others_count: Arc::default(), to_others, room }
    }

    /// The way here for connections of the same worker.
    pub(in crate::server) fn deliver(&self) -> Deliver {
        let own = self.own.clone();
        Arc::new(move |inquiry| {
            let mut waiting = own.waiting.lock();
            waiting.push_back(inquiry);
            own.count.store(waiting.len(), Ordering::Relaxed);
            Ok(())
        })
    }

    /// The way here for connections of other workers; `ring` makes this one look.
    pub(in crate::server) fn deliver_from_others(
        &self,
        ring: impl Fn() + Send + Sync + 'static,
    ) -> Deliver {
        let (count, sender, room) = (self.others_count.clone(), self.to_others.clone(), self.room);
        Arc::new(move |inquiry| {
            if count.fetch_add(1, Ordering::Relaxed) >= room {
                count.fetch_sub(1, Ordering::Relaxed);
                return Err(inquiry);
            }
            sender.send(inquiry).map_err(|refused| refused.into_inner())?;
            ring();
            Ok(())
        })
    }

    /// The next message.
    pub(super) fn next(&self) -> Option<Inquiry> {
        self.next_own().or_else(|| self.next_of_others())
    }

    fn next_own(&self) -> Option<Inquiry> {
        if self.own.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut waiting = self.own.waiting.lock();
        let next = waiting.pop_front();
        self.own.count.store(waiting.len(), Ordering::Relaxed);
        next
    }

    fn next_of_others(&self) -> Option<Inquiry> {
        if self.others_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let next = self.others.try_recv().ok()?;
        self.others_count.fetch_sub(1, Ordering::Relaxed);
        Some(next)
    }

    /// Whether nothing is there. Of what another worker is about to put here its bell tells.
    pub(super) fn is_empty(&self) -> bool {
        let is_none_of_others =
            || self.others_count.load(Ordering::Relaxed) == 0 || self.others.is_empty();
        self.own.count.load(Ordering::Relaxed) == 0 && is_none_of_others()
    }

    /// The worker's own connections are gone, all of them.
    pub(super) fn forget_own(&self) {
        while let Some(Inquiry { ticket, .. }) = self.next_own() {
            ticket.forgo();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::{Address, LateReply, Mailbox, Push, SendError};
    use std::thread;

    struct Nowhere;

    impl Mailbox for Nowhere {
        fn deliver(&self, _: LateReply) -> Result<(), LateReply> {
            Ok(())
        }

        fn push(&self, _: Push) -> Result<(), SendError> {
            Ok(())
        }
    }

    fn inquiry(number: u64) -> Inquiry {
        let address = Address { slot: 0, generation: 0, message: number };
        let ticket = Ticket::new(address, Arc::new(Nowhere));
        Inquiry { ticket, line: Vec::new(), client: Weak::new() }
    }

    fn taken(inquiries: &Inquiries) -> Vec<u64> {
        std::iter::from_fn(|| inquiries.next())
            .map(|inquiry| inquiry.ticket.address().message)
            .collect()
    }

    #[test]
    fn who_finds_no_room_gets_the_message_back_until_there_is_some() {
        let inquiries = Inquiries::with_room(2);
        let deliver = inquiries.deliver_from_others(|| {});
        assert!(inquiries.is_empty());
        assert!(deliver(inquiry(1)).is_ok() && deliver(inquiry(2)).is_ok());
        assert_eq!(deliver(inquiry(3)).unwrap_err().ticket.address().message, 3);
        assert!(!inquiries.is_empty());
        assert_eq!(taken(&inquiries), [1, 2]);
        assert!(inquiries.is_empty());
        assert!(deliver(inquiry(4)).is_ok());
        assert_eq!(taken(&inquiries), [4]);
    }

    #[test]
    fn the_bound_holds_for_many_senders_and_nothing_is_lost() {
        const EACH: u64 = 1000;
        let inquiries = Inquiries::with_room(16);
        let given: u64 = thread::scope(|scope| {
            let sender = || {
                let deliver = inquiries.deliver_from_others(|| {});
                move || (0..EACH).filter(|number| deliver(inquiry(*number)).is_ok()).count()
            };
            let senders: Vec<_> = (0..3).map(|_| scope.spawn(sender())).collect();
            let mut most = 0;
            let mut taken = 0;
            while senders.iter().any(|sender| !sender.is_finished()) {
                most = most.max(inquiries.others.len());
                taken += u64::from(inquiries.next().is_some());
            }
            taken += self::taken(&inquiries).len() as u64;
            assert!(most <= 16, "{most} were there");
            let given: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
            assert_eq!(taken, given as u64);
            taken
        });
        assert!(given >= 16, "{given}");
    }

    #[test]
    fn what_connections_asked_that_are_gone_is_forgotten_and_nothing_else() {
        let inquiries = Inquiries::with_room(1);
        assert!(inquiries.deliver()(inquiry(1)).is_ok());
        assert!(inquiries.deliver_from_others(|| {})(inquiry(2)).is_ok());
        inquiries.forget_own();
        assert_eq!(taken(&inquiries), [2]);
    }
}
