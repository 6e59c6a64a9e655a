//! The rules that a configuration must keep whether it was read from a file or built in code.

mod clash;
mod listener;

use std::time::Duration;

use super::duration::MAX_DURATION;
use super::reference::Key;
use super::{Config, ConfigError, Fault, Origin, Origins, duration};

pub(super) use listener::wrong_kind;

pub(super) const MAX_TEXT_BYTES: usize = 1024;
pub(super) const MAX_GROUP_BYTES: usize = 64;
const MAX_HOSTS: usize = 64;
const MAX_HOST_BYTES: usize = 253;

impl Config {
    /// Checks every rule of the reference.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with everything that is wrong, in the order of the file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.faults(&Origins::default()) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(ConfigError::Invalid(faults)),
        }
    }

    /// Everything that is wrong, each with its place where that is known.
    pub(super) fn faults(&self, origins: &Origins) -> Vec<Fault> {
        let mut rules = Rules { faults: Vec::new(), origins };
        if let Some(workers) = self.workers {
            rules.integer("workers", workers);
        }
        if self.listeners.is_empty() {
            rules.fault("listener", "there is none; at least one is needed".to_owned());
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let path = format!("listener[{index}]");
            rules.listener(&path, listener);
            rules.collisions(&path, listener, &self.listeners[..index], self);
        }
        rules.limits(self);
        rules.duration("shutdown.drain_delay", self.shutdown.drain_delay);
        rules.duration("shutdown.drain_timeout", self.shutdown.drain_timeout);
        rules.allowed_hosts(&self.metrics.allowed_hosts);
        rules.integer("log.max_lines_per_second", self.log.max_lines_per_second);
        rules.faults
    }
}

/// The faults found so far.
pub(super) struct Rules<'o> {
    faults: Vec<Fault>,
    pub(super) origins: &'o Origins,
}

impl Rules<'_> {
    pub(super) fn fault(&mut self, key: impl Into<String>, problem: String) {
        self.faults.push(Fault::of(key, problem).at(self.origins));
    }

    /// Of two keys that contradict each other the one to blame: the first, unless only the other
    /// one was written. A default is nobody's slip, and has no place.
    pub(super) fn is_to_blame(&self, key: &str, other: &str) -> bool {
        let is_written = |key| self.origins.of(key) != Origin::Default;
        is_written(key) || !is_written(other)
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        if let Some(max_connections) = limits.max_connections {
            self.integer("limits.max_connections", max_connections);
        }
        self.integer("limits.max_connections_per_ip", limits.max_connections_per_ip);
        if limits.full_message.len() > MAX_TEXT_BYTES {
            let bytes = limits.full_message.len();
            self.fault(
                "limits.full_message",
                format!(
                    "it has {bytes} bytes; allowed: a string of at most {MAX_TEXT_BYTES} bytes"
                ),
            );
        }
        self.integer("limits.inbox_connections", limits.inbox_connections);
        self.duration("limits.idle_timeout", limits.idle_timeout);
        self.duration("limits.message_timeout", limits.message_timeout);
        self.duration("limits.send_timeout", limits.send_timeout);
        self.duration("limits.linger_timeout", limits.linger_timeout);
        self.integer("limits.keepalive_probes", limits.keepalive_probes);
        let origins = self.origins;
        self.faults.extend(limits.keepalive_faults().into_iter().map(|fault| fault.at(origins)));
        self.integer("limits.max_pending_bytes", limits.max_pending_bytes);
        self.integer("limits.messages_per_turn", limits.messages_per_turn);
    }

    fn allowed_hosts(&mut self, hosts: &[String]) {
        let key = "metrics.allowed_hosts";
        if hosts.len() > MAX_HOSTS {
            let problem = format!("it has {} names; allowed: at most {MAX_HOSTS}", hosts.len());
            self.fault(key, problem);
        }
        for host in hosts.iter().filter(|host| !is_host(host)) {
            self.text(key.to_owned(), host, "is not a host name");
        }
    }

    /// Says whether the value lies within the bounds of the reference.
    pub(super) fn integer(&mut self, key: impl Into<String>, value: impl TryInto<u64>) -> bool {
        let key = key.into();
        let value = value.try_into().unwrap_or(u64::MAX);
        let (known, (min, max)) = Key::find(&key)
            .and_then(|known| Some((known, known.bounds()?)))
            .expect("the reference has bounds for every integer");
        let within = (min..=max).contains(&value);
        if !within {
            self.fault(key, out_of_range(&value.to_string(), known));
        }
        within
    }

    pub(super) fn duration(&mut self, key: &str, value: Duration) {
        if value > MAX_DURATION {
            let (value, max) = (duration::format(value), duration::format(MAX_DURATION));
            self.fault(key, format!("\"{value}\" is out of range; allowed: up to \"{max}\""));
        }
    }

    /// A duration that "0s" would take the meaning from.
    pub(super) fn period(&mut self, key: String, value: Duration) {
        if value.is_zero() {
            self.text(key, "0s", "is out of range");
        } else {
            self.duration(&key, value);
        }
    }

    pub(super) fn text(&mut self, key: String, value: &str, problem: &str) {
        let allowed = Key::find(&key).map(|key| key.allowed.to_string()).unwrap_or_default();
        self.fault(
            key,
            format!("{} {problem}; allowed: {allowed}", shortened(&format!("{value:?}"))),
        );
    }
}

/// Without port and scheme, which would never match.
fn is_host(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=MAX_HOST_BYTES).contains(&name.len()) && name.bytes().all(fits)
}

pub(super) fn out_of_range(value: &str, key: &Key) -> String {
    format!("{value} is out of range; allowed: {}", key.allowed)
}

/// A value as a message shows it: on one line, and not longer than a line.
pub(super) fn shortened(value: &str) -> String {
    const MOST: usize = 60;
    let mut escaped = String::new();
    for (index, character) in value.chars().enumerate() {
        if index == MOST {
            escaped.push('…');
            break;
        }
        match character {
            _ if character.is_control() => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Address, Limits, Listener, Metrics, Shutdown};

    #[test]
    fn the_defaults_keep_every_rule() {
        assert!(Config::default().validate().is_ok());
    }

    #[track_caller]
    pub(super) fn check(config: &Config, expected: &[&str]) {
        let found = config.validate().err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for (line, start) in found.lines().zip(expected) {
            assert!(line.starts_with(start), "{line}\nshould start with {start}");
        }
    }

    #[test]
    fn an_allowed_host_is_a_name_without_port_or_scheme() {
        let with = |hosts: Vec<String>| {
            let metrics = Metrics { allowed_hosts: hosts, ..Metrics::default() };
            Config { metrics, ..Config::default() }
        };
        let long = "h".repeat(254);
        for bad in ["", "a:1", "http://a", "a b", "*.a", "é", "a\n", "[::1]", &long] {
            check(&with(vec!["a".to_owned(), bad.to_owned()]), &["metrics.allowed_hosts: "]);
        }
        let longest = "h".repeat(253);
        for good in ["a", "A-1.b", "10.0.0.1", &longest] {
            check(&with(vec![good.to_owned()]), &[]);
        }
        check(&with(vec!["a".to_owned(); 64]), &[]);
        check(&with(vec!["a".to_owned(); 65]), &["metrics.allowed_hosts: it has 65 names"]);
    }

    #[test]
    fn every_fault_is_reported_at_once_in_the_order_of_the_file() {
        let day = Duration::from_secs(86_400);
        let broken = Listener {
            name: "Bad".to_owned(),
            address: Address::UnixPath("x.sock".into()),
            backlog: 0,
            exit_word: Some("a\nb".to_owned()),
            unix_mode: Some(0o4777),
            unix_group: Some(String::new()),
            max_message_bytes: 0,
            ..Listener::default()
        };
        let config = Config {
            workers: Some(0),
            listeners: vec![broken],
            limits: Limits {
                max_connections: Some(0),
                full_message: "é".repeat(513),
                idle_timeout: day * 366,
                ..Limits::default()
            },
            shutdown: Shutdown { drain_timeout: Duration::MAX, ..Shutdown::default() },
            ..Config::default()
        };
        check(
            &config,
            &[
                "workers: 0 is out of range; allowed: \"auto\" or an integer from 1 to 1024",
                "listener[0].name: \"Bad\" is not a listener's name; allowed: a string of 1 to 32",
                "listener[0].address: \"unix:x.sock\": a Unix socket needs an absolute path",
                "listener[0].backlog: 0 is out of range; allowed: an integer from 1 to 65535",
                "listener[0].unix_mode: \"4777\" is out of range",
                "listener[0].unix_group: \"\" is not a group",
                "listener[0].exit_word: \"a\\nb\" cannot be an exit word",
                "listener[0].max_message_bytes: 0 is out of range",
                "limits.max_connections: 0 is out of range",
                "limits.full_message: it has 1026 bytes",
                "limits.idle_timeout: \"8784h\" is out of range; allowed: up to \"8760h\"",
                "shutdown.drain_timeout: ",
            ],
        );
    }

    #[test]
    fn a_value_in_a_message_stays_on_one_short_line() {
        assert_eq!(shortened("a\nb"), "a\\nb");
        assert_eq!(shortened(&"x".repeat(100)).chars().count(), 61);
    }
}
