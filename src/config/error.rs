//! What is wrong with a configuration: all of it at once, a line each.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{Origin, Origins};

/// Why there is no configuration to run with. Its text has one line for each thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read, or one that was named is not there.
    #[error("{}: cannot read the configuration{}: {source}", path.display(), by_whom(.named_by))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The flag or variable that named it; `None` where it was found by searching.
        named_by: Option<Origin>,
        /// What the system said.
        source: io::Error,
    },
    /// Everything that is wrong in it; never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Fault>),
}

fn by_whom(origin: &Option<Origin>) -> String {
    origin.as_ref().map(|origin| format!(" that {origin} names")).unwrap_or_default()
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where; `None` for a configuration that code built.
    pub origin: Option<Origin>,
    /// The key's full name, such as `listener[0].address`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong and what is allowed, on one line.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(out, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.problem)
    }
}

impl Fault {
    /// A fault of a value, wherever it came from.
    pub(super) fn of(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { origin: None, key: key.into(), problem: problem.into() }
    }

    /// The same with its place, where that is known.
    pub(super) fn at(mut self, origins: &Origins) -> Self {
        self.origin = Some(origins.of(&self.key)).filter(|origin| *origin != Origin::Default);
        self
    }

    pub(super) fn rank(&self) -> (u8, usize, usize) {
        self.origin.as_ref().map(Origin::rank).unwrap_or_default()
    }
}
