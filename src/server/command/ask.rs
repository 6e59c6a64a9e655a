//! The responder of a connection whose messages a shared program answers: it takes them to the
//! worker that the program lives with.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::CommandInstruments;
use crate::metrics::names::CommandRefusal;
use crate::responder::{Answer, Context, Reply, Responder};

use super::inquiries::{Deliver, Inquiry};

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
