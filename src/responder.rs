//! What answers a message. Pure: a responder sees text and writes text; sockets, clocks, threads
//! and metrics are not its business. An answer that comes later goes through a [`Ticket`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a responder did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// The reply was written.
    Reply,
    /// There is none.
    Silence,
    /// The reply comes through the [`Ticket`] taken from [`Context::ticket`], or the connection
    /// closes after `within`. Until then the connection is not read; others go on.
    Later {
        /// How long the reply may take.
        within: Duration,
    },
    /// What was written is the last reply; the connection closes behind it.
    ReplyAndClose,
    /// The responder cannot go on; the connection closes, what was written is dropped.
    Failed,
}

/// What is known of a client when its responder is made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Client<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The peer's address; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
}

impl<'a> Client<'a> {
    /// A client of that listener.
    #[must_use]
    pub fn new(listener: &'a str, peer: Option<SocketAddr>) -> Self {
        Self { listener, peer }
    }
}

/// Answers the messages of one connection, in their order, on the thread of its worker: a call that
/// blocks holds up every connection of that worker.
pub trait Responder: Send {
    /// Answers `text`: writes the reply, without the framing's terminator.
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer;
}

/// Where a reply is written: the worker's buffer of what is sent next. `write!` works on it.
#[derive(Debug)]
pub struct Reply<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Reply<'a> {
    /// A reply written behind what `buffer` holds.
    #[must_use]
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// Adds to the reply.
    pub fn push(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }
}

impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// What a responder may use beside the message.
pub struct Context<'a> {
    ticket: &'a mut dyn FnMut() -> Ticket,
}

impl<'a> Context<'a> {
    /// A context whose tickets come from `ticket`.
    #[must_use]
    pub fn new(ticket: &'a mut dyn FnMut() -> Ticket) -> Self {
        Self { ticket }
    }

    /// The right to answer this message later, from any thread. Use it with [`Answer::Later`].
    pub fn ticket(&mut self) -> Ticket {
        (self.ticket)()
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

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

/// A reply that comes later.
#[derive(Debug)]
pub struct LateReply {
    /// Whose it is.
    pub address: Address,
    /// `None`: there will be no reply, the responder failed.
    pub text: Option<String>,
}

/// Takes late replies to the worker that owns the connection; never blocks.
pub trait Mailbox: Send + Sync {
    /// Hands the reply over.
    ///
    /// # Errors
    /// Gives the reply back when the inbox is full or its worker has ended.
    fn deliver(&self, reply: LateReply) -> Result<(), LateReply>;
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

    /// Answers the message.
    ///
    /// # Errors
    /// Gives the ticket and the text back when the worker's inbox is full: the caller chooses
    /// whether to try again or to drop it.
    pub fn answer(mut self, text: String) -> Result<(), (Self, String)> {
        let mailbox = self.mailbox.take().expect("a ticket answers once");
        match mailbox.deliver(LateReply { address: self.address, text: Some(text) }) {
            Ok(()) => Ok(()),
            Err(reply) => {
                self.mailbox = Some(mailbox);
                Err((self, reply.text.unwrap_or_default()))
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.take() {
            // Where even this finds no room, the deadline closes the connection.
            let _ = mailbox.deliver(LateReply { address: self.address, text: None });
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Makes the responder of each new connection of a listener.
pub type Factory = Arc<dyn Fn(&Client<'_>) -> Box<dyn Responder> + Send + Sync>;

/// How a listener's messages are answered.
#[derive(Clone)]
pub enum Service {
    /// Each message is its own reply, sent from where it was received.
    Echo,
    /// Nothing is ever replied.
    Discard,
    /// By a responder of its own for each connection.
    Custom(Factory),
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Echo => "Echo",
            Self::Discard => "Discard",
            Self::Custom(_) => "Custom",
        })
    }
}

/// The services that a config can name.
#[derive(Debug, Clone)]
pub struct Responders {
    by_name: BTreeMap<String, Service>,
}

impl Default for Responders {
    /// `echo` and `discard`.
    fn default() -> Self {
        let built_in = [("echo", Service::Echo), ("discard", Service::Discard)];
        Self { by_name: built_in.map(|(name, service)| (name.to_owned(), service)).into() }
    }
}

impl Responders {
    /// Adds a responder of the caller's own under `name`, or replaces the one that has it.
    #[must_use]
    pub fn with<F>(mut self, name: &str, factory: F) -> Self
    where
        F: Fn(&Client<'_>) -> Box<dyn Responder> + Send + Sync + 'static,
    {
        self.by_name.insert(name.to_owned(), Service::Custom(Arc::new(factory)));
        self
    }

    /// The service of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.by_name.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
