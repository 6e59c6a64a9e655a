//! Another program that answers the lines, named behind `--` or in the config: how it is told from
//! our own arguments, and what is said where it could not be run.

use std::net::TcpListener;

use super::{Place, Serving, stderr, stdout};

#[test]
fn a_program_on_the_command_line_answers_each_line() {
    let script = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)";
    let serving = Serving::start_with(&["--", "python3", "-c", script]);
    assert_eq!(serving.answer("nc", &["-N"], "hello\nyou\n"), "HELLO\nYOU\n");
    // The word that ends an echo is a line like any other.
    assert_eq!(serving.answer("nc", &["-N"], "exit\n"), "EXIT\n");
}

/// It is told of the end of input, answers what it likes, and the conversation ends with it.
#[test]
fn a_program_for_each_connection_holds_the_conversation() {
    let own =
        |program: &[&str]| Serving::start_with(&[&["--per-connection", "--"], program].concat());
    let serving = own(&["tr", "a-z", "A-Z"]);
    assert_eq!(serving.answer("nc", &["-N"], "hello\nno end"), "HELLO\nNO END");
    let serving = own(&["sh", "-c", "echo $PROTO; read -r line; echo $line"]);
    assert_eq!(serving.answer("nc", &["-N"], "hello\n"), "TCP\nhello\n");
}

#[test]
fn a_program_that_is_not_there_is_said_at_the_start() {
    let served = Place::new().run(&["serve", "-l", "127.0.0.1:0", "--", "no-such-program"]);
    assert_eq!(served.status.code(), Some(1), "{}", stderr(&served));
    let last = stderr(&served).lines().last().unwrap().to_owned();
    assert!(last.contains("there is no program \"no-such-program\" in "), "{last}");
}

#[test]
fn a_program_behind_two_hyphens_is_what_answers() {
    let place = Place::new().with_file("talkback.toml", "[[listener]]\nbacklog = 7\n");
    let shared = ["-l", "127.0.0.1:1", "-l", "127.0.0.1:2", "--", "tr", "-l", "--config"];
    let report = place.report(&shared);
    let told = |report: &[String], start: &str, end: &str| {
        report.iter().any(|line| line.starts_with(start) && line.ends_with(end))
    };
    for index in [0, 1] {
        let program = format!("listener[{index}].command.program ");
        assert!(told(&report, &program, "[\"tr\", \"-l\", \"--config\"]  --"), "{report:#?}");
        place.check(&shared, &[[&format!("listener[{index}].framing"), "\"line\"", "--"]]);
    }
    assert!(told(&report, "listener[0].backlog ", "./talkback.toml:2:11"), "{report:#?}");
    let own = ["--per-connection", "--", "cat"];
    place.check(
        &own,
        &[
            ["listener[0].command.program", "[\"cat\"]", "--"],
            ["listener[0].command.mode", "\"per_connection\"", "--per-connection"],
            ["listener[0].framing", "\"raw\"", "default"],
        ],
    );
}

#[test]
fn check_tells_of_a_program_that_could_not_be_run_and_fails() {
    let place = Place::new();
    let directory = "[[listener]]\nframing = \"line\"\nresponder = \"command\"\n\
                     [listener.command]\nprogram = [\"cat\"]\ndirectory = \"/no/such\"\n";
    let place = place.with_file("directory.toml", directory);
    for (arguments, expected) in [
        (
            &["check", "--", "no-such-program"][..],
            "warning: listener[0].command.program: there is no program \"no-such-program\" in ",
        ),
        (
            &["check", "-c", "directory.toml"],
            "warning: listener[0].command.directory: directory /no/such: No such file",
        ),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let report = stdout(&output);
        assert!(report.lines().any(|line| line.starts_with(expected)), "{report}");
        assert!(report.ends_with("not ok: the server will not start on this host\n"), "{report}");
    }
}

#[test]
fn check_tells_of_an_unknown_user_and_group_at_once() {
    let config = "[[listener]]\nframing = \"line\"\nresponder = \"command\"\n[listener.command]\n\
                  program = [\"no-such-program\"]\nuser = \"no-such-user\"\n\
                  group = \"no-such-group\"\n";
    let output = Place::new().with_file("talkback.toml", config).run(&["check"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report = stdout(&output);
    let told: Vec<&str> = report.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [program, user, group] = &told[..] else { panic!("{report}") };
    assert!(program.starts_with("warning: listener[0].command.program: there is no "), "{report}");
    for (told, account) in [(user, "user"), (group, "group")] {
        let start = format!(
            "warning: listener[0].command.{account}: {account} \"no-such-{account}\" is unknown"
        );
        assert!(told.starts_with(&start), "{report}");
    }
}

/// A name that is mistyped would else never be seen.
#[test]
fn a_variable_that_is_passed_on_and_not_set_is_told_by_check_and_in_the_log() {
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
                  responder = \"command\"\n[listener.command]\nprogram = [\"cat\"]\n\
                  environment = [\"PATH\", \"SET_HERE\", \"NOT_SET\", \"VALUE=x\"]\n";
    let place = Place::new().with_file("own.toml", config).with_variable("SET_HERE", "");
    let report = place.report(&["-c", "own.toml"]);
    let told: Vec<&String> = report.iter().filter(|line| line.starts_with("warning: ")).collect();
    let warning = "listener[0].command.environment: \"NOT_SET\" is not set here, and the program \
                   will not have it; set it, write \"NOT_SET=value\", or leave it out";
    assert_eq!(told, [&format!("warning: {warning}")]);
    assert_eq!(report.last().map(String::as_str), Some("ok, with 1 warning"));
    // A start that fails at once has said it before.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let served = place.run(&["serve", "-c", "own.toml", "--metrics", &taken]);
    let log = stderr(&served);
    assert_eq!(log.matches(warning).count(), 1, "{log}");
    assert!(log.lines().any(|line| line.contains(" WARN ") && line.contains(warning)), "{log}");
}

#[test]
fn a_process_for_each_connection_needs_a_program() {
    for arguments in [&["serve", "--per-connection"][..], &["check", "--per-connection", "--"]] {
        let output = Place::new().run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("<PROGRAM>"), "{}", stderr(&output));
    }
}
