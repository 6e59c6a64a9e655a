//! Responders that block: a query, a file, a computation of a second. They are asked on a fixed
//! pool of threads, so that no worker waits for them, each connection's questions one at a time and
//! in order. The answers go back through tickets.

mod desk;
mod pool;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::responder::{Answer, Client, Context, Factory, Reply, Responder};

use desk::{Desk, Maker, Question, What};
use pool::Pool;

/// How many questions wait for a thread unless [`Offload::max_waiting`] says otherwise.
pub const DEFAULT_MAX_WAITING: usize = 1024;

/// Responders that may block, on so many threads of their own: [`Offload`] with its defaults. The
/// result goes where a factory is asked for.
///
/// # Errors
/// The system gave no thread, or `threads` is 0.
///
/// # Examples
/// ```
/// use talkback::{Answer, Responders, from_fn, offload};
///
/// let sizes = offload(4, |_client| {
///     from_fn(|text, reply, _context| match std::fs::metadata(text) {
///         Ok(metadata) => {
///             reply.push(&metadata.len().to_string());
///             Answer::Reply
///         }
///         Err(_) => Answer::Failed,
///     })
/// })?;
/// let responders = Responders::default().with("sizes", sizes);
/// # let _ = responders;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn offload<F, R>(
    threads: usize,
    make: F,
) -> io::Result<impl Fn(&Client<'_>) -> Offloaded + Clone + Send + Sync + 'static>
where
    F: Fn(&Client<'_>) -> R + Send + Sync + 'static,
    R: Responder + 'static,
{
    Ok(Offload::new(threads)?.responder(make))
}

/// A fixed pool of threads, `offload-0` and so on, that ask responders which block. Cheap to clone;
/// clones share the threads, so that several responders may.
///
/// - One connection's responder is made, opened, asked, finished and ended there: one call at a
///   time, in order, though not always by the same thread.
/// - A connection waits for its answers as for any that come later, within its listener's
///   `reply_timeout`. A call that takes longer closes its connection as `responder_timeout` and
///   goes on to hold its thread. [`Answer::LaterWithin`] from here has no bound of its own.
/// - [`Context::delay`] sleeps, which holds the thread too.
/// - A panic closes its connection as `responder_panic`, and the thread goes on.
/// - A question is not asked any more if its connection has ended meanwhile, or its
///   `reply_timeout` is over.
/// - The threads end when the last clone, factory and responder of this pool are gone, after what
///   is queued was done. Whoever drops that last one waits for them for a second; a thread that is
///   stuck in a call is then left behind.
///
/// # Examples
/// ```
/// use talkback::offload::Offload;
/// use talkback::{Answer, Responders, from_fn};
///
/// let pool = Offload::new(2)?.max_waiting(100).refusal("busy, try again later");
/// let slow = pool.responder(|_client| {
///     from_fn(|text, reply, _context| {
///         std::thread::sleep(std::time::Duration::from_millis(10));
///         reply.push(text);
///         Answer::Reply
///     })
/// });
/// let responders = Responders::default().with("slow", slow);
/// assert_eq!((pool.threads(), pool.waiting(), pool.refused()), (2, 0, 0));
/// # let _ = responders;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Offload {
    pool: Arc<Pool>,
    max_waiting: usize,
    refusal: Option<Arc<str>>,
}

impl Offload {
    /// A pool of so many threads.
    ///
    /// # Errors
    /// The system gave no thread, or `threads` is 0.
    pub fn new(threads: usize) -> io::Result<Self> {
        let pool = Arc::new(Pool::new(threads)?);
        Ok(Self { pool, max_waiting: DEFAULT_MAX_WAITING, refusal: None })
    }

    /// Refuses questions while so many wait for a thread. Ends of connections are never refused.
    #[must_use]
    pub fn max_waiting(mut self, questions: usize) -> Self {
        self.max_waiting = questions;
        self
    }

    /// Replies this to a message that is refused, and the conversation goes on; to a connection
    /// that is refused it is said as the last word. Without it either closes as `responder_error`.
    /// A last answer, at the client's end of input, is left out where there is no room.
    #[must_use]
    pub fn refusal(mut self, text: impl Into<Arc<str>>) -> Self {
        self.refusal = Some(text.into());
        self
    }

    /// Responders that `make` makes, for [`Responders::with`](crate::Responders::with).
    pub fn responder<F, R>(
        &self,
        make: F,
    ) -> impl Fn(&Client<'_>) -> Offloaded + Clone + Send + Sync + use<F, R> + 'static
    where
        F: Fn(&Client<'_>) -> R + Send + Sync + 'static,
        R: Responder + 'static,
    {
        let offload = self.clone();
        let factory: Factory = Arc::new(move |client| Box::new(make(client)));
        move |client| Offloaded {
            desk: Arc::new(Desk::new(Maker {
                factory: factory.clone(),
                listener: client.listener.to_owned(),
                peer: client.peer,
                local: client.local,
            })),
            reply_timeout: client.reply_timeout,
            offload: offload.clone(),
        }
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// How many questions wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// How many questions were refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.pool.refused()
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload")
            .field("threads", &self.threads())
            .field("max_waiting", &self.max_waiting)
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

/// Stands with the worker for a responder that is asked elsewhere; see [`Offload`].
pub struct Offloaded {
    desk: Arc<Desk>,
    /// How long its connection waits for an answer.
    reply_timeout: Option<Duration>,
    offload: Offload,
}

impl Offloaded {
    /// Whether the question was taken. If so, its answer comes later.
    fn ask(&self, what: What, context: &mut Context<'_>) -> bool {
        let Offload { pool, max_waiting, .. } = &self.offload;
        let until = self.reply_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let question = Question::new(what, context, until);
        self.desk.put(question, || pool.submit(&self.desk, *max_waiting)).is_ok()
    }

    fn refuse(&self, reply: &mut Reply<'_>, answer: Answer) -> Answer {
        match &self.offload.refusal {
            Some(text) => {
                reply.push(text);
                answer
            }
            None => Answer::Failed,
        }
    }

    fn end_as(&self, reason: Option<&str>) {
        let end = reason.map(str::to_owned);
        self.desk.put_end(end, || self.offload.pool.submit_end(&self.desk));
    }
}

impl Responder for Offloaded {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        if self.ask(What::Open, context) {
            return Answer::Later;
        }
        // There is no responder to talk to.
        self.refuse(reply, Answer::ReplyAndClose)
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        if self.ask(What::Respond(text.to_owned()), context) {
            return Answer::Later;
        }
        self.refuse(reply, Answer::Reply)
    }

    fn finish(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        if self.ask(What::Finish, context) { Answer::Later } else { Answer::Silence }
    }

    fn end(&mut self, reason: &str) {
        self.end_as(Some(reason));
    }
}

impl Drop for Offloaded {
    fn drop(&mut self) {
        // Has no effect behind an end. Without one, the responder's own drop may block.
        self.end_as(None);
    }
}

impl fmt::Debug for Offloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offloaded").field("offload", &self.offload).finish_non_exhaustive()
    }
}
