//! What a command must keep, whether it was read from a file or built in code, and what of it
//! belongs together.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Command, CommandMode, ENVIRONMENT, MEANS_NOTHING, OF_SHARED, PROGRAM, RESPONDER};
use crate::config::validate::{MAX_GROUP_BYTES, MAX_TEXT_BYTES, Rules, shortened};
use crate::config::{Listener, Origin, duration};
use crate::wire::Framing;

const MAX_ARGUMENTS: usize = 256;
const MAX_VARIABLES: usize = 256;

impl Rules<'_> {
    /// Responder, command and framing of a listener belong together.
    pub(in crate::config) fn command(&mut self, path: &str, listener: &Listener) {
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
        let mut names = BTreeSet::new();
        for entry in entries {
            if name(entry).is_empty() || entry.contains('\0') {
                self.text(key.clone(), entry, "names no variable");
            } else if !names.insert(name(entry)) {
                let name = shortened(&format!("{:?}", name(entry)));
                self.fault(key.clone(), format!("{name} is named twice; allowed: {ENVIRONMENT}"));
            }
        }
    }
}
