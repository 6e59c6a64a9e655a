//! The closure form: a responder that is a function, and keeps its state in it.

use std::fmt;

use super::{Answer, Context, Reply, Responder};

/// A responder that answers each message by calling `respond`, which keeps what it needs of its
/// connection. The arguments' types need not be written.
///
/// # Examples
/// ```
/// use talkback::{Answer, Responders, from_fn};
///
/// let responders = Responders::default().with("sum", |_client| {
///     let mut sum = 0;
///     from_fn(move |text, reply, _context| match text.parse::<i64>() {
///         Ok(number) => {
///             sum += number;
///             reply.push(&sum.to_string());
///             Answer::Reply
///         }
///         Err(_) => Answer::Silence,
///     })
/// });
/// # let _ = responders;
/// ```
pub fn from_fn<F>(respond: F) -> FromFn<F>
where
    F: FnMut(&str, &mut Reply<'_>, &mut Context<'_>) -> Answer + Send,
{
    FromFn { respond }
}

/// What [`from_fn`] makes.
#[derive(Clone)]
pub struct FromFn<F> {
    respond: F,
}

impl<F> Responder for FromFn<F>
where
    F: FnMut(&str, &mut Reply<'_>, &mut Context<'_>) -> Answer + Send,
{
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        (self.respond)(text, reply, context)
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}
