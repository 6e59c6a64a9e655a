//! Rules that are never reached, because an earlier one answers all that they could, and rules that
//! look like it.

use super::*;

/// The second rule is never reached, because of the first.
#[track_caller]
fn covers(first: Rule, second: Rule) {
    let faults = Rules::compile(&book([first.clone(), second.clone()]))
        .map(|_| ())
        .expect_err("the second is covered");
    let [fault] = &faults[..] else { panic!("{faults:?}") };
    assert!(fault.rule == Some(1) && fault.problem.contains("is never reached: rule[0] ("));
    // A limit of the first opens the way, one of the second does not.
    is_taken([first.clone().times(1), second.clone()]);
    assert!(Rules::compile(&book([first, second.times(1)])).is_err());
}

#[track_caller]
fn leaves(first: Rule, second: Rule) {
    is_taken([first, second]);
}

#[test]
fn an_earlier_rule_covers_what_it_always_answers() {
    covers(any(), any());
    covers(any(), equals("a"));
    covers(any(), matches("a"));
    covers(equals("a"), equals("a"));
    covers(prefix("a"), prefix("ab"));
    covers(prefix("a"), equals("a"));
    covers(contains("b"), contains("abc"));
    covers(contains("b"), prefix("abc"));
    covers(contains("b"), equals("ab"));
    covers(matches("^a+$"), equals("aaa"));
    covers(matches("^a+$"), matches("^a+$"));
    covers(matches(".*"), prefix("a"));
    covers(matches("^(?:x?)"), any());
}

#[test]
fn a_rule_that_can_be_reached_is_taken() {
    leaves(equals("a"), any());
    leaves(equals("a"), prefix("a"));
    leaves(equals("a"), contains("a"));
    leaves(prefix("ab"), prefix("a"));
    leaves(prefix("a"), contains("a"));
    leaves(contains("abc"), contains("b"));
    leaves(matches("^a+$"), equals("aab"));
    leaves(matches("^a+$"), matches("^a+"));
    leaves(matches("^$"), any());
    leaves(matches(r"\b"), any());
    leaves(any().when("x", "").sets("x", "1"), any());
    leaves(matches("a$"), prefix("a"));
}

#[test]
fn a_pattern_covers_what_always_has_a_text_that_it_matches() {
    covers(matches("^VOLT"), prefix("VOLT:"));
    covers(matches("^VO+LT"), prefix("VOLT:"));
    covers(matches("(?m)^VOLT"), prefix("VOLT:"));
    covers(matches("^(?:A|V+)"), prefix("VOLT:"));
    covers(matches("[A-Z]{4}"), contains("VOLT"));
    covers(matches("VOLT"), matches("^([0-9]+)VOLT$"));
    covers(matches("^V"), matches("^V [0-9]$"));
    covers(matches("^V [a-z]"), matches("^V x([0-9]+)$"));
    covers(matches("VOLTS?"), matches("x+VOLT$"));
    covers(matches("^é."), prefix("é世"));
    covers(matches(r"^V\b"), equals("V 1"));
}

#[test]
fn a_pattern_whose_match_depends_on_what_stands_around_a_text_does_not_cover_it() {
    leaves(matches("^VOLT:1"), prefix("VOLT:"));
    leaves(matches("^VOLT$"), prefix("VOLT"));
    leaves(matches("(?m)^VOLT$"), prefix("VOLT"));
    leaves(matches(r"(?mR)V\r$"), prefix("V\r"));
    leaves(matches(r"^VOLT\b"), prefix("VOLT"));
    leaves(matches(r"\bVOLT"), contains("VOLT"));
    leaves(matches("^VOLT"), contains("VOLT"));
    leaves(matches("(?m)^VOLT"), contains("VOLT"));
    leaves(matches("^VOLT"), matches("VOLT$"));
    leaves(matches("^V [0-5]"), matches("^V [0-9]$"));
}

#[test]
fn a_pattern_that_ignores_case_covers_what_is_told_apart_by_case_alone() {
    covers(matches("(?i)foo"), contains("FOO"));
    covers(matches("foo").ignoring_case(), contains("FOO").ignoring_case());
    covers(matches("^foo").ignoring_case(), prefix("Foo bar").ignoring_case());
    covers(matches("^volts"), matches("^volts [0-9]"));
    covers(matches("^volts").ignoring_case(), matches("^VOLTS [0-9]").ignoring_case());
    covers(matches("^é$").ignoring_case(), equals("É").ignoring_case());
    covers(matches("^[0-9a-z]+$").ignoring_case(), equals("k1").ignoring_case());
    covers(matches("^[0-9]"), prefix("1a").ignoring_case());
    covers(matches("^k.$").ignoring_case(), matches("^\u{212A}a$").ignoring_case());
    leaves(matches("foo"), contains("foo").ignoring_case());
    leaves(matches("foo"), matches("foo").ignoring_case());
    leaves(matches("(?i)f(?-i)oo"), contains("foo").ignoring_case());
    leaves(matches("(?i-u)k"), contains("k").ignoring_case());
    leaves(matches("[a-z]"), contains("foo").ignoring_case());
    leaves(matches(r"(?-u:k\b)").ignoring_case(), equals("k").ignoring_case());
    leaves(matches("^foo$").ignoring_case(), prefix("foo").ignoring_case());
}

#[test]
fn a_literal_covers_a_pattern_that_always_has_it() {
    covers(prefix("VOLT"), matches("^VOLTAGE ([0-9]+)$"));
    covers(contains("VOLT"), matches("^VOLTAGE ([0-9]+)$"));
    covers(contains("VOLT"), matches("([0-9]+)VOLT$"));
    covers(contains("c d"), matches(r"a?(?:b|xb)c\b d|x(bc d)+"));
    covers(prefix("ab"), matches("^(?:abc|abd|ab)"));
    covers(contains("bb"), matches("(?:abb){2}|ab{2}|b+b"));
    covers(contains("ba"), matches("(ab){2,}"));
    covers(equals("VOLT?"), matches(r"^VOLT\?$"));
    covers(equals(""), matches("^$"));
    covers(matches("^[A-Z]+$"), matches("^(VOLT)$"));
    covers(prefix("é"), matches("^é[^é]"));
    covers(prefix("a").ignoring_case(), matches("^[Aa]b"));
    covers(prefix("volt").ignoring_case(), matches("^VOLT"));
    covers(prefix("volt").ignoring_case(), matches("^Voltage").ignoring_case());
    covers(contains("k:").ignoring_case(), matches("(?i)k:"));
    covers(equals("\u{212A}").ignoring_case(), matches("^k$").ignoring_case());
    covers(prefix("1 "), matches("^1 x").ignoring_case());
}

#[test]
fn a_pattern_that_a_literal_does_not_always_answer_is_taken() {
    leaves(prefix("VOLT"), matches("VOLTAGE ([0-9]+)$"));
    leaves(prefix("VOLT"), matches("(?m)^VOLT"));
    leaves(prefix("VOLT"), matches("^VOLT|^AMPS"));
    leaves(contains("VOLT"), matches("^VOL(?:TAGE)?$"));
    leaves(contains("VOLT"), matches("^VOLT*$"));
    leaves(contains("ab"), matches("^(?:ab){0,2}$"));
    leaves(contains("bb"), matches("^(?:ab+)+$"));
    leaves(contains("aa"), matches("^a+$"));
    leaves(equals("VOLT"), matches("^VOLT"));
    leaves(equals("VOLT"), matches("VOLT$"));
    leaves(equals("VOLT"), matches("^VOLT?$"));
    leaves(equals("aa"), matches("^a{2,}$"));
    leaves(prefix("volt"), matches("^volt").ignoring_case());
    leaves(prefix("a"), matches("^[ab]"));
    leaves(contains("a.c"), matches("a.c"));
    leaves(contains(&"a".repeat(5000)), matches("^a{4999}"));
}

#[test]
fn what_is_not_known_of_any_of_several_texts_is_not_known() {
    leaves(equals(""), matches("^([0-9]+|[a-z]+)$"));
    leaves(equals("V "), matches("^V ([0-9]+|[a-z]+)$"));
    leaves(contains("V;"), matches("V([0-9]+|[a-z]+);"));
    leaves(equals(""), matches("^(.|([ab]|a))$"));
    covers(contains("V"), matches("(?:V[0-9]+|V[a-z]+);"));
    covers(equals("V"), matches("^(V|(V))$"));
}

#[test]
fn what_is_looked_at_of_a_pattern_is_bounded() {
    let nested = format!("^{}a{}", "(?:".repeat(60), "b+)+".repeat(60));
    covers(prefix("ab"), matches(&nested));
    covers(prefix("aa"), matches("^a{5000}b"));
    leaves(contains("b"), matches("^a{5000}b"));
}

#[test]
fn case_is_seen_when_it_is_asked_who_covers_whom() {
    covers(equals("A").ignoring_case(), equals("a"));
    covers(equals("A").ignoring_case(), equals("a").ignoring_case());
    covers(prefix("k").ignoring_case(), prefix("\u{212A}x"));
    covers(contains("é").ignoring_case(), prefix("aÉ").ignoring_case());
    covers(equals("1?"), equals("1?").ignoring_case());
    covers(prefix("1"), equals("1a").ignoring_case());
    covers(matches("a").ignoring_case(), matches("a").ignoring_case());
    covers(matches("a").ignoring_case(), equals("A"));
    leaves(equals("a"), equals("a").ignoring_case());
    leaves(prefix("a"), equals("ab").ignoring_case());
    leaves(equals("a"), equals("A"));
    leaves(matches("a"), matches("a").ignoring_case());
    leaves(matches("a"), equals("a").ignoring_case());
}

#[test]
fn a_rule_is_covered_by_those_that_ask_for_no_more_of_the_state() {
    let set = || equals("set").sets("a", "{message}").sets("b", "{message}");
    let on = |rule: Rule| rule.when("a", "1");
    let both = |rule: Rule| rule.when("a", "1").when("b", "1");
    let never = |first: Rule, second: Rule| {
        let faults = Rules::compile(&book([set(), first, second])).map(|_| ());
        assert_eq!(faults.expect_err("the last is covered")[0].rule, Some(2));
    };
    never(on(prefix("a")), on(equals("a")));
    never(on(prefix("a")), both(equals("a")));
    never(prefix("a"), both(equals("a")));
    never(on(any()), both(equals("a")));
    is_taken([set(), on(prefix("a")), equals("a")]);
    is_taken([set(), both(prefix("a")), on(equals("a"))]);
    is_taken([set(), on(prefix("a")), equals("a").when("a", "2")]);
}
