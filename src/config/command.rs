//! `[listener.command]`: which program answers, in how many processes, within which bounds; and how
//! that is printed.

mod read;
mod validate;

use std::time::Duration;

use super::duration;
use super::reference::MODES;
use super::settings::{list, quoted};

pub(super) use read::read;

/// The responder that needs a [`Command`].
pub(super) const RESPONDER: &str = "command";

pub(super) const PROGRAM: &str = "a list of 1 to 256 strings: the program and its arguments";
pub(super) const ENVIRONMENT: &str =
    "a list of at most 256 strings, each another \"NAME\" (passed on) or \"NAME=value\"";
pub(super) const ACCOUNT: &str = "a string of at most 64 bytes, a name or a number, or \"\"";
pub(super) const DIRECTORY: &str = "a string, an absolute path, or \"\"";
pub(super) const SELF_TEST: &str = "a string of at most 1024 bytes without LF";
pub(super) const CPU_TIME: &str =
    "a string of whole seconds, such as \"10s\", up to \"8760h\"; \"0s\" = no limit";

/// Keys that say how processes are shared, and so mean nothing with one for each connection.
const OF_SHARED: [&str; 11] = [
    "min_processes",
    "max_processes",
    "process_idle_timeout",
    "pipeline",
    "max_queue",
    "queue_timeout",
    "overload_reply",
    "max_requests",
    "max_reply_bytes",
    "restart_delay",
    "max_restart_delay",
];

const MEANS_NOTHING: &str =
    "means nothing with mode = \"per_connection\", where each client has a process of its own";

/// The program that answers on a listener with `responder = "command"`. The default has no program,
/// and nothing can be started with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The program and its arguments. One without a slash is looked for in the `PATH` that the
    /// program will have.
    pub program: Vec<String>,
    /// Whom a process serves.
    pub mode: CommandMode,
    /// Shared: processes that run from the start on, and always.
    pub min_processes: usize,
    /// Shared: processes that may run at once.
    pub max_processes: usize,
    /// Shared: a process above `min_processes` that had nothing to do for so long is ended; zero =
    /// never.
    pub process_idle_timeout: Duration,
    /// Shared: messages that a process may be given before it has answered the first of them.
    pub pipeline: usize,
    /// Shared: messages that may wait for a process.
    pub max_queue: usize,
    /// Shared: how long one may wait for a process; never zero.
    pub queue_timeout: Duration,
    /// Shared: what is answered to a message that no process can take; empty = the connection is
    /// closed.
    pub overload_reply: String,
    /// Shared: a process is replaced after so many messages; 0 = never.
    pub max_requests: u64,
    /// Shared: the longest line that a process may answer.
    pub max_reply_bytes: usize,
    /// Shared: the wait before a process that died is replaced; it doubles with each death in a
    /// row. Never zero.
    pub restart_delay: Duration,
    /// Shared: the longest such wait.
    pub max_restart_delay: Duration,
    /// A message that the program must answer at the start; empty = none.
    pub self_test: String,
    /// How long that answer may take; never zero.
    pub self_test_timeout: Duration,
    /// All of the program's environment: `NAME` passes this process's own on, `NAME=value` sets.
    pub environment: Vec<String>,
    /// The program's working directory, an absolute path; empty = that of this process.
    pub directory: String,
    /// The user (name or number) that the program runs as; empty = that of this process.
    pub user: String,
    /// The group (name or number) that the program runs as; empty = the user's, or that of this
    /// process.
    pub group: String,
    /// RLIMIT_AS of each process; 0 = that of this process.
    pub max_memory_bytes: u64,
    /// RLIMIT_CPU of each process, whole seconds; zero = that of this process.
    pub max_cpu_time: Duration,
    /// RLIMIT_NOFILE of each process; 0 = that of this process.
    pub max_open_files: u64,
}

/// Whom a process serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandMode {
    /// All clients of the listener: it reads lines and answers each with one.
    Shared,
    /// One client: its standard input and output are the conversation, as inetd has it.
    PerConnection,
}

impl Default for Command {
    fn default() -> Self {
        Self {
            program: Vec::new(),
            mode: CommandMode::Shared,
            min_processes: 1,
            max_processes: 4,
            process_idle_timeout: Duration::from_secs(60),
            pipeline: 1,
            max_queue: 1024,
            queue_timeout: Duration::from_secs(5),
            overload_reply: "busy".to_owned(),
            max_requests: 0,
            max_reply_bytes: 65_536,
            restart_delay: Duration::from_millis(100),
            max_restart_delay: Duration::from_secs(30),
            self_test: String::new(),
            self_test_timeout: Duration::from_secs(5),
            environment: vec!["PATH".to_owned()],
            directory: String::new(),
            user: String::new(),
            group: String::new(),
            max_memory_bytes: 0,
            max_cpu_time: Duration::ZERO,
            max_open_files: 0,
        }
    }
}

impl CommandMode {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        MODES[self as usize]
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Shared, Self::PerConnection].into_iter().find(|mode| mode.as_str() == word)
    }
}

impl Command {
    /// What a command line chose instead. What says how processes are shared stays behind where
    /// each client has its own; the rest is the file's.
    pub(super) fn replaced(self, program: Vec<String>, mode: CommandMode) -> Self {
        match mode {
            CommandMode::Shared => Self { program, mode, ..self },
            CommandMode::PerConnection => Self {
                program,
                mode,
                self_test: self.self_test,
                self_test_timeout: self.self_test_timeout,
                environment: self.environment,
                directory: self.directory,
                user: self.user,
                group: self.group,
                max_memory_bytes: self.max_memory_bytes,
                max_cpu_time: self.max_cpu_time,
                max_open_files: self.max_open_files,
                ..Self::default()
            },
        }
    }

    fn is_shared(&self) -> bool {
        self.mode == CommandMode::Shared
    }

    /// Each key with its value as TOML writes it. Keys that mean nothing in this mode are left out.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |text: &str| quoted(text);
        let time = |time: Duration| quoted(&duration::format(time));
        let settings = [
            ("program", list(&self.program)),
            ("mode", text(self.mode.as_str())),
            ("min_processes", self.min_processes.to_string()),
            ("max_processes", self.max_processes.to_string()),
            ("process_idle_timeout", time(self.process_idle_timeout)),
            ("pipeline", self.pipeline.to_string()),
            ("max_queue", self.max_queue.to_string()),
            ("queue_timeout", time(self.queue_timeout)),
            ("overload_reply", text(&self.overload_reply)),
            ("max_requests", self.max_requests.to_string()),
            ("max_reply_bytes", self.max_reply_bytes.to_string()),
            ("restart_delay", time(self.restart_delay)),
            ("max_restart_delay", time(self.max_restart_delay)),
            ("self_test", text(&self.self_test)),
            ("self_test_timeout", time(self.self_test_timeout)),
            ("environment", list(&self.environment)),
            ("directory", text(&self.directory)),
            ("user", text(&self.user)),
            ("group", text(&self.group)),
            ("max_memory_bytes", self.max_memory_bytes.to_string()),
            ("max_cpu_time", quoted(&seconds(self.max_cpu_time))),
            ("max_open_files", self.max_open_files.to_string()),
        ];
        let belongs = |key: &str| self.is_shared() || !OF_SHARED.contains(&key);
        settings.into_iter().filter(|(key, _)| belongs(key)).collect()
    }
}

/// Always in seconds, as the rule for it has it.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

#[cfg(test)]
mod tests;
