//! Any rules and any messages, against a model that tries one rule after another.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex_automata::meta::Regex;

use super::{Conversation, Matcher, Rule, RuleBook, Rules, book, prefix, rule};
use crate::responder::rules::fold::Folding;

// ---- the model: it shares no code with the rules ----

struct Model<'b> {
    book: &'b RuleBook,
    x: String,
    uses: Vec<u32>,
}

impl<'b> Model<'b> {
    fn new(book: &'b RuleBook) -> Self {
        Self { book, x: String::new(), uses: vec![0; book.rules.len()] }
    }

    /// Which rule answers, and with what.
    fn hear(&mut self, message: &str) -> Option<(usize, String)> {
        let (at, groups) = self.book.rules.iter().enumerate().find_map(|(at, rule)| {
            let holds = rule.when.get("x").is_none_or(|wanted| *wanted == self.x);
            let is_left = rule.times.is_none_or(|times| self.uses[at] < times);
            let groups = fits(rule, message).filter(|_| holds && is_left)?;
            Some((at, groups))
        })?;
        self.uses[at] += 1;
        let rule = &self.book.rules[at];
        let fill = |text: &str, x: &str| {
            let mut text = text.replace("{x}", x);
            for (number, group) in groups.iter().enumerate() {
                text = text.replace(&format!("${{{number}}}"), group);
            }
            text
        };
        if let Some(text) = rule.set.get("x") {
            self.x = fill(text, &self.x);
        }
        let turn = (self.uses[at] - 1) as usize % rule.send.len();
        Some((at, fill(&rule.send[turn], &self.x)))
    }
}

/// The groups of a rule that fits.
fn fits(rule: &Rule, message: &str) -> Option<Vec<String>> {
    let fold = |character: char| match character {
        _ if !rule.ignore_case => character,
        'A'..='Z' => character.to_ascii_lowercase(),
        '\u{212A}' => 'k',
        'ẞ' => 'ß',
        'Σ' | 'ς' => 'σ',
        _ => character,
    };
    let characters: Vec<char> = message.chars().collect();
    let folded: Vec<char> = message.chars().map(fold).collect();
    let wanted = |text: &str| text.chars().map(fold).collect::<Vec<char>>();
    let part = |range: std::ops::Range<usize>| characters[range].iter().collect::<String>();
    let (all, end) = (String::new(), characters.len());
    match &rule.matcher {
        Matcher::Any => Some(vec![all]),
        Matcher::Equals(text) => (folded == wanted(text)).then(|| vec![all]),
        Matcher::Prefix(text) => {
            let wanted = wanted(text);
            folded.starts_with(&wanted).then(|| vec![all, part(wanted.len()..end)])
        }
        Matcher::Contains(text) => {
            let wanted = wanted(text);
            let at = folded.windows(wanted.len()).position(|window| window == wanted)?;
            Some(vec![all, part(0..at), part(at + wanted.len()..end)])
        }
        Matcher::Matches(pattern) => {
            let flag = if rule.ignore_case { "(?i)" } else { "" };
            let regex = Regex::new(&format!("{flag}{pattern}")).unwrap();
            let mut captures = regex.create_captures();
            regex.captures(message, &mut captures);
            captures.is_match().then(|| {
                let groups = captures.iter();
                groups.map(|group| group.map_or("", |span| &message[span]).to_owned()).collect()
            })
        }
    }
}

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

/// The book without what is refused as never reached, and the numbers of what is left. By the
/// promise of such a refusal that book answers as the whole one.
fn reached(book: &RuleBook) -> (Arc<Rules>, Vec<usize>) {
    let mut left: Vec<usize> = (0..book.rules.len()).collect();
    loop {
        let rules = left.iter().map(|at| book.rules[*at].clone()).collect();
        match Rules::compile(&RuleBook { rules, ..book.clone() }) {
            Ok(rules) => return (rules, left),
            Err(faults) => {
                for fault in faults.iter().rev() {
                    assert!(fault.problem.starts_with("is never reached"), "{fault}");
                    left.remove(fault.rule.unwrap());
                }
            }
        }
    }
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
        let book = book(rules);
        let (rules, left) = reached(&book);
        let mut conversation = Conversation::with(&rules);
        let mut model = Model::new(&book);
        for message in &messages {
            let verdict = conversation.responder.consider(message).rule;
            let expected = model.hear(message);
            prop_assert_eq!(verdict.map(|at| left[at]), expected.as_ref().map(|(at, _)| *at));
            prop_assert_eq!(conversation.say(message), expected.map(|(_, reply)| reply));
        }
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
        let book = RuleBook { terminator, ..book(rules) };
        match Rules::compile(&book) {
            Ok(rules) => {
                let mut conversation = Conversation::with(&rules);
                for message in &messages {
                    let verdict = conversation.responder.consider(message).rule;
                    let (reply, ..) = conversation.hear(message);
                    prop_assert!(verdict.is_some() || reply.is_empty());
                    prop_assert!(str::from_utf8(&reply).is_ok());
                }
            }
            Err(faults) => {
                for fault in &faults {
                    let said = fault.to_string();
                    prop_assert!(!said.contains(char::is_control), "{:?}", said);
                    prop_assert!(said.chars().count() < 1000, "{}", said);
                    let rule = &book.rules[fault.rule.expect("all is in rules")];
                    let text = match fault.key {
                        "send" => &rule.send[0],
                        "set" => &rule.set["x"],
                        "when" => rule.when.values().next().unwrap(),
                        "matches" => match &rule.matcher {
                            Matcher::Matches(pattern) => pattern,
                            other => panic!("{other:?}"),
                        },
                        _ => continue,
                    };
                    prop_assert!(fault.at.is_none_or(|at| text.is_char_boundary(at)), "{}", fault);
                }
            }
        }
    }
}
