//! Rules out of any file that has some, for who wants to try them without a server.

use std::path::Path;

use toml::de::DeTable;

use super::read_file;
use crate::config::load::{assemble, contents};
use crate::config::section::Notes;
use crate::config::{
    ConfigError, Environment, Fault, Listener, Loaded, Origin, Origins, Overrides, Source,
};
use crate::responder::rules::RuleBook;

/// The keys that only a configuration has at its top.
const OF_A_CONFIG: [&str; 6] = ["workers", "listener", "limits", "shutdown", "metrics", "log"];

/// Rules that were found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripted {
    /// Whose they are; `None` in a rules file.
    pub listener: Option<Listener>,
    /// The rules, which compile.
    pub book: RuleBook,
    /// Where each of them stands.
    pub places: Vec<Origin>,
}

impl Scripted {
    fn new(listener: Option<Listener>, book: RuleBook, path: &str, origins: &Origins) -> Self {
        let place = |index| origins.of(&super::below(path, &format!("rule[{index}]")));
        let places = (0..book.rules.len()).map(place).collect();
        Self { listener, book, places }
    }
}

/// Reads a rules file, or a configuration with those of each listener that has some.
///
/// # Errors
///
/// [`ConfigError::Unreadable`] if the file cannot be read, [`ConfigError::Invalid`] with everything
/// that is wrong in it.
pub fn load_rules(path: &Path) -> Result<Vec<Scripted>, ConfigError> {
    let bytes = contents(path).map_err(|source| {
        let path = path.to_owned();
        ConfigError::Unreadable { path, named_by: None, source }
    })?;
    let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let tree = DeTable::parse_recoverable(valid).0;
    if OF_A_CONFIG.iter().any(|key| tree.get_ref().contains_key(*key)) {
        let (overrides, environment) = (Overrides::default(), Environment::default());
        let source = Source::File(path.to_owned());
        return Ok(of_config(assemble(source, &bytes, &overrides, &environment, &contents)?));
    }
    let mut notes = Notes::new(path, valid, &contents);
    let book = read_file(&mut notes, valid.len() == bytes.len(), "");
    notes.faults.sort_by_key(Fault::rank);
    if !notes.faults.is_empty() {
        return Err(ConfigError::Invalid(notes.faults));
    }
    Ok(vec![Scripted::new(None, book, "", &notes.origins)])
}

fn of_config(loaded: Loaded) -> Vec<Scripted> {
    let listeners = loaded.config.listeners.into_iter().enumerate();
    let scripted = listeners.filter_map(|(index, mut listener)| {
        let book = listener.rules.take()?;
        let path = format!("listener[{index}].rules");
        Some(Scripted::new(Some(listener), book, &path, &loaded.origins))
    });
    scripted.collect()
}
