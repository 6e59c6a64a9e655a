//! The file's tree to a `Config`: which keys there are, and which belong together. How a value is
//! read is `section`'s, which rules it must keep is `validate`'s.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::section::{Files, Notes, Section, with_article};
use super::settings::{framing_from_word, invalid_utf8_from_word};
use super::validate::wrong_kind;
use super::{
    Address, BUILT_IN_RESPONDERS, Config, Fault, Limits, Listener, Log, LogFormat, LogLevel,
    Metrics, Origin, Origins, ShowConnections, Shutdown, address, command, duration, keepalive,
    rules,
};
use crate::wire::Framing;

/// What a file says, as far as it could be read.
pub(super) struct Document {
    pub(super) config: Config,
    pub(super) origins: Origins,
    /// Sorted by place, and behind them those of the files that it names.
    pub(super) faults: Vec<Fault>,
}

/// Reads and validates a whole file, of which so much is UTF-8.
pub(super) fn read(bytes: &[u8], path: &Path, files: Files<'_>, own: &[String]) -> Document {
    let source = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut notes = Notes::new(path, source, files);
    notes.own_responders = own;
    let mut config = Config::default();
    if source.len() < bytes.len() {
        notes.not_utf8();
    } else if let Some(tree) = notes.tree() {
        config = top(&mut notes, tree.get_ref());
        let Notes { faults, origins, .. } = &mut notes;
        let unread: Vec<String> = faults.iter().map(|fault| fault.key.clone()).collect();
        let broken = config.faults(origins).into_iter();
        faults.extend(broken.filter(|fault| !unread.contains(&fault.key)));
    }
    notes.faults.sort_by_key(Fault::rank);
    notes.faults.extend(in_order(notes.included));
    Document { config, origins: notes.origins, faults: notes.faults }
}

/// The faults of other files: of one file after another, each file's by place.
fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    let mut files: Vec<PathBuf> = Vec::new();
    for fault in &faults {
        if let Some(Origin::File { path, .. }) = &fault.origin
            && !files.contains(path)
        {
            files.push(path.clone());
        }
    }
    faults.sort_by_cached_key(|fault| {
        let is_in = |file: &PathBuf| {
            matches!(&fault.origin, Some(Origin::File { path, .. }) if path == file)
        };
        (files.iter().position(is_in), fault.rank())
    });
    faults
}

pub(super) fn put<T>(place: &mut T, read: Option<T>) {
    if let Some(value) = read {
        *place = value;
    }
}

fn top<'s>(notes: &mut Notes<'s>, table: &DeTable<'s>) -> Config {
    let mut config = Config::default();
    let mut section = Section { notes, table, path: String::new(), kind: "" };
    section.refuse_unknown(&["listener", "limits", "shutdown", "metrics", "log"]);
    put(&mut config.workers, section.auto_or_integer("workers"));
    if let Some(read) = listeners(section.notes, table) {
        config.listeners = read;
    }
    put(&mut config.limits, below(section.notes, table, "limits").map(limits));
    put(&mut config.shutdown, below(section.notes, table, "shutdown").map(shutdown));
    put(&mut config.metrics, below(section.notes, table, "metrics").map(metrics));
    put(&mut config.log, below(section.notes, table, "log").map(log));
    config
}

/// The section of a `[table]`, its unknown keys noted.
fn below<'r, 's>(
    notes: &'r mut Notes<'s>,
    table: &'r DeTable<'s>,
    kind: &'static str,
) -> Option<Section<'r, 's>> {
    let value = table.get(kind)?;
    let DeValue::Table(table) = value.get_ref() else {
        let found = with_article(value.get_ref());
        notes.fault(value.span(), kind, format!("it is {found}; allowed: a table, [{kind}]"));
        return None;
    };
    let mut section = Section { notes, table, path: kind.to_owned(), kind };
    section.refuse_unknown(&[]);
    Some(section)
}

fn listeners<'s>(notes: &mut Notes<'s>, table: &DeTable<'s>) -> Option<Vec<Listener>> {
    let value = table.get("listener")?;
    let DeValue::Array(tables) = value.get_ref() else {
        let found = with_article(value.get_ref());
        let problem = format!("it is {found}; allowed: tables with double brackets, [[listener]]");
        notes.fault(value.span(), "listener", problem);
        return None;
    };
    let mut read = Vec::new();
    for (index, value) in tables.iter().enumerate() {
        let path = format!("listener[{index}]");
        if let DeValue::Table(table) = value.get_ref() {
            read.push(listener(notes, table, value.span(), index));
        } else {
            let found = with_article(value.get_ref());
            notes.fault(value.span(), &path, format!("it is {found}; allowed: a table"));
            read.push(unblamed(index));
        }
    }
    if tables.is_empty() {
        notes.fault(value.span(), "listener", "there is none; at least one is needed");
    }
    Some(read)
}

fn listener<'s>(
    notes: &mut Notes<'s>,
    table: &DeTable<'s>,
    at: Range<usize>,
    index: usize,
) -> Listener {
    let path = format!("listener[{index}]");
    let mut section = Section { notes, table, path, kind: "listener" };
    section.refuse_unknown(&["command"]);
    let unread = unblamed(index);
    let default = if index == 0 { Listener::default() } else { unread.clone() };
    if index > 0 {
        require(&mut section, at, &["name", "address"]);
    }
    let mut listener = Listener::default();
    let name = section.text("name");
    listener.name = settle(&section, "name", name, default.name, unread.name);
    let read = address(&mut section);
    listener.address = settle(&section, "address", read, default.address, unread.address.clone());
    put(&mut listener.backlog, section.integer("backlog"));
    put(&mut listener.max_accept_rate, section.integer("max_accept_rate"));
    put(&mut listener.max_accept_burst, section.integer("max_accept_burst"));
    let v6only = section.boolean("v6only");
    let unix_mode = section.parsed("unix_mode", "is no file mode", mode);
    let unix_group = section.text("unix_group");
    if listener.address != unread.address {
        keys_of_the_kind(&mut section, &listener.address);
        put(&mut listener.v6only, v6only);
        (listener.unix_mode, listener.unix_group) = (unix_mode, unix_group);
    }
    let framing = section.word("framing", framing_from_word);
    listener.framing = settle(&section, "framing", framing, Framing::Raw, unread.framing);
    let own = section.notes.own_responders;
    let named = section.word("responder", |written| {
        let is_known =
            BUILT_IN_RESPONDERS.contains(&written) || own.iter().any(|own| own == written);
        is_known.then(|| written.to_owned())
    });
    listener.rules = rules::of_listener(&mut section);
    listener.command = command::read(&mut section);
    // Where the responder could not be read, what belongs to one is not to blame.
    let likely = match (&listener.rules, &listener.command) {
        (Some(_), _) => "rules",
        (None, Some(_)) => command::RESPONDER,
        (None, None) => "echo",
    };
    listener.responder = settle(&section, "responder", named, default.responder, likely.to_owned());
    listener.exit_word = section.text("exit_word");
    let reply_timeout = section.parsed("reply_timeout", NO_DURATION, duration::parse);
    put(&mut listener.reply_timeout, reply_timeout);
    put(&mut listener.invalid_utf8, section.word("invalid_utf8", invalid_utf8_from_word));
    put(&mut listener.max_message_bytes, section.integer("max_message_bytes"));
    rules::note_unheard(&mut section, &listener);
    listener
}

/// Stands where a listener, or a part of it, could not be read. No rule refuses it, so that only
/// what is really wrong is blamed.
fn unblamed(index: usize) -> Listener {
    Listener {
        name: format!("unread-{index}"),
        address: Address::UnixAbstract(format!("unread {index}")),
        framing: Framing::Line,
        ..Listener::default()
    }
}

/// What was read; else, where nothing was written, the default; else what no rule refuses.
pub(super) fn settle<T>(
    section: &Section<'_, '_>,
    key: &str,
    read: Option<T>,
    default: T,
    unread: T,
) -> T {
    let otherwise = if section.table.contains_key(key) { unread } else { default };
    read.unwrap_or(otherwise)
}

/// The defaults of these are the first listener's; another one needs its own.
fn require(section: &mut Section<'_, '_>, at: Range<usize>, keys: &[&str]) {
    let missing = "missing; every listener but the first must have one";
    for key in keys.iter().filter(|key| !section.table.contains_key(**key)) {
        let name = section.full_name(key);
        section.notes.fault(at.clone(), &name, missing);
    }
}

fn address(section: &mut Section<'_, '_>) -> Option<Address> {
    let written = section.text("address")?;
    match written.parse::<Address>() {
        Ok(address) => Some(address),
        Err(error) => {
            let at = section.table.get("address").map(Spanned::span).unwrap_or_default();
            let name = section.full_name("address");
            section.notes.fault(at, &name, error.to_string());
            None
        }
    }
}

/// In a file even `v6only = true` is refused where it means nothing: whoever wrote it expects an
/// effect.
fn keys_of_the_kind(section: &mut Section<'_, '_>, address: &Address) {
    for (key, belongs) in [
        ("v6only", address.is_ipv6()),
        ("unix_mode", address.is_unix_path()),
        ("unix_group", address.is_unix_path()),
    ] {
        if let Some(at) = section.key_span(key).filter(|_| !belongs) {
            let name = section.full_name(key);
            section.notes.fault(at, &name, wrong_kind(key, &address.to_string()));
        }
    }
}

fn mode(written: &str) -> Option<u32> {
    let octal =
        (3..=4).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(written, 8).ok()?;
    (octal && mode <= 0o777).then_some(mode)
}

pub(super) const NO_DURATION: &str = "is not such a duration";

fn limits(mut section: Section<'_, '_>) -> Limits {
    let max_connections = section.integer("max_connections");
    let mut limits = Limits { max_connections, ..Limits::default() };
    put(&mut limits.max_connections_per_ip, section.integer("max_connections_per_ip"));
    put(&mut limits.full_message, section.text("full_message"));
    put(&mut limits.inbox_connections, section.integer("inbox_connections"));
    for (key, timeout) in [
        ("idle_timeout", &mut limits.idle_timeout),
        ("message_timeout", &mut limits.message_timeout),
        ("send_timeout", &mut limits.send_timeout),
        ("linger_timeout", &mut limits.linger_timeout),
    ] {
        put(timeout, section.parsed(key, NO_DURATION, duration::parse));
    }
    for (key, period) in [
        ("keepalive_idle", &mut limits.keepalive_idle),
        ("keepalive_interval", &mut limits.keepalive_interval),
    ] {
        put(period, section.parsed(key, NO_DURATION, duration::parse));
    }
    put(&mut limits.keepalive_probes, section.integer("keepalive_probes"));
    let user_timeout = section.parsed("user_timeout", NO_DURATION, keepalive::user_timeout);
    put(&mut limits.user_timeout, user_timeout);
    put(&mut limits.max_pending_bytes, section.integer("max_pending_bytes"));
    put(&mut limits.messages_per_turn, section.integer("messages_per_turn"));
    limits
}

fn shutdown(mut section: Section<'_, '_>) -> Shutdown {
    let mut shutdown = Shutdown::default();
    put(&mut shutdown.drain_delay, section.parsed("drain_delay", NO_DURATION, duration::parse));
    put(&mut shutdown.drain_timeout, section.parsed("drain_timeout", NO_DURATION, duration::parse));
    shutdown
}

fn metrics(mut section: Section<'_, '_>) -> Metrics {
    let read = section.parsed("address", address::NOT_OF_THE_SIDECAR, address::of_the_sidecar);
    let mut metrics = Metrics::default();
    // One that could not be read must not be found to be a listener's.
    metrics.address = settle(&section, "address", read, metrics.address, None);
    put(&mut metrics.connections, section.word("connections", ShowConnections::from_word));
    put(&mut metrics.allowed_hosts, section.texts("allowed_hosts"));
    metrics
}

fn log(mut section: Section<'_, '_>) -> Log {
    let mut log = Log::default();
    put(&mut log.level, section.word("level", LogLevel::from_word));
    put(&mut log.format, section.word("format", LogFormat::from_word));
    put(&mut log.connections, section.word("connections", LogLevel::from_word));
    put(&mut log.max_lines_per_second, section.integer("max_lines_per_second"));
    log
}

#[cfg(test)]
mod tests;
