//! What the operator chose: plain values with their defaults, read from flags, environment and file
//! by [`load`], which reports everything that is wrong at once. Nothing here binds or starts.

mod address;
mod command;
mod document;
mod duration;
mod error;
mod keepalive;
mod load;
mod origin;
mod reference;
mod rules;
mod section;
mod settings;
mod syntax;
#[cfg(any(test, fuzzing))]
pub(crate) mod trial;
mod validate;
mod warnings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::nearest;
use crate::responder::rules::RuleBook;
use crate::wire::{Framing, InvalidUtf8, MAX_RECEIVE_BYTES};

pub use address::AddressError;
pub use command::{Command, CommandMode};
pub use error::{ConfigError, Fault};
pub use load::{Environment, Loaded, Overrides, Source, load};
pub use origin::{Origin, Origins};
pub use reference::{Allowed, Key, config_table, reference};
pub use rules::{Scripted, load_rules, rules_reference, rules_table};
pub use settings::Setting;
pub use warnings::{Effect, Host, Warning};

/// `max_connections` where the config names none (lowered at start where descriptors do not
/// suffice).
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// Responders that a file may name; a program of its own may bring others.
pub const BUILT_IN_RESPONDERS: &[&str] = &["echo", "discard", "rules", command::RESPONDER];

/// Those of them that do nothing with a text, so that `exit` may mean the end.
const WITH_EXIT_WORD: &[&str] = &["echo", "discard"];

/// Everything a server is started with. The default is what `talkback serve` runs without a file.
/// [`load`] reads one as the program does; in a program of your own begin with the default.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use talkback::Config;
///
/// let mut config = Config::default();
/// config.listeners[0].address = "[::1]:7000".parse()?;
/// config.limits.idle_timeout = Duration::from_secs(60);
/// config.validate()?;
///
/// config.listeners.clear();
/// assert!(config.validate().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Threads in the fixed pool; `None` = the CPUs this process may use.
    pub workers: Option<usize>,
    /// At least one; names and addresses differ.
    pub listeners: Vec<Listener>,
    /// Bounds on connections, time and memory.
    pub limits: Limits,
    /// What a stop waits for.
    pub shutdown: Shutdown,
    /// The sidecar.
    pub metrics: Metrics,
    /// What is logged; the program sets this up, the library only reads `connections`.
    pub log: Log,
}

/// One listening socket and the conversation held on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// The metrics' label, `[a-z0-9-]{1,32}`.
    pub name: String,
    /// Where to listen.
    pub address: Address,
    /// listen(2)'s backlog; the kernel clamps it to `net.core.somaxconn`.
    pub backlog: u32,
    /// Connections accepted a second at most, over time; above it newcomers wait in the kernel's
    /// queue. 0 = no limit.
    pub max_accept_rate: u32,
    /// How many may come at once after a quiet time; 0 = as many as one second's.
    pub max_accept_burst: u32,
    /// IPv6 only: refuse IPv4-mapped peers.
    pub v6only: bool,
    /// Permission bits of a Unix socket's file; `None` leaves them to the umask.
    pub unix_mode: Option<u32>,
    /// Group (name or number) of a Unix socket's file; `None` leaves it.
    pub unix_group: Option<String>,
    /// How bytes become messages.
    pub framing: Framing,
    /// The responder's name; built in are `echo`, `discard`, `rules` and `command`.
    pub responder: String,
    /// What `responder = "rules"` answers by, and nobody else.
    pub rules: Option<RuleBook>,
    /// The program that answers where the responder is `command`, and only there.
    pub command: Option<Command>,
    /// The word that ends a conversation; empty = none, `None` = see [`Listener::exit_word`].
    pub exit_word: Option<String>,
    /// How long an answer that comes later may take, if its responder says nothing else; above
    /// zero.
    pub reply_timeout: Duration,
    /// What becomes of bytes that are not UTF-8.
    pub invalid_utf8: InvalidUtf8,
    /// `raw`: the most one receive takes (never more than 64 KiB); `line`: the longest line.
    pub max_message_bytes: usize,
}

/// An address to listen on, written back as it was read.
///
/// ```
/// use talkback::config::Address;
///
/// let address: Address = "unix:/run/x.sock".parse()?;
/// assert!(address.is_unix_path());
/// assert_eq!(address.to_string(), "unix:/run/x.sock");
/// # Ok::<(), talkback::config::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `1.2.3.4:80` or `[::1]:80`; port 0 picks a free one.
    Ip(SocketAddr),
    /// `unix:/path`
    UnixPath(PathBuf),
    /// `unix:@name`, Linux's abstract namespace: open to every local process.
    UnixAbstract(String),
}

/// Bounds on connections, time and memory. A zero timeout = never.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// All listeners together; `None` = [`DEFAULT_MAX_CONNECTIONS`], or as many as descriptors
    /// allow.
    pub max_connections: Option<usize>,
    /// 0 = no limit; IPv6 counts by /64; Unix sockets are exempt.
    pub max_connections_per_ip: usize,
    /// Sent before a rejected connection is closed; at most 1,024 bytes.
    pub full_message: String,
    /// A worker's bound of connections handed over and not yet taken, and of replies that come
    /// later.
    pub inbox_connections: usize,
    /// Nothing received or sent, nothing unfinished, nothing owed.
    pub idle_timeout: Duration,
    /// From the first byte of an unfinished message.
    pub message_timeout: Duration,
    /// Replies pending and the kernel took no byte.
    pub send_timeout: Duration,
    /// How long a closing connection's input is discarded while its peer has not closed.
    pub linger_timeout: Duration,
    /// TCP: silence after which the kernel asks whether the peer is there (`TCP_KEEPIDLE`), in
    /// whole seconds; zero = it never asks.
    pub keepalive_idle: Duration,
    /// TCP: between two such questions (`TCP_KEEPINTVL`), in whole seconds.
    pub keepalive_interval: Duration,
    /// TCP: unanswered questions after which the peer is dead (`TCP_KEEPCNT`).
    pub keepalive_probes: u32,
    /// TCP: how long the peer may leave something unacknowledged, or its window closed
    /// (`TCP_USER_TIMEOUT`); `None` = see [`Limits::user_timeout`].
    pub user_timeout: Option<Duration>,
    /// Unsent replies of a connection; above it the client is not read.
    pub max_pending_bytes: usize,
    /// After so many messages the worker turns to the next connection.
    pub messages_per_turn: usize,
}

/// What a stop waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Not ready, but still accepting.
    pub drain_delay: Duration,
    /// From the end of accepting until what is left is cut.
    pub drain_timeout: Duration,
}

/// The sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// `None` turns the sidecar off.
    pub address: Option<SocketAddr>,
    /// Where `/connections` is shown, which tells peers' addresses.
    pub connections: ShowConnections,
    /// Names that the Host of a request for `/connections` may have besides addresses and
    /// localhost, against DNS rebinding.
    pub allowed_hosts: Vec<String>,
}

/// Where `/connections` is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowConnections {
    /// Where the sidecar's address is a loopback one.
    Loopback,
    /// On any address.
    Always,
    /// Nowhere.
    Never,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// The least important level that is shown.
    pub level: LogLevel,
    /// One line of text or of JSON an event.
    pub format: LogFormat,
    /// The level of the one line at each close.
    pub connections: LogLevel,
    /// Lines a second of one kind of event; what is above is counted and told. 0 = no limit.
    pub max_lines_per_second: u32,
}

/// Levels, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something will bite.
    Warn,
    /// Start, addresses, stop.
    Info,
    /// Each connection.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: None,
            listeners: vec![Listener::default()],
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

impl Listener {
    /// The word that ends a conversation; empty = none. Where none is set it is `exit` with `echo`
    /// and `discard`; any other may be given texts, such as a mail, in which `exit` is a line like
    /// any other.
    #[must_use]
    pub fn exit_word(&self) -> &str {
        match &self.exit_word {
            Some(word) => word,
            None if WITH_EXIT_WORD.contains(&self.responder.as_str()) => "exit",
            None => "",
        }
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            address: Address::Ip(SocketAddr::from(([0, 0, 0, 0], 8889))),
            backlog: 1024,
            max_accept_rate: 0,
            max_accept_burst: 0,
            v6only: true,
            unix_mode: None,
            unix_group: None,
            framing: Framing::Raw,
            responder: "echo".to_owned(),
            rules: None,
            command: None,
            exit_word: None,
            reply_timeout: Duration::from_secs(30),
            invalid_utf8: InvalidUtf8::Close,
            max_message_bytes: MAX_RECEIVE_BYTES,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_connections_per_ip: 0,
            full_message: String::new(),
            inbox_connections: 1024,
            idle_timeout: Duration::from_secs(5 * 60),
            message_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(20),
            linger_timeout: Duration::from_secs(2),
            keepalive_idle: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(10),
            keepalive_probes: 3,
            user_timeout: None,
            max_pending_bytes: 65_536,
            messages_per_turn: 64,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_delay: Duration::ZERO, drain_timeout: Duration::from_secs(15) }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 9889))),
            connections: ShowConnections::Loopback,
            allowed_hosts: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            connections: LogLevel::Debug,
            max_lines_per_second: 10,
        }
    }
}
