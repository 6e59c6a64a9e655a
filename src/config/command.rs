//! `[listener.command]`: which program answers, in how many processes, within which bounds. What
//! belongs together, how it is read and how it is printed.

use std::time::Duration;

use toml::de::DeValue;

use super::document::{NO_DURATION, put, settle};
use super::reference::MODES;
use super::section::{Section, with_article};
use super::settings::{list, quoted};
use super::validate::{MAX_GROUP_BYTES, MAX_TEXT_BYTES, Rules, shortened};
use super::{Listener, Origin, duration};
use crate::wire::Framing;

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

const MAX_ARGUMENTS: usize = 256;
const MAX_VARIABLES: usize = 256;

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

// ---- reading ----

/// The `[listener.command]` below this `[[listener]]`, if there is one.
pub(super) fn read(listener: &mut Section<'_, '_>) -> Option<Command> {
    let value = listener.value("command")?.clone();
    let path = listener.full_name("command");
    let DeValue::Table(table) = value.get_ref() else {
        let found = with_article(value.get_ref());
        let problem = format!("it is {found}; allowed: a table, [listener.command]");
        listener.notes.fault(value.span(), &path, problem);
        return Some(unblamed());
    };
    let kind = "listener.command";
    let mut section = Section { notes: listener.notes, table, path, kind };
    section.refuse_unknown(&[]);
    if !table.contains_key("program") {
        let name = section.full_name("program");
        section.notes.fault(value.span(), &name, format!("missing; allowed: {PROGRAM}"));
    }
    Some(command(&mut section))
}

/// Stands where a command, or a part of it, could not be read. No rule refuses it.
fn unblamed() -> Command {
    Command { program: vec!["unread".to_owned()], ..Command::default() }
}

fn command(section: &mut Section<'_, '_>) -> Command {
    let program = section.texts("program").unwrap_or(unblamed().program);
    let mut command = Command { program, ..Command::default() };
    let mode = section.word("mode", CommandMode::from_word);
    if mode == Some(CommandMode::PerConnection) {
        refuse_keys_of_shared(section);
    }
    command.mode = settle(section, "mode", mode, command.mode, CommandMode::Shared);
    let least = section.integer("min_processes");
    command.min_processes = settle(section, "min_processes", least, command.min_processes, 0);
    let most = section.integer("max_processes");
    command.max_processes =
        settle(section, "max_processes", most, command.max_processes, usize::MAX);
    put(&mut command.pipeline, section.integer("pipeline"));
    put(&mut command.max_queue, section.integer("max_queue"));
    put(&mut command.overload_reply, section.text("overload_reply"));
    put(&mut command.max_requests, section.integer("max_requests"));
    put(&mut command.max_reply_bytes, section.integer("max_reply_bytes"));
    let longest = section.parsed("max_restart_delay", NO_DURATION, duration::parse);
    command.max_restart_delay =
        settle(section, "max_restart_delay", longest, command.max_restart_delay, Duration::MAX);
    put(&mut command.self_test, section.text("self_test"));
    for (key, time) in [
        ("process_idle_timeout", &mut command.process_idle_timeout),
        ("queue_timeout", &mut command.queue_timeout),
        ("restart_delay", &mut command.restart_delay),
        ("self_test_timeout", &mut command.self_test_timeout),
        ("max_cpu_time", &mut command.max_cpu_time),
    ] {
        put(time, section.parsed(key, NO_DURATION, duration::parse));
    }
    put(&mut command.environment, section.texts("environment"));
    put(&mut command.directory, section.text("directory"));
    put(&mut command.user, section.text("user"));
    put(&mut command.group, section.text("group"));
    put(&mut command.max_memory_bytes, section.integer("max_memory_bytes"));
    put(&mut command.max_open_files, section.integer("max_open_files"));
    command
}

/// In a file they are refused even at their defaults: whoever wrote one expects an effect.
fn refuse_keys_of_shared(section: &mut Section<'_, '_>) {
    for key in OF_SHARED {
        if let Some(at) = section.key_span(key) {
            let name = section.full_name(key);
            section.notes.fault(at, &name, MEANS_NOTHING);
        }
    }
}

const MEANS_NOTHING: &str =
    "means nothing with mode = \"per_connection\", where each client has a process of its own";

// ---- rules ----

impl Rules<'_> {
    /// Responder, command and framing of a listener belong together.
    pub(super) fn command(&mut self, path: &str, listener: &Listener) {
        let key = format!("{path}.command");
        let (responder, framing) = (format!("{path}.responder"), format!("{path}.framing"));
        let named = listener.responder == RESPONDER;
        let Some(command) = &listener.command else {
            if named {
                let problem = "\"command\" needs a [listener.command] that names the program";
                self.fault(responder, problem.to_owned());
            }
            return;
        };
        if !named {
            let written = &listener.responder;
            let problem = if self.is_written(&responder) {
                (responder, format!("\"{written}\" does not use the [listener.command] here"))
            } else {
                (key.clone(), "means nothing without responder = \"command\"".to_owned())
            };
            self.fault(problem.0, problem.1);
        }
        if command.is_shared() && listener.framing == Framing::Raw {
            let mode = format!("{key}.mode");
            let problem = "a shared program reads and answers lines; allowed: framing = \"line\", \
                           or mode = \"per_connection\"";
            let places = [framing, mode, key.clone()];
            let written = places.iter().find(|key| self.is_written(key));
            self.fault(written.unwrap_or(&places[0]).clone(), problem.to_owned());
        }
        self.command_itself(&key, command);
    }

    fn is_written(&self, key: &str) -> bool {
        self.origins.of(key) != Origin::Default
    }

    fn command_itself(&mut self, path: &str, command: &Command) {
        let key = |key: &str| format!("{path}.{key}");
        self.program(key("program"), &command.program);
        if command.is_shared() {
            self.sharing(path, command);
        } else {
            self.nothing_of_sharing(path, command);
        }
        let test = &command.self_test;
        if test.len() > MAX_TEXT_BYTES || test.contains('\n') {
            self.text(key("self_test"), test, "cannot be a self test");
        }
        self.period(key("self_test_timeout"), command.self_test_timeout);
        self.environment(key("environment"), &command.environment);
        let directory = &command.directory;
        let is_absolute = directory.is_empty() || directory.starts_with('/');
        if !is_absolute || directory.contains('\0') {
            self.text(key("directory"), directory, "is no directory's absolute path");
        }
        for (name, account) in [("user", &command.user), ("group", &command.group)] {
            if account.len() > MAX_GROUP_BYTES || account.contains('\0') {
                self.text(key(name), account, &format!("is not a {name}"));
            }
        }
        self.integer(key("max_memory_bytes"), command.max_memory_bytes);
        let cpu = command.max_cpu_time;
        if cpu.subsec_nanos() != 0 || cpu > duration::MAX_DURATION {
            let cpu = duration::format(cpu);
            self.text(key("max_cpu_time"), &cpu, "is out of range");
        }
        self.integer(key("max_open_files"), command.max_open_files);
    }

    fn program(&mut self, key: String, program: &[String]) {
        let Some(first) = program.first() else {
            return self.fault(key, format!("it is empty; allowed: {PROGRAM}"));
        };
        if first.is_empty() {
            return self.text(key, first, "is no program");
        }
        if program.len() > MAX_ARGUMENTS {
            let problem = format!("it has {} strings; allowed: {PROGRAM}", program.len());
            self.fault(key.clone(), problem);
        }
        if let Some(argument) = program.iter().find(|argument| argument.contains('\0')) {
            self.text(key, argument, "holds a NUL, which no argument can");
        }
    }

    fn sharing(&mut self, path: &str, command: &Command) {
        let key = |key: &str| format!("{path}.{key}");
        let (min, max) = (command.min_processes, command.max_processes);
        // What could not be read is beyond any bound, and has been told.
        let told = max == usize::MAX;
        let fit = self.integer(key("min_processes"), min)
            && (told || self.integer(key("max_processes"), max));
        if fit && min > max {
            let problem = format!("{min} is more than max_processes ({max})");
            self.the_written_of(key("min_processes"), key("max_processes"), &problem);
        }
        self.duration(&key("process_idle_timeout"), command.process_idle_timeout);
        self.integer(key("pipeline"), command.pipeline);
        self.integer(key("max_queue"), command.max_queue);
        self.period(key("queue_timeout"), command.queue_timeout);
        let overload = &command.overload_reply;
        if overload.len() > MAX_TEXT_BYTES {
            self.text(key("overload_reply"), overload, "is too long");
        }
        self.integer(key("max_requests"), command.max_requests);
        self.integer(key("max_reply_bytes"), command.max_reply_bytes);
        let (first, longest) = (command.restart_delay, command.max_restart_delay);
        self.period(key("restart_delay"), first);
        if longest != Duration::MAX {
            self.period(key("max_restart_delay"), longest);
        }
        if first > longest && first <= duration::MAX_DURATION {
            let (first, longest) = (duration::format(first), duration::format(longest));
            let problem = format!("\"{first}\" is longer than max_restart_delay (\"{longest}\")");
            self.the_written_of(key("restart_delay"), key("max_restart_delay"), &problem);
        }
    }

    /// Blames the first of two keys that contradict each other, unless only the other was written.
    fn the_written_of(&mut self, key: String, other: String, problem: &str) {
        let key = if self.is_to_blame(&key, &other) { key } else { other };
        self.fault(key, problem.to_owned());
    }

    /// In code every key is always there; only a value that could have an effect is refused.
    fn nothing_of_sharing(&mut self, path: &str, command: &Command) {
        let shared = Command { mode: CommandMode::Shared, ..command.clone() }.settings();
        let defaults = Command::default().settings();
        for ((key, value), (_, default)) in shared.iter().zip(&defaults) {
            if OF_SHARED.contains(key) && value != default {
                self.fault(format!("{path}.{key}"), MEANS_NOTHING.to_owned());
            }
        }
    }

    fn environment(&mut self, key: String, entries: &[String]) {
        if entries.len() > MAX_VARIABLES {
            let problem = format!("it has {} strings; allowed: {ENVIRONMENT}", entries.len());
            self.fault(key.clone(), problem);
        }
        let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
        let mut names = std::collections::BTreeSet::new();
        for entry in entries {
            if name(entry).is_empty() || entry.contains('\0') {
                self.text(key.clone(), entry, "names no variable");
            } else if !names.insert(name(entry)) {
                let name = shortened(&format!("{:?}", name(entry)));
                self.fault(key.clone(), format!("{name} is named twice; allowed: {ENVIRONMENT}"));
            }
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
}

#[cfg(test)]
mod tests;
