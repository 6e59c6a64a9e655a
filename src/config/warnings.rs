//! What is allowed and will bite all the same, told from the configuration and a few facts about
//! the host, which the caller looks up.

use std::fmt;
use std::time::Duration;

use super::{Command, CommandMode, Config, DEFAULT_MAX_CONNECTIONS, Listener, ShowConnections};
use crate::responder::rules::{Matcher, Rule, RuleBook};
use crate::wire::Framing;

/// Descriptors that every process needs besides its sockets: standard streams, log, epoll, signals
/// and the files of /proc that a scrape reads.
const OTHER_DESCRIPTORS: u64 = 32;
/// The sidecar's door admits so many scrapes at once,
const SCRAPES: u64 = 32;
/// and each passes through a door, a socket pair and a handler.
const DESCRIPTORS_A_SCRAPE: u64 = 4;
/// Readiness set, wake-up and alarm.
const DESCRIPTORS_A_WORKER: u64 = 3;
/// The socket and two of its reserve; the lock of a Unix socket is among the others.
const DESCRIPTORS_A_LISTENER: u64 = 3;
/// Standard input, output and error, and what tells of its end.
const DESCRIPTORS_A_PROCESS: u64 = 4;
/// Where there are programs: one more handle of its readiness set.
const DESCRIPTORS_OF_A_HOME: u64 = 1;
/// Where there are programs: the keeper's own, and what a start needs while it is under way.
const DESCRIPTORS_OF_THE_KEEPER: u64 = 16;

/// Facts about the host. `None` = unknown, and nothing is said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// `net.core.somaxconn`: the kernel's bound on every backlog.
    pub somaxconn: Option<u32>,
    /// The hard limit on open descriptors, to which the program raises its own.
    pub descriptors: Option<u64>,
    /// Threads that `workers = "auto"` makes here.
    pub workers: usize,
}

/// Something that is allowed and will bite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key's full name, such as `listener[0].backlog`.
    pub key: String,
    /// What will happen and what to do about it, on one line.
    pub text: String,
    /// What the server makes of it.
    pub effect: Effect,
}

/// What a server makes of something that bites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It starts, and says nothing.
    Runs,
    /// It starts with another value, and says so.
    Adapts,
    /// It does not start.
    Refuses,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.key, self.text)
    }
}

impl Config {
    /// Descriptors that a server with so many workers needs when every connection is taken.
    #[must_use]
    pub fn descriptors_needed(&self, workers: usize) -> u64 {
        let connections = self.limits.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let besides = self.descriptors_besides_connections(workers);
        self.descriptors_a_connection() * connections as u64 + besides
    }

    /// How many connections a limit on descriptors leaves room for.
    #[must_use]
    pub fn connections_fitting(&self, limit: u64, workers: usize) -> u64 {
        let left = limit.saturating_sub(self.descriptors_besides_connections(workers));
        left / self.descriptors_a_connection()
    }

    /// Any of them may be at a listener where it brings a process along.
    fn descriptors_a_connection(&self) -> u64 {
        let brings = |command: &Command| command.mode == CommandMode::PerConnection;
        if self.commands().any(brings) { 1 + DESCRIPTORS_A_PROCESS } else { 1 }
    }

    fn descriptors_besides_connections(&self, workers: usize) -> u64 {
        let keeper = if self.commands().next().is_some() { DESCRIPTORS_OF_THE_KEEPER } else { 0 };
        DESCRIPTORS_A_SCRAPE * SCRAPES
            + self.descriptors_a_worker() * workers as u64
            + DESCRIPTORS_A_LISTENER * self.listeners.len() as u64
            + DESCRIPTORS_A_PROCESS * self.shared_processes()
            + keeper
            + OTHER_DESCRIPTORS
    }

    fn descriptors_a_worker(&self) -> u64 {
        let home = if self.commands().next().is_some() { DESCRIPTORS_OF_A_HOME } else { 0 };
        DESCRIPTORS_A_WORKER + home
    }

    fn commands(&self) -> impl Iterator<Item = &Command> {
        self.listeners.iter().filter_map(|listener| listener.command.as_ref())
    }

    fn shared_processes(&self) -> u64 {
        let shared = self.commands().filter(|command| command.mode == CommandMode::Shared);
        // As many may end, or answer their last message, beside those that replace them.
        shared.map(|command| 2 * command.max_processes as u64).sum()
    }

    /// The sum of [`Self::descriptors_needed`] written out, for a message.
    #[must_use]
    pub fn descriptors_sum(&self, workers: usize) -> String {
        let connections = self.limits.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let connections = match self.descriptors_a_connection() {
            1 => format!("{connections} connections"),
            each => format!("{each} × {connections} connections with a process each"),
        };
        let shared = match self.shared_processes() {
            0 => String::new(),
            count => format!("{DESCRIPTORS_A_PROCESS} × {count} processes + "),
        };
        let keeper = match self.commands().next() {
            None => String::new(),
            Some(_) => format!("{DESCRIPTORS_OF_THE_KEEPER} to start them + "),
        };
        format!(
            "{connections} + {DESCRIPTORS_A_SCRAPE} × {SCRAPES} for scrapes + \
             {} × {workers} workers + {DESCRIPTORS_A_LISTENER} × {} listeners \
             + {shared}{keeper}{OTHER_DESCRIPTORS} = {}",
            self.descriptors_a_worker(),
            self.listeners.len(),
            self.descriptors_needed(workers)
        )
    }

    /// Everything that is allowed and will bite on this host, in the order of the file.
    #[must_use]
    pub fn warnings(&self, host: &Host) -> Vec<Warning> {
        let mut warnings = Vec::new();
        self.warn_of_backlogs(host, &mut warnings);
        self.warn_of_rules(&mut warnings);
        self.warn_of_descriptors(host, &mut warnings);
        self.warn_of_timeouts(&mut warnings);
        self.warn_of_metrics(&mut warnings);
        warnings
    }

    fn warn_of_backlogs(&self, host: &Host, warnings: &mut Vec<Warning>) {
        let Some(somaxconn) = host.somaxconn else { return };
        for (index, listener) in self.listeners.iter().enumerate() {
            let backlog = listener.backlog;
            if backlog > somaxconn {
                let text = format!(
                    "{backlog} is above net.core.somaxconn, and the kernel will clamp it to \
                     {somaxconn}; lower it or raise the sysctl"
                );
                let key = format!("listener[{index}].backlog");
                warnings.push(Warning { key, text, effect: Effect::Adapts });
            }
        }
    }

    /// Who forgets the rules sees nothing answer, who forgets the framing no rule that answers a
    /// client that sends lines.
    fn warn_of_rules(&self, warnings: &mut Vec<Warning>) {
        let is_whole = |rule: &Rule| matches!(rule.matcher, Matcher::Equals(_));
        for (index, listener) in self.listeners.iter().enumerate() {
            let is_mute = |book: &RuleBook| {
                book.rules.is_empty() && book.greeting.is_none() && book.default.is_empty()
            };
            if listener.rules.as_ref().is_some_and(is_mute) {
                let text = "no rule, no greeting and no default: nothing is ever sent, as by \
                            responder = \"discard\"";
                let key = format!("listener[{index}].rules");
                warnings.push(Warning { key, text: text.to_owned(), effect: Effect::Runs });
            }
            let rules = listener.rules.iter().flat_map(|book| &book.rules);
            if listener.framing == Framing::Raw && rules.into_iter().any(is_whole) {
                let text = "\"raw\", where a message is whatever one receive returns, with its \
                            line ending: a rule that `equals` a line will not answer one; \
                            \"line\" makes each line a message";
                let key = format!("listener[{index}].framing");
                warnings.push(Warning { key, text: text.to_owned(), effect: Effect::Runs });
            }
            if listener.framing == Framing::Line {
                warnings.extend(carriage_returns(index, listener));
            }
        }
    }

    fn warn_of_descriptors(&self, host: &Host, warnings: &mut Vec<Warning>) {
        let Some(limit) = host.descriptors else { return };
        let workers = self.workers.unwrap_or(host.workers);
        if self.descriptors_needed(workers) <= limit {
            return;
        }
        let fitting = self.connections_fitting(limit, workers);
        let (effect, then) = match self.limits.max_connections {
            Some(_) => {
                (Effect::Refuses, format!("the server will refuse to start; at most {fitting} fit"))
            }
            None => (Effect::Adapts, format!("the server will lower it to {fitting}")),
        };
        let sum = self.descriptors_sum(workers);
        let text = format!("{sum} descriptors, but the hard limit is {limit}: {then}");
        warnings.push(Warning { key: "limits.max_connections".to_owned(), text, effect });
    }

    fn warn_of_timeouts(&self, warnings: &mut Vec<Warning>) {
        let public = self.listeners.iter().find(|listener| listener.address.is_public());
        let Some(listener) = public else { return };
        let limits = &self.limits;
        for (key, timeout, who) in [
            ("idle_timeout", limits.idle_timeout, "clients that fall silent"),
            ("message_timeout", limits.message_timeout, "clients that never finish a message"),
            ("send_timeout", limits.send_timeout, "clients that never read"),
            ("linger_timeout", limits.linger_timeout, "clients that never close"),
        ] {
            if timeout == Duration::ZERO {
                let text = format!(
                    "it is off, and {} is public: {who} keep their connections for ever",
                    listener.address
                );
                let key = format!("limits.{key}");
                warnings.push(Warning { key, text, effect: Effect::Runs });
            }
        }
    }

    fn warn_of_metrics(&self, warnings: &mut Vec<Warning>) {
        let public = |address: &_| super::Address::Ip(*address).is_public();
        if let Some(address) = self.metrics.address.filter(public) {
            let text = format!(
                "{address} is public: /metrics has no password, and other hosts may read it"
            );
            let key = "metrics.address".to_owned();
            warnings.push(Warning { key, text, effect: Effect::Runs });
            if self.metrics.connections == ShowConnections::Always {
                let text = format!(
                    "\"always\", and {address} is public: other hosts may read who is connected"
                );
                let key = "metrics.connections".to_owned();
                warnings.push(Warning { key, text, effect: Effect::Runs });
            }
        }
    }
}

/// Of rules for a line that ends in the half of its ending that is taken off with the other.
fn carriage_returns(index: usize, listener: &Listener) -> impl Iterator<Item = Warning> {
    let rules = listener.rules.iter().flat_map(|book| book.rules.iter().enumerate());
    let ends_in_one =
        |rule: &Rule| matches!(&rule.matcher, Matcher::Equals(text) if text.ends_with('\r'));
    rules.filter(move |(_, rule)| ends_in_one(rule)).map(move |(at, _)| {
        let text = "ends in a CR, which a line loses with its LF: it answers only a line that has \
                    another one, as before \\r\\n; leave \\r out";
        let key = format!("listener[{index}].rules.rule[{at}].equals");
        Warning { key, text: text.to_owned(), effect: Effect::Runs }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Metrics};

    const HOST: Host = Host { somaxconn: Some(4096), descriptors: Some(1 << 20), workers: 2 };

    #[track_caller]
    fn check(config: &Config, host: Host, expected: &[&str]) {
        let found: Vec<String> = config.warnings(&host).iter().map(Warning::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (warning, start) in found.iter().zip(expected) {
            assert!(warning.starts_with(start), "{warning}\nshould start with {start}");
        }
    }

    fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn the_defaults_do_not_bite_and_unknown_facts_are_no_warning() {
        check(&Config::default(), HOST, &[]);
        let unknown = Host { somaxconn: None, descriptors: None, workers: 2 };
        check(&with(|config| config.listeners[0].backlog = 65_535), unknown, &[]);
    }

    #[test]
    fn a_backlog_above_somaxconn_is_told_with_the_clamp() {
        let config = with(|config| config.listeners[0].backlog = 4097);
        check(&config, HOST, &["listener[0].backlog: 4097 is above net.core.somaxconn"]);
        check(&with(|config| config.listeners[0].backlog = 4096), HOST, &[]);
    }

    #[test]
    fn rules_for_whole_lines_want_line_framing() {
        let rule = |matcher| Rule { matcher, ..Rule::default() };
        let of = |framing, matcher| {
            let book = RuleBook { rules: vec![rule(matcher)], ..RuleBook::default() };
            with(|config| {
                config.listeners[0].framing = framing;
                config.listeners[0].rules = Some(book);
            })
        };
        let equals = || Matcher::Equals("a".to_owned());
        check(
            &of(Framing::Raw, equals()),
            HOST,
            &["listener[0].framing: \"raw\", where a message"],
        );
        check(&of(Framing::Line, equals()), HOST, &[]);
        let cr = Matcher::Equals("a\r".to_owned());
        check(&of(Framing::Line, cr), HOST, &["listener[0].rules.rule[0].equals: ends in a CR"]);
        check(&of(Framing::Raw, Matcher::Prefix("a".to_owned())), HOST, &[]);
    }

    #[test]
    fn rules_that_never_say_anything_want_one() {
        let of = |book| with(|config| config.listeners[0].rules = Some(book));
        let said = "listener[0].rules: no rule, no greeting and no default";
        check(&of(RuleBook::default()), HOST, &[said]);
        let text = || "a".to_owned();
        let greets = RuleBook { greeting: Some(text()), ..RuleBook::default() };
        let default = RuleBook { default: vec![text()], ..RuleBook::default() };
        let rule = RuleBook { rules: vec![Rule::default()], ..RuleBook::default() };
        for book in [greets, default, rule] {
            check(&of(book), HOST, &[]);
        }
    }

    #[test]
    fn the_sum_of_descriptors_is_that_of_the_design() {
        let config = with(|config| config.limits.max_connections = Some(100));
        assert_eq!(config.descriptors_needed(8), 100 + 4 * 32 + 3 * 8 + 3 + 32);
        let sum =
            "100 connections + 4 × 32 for scrapes + 3 × 8 workers + 3 × 1 listeners + 32 = 287";
        assert_eq!(config.descriptors_sum(8), sum);
    }

    #[test]
    fn every_process_needs_its_pipes_and_what_tells_of_its_end() {
        let command = |mode| Command { mode, max_processes: 7, ..Command::default() };
        let mut config = with(|config| {
            config.limits.max_connections = Some(100);
            config.listeners[0].command = Some(command(CommandMode::Shared));
        });
        assert_eq!(config.descriptors_needed(8), 100 + 4 * 32 + 4 * 8 + 3 + 4 * 14 + 16 + 32);
        let sum = config.descriptors_sum(8);
        let shared = "+ 3 × 1 listeners + 4 × 14 processes + 16 to start them + 32 = 367";
        assert!(sum.ends_with(shared), "{sum}");

        config.listeners[0].command = Some(command(CommandMode::PerConnection));
        let needed = 5 * 100 + 4 * 32 + 4 * 8 + 3 + 16 + 32;
        assert_eq!(config.descriptors_needed(8), needed);
        let sum = config.descriptors_sum(8);
        assert!(sum.starts_with("5 × 100 connections with a process each + 4 × 32"), "{sum}");
        assert_eq!(config.connections_fitting(needed, 8), 100);
        assert_eq!(config.connections_fitting(needed - 1, 8), 99);
        assert_eq!(config.connections_fitting(1, 8), 0);
    }

    #[test]
    fn connections_that_do_not_fit_are_refused_if_written_and_lowered_if_not() {
        let needed = Config::default().descriptors_needed(2);
        check(&Config::default(), Host { descriptors: Some(needed), ..HOST }, &[]);
        let small = Host { descriptors: Some(needed - 1), ..HOST };
        check(&Config::default(), small, &["limits.max_connections: "]);
        let lowered = Config::default().warnings(&small)[0].text.clone();
        assert!(lowered.ends_with("the server will lower it to 9999"), "{lowered}");
        let written = with(|config| config.limits.max_connections = Some(10_000));
        let refused = written.warnings(&small)[0].text.clone();
        assert!(refused.ends_with("refuse to start; at most 9999 fit"), "{refused}");
    }

    #[test]
    fn timeouts_that_are_off_bite_on_a_public_address_only() {
        let off = |address: &str| {
            with(|config| {
                config.listeners[0].address = address.parse().unwrap();
                config.limits = Limits {
                    idle_timeout: Duration::ZERO,
                    message_timeout: Duration::ZERO,
                    send_timeout: Duration::ZERO,
                    linger_timeout: Duration::ZERO,
                    ..Limits::default()
                };
            })
        };
        let expected = [
            "limits.idle_timeout: it is off, and [::]:1 is public",
            "limits.message_timeout: ",
            "limits.send_timeout: ",
            "limits.linger_timeout: ",
        ];
        check(&off("[::]:1"), HOST, &expected);
        check(&off("127.0.0.1:1"), HOST, &[]);
        check(&off("unix:/run/x.sock"), HOST, &[]);
    }

    #[test]
    fn metrics_on_a_public_address_are_told() {
        let at = |address: &str, connections| {
            let address = Some(address.parse().unwrap());
            let metrics = Metrics { address, connections, ..Metrics::default() };
            with(|config| config.metrics = metrics)
        };
        let public = "metrics.address: 0.0.0.0:9889 is public";
        let shown = "metrics.connections: \"always\", and 0.0.0.0:9889 is public";
        check(&at("0.0.0.0:9889", ShowConnections::Loopback), HOST, &[public]);
        check(&at("0.0.0.0:9889", ShowConnections::Always), HOST, &[public, shown]);
        check(&at("[::1]:9889", ShowConnections::Always), HOST, &[]);
    }
}
