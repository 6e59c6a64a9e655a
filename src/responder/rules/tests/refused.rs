//! Books that are refused: what is said, of which rule and key, and at which byte.

use super::*;
use crate::responder::rules::compile::compile_within;

/// All that is said of a book.
#[track_caller]
fn check<const N: usize>(book: &RuleBook, said: [&str; N]) {
    let faults = Rules::compile(book).map(|_| ()).expect_err("the book is refused");
    let found: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(found, said);
}

#[track_caller]
fn check_rule<const N: usize>(rule: Rule, said: [&str; N]) {
    // Two variables that are known, and one that can be anything.
    let known = equals("\0").sets("volts", "{message}").sets("mode", "on");
    check(&book([known, rule]), said);
}

#[track_caller]
fn check_text(text: &str, said: &str) {
    let found = format!("rule[1]: send, byte {said}");
    check_rule(equals("a").sends(text), [&found]);
}

// ---- texts ----

#[test]
fn an_unknown_hole_is_told_with_the_nearest_or_all_that_are_known() {
    check_text("V {vols}", "2: {vols} is no variable; did you mean {volts}?");
    check_text("{mesage}", "0: {mesage} is no variable; did you mean {message}?");
    check_text(
        "{current}",
        "0: {current} is no variable; known: mode, volts, message, peer, time, count, random",
    );
    check_text("{1}", "0: {1} is no variable; a capture is written ${1}");
    check_text(
        "{\"volts\": 5}",
        "0: {\\\"volts\\\": 5} is no variable; a brace of its own is written {{",
    );
}

#[test]
fn a_brace_alone_is_a_fault_with_its_place() {
    check_text("é { x", "3: the brace is never closed; one of its own is written {{");
    check_text("a } b", "2: a brace of its own is written }}");
    check_text("}}}", "2: a brace of its own is written }}");
    check_text("{}", "0: {} is no variable; a brace of its own is written {{");
}

#[test]
fn a_range_of_random_numbers_goes_from_low_to_high() {
    for text in ["{random}", "{random:6..1}", "{random:1-6}", "{random:1..}", "{random:a..b}"] {
        let said = format!("0: {text} is no range; such as {{random:1..6}}, low to high");
        check_text(text, &said);
    }
}

#[test]
fn a_capture_that_the_matcher_has_not_is_a_fault() {
    let check = |rule: Rule, said: &str| {
        check_rule(rule.sends("a ${2} b"), [&format!("rule[1]: send, byte 2: ${{2}} {said}")]);
    };
    check(any(), "names nothing: a rule for any text captures nothing");
    check(equals("a"), "names nothing: `equals` captures nothing");
    check(prefix("a"), "names nothing: `prefix` captures ${1} alone");
    check(matches("a(b)"), "is no group of the pattern, which has ${0} to ${1}");
    check(matches("a"), "is no group of the pattern, which has ${0} alone");
    for (written, rule, said) in [
        ("${01}", prefix("a"), "names nothing: `prefix` captures ${1} alone"),
        ("${002}", contains("a"), "names nothing: `contains` captures ${1} to ${2}"),
        ("${+1}", matches("a(b)"), "is no group of the pattern, which has ${0} to ${1}"),
        ("${00}", matches("a(b)"), "is no group of the pattern, which has ${0} to ${1}"),
    ] {
        check_rule(rule.sends(written), [&format!("rule[1]: send, byte 0: {written} {said}")]);
    }
    is_taken([matches("(a)(?<b>b)").sends("${0}${1}${2}${b}"), contains("a").sends("${1}${2}")]);
    check_rule(
        contains("a").sends("${0}"),
        ["rule[1]: send, byte 0: ${0} names nothing: `contains` captures ${1} to ${2}"],
    );
    check_rule(
        matches("(?<volts>.)(?<amps>.)").sends("${vots} ${x}").sets("mode", "{amps}"),
        [
            "rule[1]: set.mode, byte 0: {amps} is no variable; a capture is written ${amps}",
            "rule[1]: send, byte 0: ${vots} is no group of the pattern; did you mean ${volts}?",
            "rule[1]: send, byte 8: ${x} is no group of the pattern, which has ${0} to ${2}, \
             named volts, amps",
        ],
    );
}

#[test]
fn a_greeting_answers_no_message_and_a_default_no_matcher() {
    let greeting = Some("{message} {count} ${1} {peer}".to_owned());
    let default = vec!["ok".to_owned(), "${1}".to_owned()];
    check(
        &RuleBook { greeting, default, ..RuleBook::default() },
        [
            "greeting, byte 0: {message} names nothing: there is no message yet",
            "greeting, byte 10: {count} names nothing: there is no message yet",
            "greeting, byte 18: ${1} names nothing: there is no message yet",
            "default[1], byte 0: ${1} names nothing: `default` captures nothing",
        ],
    );
}

#[test]
fn a_fault_in_a_list_names_the_text() {
    check_rule(
        equals("a").sends("ok").sends("{"),
        ["rule[1]: send[1], byte 0: the brace is never closed; one of its own is written {{"],
    );
}

// ---- names and values of the state ----

#[test]
fn names_of_variables_are_plain_and_their_own() {
    let state = variables([("peer", ""), ("a b", ""), ("ok_1-x", "")]);
    let rules = [equals("a").sets("9", "")];
    let refused = "is no name: a letter or _, then letters, digits, _ and -";
    check(
        &RuleBook { state, ..book(rules) },
        [
            &format!("state.a b: \"a b\" {refused}"),
            "state.peer: {peer} means something else already; choose another name",
            &format!("rule[0]: set.9: \"9\" {refused}"),
        ],
    );
}

#[test]
fn a_condition_that_never_holds_is_a_fault() {
    let rules = [
        equals("DATA").sets("mode", "data"),
        equals("1").when("mode", "dta"),
        equals("2").when("mode", "idle"),
        equals("3").when("mod", "data"),
        equals("4").when("volts", "5"),
        equals("5").when("mode", "command").when("mode2", "x").sets("mode2", "{message}"),
    ];
    let state = variables([("mode", "command"), ("volts", "5")]);
    let nobody = "no rule sets this variable";
    check(
        &RuleBook { state, ..book(rules) },
        [
            "rule[1]: when.mode, byte 0: never becomes this; did you mean \"data\"?",
            "rule[2]: when.mode, byte 0: never becomes this, only \"command\", \"data\"",
            &format!("rule[3]: when.mod: {nobody}; did you mean \"mode\"?"),
            &format!("rule[4]: when.volts: {nobody}, so there is nothing to wait for"),
            &format!("rule[5]: when.mode2, byte 0: {IN_VAIN}"),
        ],
    );
}

const IN_VAIN: &str = "never becomes this: what sets it so waits in vain itself";

#[test]
fn a_condition_that_only_rules_make_hold_that_wait_in_vain_is_a_fault() {
    let state = variables([("m", "a")]);
    let said = |rule: usize| format!("rule[{rule}]: when.m, byte 0: {IN_VAIN}");
    let rules = [equals("1").when("m", "b").sets("m", "b"), equals("2").when("m", "b")];
    check(&RuleBook { state: state.clone(), ..book(rules) }, [&*said(0), &*said(1)]);
    let ring =
        [equals("1").when("m", "b").sets("m", "c"), equals("2").when("m", "c").sets("m", "b")];
    check(&RuleBook { state: state.clone(), ..book(ring.clone()) }, [&*said(0), &*said(1)]);
    let open = [equals("1").when("m", "b").sets("m", "{message}"), equals("2").when("m", "c")];
    check(&RuleBook { state: state.clone(), ..book(open) }, [&*said(0), &*said(1)]);
    // Where one is told whom nobody opens, those behind it are not.
    let rules = [equals("1").sets("m", "b"), equals("2").when("m", "idle").sets("n", "1")];
    check(
        &RuleBook { state: state.clone(), ..book(rules.into_iter().chain([any().when("n", "1")])) },
        ["rule[1]: when.m, byte 0: never becomes this, only \"a\", \"b\""],
    );
    // Each is opened by one before it.
    for way_in in [equals("0").sets("m", "c"), equals("0").sets("m", "{message}")] {
        let rules = ring.clone().into_iter().chain([way_in]);
        Rules::compile(&RuleBook { state: state.clone(), ..book(rules) }).unwrap();
    }
    let rules = [
        equals("1").when("m", "a").when("n", "").sets("n", "1"),
        equals("2").when("m", "b").when("n", "2"),
        equals("3").when("n", "1").sets("n", "2").sets("m", "b"),
    ];
    Rules::compile(&RuleBook { state, ..book(rules) }).unwrap();
}

#[test]
fn ten_thousand_states_one_behind_the_other_are_all_reached() {
    let step = |at: u32| equals("next").when("m", &at.to_string()).sets("m", &(at + 1).to_string());
    let state = variables([("m", "0")]);
    Rules::compile(&RuleBook { state, ..book((0..10_000).rev().map(step)) }).unwrap();
}

// ---- matchers ----

#[test]
fn a_pattern_that_is_none_is_refused_at_its_byte() {
    check_rule(matches("é(a"), ["rule[1]: matches, byte 2: unclosed group"]);
    check_rule(matches("a**{"), ["rule[1]: matches, byte 3: unclosed counted repetition"]);
    check_rule(
        matches(r"a(?=b)"),
        ["rule[1]: matches, byte 1: look-around, including look-ahead and look-behind, is not \
          supported"],
    );
    check_rule(matches(r"\pX"), ["rule[1]: matches, byte 0: Unicode property not found"]);
    // What a bad pattern would capture is not known.
    check_rule(matches("(").sends("${3}"), ["rule[1]: matches, byte 0: unclosed group"]);
}

#[test]
fn a_pattern_that_no_text_fits_is_refused() {
    let edge = "never fits: something would have to stand";
    check_rule(
        matches("a^b").sends("${0}"),
        [&format!(
            "rule[1]: matches: {edge} before the text's beginning, ^; (?m) makes it the beginning \
             of a line"
        )],
    );
    check_rule(
        matches("x$y"),
        [&format!(
            "rule[1]: matches: {edge} behind the text's end, $; (?m) makes it the end of a line"
        )],
    );
    check_rule(
        matches(r"[^\s\S]"),
        ["rule[1]: matches: never fits: a class in it has no character"],
    );
    // Where case is none, there is one.
    is_taken([matches("[a&&A]").ignoring_case()]);
}

#[test]
fn a_pattern_has_bounds() {
    check_rule(
        matches(r"(\w{100}){100}"),
        ["rule[1]: matches, byte 0: would become larger than 1048576 bytes; repeat less"],
    );
    check_rule(
        matches(&"a".repeat(65_537)),
        ["rule[1]: matches, byte 65536: has 65537 bytes; a pattern may have 65536"],
    );
    // What is long by its comment becomes nothing large.
    let long = |number| matches(&format!("(?x) {number} # {}", "x".repeat(60_000)));
    let rules = (11..=28).map(long);
    check(
        &book(rules),
        ["rule[17]: matches, byte 0: all patterns together have more than 1048576 bytes"],
    );
}

#[test]
fn patterns_that_together_become_too_large_are_told_once() {
    // One of them becomes some 43,000 bytes.
    let rules = (1..200).map(|number| matches(&format!("^level{number}=(\\d+)$")));
    let faults = compile_within(&book(rules), 1 << 20).map(|_| ()).expect_err("it is refused");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!((20..30).contains(&fault.rule.unwrap()), "{fault}");
    let problem = "up to here the patterns become larger than 1048576 bytes together; [0-9] and \
                   [A-Za-z] take far less than \\d and \\w";
    assert_eq!((fault.key, &*fault.problem), ("matches", problem));
}

#[test]
fn patterns_that_are_tried_together_have_a_bound_which_the_first_rule_beyond_it_tells() {
    let rule = |number| matches(&format!("^[ab]{{9000}}c{number}$"));
    let rules = || (0..100).flat_map(|number| [equals(&number.to_string()), rule(number)]);
    let faults = Rules::compile(&book(rules())).map(|_| ()).expect_err("it is refused");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    let problem = "up to here the patterns without a text of their own become larger than \
                   16777216 bytes together; repeat less in them";
    assert_eq!((fault.key, &*fault.problem), ("matches", problem));
    let at = fault.rule.unwrap();
    assert!(rules().nth(at).is_some_and(|rule| matches!(rule.matcher, Matcher::Matches(_))));
    is_taken(rules().take(at));
    assert!(Rules::compile(&book(rules().take(at + 1))).is_err());
}

#[test]
fn a_matcher_that_is_empty_is_a_fault_but_for_the_empty_line() {
    let problem = "is empty, and so is part of every text; a rule for any text has none";
    for (rule, key) in
        [(prefix(""), "prefix"), (contains(""), "contains"), (matches(""), "matches")]
    {
        check_rule(rule, [&format!("rule[1]: {key}: {problem}")]);
    }
    is_taken([equals("").sends("empty")]);
}

// ---- what makes no sense together ----

#[test]
fn keys_that_could_do_nothing_are_refused() {
    check_rule(any().times(0), ["rule[1]: times: is 0: the rule would never answer; 1 or more"]);
    let day = Duration::from_secs(86_400);
    let too_late = "comes to more than a day; delay and jitter together are at most 24h";
    let second = Duration::from_secs(1);
    check_rule(
        Rule { delay: day, jitter: second, ..any() },
        [&format!("rule[1]: jitter: {too_late}")],
    );
    check_rule(Rule { delay: Duration::MAX, ..any() }, [&format!("rule[1]: delay: {too_late}")]);
    is_taken([Rule { delay: day, ..any() }]);
    let probability = Probability::from_millionths(1).unwrap();
    check_rule(
        Rule { probability, ..any() },
        ["rule[1]: probability: is that of a `fault`, and the rule has none"],
    );
    check_rule(
        any().fails(Fault::Half),
        ["rule[1]: fault: \"half\" has no `send` to take the half of"],
    );
    check_rule(
        any().fails(Fault::Garbage),
        ["rule[1]: fault: \"garbage\" has no `send` to replace"],
    );
}

#[test]
fn all_faults_are_told_at_once_those_of_the_book_first() {
    let rules = [matches("(").times(0), equals("a").sends("{"), equals("a")];
    check(
        &RuleBook { greeting: Some("{x}".to_owned()), ..book(rules) },
        [
            "greeting, byte 0: {x} is no variable; known: message, peer, time, count, random",
            "rule[0]: matches, byte 0: unclosed group",
            "rule[0]: times: is 0: the rule would never answer; 1 or more",
            "rule[1]: send, byte 0: the brace is never closed; one of its own is written {{",
            "rule[2]: equals: is never reached: rule[1] (equals \"a\") answers every such text \
             first",
        ],
    );
}

#[test]
fn a_default_that_is_never_sent_is_a_fault() {
    let book = RuleBook { default: vec!["ok".to_owned()], ..book([equals("a"), any()]) };
    check(&book, ["default: is never sent: rule[1] (any text) answers every text"]);
    let rules = [any().times(1)];
    Rules::compile(&RuleBook { rules: rules.into(), ..book }).unwrap();
}

#[test]
fn ten_thousand_literal_rules_are_checked_and_found() {
    let rules = (0..10_000).map(|at| {
        let text = format!("{at:05}?");
        match at % 3 {
            0 => equals(&text),
            1 => prefix(&text),
            _ => contains(&text),
        }
        .sends(&text)
    });
    let mut conversation = Conversation::new(&book(rules));
    for at in ["00000?", "04999?", "09998?", "09999?"] {
        assert_eq!(conversation.say(at).unwrap(), at);
    }
    assert_eq!(conversation.say("10000?"), None);
}
