//! The responder of a connection whose messages a shared program answers: it takes them to the
//! worker that the program lives with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::CommandInstruments;
use crate::metrics::names::CommandRefusal;
use crate::responder::{Answer, Context, Reply, Responder, Ticket};

/// Takes a message to its program; never blocks. Gives it back where there is no room.
pub(in crate::server) type Deliver = Arc<dyn Fn(Inquiry) -> Result<(), Inquiry> + Send + Sync>;

/// A message on its way to its program.
#[derive(Debug)]
pub(in crate::server) struct Inquiry {
    pub(in crate::server) ticket: Ticket,
    /// What the program is to read.
    pub(in crate::server) line: Vec<u8>,
    /// Lives as long as the connection.
    pub(in crate::server) client: Weak<()>,
}

/// Messages of a worker's own connections for the programs that live with it. Both sides are on the
/// worker's thread; the lock is never waited for. Each connection has one here at most.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Inquiries {
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// So that a look needs no lock.
    count: AtomicUsize,
    /// With their listener's place in the config.
    inquiries: Mutex<VecDeque<(usize, Inquiry)>>,
}

impl Inquiries {
    /// The way to the program of that listener.
    pub(in crate::server) fn deliver(&self, listener: usize) -> Deliver {
        let waiting = self.waiting.clone();
        Arc::new(move |inquiry| {
            let mut inquiries = waiting.inquiries.lock();
            inquiries.push_back((listener, inquiry));
            waiting.count.store(inquiries.len(), Ordering::Relaxed);
            Ok(())
        })
    }

    pub(super) fn next(&self) -> Option<(usize, Inquiry)> {
        if self.is_empty() {
            return None;
        }
        let mut inquiries = self.waiting.inquiries.lock();
        let next = inquiries.pop_front();
        self.waiting.count.store(inquiries.len(), Ordering::Relaxed);
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.count.load(Ordering::Relaxed) == 0
    }
}

/// What all connections of a listener share.
pub(in crate::server) struct Desired {
    pub(in crate::server) deliver: Deliver,
    /// Longer than the pool lets anybody wait.
    pub(in crate::server) within: Duration,
    pub(in crate::server) overload_reply: String,
    pub(in crate::server) instruments: Arc<CommandInstruments>,
}

/// One connection's.
pub(in crate::server) struct Ask {
    desired: Arc<Desired>,
    /// Gone with the connection, so that nobody is asked for it any more.
    client: Arc<()>,
}

impl Ask {
    pub(in crate::server) fn new(desired: Arc<Desired>) -> Self {
        Self { desired, client: Arc::default() }
    }
}

impl Responder for Ask {
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let Desired { deliver, within, overload_reply, instruments } = &*self.desired;
        let mut line = Vec::with_capacity(text.len() + 1);
        line.extend_from_slice(text.as_bytes());
        line.push(b'\n');
        let client = Arc::downgrade(&self.client);
        let inquiry = Inquiry { ticket: context.ticket(), line, client };
        let Err(Inquiry { ticket, .. }) = deliver(inquiry) else {
            return Answer::LaterWithin(*within);
        };
        ticket.forgo();
        instruments.refused(CommandRefusal::QueueFull);
        if overload_reply.is_empty() {
            return Answer::Failed;
        }
        reply.push(overload_reply);
        Answer::Reply
    }
}
