//! A configuration as text: every value that is in force, in the order of the file.

use super::reference::{FORMATS, FRAMINGS, INVALID_UTF8, LEVELS, SHOW_CONNECTIONS};
use super::{
    Command, Config, DEFAULT_MAX_CONNECTIONS, Limits, Listener, LogFormat, LogLevel,
    ShowConnections, duration, keepalive,
};
use crate::wire::{Framing, InvalidUtf8};

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key's full name, such as `listener[0].address`.
    pub key: String,
    /// The value as TOML writes it; of rules only how many there are.
    pub value: String,
}

impl Config {
    /// Every value in force. Keys that mean nothing for a listener's kind of address are left out.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let workers = self.workers.map_or_else(|| quoted("auto"), |count| count.to_string());
        let mut settings = vec![setting("workers", workers)];
        for (index, listener) in self.listeners.iter().enumerate() {
            let named = |(key, value)| setting(format!("listener[{index}].{key}"), value);
            settings.extend(listener.settings().into_iter().map(named));
            let below = |(key, value)| setting(format!("listener[{index}].command.{key}"), value);
            let command = listener.command.iter().flat_map(Command::settings);
            settings.extend(command.map(below));
        }
        settings.extend(self.limits.settings());
        let metrics = self.metrics.address.map(|address| address.to_string()).unwrap_or_default();
        settings.extend([
            setting("shutdown.drain_delay", quoted(&duration::format(self.shutdown.drain_delay))),
            setting(
                "shutdown.drain_timeout",
                quoted(&duration::format(self.shutdown.drain_timeout)),
            ),
            setting("metrics.address", quoted(&metrics)),
            setting("metrics.connections", quoted(self.metrics.connections.as_str())),
            setting("metrics.allowed_hosts", list(&self.metrics.allowed_hosts)),
            setting("log.level", quoted(self.log.level.as_str())),
            setting("log.format", quoted(self.log.format.as_str())),
            setting("log.connections", quoted(self.log.connections.as_str())),
            setting("log.max_lines_per_second", self.log.max_lines_per_second.to_string()),
        ]);
        settings
    }
}

impl Listener {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("name", quoted(&self.name)),
            ("address", quoted(&self.address.to_string())),
            ("backlog", self.backlog.to_string()),
            ("max_accept_rate", self.max_accept_rate.to_string()),
            ("max_accept_burst", self.max_accept_burst.to_string()),
        ];
        if self.address.is_ipv6() {
            settings.push(("v6only", self.v6only.to_string()));
        }
        if let Some(mode) = self.unix_mode {
            settings.push(("unix_mode", quoted(&format!("{mode:04o}"))));
        }
        if let Some(group) = &self.unix_group {
            settings.push(("unix_group", quoted(group)));
        }
        settings.extend([
            ("framing", quoted(framing_word(self.framing))),
            ("responder", quoted(&self.responder)),
        ]);
        if let Some(book) = &self.rules {
            let count = book.rules.len();
            let noun = if count == 1 { "rule" } else { "rules" };
            settings.push(("rules", format!("{count} {noun}")));
        }
        settings.extend([
            ("exit_word", quoted(self.exit_word())),
            ("reply_timeout", quoted(&duration::format(self.reply_timeout))),
            ("invalid_utf8", quoted(invalid_utf8_word(self.invalid_utf8))),
            ("max_message_bytes", self.max_message_bytes.to_string()),
        ]);
        settings
    }
}

impl Limits {
    fn settings(&self) -> Vec<Setting> {
        let max_connections = self.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let user_timeout = self.user_timeout.map_or("auto".to_owned(), duration::format);
        let values = [
            ("max_connections", max_connections.to_string()),
            ("max_connections_per_ip", self.max_connections_per_ip.to_string()),
            ("full_message", quoted(&self.full_message)),
            ("inbox_connections", self.inbox_connections.to_string()),
            ("idle_timeout", quoted(&duration::format(self.idle_timeout))),
            ("message_timeout", quoted(&duration::format(self.message_timeout))),
            ("send_timeout", quoted(&duration::format(self.send_timeout))),
            ("linger_timeout", quoted(&duration::format(self.linger_timeout))),
            ("keepalive_idle", quoted(&keepalive::format(self.keepalive_idle))),
            ("keepalive_interval", quoted(&keepalive::format(self.keepalive_interval))),
            ("keepalive_probes", self.keepalive_probes.to_string()),
            ("user_timeout", quoted(&user_timeout)),
            ("max_pending_bytes", self.max_pending_bytes.to_string()),
            ("messages_per_turn", self.messages_per_turn.to_string()),
        ];
        values.into_iter().map(|(key, value)| setting(format!("limits.{key}"), value)).collect()
    }
}

impl LogLevel {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        LEVELS[self as usize]
    }

    /// The level that this word of the file means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let levels = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        levels.into_iter().find(|level| level.as_str() == word)
    }
}

impl LogFormat {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        FORMATS[self as usize]
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Text, Self::Json].into_iter().find(|format| format.as_str() == word)
    }
}

impl ShowConnections {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        SHOW_CONNECTIONS[self as usize]
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Loopback, Self::Always, Self::Never];
        all.into_iter().find(|show| show.as_str() == word)
    }
}

fn framing_word(framing: Framing) -> &'static str {
    match framing {
        Framing::Raw => FRAMINGS[0],
        Framing::Line => FRAMINGS[1],
    }
}

pub(super) fn framing_from_word(word: &str) -> Option<Framing> {
    [Framing::Raw, Framing::Line].into_iter().find(|framing| framing_word(*framing) == word)
}

fn invalid_utf8_word(policy: InvalidUtf8) -> &'static str {
    match policy {
        InvalidUtf8::Close => INVALID_UTF8[0],
        InvalidUtf8::Replace => INVALID_UTF8[1],
    }
}

pub(super) fn invalid_utf8_from_word(word: &str) -> Option<InvalidUtf8> {
    let policies = [InvalidUtf8::Close, InvalidUtf8::Replace];
    policies.into_iter().find(|policy| invalid_utf8_word(*policy) == word)
}

fn setting(key: impl Into<String>, value: String) -> Setting {
    Setting { key: key.into(), value }
}

pub(super) fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A TOML basic string. Control characters are escaped, so that a value cannot touch the terminal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(character)))
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for word in LEVELS {
            assert_eq!(LogLevel::from_word(word).map(LogLevel::as_str), Some(*word));
        }
        for word in FORMATS {
            assert_eq!(LogFormat::from_word(word).map(LogFormat::as_str), Some(*word));
        }
        for word in SHOW_CONNECTIONS {
            assert_eq!(ShowConnections::from_word(word).map(ShowConnections::as_str), Some(*word));
        }
        for word in FRAMINGS {
            assert_eq!(framing_from_word(word).map(framing_word), Some(*word));
        }
        for word in INVALID_UTF8 {
            assert_eq!(invalid_utf8_from_word(word).map(invalid_utf8_word), Some(*word));
        }
        assert_eq!(LogLevel::from_word("Info"), None);
    }

    #[test]
    fn a_quoted_text_is_toml_and_holds_no_control_character() {
        let text = "a\"b\\c\n\r\t\u{1}\u{1b}[31m\u{7f}\u{9b} 你好 🦀";
        let quoted = quoted(text);
        assert!(!quoted.chars().any(char::is_control));
        let document = format!("x = {quoted}");
        let table: toml::Table = document.parse().unwrap();
        assert_eq!(table["x"].as_str(), Some(text));
    }

    #[test]
    fn keys_of_another_kind_of_address_are_not_shown() {
        let keys = |address: &str| -> Vec<&str> {
            let address = address.parse().unwrap();
            let listener = Listener { address, unix_mode: None, ..Listener::default() };
            listener.settings().into_iter().map(|(key, _)| key).collect()
        };
        assert!(!keys("0.0.0.0:1").contains(&"v6only"));
        assert!(keys("[::]:1").contains(&"v6only"));
    }
}
