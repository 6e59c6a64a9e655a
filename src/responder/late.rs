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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// The right to answer one message later, once, from any thread. Dropped unused it says that the
/// responder failed.
///
/// # Examples
/// ```
/// use std::thread;
/// use talkback::{Answer, Late, Responders, from_fn};
///
/// let responders = Responders::default().with("slow", |_client| {
///     from_fn(|text, _reply, context| {
///         let (text, ticket) = (text.to_owned(), context.ticket());
///         thread::spawn(move || match text.as_str() {
///             "bye" => ticket.resolve(Late::ReplyAndClose("goodbye".to_owned())),
///             text => ticket.answer(text.to_uppercase()),
///         });
///         Answer::Later
///     })
/// });
/// # let _ = responders;
/// ```
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
    /// See [`Ticket::resolve`].
    pub fn answer(self, text: impl Into<String>) -> Result<(), Refused> {
        self.resolve(Late::Reply(text.into()))
    }

    /// Answers the message in any way. An answer to a message whose time is over is taken and
    /// dropped, which is counted in `talkback_late_replies_refused_total`.
    ///
    /// # Errors
    /// The worker's inbox is full, or the worker has ended: gives back ticket and answer, and the
    /// caller chooses whether to try again or to drop them.
    pub fn resolve(mut self, late: Late) -> Result<(), Refused> {
        let mailbox = self.mailbox.take().expect("a ticket answers once");
        match mailbox.deliver(LateReply { address: self.address, late }) {
            Ok(()) => Ok(()),
            Err(LateReply { late, .. }) => {
                self.mailbox = Some(mailbox);
                Err(Refused { ticket: self, late })
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

    /// Whether that mailbox is the one that it would go to.
    pub(crate) fn is_for(&self, mailbox: &Arc<dyn Mailbox>) -> bool {
        self.mailbox
            .as_ref()
            .is_some_and(|own| std::ptr::addr_eq(&raw const **own, &raw const **mailbox))
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

/// A late answer that found no room, with the ticket, to try again. Dropped it says that the
/// responder failed.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use talkback::{Late, Ticket};
///
/// /// Tries for a second. Not on a worker's thread, which it would block.
/// fn insist(ticket: Ticket, late: Late) {
///     let mut answered = ticket.resolve(late);
///     for _ in 0..100 {
///         let Err(refused) = answered else { return };
///         std::thread::sleep(Duration::from_millis(10));
///         answered = refused.ticket.resolve(refused.late);
///     }
/// }
/// # let _ = insist;
/// ```
#[derive(Debug, thiserror::Error)]
#[error("the inbox of the connection's worker is full, or the worker has ended")]
#[non_exhaustive]
pub struct Refused {
    /// The right to answer, as it was.
    pub ticket: Ticket,
    /// The answer.
    pub late: Late,
}

/// A way to one connection, at any time and from any thread, for texts that its client did not ask
/// for. Never blocks. A text to a connection that has ended is dropped, as is one to a client that
/// leaves more than `max_pending_bytes` unread; both are counted in
/// `talkback_late_replies_refused_total`.
///
/// # Examples
/// Every client is told what one says:
/// ```
/// use std::sync::{Arc, Mutex};
/// use talkback::{Answer, Context, Reply, Responder, Responders, Sender};
///
/// #[derive(Clone, Default)]
/// struct Party(Arc<Mutex<Vec<Sender>>>);
///
/// impl Responder for Party {
///     fn open(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
///         self.0.lock().expect("no panic").push(context.sender());
///         Answer::Silence
///     }
///
///     fn respond(&mut self, text: &str, _: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
///         let text: Arc<str> = text.into();
///         // Nothing here blocks; whose inbox is full misses it.
///         self.0.lock().expect("no panic").retain(|to| to.send(text.clone()).is_ok());
///         Answer::Silence
///     }
/// }
///
/// let party = Party::default();
/// let responders = Responders::default().with("party", move |_client| party.clone());
/// # let _ = responders;
/// ```
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

    /// Closes the connection as `responder_closed`, behind the replies before and an answer that is
    /// awaited. Messages that wait behind that one are not answered any more.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The worker has more to take than its inbox holds.
    #[error("the inbox of the connection's worker is full")]
    Full,
    /// The server has stopped.
    #[error("the connection's worker has ended")]
    Ended,
}
