//! Where each value came from, so that `talkback check` and every refusal can say it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from. Later variants win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file; line and column count from 1, the column in characters.
    File {
        /// As it was named or found.
        path: PathBuf,
        /// The line of the value, or of the key where that is at fault.
        line: usize,
        /// The column of the value, or of the key where that is at fault.
        column: usize,
    },
    /// The environment variable of this name.
    Environment(&'static str),
    /// The flag of this name.
    Flag(&'static str),
}

impl Origin {
    /// Faults are listed in the order in which the operator would read the sources.
    pub(super) fn rank(&self) -> (u8, usize, usize) {
        match self {
            Self::Default => (0, 0, 0),
            Self::File { line, column, .. } => (1, *line, *column),
            Self::Environment(_) => (2, 0, 0),
            Self::Flag(_) => (3, 0, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line, column } => write!(out, "{}:{line}:{column}", path.display()),
            Self::Environment(name) | Self::Flag(name) => out.write_str(name),
        }
    }
}

/// The origin of every key that is not at its default, by full name: `limits.idle_timeout`,
/// `listener[0].address`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value of this key came from.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn set(&mut self, key: String, origin: Origin) {
        self.0.insert(key, origin);
    }

    /// Those of a file that this one names.
    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Listeners given by flag or environment replace those of the file: each of the `count` keeps
    /// the origins of the first one's keys where it kept their values.
    pub(super) fn replace_listeners(&mut self, count: usize, address_from: &Origin) {
        let first: Vec<(String, Origin)> = self
            .0
            .iter()
            .filter_map(|(key, origin)| Some((key.strip_prefix("listener[0].")?, origin)))
            .map(|(key, origin)| (key.to_owned(), origin.clone()))
            .collect();
        self.0.retain(|key, _| !key.starts_with("listener["));
        for index in 0..count {
            for (key, origin) in &first {
                self.set(format!("listener[{index}].{key}"), origin.clone());
            }
            for key in ["name", "address"] {
                self.set(format!("listener[{index}].{key}"), address_from.clone());
            }
        }
    }
}
