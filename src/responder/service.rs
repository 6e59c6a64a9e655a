//! Which responder a listener has: the built-in ones, and those that a program brings.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Client, Responder};

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
