//! Rules as they are read: what each key becomes, from which file they come, and what the listener
//! that answers by them has to say.

mod refused;

use std::io;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::config::document::{self, Document};

const BESIDE: [(&str, &str); 4] = [
    ("dir/wire.toml", "[[rule]]\nequals = \"PING\\r\\n\"\n[[rule]]\nmatches = '^SET .*\\n'\n"),
    ("dir/scpi.toml", "[[rule]]\nequals = \"*IDN?\"\nsend = \"1\"\n"),
    ("dir/bad.toml", "\n[[rule]]\nequal = \"a\"\n"),
    ("dir/not.toml", "rule ="),
];

fn read_whole(source: &str) -> Document {
    let files = |path: &Path| {
        let found = BESIDE.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into())
    };
    document::read(source.as_bytes(), Path::new("dir/t.toml"), &files, &[])
}

/// A listener's keys, with `responder = "rules"` before them on the second line.
fn read_keys(keys: &str) -> Document {
    read_whole(&format!("[[listener]]\nresponder = \"rules\"\n{keys}"))
}

#[track_caller]
fn book(keys: &str) -> RuleBook {
    let document = read_keys(keys);
    assert_eq!(document.faults, []);
    document.config.listeners[0].rules.clone().unwrap()
}

#[track_caller]
fn check_whole(source: &str, expected: &[&str]) {
    let faults: Vec<String> = read_whole(source).faults.iter().map(Fault::to_string).collect();
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault}\nshould start with\n{start}");
    }
}

#[track_caller]
fn check(keys: &str, expected: &[&str]) {
    check_whole(&format!("[[listener]]\nresponder = \"rules\"\n{keys}"), expected);
}

#[test]
fn every_key_becomes_its_part_of_the_rules() {
    let text = include_str!("../../../fuzz/corpus/config/rules-inline");
    let document = read_whole(text);
    assert_eq!(document.faults, []);
    let book = document.config.listeners[0].rules.as_ref().unwrap();
    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(book.greeting.as_deref(), Some("220 {peer}"));
    assert_eq!(book.terminator.as_deref(), Some("\r\n"));
    assert_eq!(book.default, ["500 {message}", "501"]);
    assert_eq!(book.state, [named("mode", "command"), named("volts", "0")].into());
    let rules = &book.rules;
    assert_eq!(rules.len(), 6);
    assert_eq!(rules[0].matcher, Matcher::Equals(".".to_owned()));
    assert_eq!(rules[0].when, [named("mode", "data")].into());
    assert_eq!(rules[0].set, [named("mode", "command")].into());
    assert_eq!(rules[1].matcher, Matcher::Any);
    assert_eq!(rules[1].send, [""; 0]);
    assert_eq!(rules[2].matcher, Matcher::Prefix("VOLT ".to_owned()));
    assert_eq!(rules[2].times, Some(3));
    assert_eq!(rules[2].delay, Duration::from_millis(5));
    assert_eq!(rules[2].jitter, Duration::from_micros(1500));
    // What the top says holds where a rule does not say otherwise.
    let ignoring: Vec<bool> = rules.iter().map(|rule| rule.ignore_case).collect();
    assert_eq!(ignoring, [true, true, false, true, true, true]);
    assert_eq!(rules[3].matcher, Matcher::Contains("?".to_owned()));
    assert_eq!(rules[3].fault, Some(rules::Fault::Garbage));
    assert_eq!(rules[3].probability.millionths(), 250_000);
    assert_eq!(rules[4].matcher, Matcher::Matches("^(?<n>[0-9]+) (.*)$".to_owned()));
    assert_eq!(rules[4].send, ["${n}\n${2}\n"]);
    assert!(rules[4].close && !rules[5].close);
    assert_eq!(rules[5].probability, Probability::CERTAIN);
}

#[test]
fn every_fault_has_its_word() {
    for word in keys::FAULTS {
        assert_eq!(fault_from_word(word).map(fault_word), Some(*word));
        let rules = format!("rules.rule = [{{ send = \"a\", fault = \"{word}\" }}]");
        assert_eq!(book(&rules).rules[0].fault, fault_from_word(word));
    }
}

#[test]
fn a_rules_file_stands_beside_the_file_that_names_it() {
    let document = read_keys("rules = \"scpi.toml\"\n");
    assert_eq!(document.faults, []);
    let rules = &document.config.listeners[0].rules.as_ref().unwrap().rules;
    assert_eq!(rules[0].matcher, Matcher::Equals("*IDN?".to_owned()));
    let place = |key: &str| document.origins.of(key).to_string();
    assert_eq!(place("listener[0].rules"), "dir/scpi.toml:1:1");
    assert_eq!(place("listener[0].rules.rule[0]"), "dir/scpi.toml:1:1");
    assert_eq!(place("listener[0].rules.rule[0].send"), "dir/scpi.toml:3:8");
    let value = document.config.settings().into_iter().find(|s| s.key == "listener[0].rules");
    assert_eq!(value.unwrap().value, "1 rule");
}

#[test]
fn a_file_that_cannot_be_read_is_the_listeners_fault() {
    check(
        "rules = \"missing.toml\"\n",
        &["dir/t.toml:3:9: listener[0].rules: cannot read the rules file dir/missing.toml: "],
    );
    for name in ["\"\"", "\"a\\u001b\""] {
        let told =
            format!("dir/t.toml:3:9: listener[0].rules: {name} is no file's name; allowed: ");
        check(&format!("rules = {name}\n"), &[&told]);
    }
}

#[test]
fn a_fault_in_a_rules_file_names_that_file_behind_those_of_the_file_that_names_it() {
    check_whole(
        "[[listener]]\nresponder = \"rules\"\nrules = \"bad.toml\"\n\
         [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n\
         responder = \"rules\"\nrules = \"not.toml\"\n\
         [limits]\nidle_timeout = 5\n",
        &[
            "dir/t.toml:10:16: limits.idle_timeout: 5 is an integer",
            "dir/bad.toml:3:1: listener[0].rules.rule[0].equal: unknown key; did you mean \
             \"equals\"?",
            "dir/not.toml:1:7: not TOML: ",
        ],
    );
}

#[test]
fn a_rule_that_no_line_fits_is_told_where_it_stands() {
    let rules = "[[listener.rules.rule]]\nequals = \"PING\\r\\n\"\n\
                 [[listener.rules.rule]]\nequals = \"bye\"\n\
                 [[listener.rules.rule]]\nprefix = \"123456789\"\nsnd = \"\"\n";
    let keys = "exit_word = \"bye\"\nmax_message_bytes = 8\n";
    check(
        &format!("framing = \"line\"\n{keys}{rules}"),
        &[
            "dir/t.toml:7:10: listener[0].rules.rule[0].equals: never fits: in line framing",
            "dir/t.toml:9:10: listener[0].rules.rule[1].equals: is never asked: \"bye\" is",
            "dir/t.toml:11:10: listener[0].rules.rule[2].prefix: never fits: it takes 9 bytes",
            "dir/t.toml:12:1: listener[0].rules.rule[2].snd: unknown key",
        ],
    );
    let unknown = ["dir/t.toml:11:1: listener[0].rules.rule[2].snd: unknown key"];
    check(&format!("{keys}{rules}"), &unknown);
    // Nobody knows what else this would be.
    let framing = "dir/t.toml:3:11: listener[0].framing: \"lines\" is not known";
    let unknown = ["dir/t.toml:12:1: listener[0].rules.rule[2].snd: unknown key"];
    check(&format!("framing = \"lines\"\n{keys}{rules}"), &[framing, unknown[0]]);
}

#[test]
fn the_listener_decides_which_rules_of_a_file_no_message_fits() {
    let raw = "responder = \"rules\"\nrules = \"wire.toml\"\n";
    let line = raw.replace("rules =", "framing = \"line\"\nrules =");
    let other = |name| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    check_whole(&format!("[[listener]]\n{raw}"), &[]);
    check_whole(
        &format!("[[listener]]\n{line}{}{raw}{}{line}[limits]\nidle = 5\n", other("b"), other("c")),
        &[
            "dir/t.toml:17:1: limits.idle: unknown key",
            "dir/wire.toml:2:10: listener[0].rules.rule[0].equals: never fits",
            "dir/wire.toml:2:10: listener[2].rules.rule[0].equals: never fits",
            "dir/wire.toml:4:11: listener[0].rules.rule[1].matches: never fits",
            "dir/wire.toml:4:11: listener[2].rules.rule[1].matches: never fits",
        ],
    );
}

#[test]
fn rules_and_their_responder_come_together() {
    check_whole(
        "[[listener]]\nresponder = \"rules\"\n",
        &["dir/t.toml:2:13: listener[0].responder: \"rules\" has none to answer by; set rules too"],
    );
    check_whole(
        "[[listener]]\nrules = \"scpi.toml\"\n",
        &["dir/t.toml:2:9: listener[0].rules: it means nothing with responder = \"echo\""],
    );
    // What was meant is not known here, so that only the word is at fault.
    for responder in ["\"rule\"", "5"] {
        check_whole(
            &format!("[[listener]]\nrules = \"scpi.toml\"\nresponder = {responder}\n"),
            &["dir/t.toml:3:13: listener[0].responder: "],
        );
    }
}

#[test]
fn rules_that_code_built_are_checked_too() {
    let mut config = Config::default();
    config.listeners[0].responder = "rules".to_owned();
    let told = |config: &Config| config.validate().map_err(|error| error.to_string());
    let refused = told(&config).unwrap_err();
    assert!(refused.starts_with("listener[0].responder: \"rules\" has none"), "{refused}");
    let matcher = Matcher::Matches("(".to_owned());
    let rules = vec![Rule { matcher, ..Rule::default() }];
    config.listeners[0].rules = Some(RuleBook { rules, ..RuleBook::default() });
    let refused = told(&config).unwrap_err();
    assert!(refused.starts_with("listener[0].rules.rule[0].matches: "), "{refused}");
    config.listeners[0].rules.as_mut().unwrap().rules[0].matcher = Matcher::Equals("a\n".into());
    assert_eq!(told(&config), Ok(()));
    config.listeners[0].framing = Framing::Line;
    let refused = told(&config).unwrap_err();
    assert!(refused.starts_with("listener[0].rules.rule[0].equals: never fits"), "{refused}");
}

#[test]
fn rules_are_loaded_from_a_file_of_their_own_or_from_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let own = "[[rule]]\nequals = \"a\"\n[[rule]]\nequals = \"b\"\n";
    let own = load_rules(&file("own.toml", own)).unwrap();
    let places = |scripted: &Scripted| {
        let names = scripted.places.iter().map(Origin::to_string);
        let end = |name: String| name.rsplit_once('/').unwrap().1.to_owned();
        names.map(end).collect::<Vec<_>>()
    };
    assert_eq!((own.len(), &own[0].listener), (1, &None));
    assert_eq!(places(&own[0]), ["own.toml:1:1", "own.toml:3:1"]);
    let config = "[[listener]]\n\
                  [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n\
                  responder = \"rules\"\nrules = \"own.toml\"\n\
                  [[listener]]\nname = \"c\"\naddress = \"127.0.0.1:0\"\n\
                  responder = \"rules\"\nrules.default = \"a\"\n";
    let of_config = load_rules(&file("t.toml", config)).unwrap();
    let names: Vec<&str> =
        of_config.iter().map(|one| one.listener.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(of_config[0].book, own[0].book);
    assert_eq!(places(&of_config[0]), ["own.toml:1:1", "own.toml:3:1"]);
    let refused = load_rules(&file("bad.toml", "[[rule]]\nequal = \"a\"\n")).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.ends_with("bad.toml:2:1: rule[0].equal: unknown key; did you mean \"equals\"?")
    );
    assert_eq!(load_rules(&file("none.toml", "[limits]\n")).unwrap(), []);
    assert!(load_rules(&directory.path().join("missing.toml")).is_err());
}
