//! Which rule answers: the kinds of matchers, and their order.

use super::*;

#[test]
fn the_first_rule_that_fits_answers() {
    let rules = [
        equals("volts?").sends("equals"),
        prefix("volts").sends("prefix"),
        contains("volt").sends("contains"),
        matches("^v").sends("matches"),
        any().sends("any"),
    ];
    check(
        &book(rules),
        [
            ("volts?", Some("equals")),
            ("volts", Some("prefix")),
            ("volts??", Some("prefix")),
            ("a volt", Some("contains")),
            ("vol", Some("matches")),
            ("", Some("any")),
            ("Volts?", Some("any")),
        ],
    );
}

#[test]
fn the_order_of_the_rules_decides_whatever_their_kinds() {
    let rules = [
        matches("aa").sends("1"),
        contains("ab").sends("2"),
        prefix("abc").sends("3").when("x", "").sets("x", "4"),
        equals("b").sends("5"),
        prefix("b").sends("6"),
    ];
    let rules: Vec<Rule> = rules.into_iter().filter(|rule| rule.when.is_empty()).collect();
    check(
        &book(rules),
        [
            ("aab", Some("1")),
            ("bab", Some("2")),
            ("b", Some("5")),
            ("bb", Some("6")),
            ("ba", Some("6")),
            ("a", None),
        ],
    );
}

#[test]
fn of_nested_prefixes_the_first_written_answers() {
    let rules = ["abcd", "ab", "x", "abca", "abcaz", "a"];
    let rules = rules.iter().enumerate().map(|(at, text)| {
        // A limit that is never met: without it the longer ones could not be reached.
        prefix(text).sends(&at.to_string()).times(1000)
    });
    check(
        &book(rules),
        [
            ("abcde", Some("0")),
            ("abcaz", Some("1")),
            ("abb", Some("1")),
            ("ac", Some("5")),
            ("b", None),
            ("", None),
        ],
    );
}

#[test]
fn ignore_case_holds_for_each_kind_and_beyond_ascii() {
    let rules = [
        equals("Straße").ignoring_case().sends("equals"),
        prefix("Σ=").ignoring_case().sends("prefix ${1}"),
        contains("kelvin").ignoring_case().sends("${1}|${2}"),
        matches("^é(.)").ignoring_case().sends("matches ${1}"),
        equals("x").sends("exact"),
    ];
    check(
        &book(rules),
        [
            ("STRAẞE", Some("equals")),
            ("STRASSE", None),
            ("ς=ÄÖ", Some("prefix ÄÖ")),
            ("ß\u{212A}elVINß", Some("ß|ß")),
            ("Éa", Some("matches a")),
            ("x", Some("exact")),
            ("X", None),
        ],
    );
}

#[test]
fn matches_looks_anywhere_in_all_lines_and_is_bound_by_what_the_pattern_says() {
    let rules = [matches("^a$").sends("whole"), matches("(?m)^b$").sends("line")];
    let rules = rules.into_iter().chain([matches("c+").sends("<${0}>")]);
    check(
        &book(rules),
        [("a", Some("whole")), ("a\n", None), ("x\nb\ny", Some("line")), ("xccy", Some("<cc>"))],
    );
}

#[test]
fn many_patterns_that_need_the_same_text_are_told_apart() {
    let alike =
        (0..50).map(|at| matches(&format!("^SOUR (\\d+) x{at}$")).sends(&format!("{at} ${{1}}")));
    let others = (0..50).map(|at| matches(&format!(r"\d+-{at}$")).sends(&format!("-{at}")));
    let folded = matches("^sour z(.)").ignoring_case().sends("z ${1}");
    check(
        &book(alike.chain(others).chain([folded])),
        [
            ("SOUR 12 x0", Some("0 12")),
            ("SOUR 12 x49", Some("49 12")),
            ("SOUR 12 x4", Some("4 12")),
            ("7-49", Some("-49")),
            ("7-", None),
            ("Sour ZÄ", Some("z Ä")),
        ],
    );
}
