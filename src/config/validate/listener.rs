//! What each listener must keep, by itself and beside the others.

use super::clash::Claim;
use super::{MAX_GROUP_BYTES, MAX_TEXT_BYTES, Rules, shortened};
use crate::config::{Config, Listener, rules};
use crate::wire::{Framing, MAX_RECEIVE_BYTES};

impl Rules<'_> {
    pub(super) fn listener(&mut self, path: &str, listener: &Listener) {
        let name = &listener.name;
        if !is_name(name) {
            self.text(format!("{path}.name"), name, "is not a listener's name");
        }
        if let Some(why) = listener.address.flaw() {
            self.fault(format!("{path}.address"), format!("\"{}\": {why}", listener.address));
        }
        self.integer(format!("{path}.backlog"), u64::from(listener.backlog));
        self.integer(format!("{path}.max_accept_rate"), listener.max_accept_rate);
        self.integer(format!("{path}.max_accept_burst"), listener.max_accept_burst);
        if listener.max_accept_burst > 0 && listener.max_accept_rate == 0 {
            let burst = listener.max_accept_burst;
            let problem = format!("{burst} means nothing without a max_accept_rate; set that too");
            self.fault(format!("{path}.max_accept_burst"), problem);
        }
        self.kind_of_address(path, listener);
        if let Some(mode) = listener.unix_mode.filter(|mode| *mode > 0o777) {
            self.text(format!("{path}.unix_mode"), &format!("{mode:04o}"), "is out of range");
        }
        if let Some(group) = &listener.unix_group
            && (group.is_empty() || group.len() > MAX_GROUP_BYTES || group.contains('\0'))
        {
            self.text(format!("{path}.unix_group"), group, "is not a group");
        }
        self.faults.extend(rules::faults(path, listener, self.origins));
        self.exit_word(path, listener);
        self.period(format!("{path}.reply_timeout"), listener.reply_timeout);
        self.max_message_bytes(path, listener);
        self.command(path, listener);
    }

    fn exit_word(&mut self, path: &str, listener: &Listener) {
        let (key, word) = (format!("{path}.exit_word"), listener.exit_word());
        if word.contains(['\r', '\n']) || word.len() > MAX_TEXT_BYTES {
            self.text(key.clone(), word, "cannot be an exit word");
        }
        let most = listener.max_message_bytes;
        if word.len() <= most || most == 0 {
            return;
        }
        let word = shortened(&format!("{word:?}"));
        let bytes = format!("{path}.max_message_bytes");
        if self.is_to_blame(&key, &bytes) {
            let problem = format!(
                "{word} is longer than max_message_bytes ({most}), so no client could say it; \
                 allowed: a shorter word, or \"\" for none"
            );
            self.fault(key, problem);
        } else {
            let problem = format!(
                "{most} bytes are fewer than the exit word {word} has, so no client could say it; \
                 allowed: a larger number, or another exit_word (\"\" = none)"
            );
            self.fault(bytes, problem);
        }
    }

    /// In code `v6only` is always there; only a value that could have an effect is refused.
    fn kind_of_address(&mut self, path: &str, listener: &Listener) {
        let address = &listener.address;
        let written = [
            ("v6only", !listener.v6only && !address.is_ipv6()),
            ("unix_mode", listener.unix_mode.is_some() && !address.is_unix_path()),
            ("unix_group", listener.unix_group.is_some() && !address.is_unix_path()),
        ];
        for (key, misplaced) in written {
            if misplaced {
                self.fault(format!("{path}.{key}"), wrong_kind(key, &address.to_string()));
            }
        }
    }

    fn max_message_bytes(&mut self, path: &str, listener: &Listener) {
        let key = format!("{path}.max_message_bytes");
        let bytes = listener.max_message_bytes;
        if self.integer(&key, bytes)
            && listener.framing == Framing::Raw
            && bytes > MAX_RECEIVE_BYTES
        {
            self.fault(
                key,
                format!(
                    "{bytes} is more than one receive takes in raw framing; allowed: an integer \
                     from 1 to {MAX_RECEIVE_BYTES}, or framing = \"line\""
                ),
            );
        }
    }

    /// `others` are the listeners before this one: the later of two is at fault.
    pub(super) fn collisions(
        &mut self,
        path: &str,
        listener: &Listener,
        others: &[Listener],
        all: &Config,
    ) {
        if let Some(index) = others.iter().position(|other| other.name == listener.name) {
            self.fault(
                format!("{path}.name"),
                format!(
                    "{} is already the name of listener[{index}]",
                    shortened(&format!("{:?}", listener.name))
                ),
            );
        }
        if !listener.address.may_repeat() {
            self.addresses(path, listener, others, all);
        }
    }

    fn addresses(&mut self, path: &str, listener: &Listener, others: &[Listener], all: &Config) {
        let address = &listener.address;
        let key = format!("{path}.address");
        if let Some(index) = others.iter().position(|other| other.address == *address) {
            let problem = format!("\"{address}\" is already the address of listener[{index}]");
            self.fault(key.clone(), problem);
        }
        let claim = Claim::of(listener);
        let clash = |other: Option<Claim>| claim?.clash(&other?);
        let mut clashes = others.iter().enumerate().filter_map(|(index, other)| {
            let why = clash(Claim::of(other))?;
            Some(format!("listener[{index}].address, \"{}\", {why}", other.address))
        });
        if let Some(problem) = clashes.next() {
            self.fault(key.clone(), format!("\"{address}\" and {problem}"));
        }
        let Some(metrics) = all.metrics.address else { return };
        let sidecar = "metrics.address";
        let is_to_blame = self.is_to_blame(&key, sidecar);
        if *address == metrics.into() {
            let (key, other) = if is_to_blame { (&*key, sidecar) } else { (sidecar, &*key) };
            self.fault(key, format!("\"{address}\" is also {other}"));
        } else if let Some(why) = clash(Claim::of_the_sidecar(metrics)) {
            if is_to_blame {
                let problem = format!("\"{address}\" and {sidecar}, \"{metrics}\", {why}");
                self.fault(key, problem);
            } else {
                self.fault(sidecar, format!("\"{metrics}\" and {key}, \"{address}\", {why}"));
            }
        }
    }
}

/// A listener's name is a label in the metrics and part of a thread's name.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&name.len()) && name.bytes().all(fits)
}

pub(in crate::config) fn wrong_kind(key: &str, address: &str) -> String {
    let kind = if key == "v6only" { "an IPv6" } else { "a unix:/…" };
    format!("belongs only to {kind} address; this listener's is \"{address}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::validate::tests::check;
    use crate::config::{Address, Metrics};

    #[track_caller]
    fn check_listener(change: impl FnOnce(&mut Listener), expected: &[&str]) {
        let mut config = Config::default();
        change(&mut config.listeners[0]);
        check(&config, expected);
    }

    fn address(written: &str) -> Address {
        written.parse().unwrap()
    }

    #[test]
    fn a_name_is_of_1_to_32_lower_case_letters_digits_and_hyphens() {
        let long = "n".repeat(33);
        for bad in ["", "Main", "a_b", "a b", "é", "a\n", &long] {
            check_listener(|listener| listener.name = bad.to_owned(), &["listener[0].name: "]);
        }
        let longest = "n".repeat(32);
        for good in ["a", "0", "-", &longest] {
            check_listener(|listener| listener.name = good.to_owned(), &[]);
        }
    }

    #[test]
    fn an_exit_word_that_no_client_could_say_is_refused() {
        let bytes = |bytes| move |listener: &mut Listener| listener.max_message_bytes = bytes;
        check_listener(bytes(4), &[]);
        check_listener(bytes(3), &["listener[0].exit_word: \"exit\" is longer than"]);
    }

    #[test]
    fn raw_takes_no_more_than_64_kib_and_line_up_to_16_mib() {
        for (framing, bytes, good) in [
            (Framing::Raw, 65_536, true),
            (Framing::Raw, 65_537, false),
            (Framing::Line, 16_777_216, true),
            (Framing::Line, 16_777_217, false),
        ] {
            let expected: &[&str] = if good { &[] } else { &["listener[0].max_message_bytes: "] };
            let change = |listener: &mut Listener| {
                (listener.framing, listener.max_message_bytes) = (framing, bytes);
            };
            check_listener(change, expected);
        }
    }

    #[test]
    fn keys_belong_to_their_kind_of_address() {
        let misplaced = |listener: &mut Listener| {
            listener.v6only = false;
            listener.unix_mode = Some(0o660);
            listener.unix_group = Some("adm".to_owned());
        };
        let v6only = "listener[0].v6only: belongs only to an IPv6 address";
        let unix_mode = "listener[0].unix_mode: belongs only to a unix:/… address";
        let unix_group = "listener[0].unix_group: belongs only to a unix:/… address";
        check_listener(misplaced, &[v6only, unix_mode, unix_group]);
        for (written, expected) in [
            ("[::]:1", vec![unix_mode, unix_group]),
            ("unix:/run/x", vec![v6only]),
            ("unix:@x", vec![v6only, unix_mode, unix_group]),
        ] {
            let change = |listener: &mut Listener| {
                misplaced(listener);
                listener.address = address(written);
            };
            check_listener(change, &expected);
        }
    }

    #[test]
    fn names_and_addresses_differ_but_port_0_may_repeat() {
        let listener = |name: &str, written: &str| Listener {
            name: name.to_owned(),
            address: address(written),
            ..Listener::default()
        };
        let mut config = Config {
            listeners: vec![
                listener("a", "127.0.0.1:1"),
                listener("a", "127.0.0.1:0"),
                listener("b", "127.0.0.1:0"),
                listener("c", "127.0.0.1:1"),
                listener("d", "127.0.0.1:2"),
            ],
            metrics: Metrics {
                address: Some("127.0.0.1:2".parse().unwrap()),
                ..Metrics::default()
            },
            ..Config::default()
        };
        check(
            &config,
            &[
                "listener[1].name: \"a\" is already the name of listener[0]",
                "listener[3].address: \"127.0.0.1:1\" is already the address of listener[0]",
                "listener[4].address: \"127.0.0.1:2\" is also metrics.address",
            ],
        );
        config.listeners.clear();
        check(&config, &["listener: there is none"]);
    }
}
