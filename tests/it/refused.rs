//! A start that is refused: what every such end has in common.

use std::process::Command;

use serde_json::Value;

use crate::harness::Server;

/// The one line on standard error, beside the log, of a server that could not start; it must hold
/// all of `parts`.
#[track_caller]
pub fn check_refused(config: &str, parts: &[&str]) {
    check_refused_by(config, as_it_is, 1, parts);
}

/// Like [`check_refused`], with a say in how the process is started and the exit code.
#[track_caller]
pub fn check_refused_by(
    config: &str,
    prepare: impl FnOnce(&mut Command) -> &mut Command,
    code: i32,
    parts: &[&str],
) {
    let mut server = Server::spawn(config, prepare);
    let found = server.wait().code();
    let log = server.log();
    let lines: Vec<_> = log.iter().filter_map(Value::as_str).collect();
    assert_eq!((found, lines.len()), (Some(code), 1), "{log:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{} should hold {part}", lines[0]);
    }
}

/// The program as the harness starts it.
pub fn as_it_is(command: &mut Command) -> &mut Command {
    command
}
