//! What of a command contradicts what else, each refusal with its place.

use std::path::Path;

use super::*;
use crate::config::{Config, ConfigError, Listener, document};

const LINES: &str = "[[listener]]\nresponder = \"command\"\nframing = \"line\"\n";

#[track_caller]
fn check(source: &str, expected: &[&str]) {
    let no_files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let document = document::read(source.as_bytes(), Path::new("t.toml"), &no_files, &[]);
    let faults: Vec<String> = document.faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault}\nshould start with\n{start}");
    }
}

/// A shared command with these lines, the first of which is the sixth.
#[track_caller]
fn check_keys(keys: &str, expected: &[&str]) {
    check(&format!("{LINES}[listener.command]\nprogram = [\"p\"]\n{keys}"), expected);
}

#[test]
fn a_responder_and_its_command_need_each_other() {
    check(
        "[[listener]]\nresponder = \"command\"\n",
        &["t.toml:2:13: listener[0].responder: \"command\" needs a [listener.command]"],
    );
    check(
        "[[listener]]\nframing = \"line\"\n[listener.command]\nprogram = [\"p\"]\n",
        &["t.toml:3:1: listener[0].command: means nothing without responder = \"command\""],
    );
    check(
        "[[listener]]\nresponder = \"echo\"\nframing = \"line\"\n\
         [listener.command]\nprogram = [\"p\"]\n",
        &["t.toml:2:13: listener[0].responder: \"echo\" does not use the [listener.command] here"],
    );
    check(&format!("{LINES}[listener.command]\nprogram = [\"p\"]\n"), &[]);
}

#[test]
fn a_shared_program_needs_lines_and_one_for_each_connection_does_not() {
    let command = "[listener.command]\nprogram = [\"p\"]\n";
    let problem = "a shared program reads and answers lines; allowed: framing = \"line\", or mode";
    check(
        &format!("[[listener]]\nresponder = \"command\"\nframing = \"raw\"\n{command}"),
        &[&format!("t.toml:3:11: listener[0].framing: {problem}")],
    );
    check(
        &format!("[[listener]]\nresponder = \"command\"\n{command}"),
        &[&format!("t.toml:3:1: listener[0].command: {problem}")],
    );
    check(
        &format!("[[listener]]\nresponder = \"command\"\n{command}mode = \"shared\""),
        &[&format!("t.toml:5:8: listener[0].command.mode: {problem}")],
    );
    for framing in ["raw", "line"] {
        check(
            &format!(
                "[[listener]]\nresponder = \"command\"\nframing = \"{framing}\"\n{command}\
                 mode = \"per_connection\""
            ),
            &[],
        );
    }
}

#[test]
fn what_says_how_to_share_means_nothing_with_a_process_for_each_connection() {
    let own = "mode = \"per_connection\"\n";
    for setting in Command::default().settings() {
        let line = format!("{} = {}", setting.0, setting.1);
        if OF_SHARED.contains(&setting.0) {
            let name = setting.0;
            let expected = format!("t.toml:7:1: listener[0].command.{name}: means nothing with");
            check_keys(&format!("{own}{line}"), &[&expected]);
        } else if !["program", "mode"].contains(&setting.0) {
            check_keys(&format!("{own}{line}"), &[]);
        }
    }
    let (program, mode) = (vec!["cat".to_owned()], CommandMode::PerConnection);
    let command = Command { program, mode, max_processes: 5, ..Command::default() };
    let listener =
        Listener { responder: RESPONDER.to_owned(), command: Some(command), ..Listener::default() };
    let config = Config { listeners: vec![listener], ..Config::default() };
    let Err(ConfigError::Invalid(faults)) = config.validate() else { panic!("it is valid") };
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].key, "listener[0].command.max_processes");
}

#[test]
fn a_command_names_a_program() {
    let program = |value: &str| format!("{LINES}[listener.command]\n{value}");
    let at = "t.toml:5:11: listener[0].command.program: ";
    check(&program(""), &["t.toml:4:1: listener[0].command.program: missing; allowed: a list"]);
    check(&program("program = []"), &[&format!("{at}it is empty; allowed: a list of 1 to 256")]);
    check(&program("program = [\"\"]"), &[&format!("{at}\"\" is no program; allowed: ")]);
    check(&program("program = \"cat\""), &[&format!("{at}\"cat\" is a string; allowed: a list")]);
    check(
        &program("program = [\"a\", \"b\\u0000\"]"),
        &[&format!("{at}\"b\\0\" holds a NUL, which no argument can; allowed: ")],
    );
    let many = |count| format!("program = [{}]", "\"a\",".repeat(count));
    check(&program(&many(256)), &[]);
    check(&program(&many(257)), &[&format!("{at}it has 257 strings; allowed: ")]);
    check(
        &format!("{LINES}command = 7"),
        &["t.toml:4:11: listener[0].command: it is an integer; allowed: a table, [listener"],
    );
}

#[test]
fn there_are_no_fewer_processes_at_most_than_at_least() {
    check_keys(
        "min_processes = 5\n",
        &["t.toml:6:17: listener[0].command.min_processes: 5 is more than max_processes (4)"],
    );
    check_keys(
        "max_processes = 0\n",
        &["t.toml:6:17: listener[0].command.max_processes: 0 is out of range"],
    );
    check_keys(
        "min_processes = 5\nmax_processes = 3\n",
        &["t.toml:6:17: listener[0].command.min_processes: 5 is more than max_processes (3)"],
    );
    check_keys("min_processes = 5\nmax_processes = 5\n", &[]);
    check_keys("min_processes = 0\n", &[]);
}

#[test]
fn a_wait_that_must_be_is_never_zero() {
    for key in ["queue_timeout", "restart_delay", "max_restart_delay", "self_test_timeout"] {
        let name = format!("listener[0].command.{key}");
        let column = key.len() + 4;
        let mut expected = vec![format!("t.toml:6:{column}: {name}: \"0s\" is out of range; ")];
        if key == "max_restart_delay" {
            expected.push(format!("t.toml:6:{column}: {name}: \"100ms\" is longer than max_"));
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_keys(&format!("{key} = \"0s\"\n"), &expected);
    }
    check_keys(
        "restart_delay = \"1m\"\n",
        &["t.toml:6:17: listener[0].command.restart_delay: \"1m\" is longer than max_rest"],
    );
    check_keys("process_idle_timeout = \"0s\"\nmax_cpu_time = \"0s\"\n", &[]);
}

#[test]
fn an_environment_is_of_names_and_values_each_once() {
    let at = "t.toml:6:15: listener[0].command.environment: ";
    for (written, problem) in [
        ("\"\"", "\"\" names no variable; allowed: "),
        ("\"=a\"", "\"=a\" names no variable"),
        ("\"A=\\u0000\"", "\"A=\\0\" names no variable"),
        ("\"A\", \"B\", \"A=b\"", "\"A\" is named twice"),
    ] {
        check_keys(&format!("environment = [{written}]"), &[&format!("{at}{problem}")]);
    }
    check_keys("environment = [\"PATH\", \"A=b=c\", \"B=\", \"lower case=é\"]", &[]);
    check_keys("environment = []", &[]);
}

#[test]
fn texts_that_could_not_be_used_are_refused() {
    let long = "x".repeat(1025);
    for (key, value, problem) in [
        ("self_test", "\"a\\nb\"", "\"a\\nb\" cannot be a self test"),
        ("self_test", &format!("\"{long}\""), "\"xxx"),
        ("overload_reply", &format!("\"{long}\""), "\"xxx"),
        ("directory", "\"a\"", "\"a\" is no directory's absolute path"),
        ("user", &format!("\"{}\"", &long[..65]), "\"xxx"),
        ("group", "\"a\\u0000\"", "\"a\\0\" is not a group"),
        ("max_cpu_time", "\"1500ms\"", "\"1500ms\" is out of range; allowed: a string of whole"),
    ] {
        let column = key.len() + 4;
        let expected = format!("t.toml:6:{column}: listener[0].command.{key}: {problem}");
        check_keys(&format!("{key} = {value}"), &[&expected]);
    }
}

#[test]
fn what_could_not_be_read_makes_no_other_fault() {
    check(
        "[[listener]]\nresponder = 1\n[listener.command]\nprogram = [\"p\"]\nmode = 2\n\
         min_processes = 3\nmax_processes = \"4\"\nrestart_delay = \"1h\"\nmax_restart_delay = 5\n",
        &[
            "t.toml:2:13: listener[0].responder: 1 is an integer",
            "t.toml:5:8: listener[0].command.mode: 2 is an integer",
            "t.toml:7:17: listener[0].command.max_processes: \"4\" is a string",
            "t.toml:9:21: listener[0].command.max_restart_delay: 5 is an integer",
        ],
    );
}

#[test]
fn a_misspelt_key_is_told_with_the_nearest_one() {
    check_keys(
        "mdoe = 1\nprogramme = 2\nbacklog = 3\n",
        &[
            "t.toml:6:1: listener[0].command.mdoe: unknown key; did you mean \"mode\"?",
            "t.toml:7:1: listener[0].command.programme: unknown key; did you mean \"program\"?",
            "t.toml:8:1: listener[0].command.backlog: unknown key; \"backlog\" belongs in [[list",
        ],
    );
    check("mode = 1", &["t.toml:1:1: mode: unknown key; \"mode\" belongs in [listener.command]"]);
}
