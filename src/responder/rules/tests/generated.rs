//! Any rules and any messages, against a model that tries one rule after another.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use regex_automata::meta::Regex;

use super::{Matcher, Rule, RuleBook, book, prefix, rule};
use crate::responder::rules::fold::Folding;
use crate::responder::rules::trial;

// ---- what is generated ----

const CHARACTERS: [char; 14] =
    ['a', 'a', 'a', 'b', 'A', '1', 'k', 'K', '\u{212A}', 'ß', 'ẞ', 'σ', 'ς', 'Σ'];

fn text(least: usize) -> impl Strategy<Value = String> {
    vec(select(&CHARACTERS[..]), least..5).prop_map(String::from_iter)
}

/// With how many groups each has.
const PATTERNS: [(&str, usize); 18] = [
    ("a", 0),
    ("^a", 0),
    ("a$", 0),
    ("^(a+)(b)?", 2),
    ("(.)a|(b)", 2),
    ("^.?$", 0),
    (r"\d", 0),
    ("(a*)", 1),
    ("σ|k", 0),
    // What is looked for by a text that they need: one, several, and the same as others.
    ("^ka(.*)", 1),
    ("^(?:aa|k|ß)(.)?", 1),
    ("a1(a)?", 1),
    ("b1|1b|(?i)k1", 0),
    ("a1a$", 0),
    ("a1.", 0),
    ("a1(b)", 1),
    ("a1k", 0),
    ("(?m)^σ+", 0),
];

fn matcher() -> impl Strategy<Value = (Matcher, usize)> {
    prop_oneof![
        1 => Just((Matcher::Any, 0)),
        3 => text(0).prop_map(|text| (Matcher::Equals(text), 0)),
        3 => text(1).prop_map(|text| (Matcher::Prefix(text), 1)),
        3 => text(1).prop_map(|text| (Matcher::Contains(text), 2)),
        2 => select(&PATTERNS[..])
            .prop_map(|(pattern, groups)| (Matcher::Matches(pattern.to_owned()), groups)),
    ]
}

/// One that says its number and all that it captures.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let when = prop::option::of(select(&["", "a", "2"][..]));
    let set = prop::option::of(select(&["", "a", "{x}", "1{x}"][..]));
    let times = prop::option::weighted(0.3, 1..3_u32);
    let shape = (matcher(), any::<bool>(), when, set, times, 1..3_usize);
    let rule = shape.prop_map(|((matcher, groups), ignore_case, when, set, times, texts)| {
        let mut rule = Rule { ignore_case, times, ..rule(matcher) };
        rule.when.extend(when.map(|value| ("x".to_owned(), value.to_owned())));
        rule.set.extend(set.map(|text| ("x".to_owned(), text.to_owned())));
        let groups: Vec<String> = (1..=groups).map(|group| format!("${{{group}}}")).collect();
        rule.send = (0..texts).map(|at| format!("{at} {} {{x}}", groups.join(","))).collect();
        rule
    });
    vec(rule, 0..12).prop_map(|mut rules| {
        // So that no `when` waits for what cannot come.
        rules.insert(0, prefix("=").sets("x", "${1}").sends("set"));
        rules
    })
}

fn messages() -> impl Strategy<Value = Vec<String>> {
    let set = prop_oneof![Just("=".to_owned()), Just("=a".to_owned()), Just("=2".to_owned())];
    vec(prop_oneof![6 => text(0), 1 => set], 0..12)
}

/// A pattern of a few characters, in all the ways in which they may stand together.
fn pattern() -> impl Strategy<Value = String> {
    const LEAVES: [&str; 18] = [
        "a",
        "b",
        "A",
        "ab",
        "ba",
        "[ab]",
        "[aA]",
        ".",
        "",
        "^",
        "$",
        "(?i)b",
        "k",
        "(?i)ka",
        "(?m:^)",
        "(?m:$)",
        r"\b",
        r"(?-u:\b)",
    ];
    let leaf = select(&LEAVES[..]).prop_map(str::to_owned);
    let ends = (prop::option::of(Just("^")), prop::option::of(Just("$")));
    let inner = leaf.prop_recursive(4, 12, 3, |inner| {
        let repeats = select(&["*", "?", "+", "{2}", "{2,}", "{1,2}", "{0}"][..]);
        prop_oneof![
            2 => vec(inner.clone(), 1..4).prop_map(|parts| format!("(?:{})", parts.concat())),
            1 => vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join("|"))),
            1 => (inner, repeats).prop_map(|(part, repeats)| format!("(?:{part}){repeats}")),
        ]
    });
    (ends, inner).prop_map(|((start, end), inner)| {
        format!("{}{inner}{}", start.unwrap_or_default(), end.unwrap_or_default())
    })
}

/// All texts of up to four of these characters.
fn few() -> impl Iterator<Item = String> {
    const FEW: [char; 5] = ['a', 'b', 'A', '\n', '\u{212A}'];
    (0..=4_u32).flat_map(|length| {
        (0..FEW.len().pow(length)).map(move |mut number| {
            let next = |_| {
                let character = FEW[number % FEW.len()];
                number /= FEW.len();
                character
            };
            (0..length).map(next).collect()
        })
    })
}

/// Some variables, each with one of these values.
fn variables(values: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, String>> {
    let owned = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    btree_map(owned(&["x", "y", "z"]), owned(values), 0..3)
}

/// Anything at all, and often what means something.
fn odd() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "{{",
        "$",
        "${1}",
        "${",
        "{x}",
        "{xy}",
        "{count}",
        "{random:1..9}",
        "{random:",
        "..",
        "(",
        ")",
        "(?<n>",
        "[a",
        "*",
        "\\\\",
        "\n",
        "\r\n",
        "\u{0}",
        "\"",
        "é",
        "世",
        "a",
        "b",
        "1",
        " ",
    ];
    let piece = prop_oneof![9 => select(pieces.to_vec()).prop_map(str::to_owned), 1 => ".{0,3}"];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// A rule whose every text is odd.
fn odd_rule() -> impl Strategy<Value = Rule> {
    let texts = (odd(), odd(), odd(), odd());
    (0..5, any::<bool>(), texts, any::<bool>()).prop_map(|(kind, ignore_case, texts, sets)| {
        let (text, send, name, value) = texts;
        let matcher = match kind {
            0 => Matcher::Any,
            1 => Matcher::Equals(text),
            2 => Matcher::Prefix(text),
            3 => Matcher::Contains(text),
            _ => Matcher::Matches(text),
        };
        let rule = Rule { ignore_case, ..rule(matcher) }.sends(&send);
        if sets { rule.sets("x", &value) } else { rule.when(&name, &value) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rules_answer_as_if_tried_one_after_another(rules in rules(), messages in messages()) {
        for fault in trial::check(&book(rules), &messages) {
            prop_assert!(fault.problem.starts_with("is never reached"), "{}", fault);
        }
    }

    #[test]
    fn a_pattern_is_only_told_as_never_reached_if_no_text_reaches_it(
        literals in vec((0..3_usize, "[abA]{1,2}", any::<bool>()), 1..3),
        pattern in pattern(),
        ignore_case: bool,
    ) {
        let literals = literals.into_iter().map(|(kind, text, ignore_case)| {
            let kinds: [fn(String) -> Matcher; 3] =
                [Matcher::Equals, Matcher::Prefix, Matcher::Contains];
            Rule { ignore_case, ..rule(kinds[kind](text)) }
        });
        let last = Rule { ignore_case, ..rule(Matcher::Matches(pattern)) };
        let book = book(literals.chain([last]));
        let texts: Vec<String> = few().collect();
        trial::check(&book, &texts);
    }

    #[test]
    fn a_rule_is_only_told_as_never_reached_if_no_text_reaches_it(
        rules in vec((0..5_usize, "[abA]{1,2}", pattern(), any::<bool>()), 2..4),
    ) {
        let rules = rules.into_iter().map(|(kind, text, pattern, ignore_case)| {
            let matcher = match kind {
                0 => Matcher::Equals(text),
                1 => Matcher::Prefix(text),
                2 => Matcher::Contains(text),
                _ => Matcher::Matches(pattern),
            };
            Rule { ignore_case, ..rule(matcher) }
        });
        let texts: Vec<String> = few().collect();
        trial::check(&book(rules), &texts);
    }

    #[test]
    fn a_rule_is_only_told_to_wait_in_vain_if_no_message_opens_it(
        state in variables(&["", "1", "2"]),
        rules in vec(
            (
                select(&["a", "b"][..]),
                variables(&["", "1", "2"]),
                variables(&["", "1", "2", "{message}", "{x}"]),
            ),
            1..7,
        ),
        messages in vec(select(&["a", "b", "1"][..]), 0..30),
    ) {
        let rules = rules.into_iter().map(|(text, when, set)| {
            Rule { when, set, ..rule(Matcher::Contains(text.to_owned())) }
        });
        trial::check(&RuleBook { state, ..book(rules) }, &messages);
    }

    #[test]
    fn literals_fold_as_patterns_do(literal: String, text: String, at: prop::sample::Index) {
        let some: Vec<char> = literal.chars().chain(text.chars()).collect();
        prop_assume!(!some.is_empty());
        for literal in [literal.clone(), at.get(&some).to_string()] {
            let folding = Folding::of([literal.as_str()]);
            let mut pattern = String::from("(?i)^(?:");
            regex_syntax::escape_into(&literal, &mut pattern);
            pattern.push_str(")$");
            let regex = Regex::new(&pattern).unwrap();
            let [upper, lower] = [literal.to_uppercase(), literal.to_lowercase()];
            for text in [&text, &upper, &lower] {
                let is_equal = folding.folded(&literal) == folding.folded(text);
                prop_assert_eq!(is_equal, regex.is_match(text), "{:?} {:?}", literal, text);
            }
        }
    }

    #[test]
    fn whatever_is_written_is_refused_in_lines_with_a_place_or_answers(
        rules in vec(odd_rule(), 1..4),
        terminator in prop::option::of(odd()),
        messages in vec(odd(), 1..6),
    ) {
        trial::check(&RuleBook { terminator, ..book(rules) }, &messages);
    }
}
