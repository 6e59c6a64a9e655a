//! What answers a message. Pure: a responder sees text and writes text; sockets, clocks, threads
//! and metrics are not its business, time and randomness arrive as values. A delay is a value
//! returned; an answer that comes later goes through a [`Ticket`], a text unasked for through a
//! [`Sender`].

mod function;
mod late;
pub mod rules;
mod service;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use function::{FromFn, from_fn};
#[doc(hidden)]
pub use late::Written;
pub use late::{Address, Late, LateReply, Mailbox, Push, Refused, SendError, Sender, Ticket};
pub use service::Responders;
pub(crate) use service::{Factory, Service};

/// What a responder did with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use]
pub enum Answer {
    /// The reply was written.
    Reply,
    /// There is none; what was written is dropped.
    Silence,
    /// The reply comes through the [`Ticket`] taken from [`Context::ticket`], or the connection
    /// closes as `responder_timeout` after the listener's `reply_timeout`. Until then its client's
    /// next messages wait; others go on.
    Later,
    /// The same with a bound of its own.
    LaterWithin(Duration),
    /// What was written is the last reply; the connection closes behind it.
    ReplyAndClose,
    /// Nothing is sent; the connection closes behind the replies before.
    Close,
    /// The connection is reset: replies that are still pending are thrown away.
    Reset,
    /// The responder cannot go on; the connection closes, what was written is dropped.
    Failed,
}

/// What is known of a client when its responder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Client<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The peer's address; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that the peer reached; `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// How long an answer that comes later may take; `None`: nobody said.
    pub(crate) reply_timeout: Option<Duration>,
}

impl<'a> Client<'a> {
    /// A client of that listener.
    #[must_use]
    pub fn new(listener: &'a str, peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        Self { listener, peer, local, reply_timeout: None }
    }

    /// The same, of a listener that waits so long for an answer.
    #[must_use]
    pub(crate) fn with_reply_timeout(self, timeout: Duration) -> Self {
        Self { reply_timeout: Some(timeout), ..self }
    }
}

/// Answers the messages of one connection, in their order, on the thread of its worker: a call that
/// blocks holds up every connection of that worker.
///
/// A panic costs its own connection, which closes as `responder_panic`; the responder is not
/// asked again.
///
/// What needs no state, or keeps it in a closure, is written shorter with [`from_fn`]; what must
/// block goes behind [`offload`](crate::offload()).
///
/// # Examples
/// ```
/// use std::fmt::Write;
/// use talkback::{Answer, Context, Reply, Responder, Responders};
///
/// /// Says at the end how many there were.
/// #[derive(Default)]
/// struct Counting {
///     messages: u64,
/// }
///
/// impl Responder for Counting {
///     fn open(&mut self, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
///         reply.push("welcome");
///         Answer::Reply
///     }
///
///     fn respond(&mut self, text: &str, _: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
///         self.messages += 1;
///         if text == "quit" { Answer::Close } else { Answer::Silence }
///     }
///
///     fn finish(&mut self, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
///         match write!(reply, "{} messages", self.messages) {
///             Ok(()) => Answer::Reply,
///             Err(_) => Answer::Failed,
///         }
///     }
///
///     fn end(&mut self, reason: &str) {
///         eprintln!("a client left after {} messages: {reason}", self.messages);
///     }
/// }
///
/// let responders = Responders::default().with("counting", |_client| Counting::default());
/// # let _ = responders;
/// ```
pub trait Responder: Send {
    /// The connection is open; a text written here is a greeting.
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let _ = (reply, context);
        Answer::Silence
    }

    /// Answers `text`: writes the reply, without the framing's terminator.
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer;

    /// The client has ended its side, and all its messages are answered: room for a last answer,
    /// now or later. The connection closes behind it. Not called where something else ended the
    /// reading, such as the exit word, a timeout or a stop.
    fn finish(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let _ = (reply, context);
        Answer::Silence
    }

    /// The connection has ended, in whatever way but by this responder's panic; called once, as the
    /// last of all calls. `reason` is the label of `talkback_connections_closed_total`.
    fn end(&mut self, reason: &str) {
        let _ = reason;
    }
}

impl<R: Responder + ?Sized> Responder for Box<R> {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        (**self).open(reply, context)
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        (**self).respond(text, reply, context)
    }

    fn finish(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        (**self).finish(reply, context)
    }

    fn end(&mut self, reason: &str) {
        (**self).end(reason);
    }
}

/// Where a reply is written: the worker's buffer of what is sent next. `write!` works on it.
///
/// # Examples
/// ```
/// use std::fmt::Write;
/// use talkback::Reply;
///
/// let mut buffer = b"before\n".to_vec();
/// let mut reply = Reply::new(&mut buffer);
/// reply.push("2 * 3 = ");
/// write!(reply, "{}", 2 * 3)?;
/// assert_eq!(reply.as_bytes(), b"2 * 3 = 6");
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct Reply<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    is_terminated: bool,
}

impl<'a> Reply<'a> {
    /// A reply written behind what `buffer` holds.
    #[must_use]
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { start: buffer.len(), buffer, is_terminated: true }
    }

    /// Adds to the reply.
    pub fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    /// Adds bytes that may be no text, such as a simulated fault's or a program's output.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The reply is sent as it stands: it brings what ends it, and the framing's terminator is left
    /// out.
    pub fn without_terminator(&mut self) {
        self.is_terminated = false;
    }

    /// Whether the framing's terminator is added.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    /// What was written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Drops what was written but for the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.buffer.truncate(self.start.saturating_add(length));
    }
}

impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// What surrounds a responder: the server on a connection, or a test.
///
/// # Examples
/// A responder is tested without a server:
/// ```
/// use std::time::Duration;
/// use talkback::responder::Host;
/// use talkback::{Answer, Context, Reply, Responder, Sender, Ticket, from_fn};
///
/// struct Bench;
///
/// impl Host for Bench {
///     fn ticket(&mut self) -> Ticket {
///         unreachable!("this one answers at once")
///     }
///     fn sender(&mut self) -> Sender {
///         unreachable!("this one says nothing unasked")
///     }
///     fn unix_time(&mut self) -> Duration {
///         Duration::from_secs(1_000_000_000)
///     }
///     fn random(&mut self) -> u64 {
///         4
///     }
/// }
///
/// let mut dice = from_fn(|_text, reply, context| {
///     reply.push(&(1 + context.random() % 6).to_string());
///     Answer::Reply
/// });
/// let mut bytes = Vec::new();
/// let answer =
///     dice.respond("roll", &mut Reply::new(&mut bytes), &mut Context::new(&mut Bench, 1));
/// assert_eq!((answer, bytes.as_slice()), (Answer::Reply, &b"5"[..]));
/// ```
pub trait Host {
    /// The right to answer the message at hand later.
    fn ticket(&mut self) -> Ticket;

    /// A way to the connection for texts that nobody asked for.
    fn sender(&mut self) -> Sender;

    /// Since the beginning of 1970, in UTC.
    fn unix_time(&mut self) -> Duration;

    /// A number from all that 64 bits hold, each as likely. Not for secrets.
    fn random(&mut self) -> u64;
}

/// What a responder may use beside the message.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use talkback::{Answer, Responders, from_fn};
///
/// let responders = Responders::default().with("clock", |_client| {
///     from_fn(|_text, reply, context| {
///         let seconds = context.unix_time().as_secs();
///         reply.push(&format!("{}: {seconds} s since 1970", context.message()));
///         // As if it were far away.
///         context.delay(Duration::from_millis(50));
///         Answer::Reply
///     })
/// });
/// # let _ = responders;
/// ```
pub struct Context<'a> {
    host: &'a mut dyn Host,
    message: u64,
    delay: Duration,
}

impl<'a> Context<'a> {
    /// The context of the message of that number.
    #[must_use]
    pub fn new(host: &'a mut dyn Host, message: u64) -> Self {
        Self { host, message, delay: Duration::ZERO }
    }

    /// The right to answer this message later, from any thread. Use it with [`Answer::Later`].
    pub fn ticket(&mut self) -> Ticket {
        self.host.ticket()
    }

    /// A way to send texts to this connection at any time and from any thread.
    pub fn sender(&mut self) -> Sender {
        self.host.sender()
    }

    /// The number of this message on its connection, from 1; 0 in [`Responder::open`].
    #[must_use]
    pub fn message(&self) -> u64 {
        self.message
    }

    /// The time since the beginning of 1970, in UTC.
    pub fn unix_time(&mut self) -> Duration {
        self.host.unix_time()
    }

    /// A number from all that 64 bits hold, each as likely. Not for secrets.
    pub fn random(&mut self) -> u64 {
        self.host.random()
    }

    /// The answer takes effect so much later, to the millisecond and never before; the client's
    /// next messages wait. A late answer is not delayed.
    pub fn delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// What [`Context::delay`] was told.
    #[must_use]
    pub fn delayed(&self) -> Duration {
        self.delay
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, delay, .. } = self;
        f.debug_struct("Context")
            .field("message", message)
            .field("delay", delay)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_cut_to_what_it_has_and_never_what_stands_before_it() {
        let mut buffer = b"before".to_vec();
        let mut reply = Reply::new(&mut buffer);
        reply.push("reply");
        reply.truncate(usize::MAX);
        assert_eq!(reply.as_bytes(), b"reply");
        reply.truncate(2);
        reply.truncate(0);
        assert_eq!(reply.as_bytes(), b"");
        assert_eq!(buffer, b"before");
    }
}
