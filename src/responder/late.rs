//! Answers that come later, and texts that nobody asked for: how they find their connection from
//! any thread.

use std::fmt;
use std::sync::Arc;

/// Names the one message that a late reply belongs to. A reply to a connection that is gone, or to
/// a message whose time is over, is dropped: `generation` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The connection's place with its worker.
    pub slot: usize,
    /// Differs for each connection in that place.
    pub generation: u64,
    /// Differs for each message of that connection.
    pub message: u64,
}

/// What a late answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Late {
    /// This reply, the framing's terminator behind it.
    Reply(String),
    /// The same, and it is the last one: the connection closes behind it.
    ReplyAndClose(String),
    /// These bytes as they stand.
    Bytes(Vec<u8>),
    /// There is none after all; the conversation goes on.
    Silence,
    /// Nothing is sent; the connection closes.
    Close,
    /// The connection is reset.
    Reset,
    /// There will be none, the responder failed; the connection closes.
    Failed,
    /// It would come too late; the connection closes as `responder_timeout`.
    TimedOut,
    /// What a responder wrote on a thread that is no worker's.
    #[doc(hidden)]
    Written(Written),
    /// The responder panicked there.
    #[doc(hidden)]
    Panicked,
}

/// A reply as a [`Reply`](super::Reply) took it, which may be no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub(crate) bytes: Vec<u8>,
    /// The framing's terminator is added.
    pub(crate) is_terminated: bool,
    /// It is the last one.
    pub(crate) is_last: bool,
}

/// A late answer and whose it is.
#[derive(Debug)]
pub struct LateReply {
    /// Whose it is.
    pub address: Address,
    /// What it is.
    pub late: Late,
}

/// What a connection is sent without having asked.
#[derive(Debug, Clone)]
pub struct Push {
    /// Whose it is; its message does not matter.
    pub address: Address,
    /// `None`: the connection closes behind what it is owed.
    pub text: Option<Arc<str>>,
}

/// Takes late replies to the worker that owns the connection; never blocks.
pub trait Mailbox: Send + Sync {
    /// Hands the reply over.
    ///
    /// # Errors
    /// Gives the reply back when the inbox is full or its worker has ended.
    fn deliver(&self, reply: LateReply) -> Result<(), LateReply>;

    /// Hands over what nobody asked for.
    ///
    /// # Errors
    /// The inbox is full, or its worker has ended.
    fn push(&self, push: Push) -> Result<(), SendError>;
}

/// The right to answer one message later, once. Dropped unused it says that the responder failed.
pub struct Ticket {
    address: Address,
    /// Emptied by the answer.
    mailbox: Option<Arc<dyn Mailbox>>,
}

impl Ticket {
    /// A ticket for the message at `address`.
    #[must_use]
    pub fn new(address: Address, mailbox: Arc<dyn Mailbox>) -> Self {
        Self { address, mailbox: Some(mailbox) }
    }

    /// Answers the message with a text.
    ///
    /// # Errors
    /// Gives the ticket and the text back when the worker's inbox is full: the caller chooses
    /// whether to try again or to drop it.
    pub fn answer(self, text: String) -> Result<(), (Self, String)> {
        self.resolve(Late::Reply(text)).map_err(|(ticket, late)| match late {
            Late::Reply(text) => (ticket, text),
            _ => (ticket, String::new()),
        })
    }

    /// Answers the message in any way.
    ///
    /// # Errors
    /// Gives the ticket and the answer back when the worker's inbox is full: the caller chooses
    /// whether to try again or to drop it.
    pub fn resolve(mut self, late: Late) -> Result<(), (Self, Late)> {
        let mailbox = self.mailbox.take().expect("a ticket answers once");
        match mailbox.deliver(LateReply { address: self.address, late }) {
            Ok(()) => Ok(()),
            Err(reply) => {
                self.mailbox = Some(mailbox);
                Err((self, reply.late))
            }
        }
    }

    /// The same right once more. The answer that arrives first counts.
    pub(crate) fn another(&self) -> Self {
        Self { address: self.address, mailbox: self.mailbox.clone() }
    }

    /// A way to the connection of that message.
    pub(crate) fn sender(&self) -> Sender {
        let mailbox = self.mailbox.clone().expect("a ticket that was not used");
        Sender::new(self.address, mailbox)
    }

    /// Drops it unused, and says nothing of that.
    pub(crate) fn forgo(mut self) {
        self.mailbox = None;
    }

    /// What it answers.
    pub(crate) fn address(&self) -> Address {
        self.address
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            // Where even this finds no room, the deadline closes the connection.
            let _ = mailbox.deliver(LateReply { address: self.address, late: Late::Failed });
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A way to one connection, at any time and from any thread, for texts that its client did not ask
/// for. Never blocks. A text to a connection that has ended is dropped, as is one to a client that
/// leaves more than `max_pending_bytes` unread; both are counted in
/// `talkback_late_replies_refused_total`.
#[derive(Clone)]
pub struct Sender {
    address: Address,
    mailbox: Arc<dyn Mailbox>,
}

impl Sender {
    /// A way to the connection at `address`.
    #[must_use]
    pub fn new(address: Address, mailbox: Arc<dyn Mailbox>) -> Self {
        Self { address, mailbox }
    }

    /// Sends a text, the framing's terminator behind it, after the replies before. Many
    /// connections may be sent the same text without a copy each.
    ///
    /// # Errors
    /// [`SendError`], and the text is not sent.
    pub fn send(&self, text: impl Into<Arc<str>>) -> Result<(), SendError> {
        self.mailbox.push(Push { address: self.address, text: Some(text.into()) })
    }

    /// Closes the connection as `responder_closed`, behind what it is owed.
    ///
    /// # Errors
    /// [`SendError`], and it stays open.
    pub fn close(&self) -> Result<(), SendError> {
        self.mailbox.push(Push { address: self.address, text: None })
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why a text did not set out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The worker has more to take than its inbox holds.
    #[error("the inbox of the connection's worker is full")]
    Full,
    /// The server has stopped.
    #[error("the connection's worker has ended")]
    Ended,
}
