//! The command line, and what is said of a wrong one: beside what is wrong stands what may have
//! been meant, as a line to type. A line is only shown if it is a right one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error, Parser};

use super::{Arguments, Command};

/// What the process was started with; ends it where that is wrong, or asks for help.
pub(super) fn arguments() -> Arguments {
    let words: Vec<OsString> = env::args_os().collect();
    parse(&words).unwrap_or_else(|error| error.exit())
}

fn parse(words: &[OsString]) -> Result<Arguments, Error> {
    let arguments = Arguments::try_parse_from(words).map_err(|error| explain(error, words))?;
    let (Command::Serve(options) | Command::Check(options)) = &arguments.command else {
        return Ok(arguments);
    };
    // To clap it is as if it were not there; a script whose variable is empty would serve an echo.
    if options.program.is_empty() && words.last().is_some_and(|last| last == "--") {
        return Err(nothing_behind_the_dashes(words));
    }
    Ok(arguments)
}

fn nothing_behind_the_dashes(words: &[OsString]) -> Error {
    let name = words.get(1).map(|word| word.to_string_lossy()).unwrap_or_default();
    let without = typed(&words[..words.len() - 1]);
    let text = format!(
        "no program stands behind '--'\n\n  \
         tip: name one, as in: talkback {name} -- python3 -u answers.py\n  \
         tip: without '--' the configuration says who answers: {without}"
    );
    let mut command = Arguments::command();
    // Else the usage that it shows would be without the program's name.
    command.build();
    match command.find_subcommand_mut(&*name) {
        Some(command) => command.error(ErrorKind::MissingRequiredArgument, text),
        None => command.error(ErrorKind::MissingRequiredArgument, text),
    }
}

/// Adds what may have been meant.
fn explain(mut error: Error, words: &[OsString]) -> Error {
    let tips = match error.kind() {
        ErrorKind::InvalidSubcommand => tips_for_command(&error, words),
        ErrorKind::UnknownArgument => {
            // It takes every unknown option for a program's name.
            error.remove(ContextKind::Suggested);
            tips_for_argument(&error, words)
        }
        _ => return error,
    };
    if !tips.is_empty() {
        let tips = tips.into_iter().map(StyledStr::from).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

fn tips_for_command(error: &Error, words: &[OsString]) -> Vec<String> {
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return Vec::new();
    }
    let command = Arguments::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let mut tips = vec![format!("the commands are {}", names.join(", "))];
    if words.get(1).is_some_and(|word| is_config(word)) {
        let served = amended(words, 1, &["serve", "--config"]);
        tips.extend(served.map(|line| format!("to serve with this configuration: {line}")));
    }
    tips
}

fn tips_for_argument(error: &Error, words: &[OsString]) -> Vec<String> {
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else {
        return Vec::new();
    };
    let name = words.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with('-') {
        let served = amended(words, 1, &["serve"]);
        return Vec::from_iter(served.map(|line| format!("the command comes first: {line}")));
    }
    if !["serve", "check"].contains(&name) || wrong.starts_with('-') {
        return Vec::new();
    }
    // Where the word stands more than once, the one that can be mended is meant.
    let places = || (2..words.len()).filter(|&at| words[at].to_string_lossy() == **wrong);
    let is_config = is_config(wrong.as_ref());
    let mut tips = Vec::new();
    if !is_config {
        let line = places().find_map(|at| amended(words, at, &["--"]));
        tips.extend(line.map(|line| format!("a program stands behind '--': {line}")));
    }
    if is_config || name == "check" {
        let line = places().find_map(|at| amended(words, at, &["--config"]));
        tips.extend(line.map(|line| format!("a configuration is named by '--config': {line}")));
    }
    if tips.is_empty() {
        tips.push(format!("allowed: talkback {name} --config FILE, talkback {name} -- PROGRAM"));
    }
    tips
}

fn is_config(word: &OsStr) -> bool {
    Path::new(word).extension().is_some_and(|extension| extension == "toml")
}

/// The line with more words at a place, if it is right then.
fn amended(words: &[OsString], at: usize, more: &[&str]) -> Option<String> {
    let mut words = words.to_vec();
    words.splice(at..at, more.iter().map(OsString::from));
    Arguments::try_parse_from(&words).ok().map(|_| typed(&words))
}

/// The words as a shell takes them; the program's own goes by its name.
fn typed(words: &[OsString]) -> String {
    let others = words.iter().skip(1).map(|word| quoted(&word.to_string_lossy()));
    std::iter::once("talkback".to_owned()).chain(others).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        std::iter::once(&"talkback").chain(line).map(OsString::from).collect()
    }

    /// What is said of this command line stands in these lines, and in no tips beside them.
    #[track_caller]
    fn check(line: &[&str], error: &str, tips: &[&str]) {
        let said = parse(&words(line)).expect_err("a usage error");
        assert_eq!(said.exit_code(), 2, "{said}");
        let said = said.to_string();
        assert_eq!(said.lines().next(), Some(format!("error: {error}").as_str()), "{said}");
        assert!(said.contains("\nUsage: talkback"), "{said}");
        let shown: Vec<_> = said.lines().filter_map(|it| it.strip_prefix("  tip: ")).collect();
        assert_eq!(shown, tips, "{said}");
    }

    #[test]
    fn a_program_without_its_dashes_is_shown_behind_them() {
        let told = |line: &str| format!("a program stands behind '--': {line}");
        check(
            &["serve", "python3", "-u", "x.py"],
            "unexpected argument 'python3' found",
            &[&told("talkback serve -- python3 -u x.py")],
        );
        check(
            &["serve", "--per-connection", "-l", ":1", "sh", "-c", "it's $1"],
            "unexpected argument 'sh' found",
            &[&told("talkback serve --per-connection -l :1 -- sh -c 'it'\\''s $1'")],
        );
        check(
            &["serve", "-w", "cat", "cat"],
            "unexpected argument 'cat' found",
            &[&told("talkback serve -w cat -- cat")],
        );
    }

    #[test]
    fn a_configuration_without_its_option_is_shown_with_it() {
        for command in ["serve", "check"] {
            let line = format!("talkback {command} --config a/b.toml -w 2");
            check(
                &[command, "a/b.toml", "-w", "2"],
                "unexpected argument 'a/b.toml' found",
                &[&format!("a configuration is named by '--config': {line}")],
            );
        }
        check(
            &["check", "main.conf"],
            "unexpected argument 'main.conf' found",
            &[
                "a program stands behind '--': talkback check -- main.conf",
                "a configuration is named by '--config': talkback check --config main.conf",
            ],
        );
        check(
            &["check", "a.toml", "b.toml"],
            "unexpected argument 'a.toml' found",
            &["allowed: talkback check --config FILE, talkback check -- PROGRAM"],
        );
    }

    #[test]
    fn dashes_with_nothing_behind_them_are_refused() {
        check(
            &["serve", "-l", ":1", "--"],
            "no program stands behind '--'",
            &[
                "name one, as in: talkback serve -- python3 -u answers.py",
                "without '--' the configuration says who answers: talkback serve -l :1",
            ],
        );
        check(
            &["check", "--"],
            "no program stands behind '--'",
            &[
                "name one, as in: talkback check -- python3 -u answers.py",
                "without '--' the configuration says who answers: talkback check",
            ],
        );
        // One that begins like an option, or is called like that, is a program.
        for program in [&["--"][..], &["-x", "--"]] {
            let line = [&["serve", "--"], program].concat();
            assert!(parse(&words(&line)).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn an_unknown_option_is_not_taken_for_a_program() {
        check(&["serve", "--port", "1"], "unexpected argument '--port' found", &[]);
        check(
            &["serve", "--confg", "x"],
            "unexpected argument '--confg' found",
            &["a similar argument exists: '--config'"],
        );
    }

    #[test]
    fn the_commands_are_named_where_none_is_known() {
        let commands = "the commands are serve, check, connect, try";
        check(&["frob"], "unrecognized subcommand 'frob'", &[commands]);
        check(
            &["serv"],
            "unrecognized subcommand 'serv'",
            &["a similar subcommand exists: 'serve'"],
        );
        check(
            &["a.toml"],
            "unrecognized subcommand 'a.toml'",
            &[commands, "to serve with this configuration: talkback serve --config a.toml"],
        );
        check(
            &["-c", "a.toml"],
            "unexpected argument '-c' found",
            &["the command comes first: talkback serve -c a.toml"],
        );
    }
}
