//! `talkback try`: what a person is told of each message, of a rules file or of a configuration.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// What the program does there with this input.
fn run(directory: &TempDir, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
    command.args(arguments).current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its file does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn told(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What is told of these messages under a rules file, behind the line that says how many rules it
/// has.
#[track_caller]
fn check(rules: &str, input: impl AsRef<[u8]>, expected: &str) {
    let directory = directory(&[("r.toml", rules)]);
    let told = told(&run(&directory, &["try", "r.toml"], input.as_ref()));
    assert_eq!(told.split_once('\n').unwrap().1, expected);
}

#[test]
fn each_message_is_told_its_rule_the_state_and_what_is_sent() {
    check(
        "greeting = \"hello\"\n\
         terminator = \"\\r\\n\"\n\
         default = \"what?\"\n\
         state = { volts = \"0\" }\n\
         [[rule]]\n\
         prefix = \"VOLT \"\n\
         ignore_case = true\n\
         set = { volts = \"${1}\" }\n\
         [[rule]]\n\
         equals = \"VOLT?\"\n\
         send = [\"{volts} V\\nand more\", \"{volts}\"]\n",
        "volt 12\nVOLT?\nVOLT?\r\nnothing",
        "  state volts = \"0\"\n  \
           greets \"hello\\r\\n\"\n\
         \n\
         > volt 12\n\
         rule[0] r.toml:5:1  prefix \"VOLT \" in any case\n  \
           state volts = \"0\" -> \"12\"\n  \
           sends nothing\n\
         \n\
         > VOLT?\n\
         rule[1] r.toml:9:1  equals \"VOLT?\"\n  \
           before it 1 rule for other texts\n  \
           state volts = \"12\"\n  \
           sends text 1 of 2 \"12 V\\r\\n\"\n  \
         \u{20}                 \"and more\\r\\n\"\n\
         \n\
         > VOLT?\n\
         rule[1] r.toml:9:1  equals \"VOLT?\"\n  \
           before it 1 rule for other texts\n  \
           state volts = \"12\"\n  \
           sends text 2 of 2 \"12\\r\\n\"\n\
         \n\
         > nothing\n\
         no rule, so the default\n  \
           before it 2 rules for other texts\n  \
           state volts = \"12\"\n  \
           sends \"what?\\r\\n\"\n",
    );
}

#[test]
fn why_a_rule_for_the_same_text_was_passed_over_is_told() {
    check(
        "[[rule]]\nequals = \"a\"\nwhen = { mode = \"on\" }\nsend = \"1\"\n\
         [[rule]]\nequals = \"a\"\ntimes = 1\nsend = \"2\"\nset = { mode = \"off\" }\n\
         [[rule]]\nmatches = '\\w'\nset = { mode = \"on\" }\n",
        "a\na\na\n",
        "  state mode = \"\"\n\
         \n\
         > a\n\
         rule[1] r.toml:5:1  equals \"a\"\n  \
           not rule[0] r.toml:1:1: it wants mode = \"on\", but mode = \"\"\n  \
           state mode = \"\" -> \"off\"\n  \
           sends \"2\\n\"\n\
         \n\
         > a\n\
         rule[2] r.toml:10:1  matches '\\w'\n  \
           not rule[0] r.toml:1:1: it wants mode = \"on\", but mode = \"off\"\n  \
           not rule[1] r.toml:5:1: it has answered once, as often as it may\n  \
           state mode = \"off\" -> \"on\"\n  \
           sends nothing\n\
         \n\
         > a\n\
         rule[0] r.toml:1:1  equals \"a\" when mode = \"on\"\n  \
           state mode = \"on\"\n  \
           sends \"1\\n\"\n",
    );
}

#[test]
fn verbose_tells_of_the_rules_for_other_texts_too() {
    let rules = "[[rule]]\nequals = \"a\"\n[[rule]]\ncontains = \"b\"\n[[rule]]\nequals = \"c\"\n";
    let directory = directory(&[("r.toml", rules)]);
    let told = told(&run(&directory, &["try", "-v", "r.toml"], b"c\nd\n"));
    assert_eq!(
        told,
        "r.toml: 3 rules\n\
         \n\
         > c\n\
         rule[2] r.toml:5:1  equals \"c\"\n  \
           not rule[0] r.toml:1:1: it is for another text: equals \"a\"\n  \
           not rule[1] r.toml:3:1: it is for another text: contains \"b\"\n  \
           sends nothing\n\
         \n\
         > d\n\
         no rule, and there is no default\n  \
           not rule[0] r.toml:1:1: it is for another text: equals \"a\"\n  \
           not rule[1] r.toml:3:1: it is for another text: contains \"b\"\n  \
           not rule[2] r.toml:5:1: it is for another text: equals \"c\"\n  \
           sends nothing\n"
    );
}

#[test]
fn after_a_close_the_next_message_is_a_new_clients() {
    check(
        "greeting = \"hello {peer}\"\n\
         [[rule]]\nequals = \"bye\"\nclose = true\nsend = \"{count}\"\nset = { said = \"bye\" }\n\
         [[rule]]\nequals = \"go\"\nclose = true\n\
         [[rule]]\nequals = \"count\"\nsend = \"{count}\"\n",
        "count\nbye\ncount\ngo\n",
        "  state said = \"\"\n  \
           greets \"hello 127.0.0.1:50000\\n\"\n\
         \n\
         > count\n\
         rule[2] r.toml:10:1  equals \"count\"\n  \
           before it 2 rules for other texts\n  \
           state said = \"\"\n  \
           sends \"1\\n\"\n\
         \n\
         > bye\n\
         rule[0] r.toml:2:1  equals \"bye\"\n  \
           state said = \"\" -> \"bye\"\n  \
           sends \"2\\n\"\n  \
           closes the connection\n\
         \n\
         > count\n\
         a new connection\n  \
           state said = \"\"\n  \
           greets \"hello 127.0.0.1:50000\\n\"\n\
         rule[2] r.toml:10:1  equals \"count\"\n  \
           before it 2 rules for other texts\n  \
           state said = \"\"\n  \
           sends \"1\\n\"\n\
         \n\
         > go\n\
         rule[1] r.toml:7:1  equals \"go\"\n  \
           before it 1 rule for other texts\n  \
           state said = \"\"\n  \
           sends nothing\n  \
           closes the connection\n",
    );
}

/// A rule that answers anything with 8 bytes, and these keys.
fn rule(keys: &str) -> String {
    format!("[[rule]]\nsend = \"abcdefgh\"\n{keys}\n")
}

#[test]
fn a_delay_is_told_and_not_waited_for() {
    let answers = "\n> a\nrule[0] r.toml:1:1  any text\n";
    let expected = format!("{answers}  waits 24h\n  sends \"abcdefgh\\n\"\n");
    check(&rule("delay = \"24h\""), "a", &expected);
}

#[test]
fn a_fault_is_told_with_what_is_left_of_the_answer() {
    let answers = "\n> a\nrule[0] r.toml:1:1  any text\n";
    for (fault, expected) in [
        ("reset", "  resets the connection\n  fault: a reset\n"),
        (
            "half",
            "  sends \"abcd\"\n  closes the connection\n  \
             fault: half of the reply, and no end of it\n",
        ),
        ("stall", "  sends nothing\n  fault: a stall: from now on nothing is answered\n"),
    ] {
        let expected = format!("{answers}{expected}");
        check(&rule(&format!("fault = \"{fault}\"")), "a", &expected);
    }
    // One in a million, which does not happen here.
    let rare = rule("fault = \"reset\"\nprobability = 0.000001");
    let expected = "  sends \"abcdefgh\\n\"\n  no fault, by a chance of 0.000001: a reset\n";
    check(&rare, "a", &format!("{answers}{expected}"));
    let directory = directory(&[("r.toml", &rule("fault = \"garbage\""))]);
    let told = told(&run(&directory, &["try", "r.toml"], b"a\n"));
    assert!(told.contains("\n  sends \"\\xff"), "{told}");
    assert!(told.ends_with("\\n\"\n  fault: garbage in the reply's place\n"), "{told}");
}

#[test]
fn a_half_that_ends_like_a_reply_and_closes_is_told_as_a_fault_all_the_same() {
    let keys = "fault = \"half\"\nclose = true\n";
    for (terminator, send, sent) in [("", "abcdef", "abc"), ("\\r\\n", "a\\r\\nbcd", "a\\r\\n")] {
        let rules = format!("terminator = \"{terminator}\"\n[[rule]]\nsend = \"{send}\"\n");
        let expected = format!(
            "\n> a\nrule[0] r.toml:2:1  any text\n  sends \"{sent}\"\n  closes the connection\n  \
             fault: half of the reply, and no end of it\n"
        );
        check(&format!("{rules}{keys}"), "a", &expected);
        let rare = "  no fault, by a chance of 0.000001: half of the reply, and no end of it\n";
        let directory = directory(&[("r.toml", &format!("{rules}{keys}probability = 0.000001\n"))]);
        let told = told(&run(&directory, &["try", "r.toml"], b"a\n"));
        assert!(told.ends_with(rare), "{told}");
    }
}

#[test]
fn on_a_connection_that_is_stalled_no_rule_is_asked() {
    check(
        &rule("fault = \"stall\""),
        "a\nb\n",
        "\n> a\n\
         rule[0] r.toml:1:1  any text\n  \
           sends nothing\n  \
           fault: a stall: from now on nothing is answered\n\
         \n\
         > b\n\
         no rule is asked: this connection is stalled\n",
    );
}

#[test]
fn nothing_of_a_message_or_a_reply_acts_on_a_terminal() {
    check(
        "[[rule]]\nmatches = \"^\\\\x1b\\\\[\"\nsend = \"{message}\\u001b[2J\"\n",
        "\u{1b}[2J\u{202e}\t",
        "\n> \\u{1b}[2J\\u{202e}\\t\n\
         rule[0] r.toml:1:1  matches '^\\x1b\\['\n  \
           sends \"\\u{1b}[2J\\u{202e}\\t\\u{1b}[2J\\n\"\n",
    );
}

#[test]
fn a_listener_says_what_is_no_message_and_how_a_reply_ends() {
    let config = "[[listener]]\nresponder = \"rules\"\nexit_word = \"exit\"\n\
                  rules.default = \"{message}!\"\n";
    let directory = directory(&[
        ("raw.toml", config),
        ("line.toml", &config.replace("exit_word", "framing = \"line\"\nexit_word")),
        ("mend.toml", &config.replace("exit_word", "invalid_utf8 = \"replace\"\nexit_word")),
    ]);
    let rules = "no rule, so the default\n";
    for (file, sent, bad) in [
        ("raw.toml", "a!", "no rule is asked: byte 2 is not UTF-8\n  closes the connection\n"),
        ("line.toml", "a!\\n", "no rule is asked: byte 2 is not UTF-8\n  closes the connection\n"),
        ("mend.toml", "a!", "no rule, so the default\n  sends \"b�!\"\n"),
    ] {
        let told = told(&run(&directory, &["try", file], b"a\nexit\nb\xff\n"));
        let again = "a new connection\n";
        let expected = format!(
            "{file}: 0 rules of listener \"main\"\n\
             \n> a\n{rules}  sends \"{sent}\"\n\
             \n> exit\nno rule is asked: it is the exit word\n  closes the connection\n\
             \n> b\\xff\n{again}{bad}"
        );
        assert_eq!(told, expected);
    }
}

#[test]
fn a_message_that_is_too_long_is_told() {
    let config = "[[listener]]\nframing = \"line\"\nresponder = \"rules\"\n\
                  max_message_bytes = 3\nrules.default = \"ok\"\n";
    let directory = directory(&[("t.toml", config), ("r.toml", "default = \"ok\"\n")]);
    let told = told(&run(&directory, &["try", "t.toml"], b"abc\nabcd\n"));
    let ends = "\n> abc\nno rule, so the default\n  sends \"ok\\n\"\n\
                \n> abcd\nno rule is asked: max_message_bytes is 3\n  closes the connection\n";
    assert!(told.ends_with(ends), "{told}");
    // No message at all, of any listener.
    let output = run(&directory, &["try", "r.toml"], &vec![b'x'; 1 << 20]);
    assert_eq!(output.status.code(), Some(1));
    let refused = String::from_utf8(output.stderr).unwrap();
    assert_eq!(refused, "talkback: a line of 1048576 bytes or more is no message\n");
}

#[test]
fn of_several_listeners_with_rules_one_is_chosen() {
    let listener = |name: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nresponder = \"rules\"\n\
             rules.default = \"{name}\"\n"
        )
    };
    let both = listener("one") + &listener("two");
    let directory = directory(&[
        ("both.toml", &both),
        ("none.toml", "[limits]\n"),
        ("own.toml", "default = \"a\"\n"),
    ]);
    let told = told(&run(&directory, &["try", "both.toml", "--listener", "two"], b"a\n"));
    assert!(told.starts_with("both.toml: 0 rules of listener \"two\"\n"), "{told}");
    assert!(told.ends_with("  sends \"two\"\n"), "{told}");
    for (arguments, expected) in [
        (&["both.toml"][..], "both.toml: choose with --listener: rules have one, two\n"),
        (&["both.toml", "-l", "six"], "both.toml: --listener: rules have one, two\n"),
        (&["none.toml"], "none.toml: no listener of it has rules\n"),
        (&["none.toml", "-l", "main"], "none.toml: no listener of it has rules\n"),
        (&["own.toml", "-l", "main"], "own.toml: --listener: this is a rules file, without lis"),
    ] {
        let output = run(&directory, &[&["try"], arguments].concat(), b"");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        let refused = String::from_utf8(output.stderr).unwrap();
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_as_by_check_and_serve() {
    let directory = directory(&[
        ("t.toml", "[[listener]]\nresponder = \"rules\"\nrules = \"r.toml\"\nbacklog = 0\n"),
        ("r.toml", "[[rule]]\nmatches = 'a(b'\nsend = \"{x}\"\n"),
    ]);
    let refusals = ["check", "serve", "try"].map(|command| {
        let file = if command == "try" { &["t.toml"][..] } else { &["--config", "t.toml"] };
        let output = run(&directory, &[&[command], file].concat(), b"");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{command}");
        String::from_utf8(output.stderr).unwrap()
    });
    assert_eq!(refusals[0], refusals[1]);
    assert_eq!(refusals[0], refusals[2]);
    let starts = [
        "t.toml:4:11: listener[0].backlog: 0 is out of range; allowed: ",
        "r.toml:2:13: listener[0].rules.rule[0].matches: unclosed group",
        "r.toml:3:9: listener[0].rules.rule[0].send: {x} is no variable",
    ];
    assert_eq!(refusals[0].lines().count(), starts.len(), "{}", refusals[0]);
    for (line, start) in refusals[0].lines().zip(starts) {
        assert!(line.starts_with(start), "{line}\nshould start with\n{start}");
    }
    // Without a listener the keys are those of the rules file.
    let output = run(&directory, &["try", "r.toml"], b"");
    assert_eq!(output.status.code(), Some(2));
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(refused.starts_with("r.toml:2:13: rule[0].matches: unclosed group"), "{refused}");
    let output = run(&directory, &["try", "missing.toml"], b"");
    assert_eq!(output.status.code(), Some(2));
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(
        refused.starts_with("missing.toml: cannot read the configuration: No such"),
        "{refused}"
    );
}

#[test]
fn check_shows_how_many_rules_there_are_and_where() {
    let directory = directory(&[
        ("t.toml", "[[listener]]\nresponder = \"rules\"\nrules = \"r.toml\"\n"),
        ("r.toml", "[[rule]]\nequals = \"a\"\n[[rule]]\nequals = \"b\"\n"),
        ("inline.toml", "[[listener]]\nresponder = \"rules\"\n[[listener.rules.rule]]\n"),
    ]);
    for (file, expected) in [
        ("t.toml", ["2 rules", "r.toml:1:1", "\"\""]),
        ("inline.toml", ["1 rule", "inline.toml:3:12", "\"\""]),
    ] {
        let report = told(&run(&directory, &["check", "--config", file], b""));
        let line = |key: &str| report.lines().find(|line| line.starts_with(key)).unwrap();
        let [count, place, exit_word] = expected;
        let rules = line("listener[0].rules");
        assert!(rules.contains(&format!(" {count} ")) && rules.ends_with(place), "{rules}");
        assert!(line("listener[0].exit_word").contains(exit_word), "{report}");
    }
}

#[test]
fn on_a_terminal_it_asks_for_each_message_and_does_not_repeat_it() {
    let directory = directory(&[("r.toml", "default = \"yes\"\n")]);
    let terminal = "import os, pty, sys\n\
                    sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new("python3");
    command.args(["-c", terminal, env!("CARGO_BIN_EXE_talkback"), "try", "r.toml"]);
    command.current_dir(&directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The end of input, as typed.
    child.stdin.take().unwrap().write_all(b"hello\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let seen = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert!(
        seen.contains("each line is a message; the end of input (Ctrl-D) ends this\n"),
        "{seen}"
    );
    assert_eq!(seen.matches("\n> ").count(), 2, "{seen}");
    assert_eq!(seen.matches("hello").count(), 1, "{seen}");
    assert!(seen.contains("no rule, so the default\n  sends \"yes\\n\"\n"), "{seen}");
}
