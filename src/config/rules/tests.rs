//! Rules as they are read: what each key becomes, and where each fault of them stands.

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
fn what_could_not_be_read_hides_no_fault_that_stands_by_itself() {
    check(
        "[[listener.rules.rule]]\nequals = \"a\"\nsend = [\"1\", \"${1}\"]\n\
         [[listener.rules.rule]]\nequals = \"b\"\nsnd = \"x\"\ndelay = \"25h\"\n\
         [[listener.rules.rule]]\nprefix = \"\"\nset = { x = \"${2}\" }\n\
         [[listener.rules.rule]]\nequals = 5\ntimes = 0\nsend = \"${1}\"\n\
         [[listener.rules.rule]]\nequals = \"a\"\nsend = \"{y}\"\nwhen = { z = \"1\" }\n",
        &[
            "dir/t.toml:5:15: listener[0].rules.rule[0].send[1]: ${1} names nothing: `equals`",
            "dir/t.toml:8:1: listener[0].rules.rule[1].snd: unknown key",
            "dir/t.toml:9:9: listener[0].rules.rule[1].delay: ",
            "dir/t.toml:11:10: listener[0].rules.rule[2].prefix: is empty",
            "dir/t.toml:12:14: listener[0].rules.rule[2].set.x: ${2} names nothing: `prefix`",
            "dir/t.toml:14:10: listener[0].rules.rule[3].equals: 5 is an integer",
            "dir/t.toml:15:9: listener[0].rules.rule[3].times: 0 is out of range",
            "dir/t.toml:18:10: listener[0].rules.rule[4].equals: is never reached: rule[0]",
            "dir/t.toml:19:9: listener[0].rules.rule[4].send: {y} is no variable; did you mean",
            "dir/t.toml:20:14: listener[0].rules.rule[4].when.z: no rule sets this variable",
        ],
    );
}

#[test]
fn what_could_not_be_read_hides_nothing_that_it_has_no_part_in() {
    // A value of one variable hides none of this, and its name is known.
    check(
        "[[listener.rules.rule]]\nmatches = '^VOLT (?<volts>[0-9]+)$'\n\
         set = { volts = \"${vlts}\", x = 5 }\nsend = \"{amps}{x}\"\n\
         [[listener.rules.rule]]\nequals = \"a\"\nwhen = { x = \"1\" }\n\
         [[listener.rules.rule]]\nequals = \"b\"\n\
         [[listener.rules.rule]]\nequals = \"b\"\nwhen = { mode = \"data\", volts = \"2\" }\n\
         [[listener.rules.rule]]\nprefix = \"c\"\ntims = 1\n\
         [[listener.rules.rule]]\nprefix = \"cd\"\n",
        &[
            "dir/t.toml:5:18: listener[0].rules.rule[0].set.volts: ${vlts} is no group",
            "dir/t.toml:5:32: listener[0].rules.rule[0].set.x: it is an integer",
            "dir/t.toml:6:9: listener[0].rules.rule[0].send: {amps} is no variable; known: volts,",
            "dir/t.toml:13:10: listener[0].rules.rule[3].equals: is never reached: rule[2]",
            "dir/t.toml:14:17: listener[0].rules.rule[3].when.mode: no rule sets this variable",
            "dir/t.toml:17:1: listener[0].rules.rule[4].tims: unknown key",
        ],
    );
    // The second rule may answer "A" too.
    check(
        "[listener.rules]\nignore_case = 5\n\
         [[listener.rules.rule]]\nequals = \"a\"\nignore_case = false\n\
         [[listener.rules.rule]]\nequals = \"a\"\n",
        &["dir/t.toml:4:15: listener[0].rules.ignore_case: 5 is an integer"],
    );
}

#[test]
fn what_is_said_to_be_allowed_for_a_delay_is_taken_and_no_more() {
    for key in ["delay", "jitter"] {
        let refused = read_keys(&format!("rules.rule = [{{ {key} = 5 }}]")).faults;
        let [fault] = &refused[..] else { panic!("{refused:?}") };
        assert!(fault.to_string().contains("up to \"24h\""), "{fault}");
        let longest = |time: &str| format!("rules.rule = [{{ {key} = \"{time}\" }}]");
        book(&longest("24h"));
        check(&longest("1441m"), &[&format!("dir/t.toml:3:{}", 20 + key.len())]);
    }
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
fn every_key_refuses_another_type_at_its_value() {
    for key in rules_reference() {
        let (table, name) = key.split();
        let header = if table == "rule" { "[[rule]]" } else { "" };
        let fault = if name == "probability" { "fault = \"half\"" } else { "" };
        for value in ["1979-05-27", "[ 1979-05-27 ]", "{ a = 1979-05-27 }"] {
            let source = format!("{header}\n{name} = {value}\n{fault}");
            let mut notes = Notes::new(Path::new("t.toml"), &source, &|_| unreachable!());
            read_file(&mut notes, true, "");
            let told: Vec<String> = notes.faults.iter().map(Fault::to_string).collect();
            assert_eq!(told.len(), 1, "{told:#?}");
            let path = if table == "rule" { "rule[0]." } else { "" };
            assert!(told[0].starts_with("t.toml:2:"), "{told:#?}");
            assert!(told[0].contains(&format!(": {path}{name}")), "{told:#?}");
            let is_inside = ["state", "when", "set"].contains(&name) && value.starts_with('{');
            let allowed = if is_inside { "a string".to_owned() } else { key.allowed.to_string() };
            assert!(told[0].ends_with(&format!("; allowed: {allowed}")), "{told:#?}");
        }
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_where_it_stands() {
    check(
        "[listener.rules]\n\
         greting = \"hello\"\n\
         state = { a = 1, \"b\\n\" = 2 }\n\
         send = \"\"\n\
         [[listener.rules.rule]]\n\
         equals = \"a\"\n\
         prefix = \"b\"\n\
         send = []\n\
         times = 0\n\
         delay = \"5 s\"\n\
         fault = \"rest\"\n\
         probability = 1.5\n\
         [[listener.rules.rule]]\n\
         when = \"a\"\n\
         send = [\"a\", 1]\n\
         probability = 0.5\n\
         state = { a = \"1\" }\n",
        &[
            "dir/t.toml:4:1: listener[0].rules.greting: unknown key; did you mean \"greeting\"?",
            "dir/t.toml:5:15: listener[0].rules.state.a: it is an integer; allowed: a string",
            "dir/t.toml:5:26: listener[0].rules.state.b\\n: it is an integer; allowed: a string",
            "dir/t.toml:6:1: listener[0].rules.send: unknown key; \"send\" belongs in \
             [[listener.rules.rule]], or in [[rule]] of a rules file",
            "dir/t.toml:9:1: listener[0].rules.rule[0].prefix: a rule has one way to match, and \
             this one has equals already",
            "dir/t.toml:10:8: listener[0].rules.rule[0].send: [] has nothing in it; allowed: ",
            "dir/t.toml:11:9: listener[0].rules.rule[0].times: 0 is out of range; allowed: ",
            "dir/t.toml:12:9: listener[0].rules.rule[0].delay: \"5 s\" is not such a duration",
            "dir/t.toml:13:9: listener[0].rules.rule[0].fault: \"rest\" is not known (did you \
             mean \"reset\"?); allowed: \"reset\", \"half\", \"stall\" or \"garbage\"",
            "dir/t.toml:14:15: listener[0].rules.rule[0].probability: 1.5 is out of range; ",
            "dir/t.toml:16:8: listener[0].rules.rule[1].when: \"a\" is a string; allowed: a table",
            "dir/t.toml:17:14: listener[0].rules.rule[1].send: 1 is an integer; allowed: ",
            "dir/t.toml:18:15: listener[0].rules.rule[1].probability: it means nothing without",
            "dir/t.toml:19:1: listener[0].rules.rule[1].state: unknown key; \"state\" belongs in \
             [listener.rules], or at the top of a rules file",
        ],
    );
}

#[test]
fn tables_of_the_wrong_shape_are_told() {
    check("rules = 5\n", &["dir/t.toml:3:9: listener[0].rules: 5 is an integer; allowed: a str"]);
    check(
        "rules.rule = { send = \"a\" }\n",
        &["dir/t.toml:3:14: listener[0].rules.rule: it is a table; allowed: tables with double"],
    );
    check(
        "rules.rule = [1]\n",
        &["dir/t.toml:3:15: listener[0].rules.rule[0]: it is an integer; allowed: a table"],
    );
    check(
        "rules.default = \"a\"\n[[rule]]\n",
        &["dir/t.toml:4:3: rule: unknown key; \"rule\" belongs in [listener.rules]"],
    );
}

#[test]
fn a_probability_is_above_0_and_at_most_1() {
    for bad in ["0", "0.0", "-0.5", "1.000001", "2", "nan", "inf", "1e-9"] {
        let told = "dir/t.toml:3:48: listener[0].rules.rule[0].probability: ";
        check(&format!("rules.rule = [{{ fault = \"stall\", probability = {bad} }}]\n"), &[told]);
    }
    for (good, millionths) in [("1", 1_000_000), ("1.0", 1_000_000), ("1e-6", 1), ("0.25", 250_000)]
    {
        let book = book(&format!("rules.rule = [{{ fault = \"stall\", probability = {good} }}]\n"));
        assert_eq!(book.rules[0].probability.millionths(), millionths);
    }
}

#[test]
fn what_does_not_compile_is_told_at_the_byte_where_it_is_wrong() {
    check(
        "[listener.rules]\n\
         greeting = \"{nothing} é {x\"\n\
         default = [\"\", \"${1}\"]\n\
         state = { mode = \"a\", \"b d\" = \"\" }\n\
         [[listener.rules.rule]]\n\
         matches = '^(?<n>[0-9]+) (.*$'\n\
         [[listener.rules.rule]]\n\
         matches = \"^\\\\d ([\"\n\
         [[listener.rules.rule]]\n\
         equals = \"b\"\n\
         send = \"\"\"\n\
         a\n  \
         {vol}\n\
         \"\"\"\n\
         set = { a = \"}\", mode = \"{count} ${1}\" }\n\
         when = { b = \"1\" }\n\
         [[listener.rules.rule]]\n\
         prefix = \"é\"\n\
         send = [\"ok\", \"é {random:6..1}\", 'x {tim} \\ {cuont}']\n",
        &[
            "dir/t.toml:4:13: listener[0].rules.greeting: {nothing} is no variable",
            "dir/t.toml:4:25: listener[0].rules.greeting: the brace is never closed",
            "dir/t.toml:5:17: listener[0].rules.default[1]: ${1} names nothing",
            "dir/t.toml:6:31: listener[0].rules.state.b d: \"b d\" is no name",
            "dir/t.toml:8:26: listener[0].rules.rule[0].matches: unclosed group",
            "dir/t.toml:10:18: listener[0].rules.rule[1].matches: unclosed character class",
            "dir/t.toml:15:3: listener[0].rules.rule[2].send: {vol} is no variable",
            "dir/t.toml:17:14: listener[0].rules.rule[2].set.a: a brace of its own is written }}",
            "dir/t.toml:17:34: listener[0].rules.rule[2].set.mode: ${1} ",
            "dir/t.toml:18:14: listener[0].rules.rule[2].when.b: no rule sets this variable",
            "dir/t.toml:21:18: listener[0].rules.rule[3].send[1]: {random:6..1} is no range",
            "dir/t.toml:21:37: listener[0].rules.rule[3].send[2]: {tim} is no variable; did you \
             mean {time}?",
            "dir/t.toml:21:45: listener[0].rules.rule[3].send[2]: {cuont} is no variable",
        ],
    );
}

#[test]
fn escapes_do_not_hide_the_byte_that_is_wrong() {
    #[track_caller]
    fn told(written: &str, line: usize, column: usize) {
        let told = format!("dir/t.toml:{line}:{column}: listener[0].rules.rule[0].matches: uncl");
        check(&format!("[[listener.rules.rule]]\nmatches = {written}\n"), &[&told]);
    }
    told(r#""\\d+ (a""#, 4, 17);
    told(r#""\t\"\\.\b\f\r\n\e(a""#, 4, 29);
    told(r#""\x41\u00e9\U0001F980é(a""#, 4, 33);
    told("\"\"\"\n\\\\d\n \\\\d(\"\"\"", 6, 5);
    told("\"\"\"\\\n\n   a\\t\\\n  (\"\"\"", 7, 3);
    told("'''\n\\d\n(a'''", 6, 1);
    told(r"'\d(a'", 4, 14);
    told("\"(a\"", 4, 12);
}

#[test]
fn a_rule_that_is_never_reached_is_told_at_what_it_matches() {
    check(
        "rules.rule = [{ equals = \"a\", send = \"1\" }, { equals = \"a\", send = \"2\" }]\n",
        &["dir/t.toml:3:56: listener[0].rules.rule[1].equals: is never reached: "],
    );
    check(
        "[[listener.rules.rule]]\nsend = \"1\"\n[[listener.rules.rule]]\nsend = \"2\"\n",
        &["dir/t.toml:5:1: listener[0].rules.rule[1]: is never reached: "],
    );
}

#[test]
fn what_could_not_be_read_hides_what_may_follow_from_it_but_no_bad_pattern() {
    check(
        "[listener.rules]\n\
         stat = { volts = \"0\" }\n\
         [[listener.rules.rule]]\n\
         equals = \"VOLT?\"\n\
         send = \"{volts}\"\n\
         [[listener.rules.rule]]\n\
         matches = \"(\"\n",
        &[
            "dir/t.toml:4:1: listener[0].rules.stat: unknown key; did you mean \"state\"?",
            "dir/t.toml:9:12: listener[0].rules.rule[1].matches: unclosed group",
        ],
    );
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
