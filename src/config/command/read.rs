//! `[listener.command]` out of a file.

use std::time::Duration;

use toml::de::DeValue;

use super::{Command, CommandMode, MEANS_NOTHING, OF_SHARED, PROGRAM};
use crate::config::document::{NO_DURATION, put, settle};
use crate::config::duration;
use crate::config::section::{Section, with_article};

/// The `[listener.command]` below this `[[listener]]`, if there is one.
pub(in crate::config) fn read(listener: &mut Section<'_, '_>) -> Option<Command> {
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
