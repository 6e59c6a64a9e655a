//! What is wrong in a table of rules is told all at once, each fault where it stands, and nothing
//! that only follows from what could not be read.

use super::*;

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
