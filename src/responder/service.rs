//! Which responder a listener has: the built-in ones, and those that a program brings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Answer, Client, Responder, from_fn};

/// Makes the responder of each new connection of a listener.
pub(crate) type Factory = Arc<dyn Fn(&Client<'_>) -> Box<dyn Responder> + Send + Sync>;

/// How a listener's messages are answered.
#[derive(Clone)]
pub(crate) enum Service {
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

/// The responders that a listener can name by its `responder`. Cheap enough to clone.
///
/// # Examples
/// ```
/// use talkback::{Config, Responders, Server};
///
/// let responders = Responders::default().with_map("shout", |text| text.to_uppercase());
/// let mut config = Config::default();
/// config.listeners[0].address = "127.0.0.1:0".parse()?;
/// config.listeners[0].responder = "shout".to_owned();
/// config.metrics.address = None;
/// let server = Server::start_with(&config, &responders)?;
/// # server.drain();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// Adds a responder of the caller's own under `name`, or replaces the one that has it. `make`
    /// makes one for each connection, on the thread of its worker.
    ///
    /// # Examples
    /// ```
    /// use talkback::{Answer, Responders, from_fn};
    ///
    /// let responders = Responders::default().with("count", |_client| {
    ///     let mut count = 0;
    ///     from_fn(move |_text, reply, _context| {
    ///         count += 1;
    ///         reply.push(&count.to_string());
    ///         Answer::Reply
    ///     })
    /// });
    /// assert_eq!(responders.names().collect::<Vec<_>>(), ["count", "discard", "echo"]);
    /// ```
    #[must_use]
    pub fn with<F, R>(mut self, name: impl Into<String>, make: F) -> Self
    where
        F: Fn(&Client<'_>) -> R + Send + Sync + 'static,
        R: Responder + 'static,
    {
        let factory: Factory = Arc::new(move |client| Box::new(make(client)));
        self.by_name.insert(name.into(), Service::Custom(factory));
        self
    }

    /// Adds, in the same way, the simplest responder there is: the reply to a text depends on
    /// nothing else. `map` runs on the workers' threads and must not block.
    ///
    /// # Examples
    /// ```
    /// use talkback::Responders;
    ///
    /// let responders = Responders::default()
    ///     .with_map("shout", |text| text.to_uppercase())
    ///     .with_map("length", |text| text.chars().count().to_string());
    /// # let _ = responders;
    /// ```
    #[must_use]
    pub fn with_map<F>(self, name: impl Into<String>, map: F) -> Self
    where
        F: Fn(&str) -> String + Send + Sync + 'static,
    {
        let map = Arc::new(map);
        self.with(name, move |_client| {
            let map = map.clone();
            from_fn(move |text, reply, _context| {
                reply.push(&map(text));
                Answer::Reply
            })
        })
    }

    /// The service of that name.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&Service> {
        self.by_name.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
