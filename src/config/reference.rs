//! Every key as data: the one list that the reader, the validation, `config/talkback.toml` and the
//! README's table are held to.

use std::fmt;

use super::{BUILT_IN_RESPONDERS, address, command, keepalive, rules};

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    /// Table and key, such as `limits.idle_timeout`; `listener.…` stands in each `[[listener]]`.
    pub name: &'static str,
    /// What may be written.
    pub allowed: Allowed,
    /// The default as it is written in TOML; empty where leaving the key out is the default.
    pub default: &'static str,
    /// What it does, on one line.
    pub meaning: &'static str,
}

/// What may be written as a value.
#[derive(Debug, Clone, Copy)]
pub enum Allowed {
    /// An integer within these bounds.
    Integer(u64, u64),
    /// `"auto"`, or an integer within these bounds.
    AutoOrInteger(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A duration; what `"0s"` means here.
    Duration(&'static str),
    /// A duration that is not zero.
    Period,
    /// A string of the form that this says.
    Text(&'static str),
    /// A list of strings of the form that this says.
    List(&'static str),
    /// What this describes.
    Form(&'static str),
}

impl fmt::Display for Allowed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(min, max) => write!(out, "an integer from {min} to {max}"),
            Self::AutoOrInteger(min, max) => {
                write!(out, "\"auto\" or an integer from {min} to {max}")
            }
            Self::Boolean => out.write_str("true or false"),
            Self::Word(words) => {
                for (index, word) in words.iter().enumerate() {
                    let before = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(out, "{before}{word:?}")?;
                }
                Ok(())
            }
            Self::Duration(zero) => write!(
                out,
                "a string of an integer and one of us ms s m h, such as \"5m\", up to \"8760h\"; \
                 \"0s\" = {zero}"
            ),
            Self::Period => out.write_str(
                "a string of an integer and one of us ms s m h, such as \"5m\", above zero, up to \
                 \"8760h\"",
            ),
            Self::Text(form) | Self::List(form) | Self::Form(form) => out.write_str(form),
        }
    }
}

pub(super) const FRAMINGS: &[&str] = &["raw", "line"];
pub(super) const INVALID_UTF8: &[&str] = &["close", "replace"];
pub(super) const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
pub(super) const FORMATS: &[&str] = &["text", "json"];
pub(super) const MODES: &[&str] = &["shared", "per_connection"];
pub(super) const SHOW_CONNECTIONS: &[&str] = &["loopback", "always", "never"];

pub(super) const fn key(
    name: &'static str,
    allowed: Allowed,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, allowed, default, meaning }
}

use Allowed::{AutoOrInteger, Boolean, Duration, Form, Integer, List, Period, Text, Word};

#[rustfmt::skip] // One key a row, as in the file that they describe.
static KEYS: &[Key] = &[
    key("workers", AutoOrInteger(1, 1024), r#""auto""#,
        "threads in the fixed pool; \"auto\" = the CPUs this process may use (quota too)"),

    key("listener.name",
        Text("a string of 1 to 32 of a-z, 0-9 and -, another one for each listener"), r#""main""#,
        "the metrics' label; every listener but the first must have one"),
    key("listener.address", Text(address::FORMS), r#""0.0.0.0:8889""#,
        "where to listen; port 0 picks a free one; every listener but the first must have one"),
    key("listener.backlog", Integer(1, 65_535), "1024",
        "listen(2)'s queue; the kernel clamps it to net.core.somaxconn"),
    key("listener.max_accept_rate", Integer(0, 1_000_000), "0",
        "connections a second; above it newcomers wait in the kernel's queue; 0 = no limit"),
    key("listener.max_accept_burst", Integer(0, 1_000_000), "0",
        "how many may come at once after a quiet time; 0 = as many as max_accept_rate"),
    key("listener.v6only", Boolean, "true",
        "IPv6 addresses only: false takes IPv4 clients as well"),
    key("listener.unix_mode",
        Text(r#"a string of three or four octal digits up to "0777", such as "0660""#), "",
        "unix:/… addresses only: the permissions of the socket's file; left out = the umask's"),
    key("listener.unix_group", Text("a string of 1 to 64 bytes, a group's name or number"), "",
        "unix:/… addresses only: the group of the socket's file; left out = the process's"),
    key("listener.framing", Word(FRAMINGS), r#""raw""#,
        "raw: what one receive returns is a message; line: a message ends with LF"),
    key("listener.responder", Word(BUILT_IN_RESPONDERS), r#""echo""#,
        "echo sends the message back, discard nothing; rules or a command (a program) answer"),
    key("listener.rules", Form(rules::FORMS), "",
        "responder = \"rules\" only: a rules file's path from this file, or [listener.rules]"),
    key("listener.exit_word", Text("a string of at most 1024 bytes without CR or LF"), r#""exit""#,
        "the message that ends the conversation; \"\" = none, as with all but echo and discard"),
    key("listener.reply_timeout", Period, r#""30s""#,
        "how long an answer that comes later may take; then the connection closes"),
    key("listener.invalid_utf8", Word(INVALID_UTF8), r#""close""#,
        "bytes that are no UTF-8: close the connection, or replace them by U+FFFD"),
    key("listener.max_message_bytes", Integer(1, 16_777_216), "65536",
        "line: the longest line without its end; raw: the most one receive takes (at most 65536)"),

    key("listener.command.program", List(command::PROGRAM), "",
        "what answers with responder = \"command\", and its arguments; without it there is none"),
    key("listener.command.mode", Word(MODES), r#""shared""#,
        "shared: processes that answer a line with a line; per_connection: one for each client"),
    key("listener.command.min_processes", Integer(0, 1024), "1",
        "shared: so many run from the start on; 0 = none before the first message"),
    key("listener.command.max_processes", Integer(1, 1024), "4",
        "shared: so many run at once at most"),
    key("listener.command.process_idle_timeout", Duration("never"), r#""1m""#,
        "shared: one above min_processes that had nothing to do for so long is ended"),
    key("listener.command.pipeline", Integer(1, 1024), "1",
        "shared: messages given to a process before it has answered the first of them"),
    key("listener.command.max_queue", Integer(1, 1_000_000), "1024",
        "shared: messages that may wait for a process"),
    key("listener.command.queue_timeout", Period, r#""5s""#,
        "shared: how long one may wait for a process"),
    key("listener.command.overload_reply", Text("a string of at most 1024 bytes"), r#""busy""#,
        "shared: the reply to a message that no process can take; \"\" = close the connection"),
    key("listener.command.max_requests", Integer(0, 1_000_000_000_000), "0",
        "shared: a process is replaced after so many messages; 0 = never"),
    key("listener.command.max_reply_bytes", Integer(1, 16_777_216), "65536",
        "shared: the longest line that a process may answer"),
    key("listener.command.restart_delay", Period, r#""100ms""#,
        "shared: before a process that died is replaced; doubles with each death in a row"),
    key("listener.command.max_restart_delay", Period, r#""30s""#,
        "shared: the longest such wait"),
    key("listener.command.self_test", Text(command::SELF_TEST), r#""""#,
        "a message that the program must answer at the start; \"\" = none"),
    key("listener.command.self_test_timeout", Period, r#""5s""#,
        "how long that answer may take"),
    key("listener.command.environment", List(command::ENVIRONMENT), r#"["PATH"]"#,
        "all of its environment: NAME passes talkback's own on, NAME=value sets"),
    key("listener.command.directory", Text(command::DIRECTORY), r#""""#,
        "where it runs; \"\" = where talkback does"),
    key("listener.command.user", Text(command::ACCOUNT), r#""""#,
        "the user that it runs as, which takes root; \"\" = talkback's own"),
    key("listener.command.group", Text(command::ACCOUNT), r#""""#,
        "the group that it runs as; \"\" = the user's"),
    key("listener.command.max_memory_bytes", Integer(0, 1 << 50), "0",
        "the address space of a process (RLIMIT_AS); 0 = talkback's own limit"),
    key("listener.command.max_cpu_time", Text(command::CPU_TIME), r#""0s""#,
        "the processor time of a process (RLIMIT_CPU)"),
    key("listener.command.max_open_files", Integer(0, 1_048_576), "0",
        "the descriptors of a process (RLIMIT_NOFILE); 0 = talkback's own limit"),

    key("limits.max_connections", Integer(1, 1_000_000), "10000",
        "all listeners together; if descriptors do not suffice: written = no start, else lowered"),
    key("limits.max_connections_per_ip", Integer(0, 1_000_000), "0",
        "0 = no limit; IPv6 counts by /64; Unix sockets are exempt"),
    key("limits.full_message", Text("a string of at most 1024 bytes"), r#""""#,
        "sent before a rejected connection is closed; \"\" = nothing"),
    key("limits.inbox_connections", Integer(1, 65_536), "1024",
        "a worker's bound of connections handed over and not yet taken, and of late replies"),
    key("limits.idle_timeout", Duration("never"), r#""5m""#,
        "nothing received or sent, no message unfinished, no reply owed"),
    key("limits.message_timeout", Duration("never"), r#""30s""#,
        "from the first byte of an unfinished message; more bytes do not extend it"),
    key("limits.send_timeout", Duration("never"), r#""20s""#,
        "replies pending and the kernel took no byte for so long"),
    key("limits.linger_timeout", Duration("never"), r#""2s""#,
        "how long a closing connection's input is discarded while its peer has not closed"),
    key("limits.keepalive_idle", Text(keepalive::IDLE), r#""60s""#,
        "TCP: after so much silence the kernel asks whether the client is there"),
    key("limits.keepalive_interval", Text(keepalive::INTERVAL), r#""10s""#,
        "TCP: and asks again after so long"),
    key("limits.keepalive_probes", Integer(1, 127), "3",
        "TCP: so many questions unanswered, and the client is dead"),
    key("limits.user_timeout", Text(keepalive::USER_TIMEOUT), r#""auto""#,
        "TCP: how long bytes may stay unacknowledged; \"auto\" fits the above and send_timeout"),
    key("limits.max_pending_bytes", Integer(1, 67_108_864), "65536",
        "unsent replies of a connection; above it the client is not read"),
    key("limits.messages_per_turn", Integer(1, 65_536), "64",
        "after so many messages the worker turns to the next connection"),

    key("shutdown.drain_delay", Duration("no delay"), r#""0s""#,
        "at a stop: not ready any more, but still accepting"),
    key("shutdown.drain_timeout", Duration("cut at once"), r#""15s""#,
        "from the end of accepting until what is left is cut"),

    key("metrics.address",
        Text(r#"an IP address with a port, such as "127.0.0.1:9889", or """#),
        r#""127.0.0.1:9889""#,
        "where /metrics, /connections, /healthz, /readyz are served; \"\" turns the sidecar off"),

    key("metrics.connections", Word(SHOW_CONNECTIONS), r#""loopback""#,
        "/connections, which shows who is connected: loopback = if address is a loopback one"),
    key("metrics.allowed_hosts",
        List("a list of at most 64 host names of 1 to 253 letters, digits, -, _ and ."), "[]",
        "Hosts that may ask for /connections besides addresses and localhost (DNS rebinding)"),

    key("log.level", Word(LEVELS), r#""info""#,
        "the least important level that is shown"),
    key("log.format", Word(FORMATS), r#""text""#,
        "text for people, json for collectors: one line an event"),
    key("log.connections", Word(LEVELS), r#""debug""#,
        "the level of the one line at each close"),
    key("log.max_lines_per_second", Integer(0, 1_000_000), "10",
        "lines of one kind of event; those above are counted and told in one line; 0 = no limit"),
];

/// Every key, in the order of `config/talkback.toml`.
#[must_use]
pub fn reference() -> &'static [Key] {
    KEYS
}

impl Key {
    /// The key of this name; `listener[3].name` finds `listener.name`.
    pub(super) fn find(name: &str) -> Option<&'static Key> {
        let indexed = name.strip_prefix("listener[").and_then(|rest| rest.split_once("]."));
        KEYS.iter().find(|key| match indexed {
            Some((_, field)) => key.name.strip_prefix("listener.") == Some(field),
            None => key.name == name,
        })
    }

    /// The table (`""` = the top of the file) and the key in it.
    pub(super) fn split(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }

    /// The bounds, where the value may be an integer.
    pub(super) fn bounds(&self) -> Option<(u64, u64)> {
        match self.allowed {
            Allowed::Integer(min, max) | Allowed::AutoOrInteger(min, max) => Some((min, max)),
            _ => None,
        }
    }
}

/// The README's table of keys, in Markdown.
#[doc(hidden)]
#[must_use]
pub fn config_table() -> String {
    table_of(KEYS, |key| match key.split() {
        ("listener", field) => format!("[[listener]] {field}"),
        (table @ "listener.command", field) => format!("[{table}] {field}"),
        _ => key.name.to_owned(),
    })
}

/// A row for each of the keys, by the name that `name` gives it.
pub(super) fn table_of(keys: &[Key], name: impl Fn(&Key) -> String) -> String {
    let mut table = String::from("| key | default | meaning | allowed |\n|---|---|---|---|\n");
    for key in keys {
        let default = match key.default {
            "" => "left out".to_owned(),
            written => format!("`{written}`"),
        };
        let name = format!("`{}`", name(key));
        let cells = [name, default, key.meaning.into(), key.allowed.to_string()];
        table
            .push_str(&format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, Config};

    /// The defaults, also of what there is not by default.
    fn everything() -> Config {
        let mut config = Config::default();
        config.listeners[0].command = Some(Command::default());
        config
    }

    #[test]
    fn every_default_is_the_one_built_in() {
        let settings = everything().settings();
        for key in KEYS {
            let name = key.name.replace("listener.", "listener[0].");
            let built_in = settings.iter().find(|setting| setting.key == name);
            match built_in {
                // There is none, and it is written as an empty list.
                Some(setting) if key.default.is_empty() => assert_eq!(setting.value, "[]"),
                Some(setting) => assert_eq!(setting.value, key.default, "{name}"),
                None => {
                    let of_some = ["v6only", "unix_mode", "unix_group", "rules"];
                    assert!(of_some.contains(&key.split().1), "{name}");
                }
            }
        }
    }

    #[test]
    fn every_setting_is_in_the_reference() {
        for setting in everything().settings() {
            assert!(Key::find(&setting.key).is_some(), "{}", setting.key);
        }
        assert!(Key::find("listener[12].name").is_some());
        assert!(Key::find("listener[0].level").is_none());
    }

    #[test]
    fn the_table_has_a_row_of_four_cells_for_every_key() {
        let table = config_table();
        assert_eq!(table.lines().count(), KEYS.len() + 2);
        for row in table.lines() {
            assert_eq!(row.matches('|').count(), 5, "{row}");
        }
        assert!(table.contains("| `[[listener]] backlog` | `1024` |"), "{table}");
    }
}
