//! How much a search does at most, whatever a client writes.

use std::cell::Cell;

use super::*;
use crate::responder::rules::plan::Rules;
use crate::responder::rules::{Matcher, Rule, RuleBook};

fn rules(matchers: impl IntoIterator<Item = Matcher>) -> Rules {
    let rule = |matcher| Rule { matcher, times: Some(1), ..Rule::default() };
    let rules = matchers.into_iter().map(rule).collect();
    let rules = Rules::compile(&RuleBook { rules, ..RuleBook::default() });
    std::sync::Arc::into_inner(rules.unwrap()).unwrap()
}

fn pattern(pattern: &str) -> Matcher {
    Matcher::Matches(pattern.to_owned())
}

/// How often patterns were tried so far in this lookup.
fn tries(lookup: &Lookup) -> usize {
    lookup.borrow().map_or(0, |scratch| scratch.matching.tries)
}

/// How often a search among these tries a pattern, and asks whether a rule is open, where none
/// answers.
#[track_caller]
fn work<const N: usize>(matchers: [Matcher; N], text: &str, is_open: bool) -> (usize, usize) {
    let lookup = rules(matchers).lookup;
    let asked = Cell::new(0);
    let count = |_| {
        asked.set(asked.get() + 1);
        is_open
    };
    assert_eq!(lookup.first(text, &mut lookup.borrow(), count), None);
    (tries(&lookup), asked.get())
}

#[test]
fn a_pattern_is_tried_once_however_often_what_it_needs_stands_in_the_text() {
    #[track_caller]
    fn check<const N: usize>(patterns: [&str; N], text: &str) {
        let (tries, asked) = work(patterns.map(pattern), text, true);
        assert!((1..=N).contains(&tries), "{tries} tries of {N} patterns");
        assert!(asked <= 16 * N, "{asked} times asked");
    }
    let many = |text: &str| text.repeat(2000);
    check([r"(?<what>SET|GET) .*\b(?<n>\d+)( [A-Z]+)?!"], &many("SET GET "));
    check(["(key|val)=[a-z= ]*[0-9]{3}[.;]"], &many("key=val="));
    check(["[ab]*a[ab]{20}c"], &many("abbab"));
    check(["key=[a-z= ]*[0-9]{3}", "val=[a-z= ]*[0-9]{3}"], &many("key=val="));
    check(["(?i)key=[a-z= ]*[0-9]{3}", "(?i)(key|val)=[a-z= ]*[0-9]{4}"], &many("Key=vAl="));
}

#[test]
fn equal_patterns_are_tried_once_for_all_of_their_rules() {
    let matchers = [(); 50].map(|()| pattern("(key|val)=.*[0-9]"));
    assert_eq!(work(matchers, "key=val=key=", true).0, 1);
}

#[test]
fn a_pattern_that_failed_is_tried_again_on_the_next_text() {
    let lookup = rules([pattern("(key|val)=.*[0-9]")]).lookup;
    for (tried, text) in [(1, "key="), (2, "val="), (3, "key=1")] {
        let found = lookup.first(text, &mut lookup.borrow(), |_| true);
        assert_eq!((found, tries(&lookup)), (text.ends_with('1').then_some(0), tried));
    }
}

#[test]
fn rules_that_are_not_open_are_asked_once_however_often_their_texts_stand_there() {
    let contains = |text: &str| Matcher::Contains(text.to_owned());
    let rules = ["b", "a", "ab", "ba", "aba"].map(contains);
    assert_eq!(work(rules.clone(), &"ab".repeat(2000), false), (0, 5));
    let mut nested: Vec<String> = (1..=64).map(|length| "a".repeat(length)).collect();
    nested.reverse();
    let nested: [Matcher; 64] = std::array::from_fn(|at| contains(&nested[at]));
    assert_eq!(work(nested, &"a".repeat(2000), false), (0, 64));
}

#[test]
fn what_clients_make_patterns_remember_is_bounded_for_all_of_them_together() {
    let patterns = (0..40).map(|at| pattern(&format!("^k{at:02} [ab]*a[ab]{{14}}c")));
    let lookup = rules(patterns).lookup;
    lookup.borrow().unwrap().matching.max_kept_bytes = 256 << 10;
    let (mut letters, mut most, mut thrown_away) = (1_u32, 0, 0);
    for at in 0..40 {
        let letter = |_| {
            letters = letters.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if letters >> 31 == 0 { 'a' } else { 'b' }
        };
        let text: String = format!("k{at:02} ").chars().chain((0..500).map(letter)).collect();
        assert_eq!(lookup.first(&text, &mut lookup.borrow(), |_| true), None);
        let scratch = lookup.borrow().unwrap();
        let kept = || scratch.matching.caches.iter().flatten();
        let bytes: usize = kept().map(|kept| kept.cache.memory_usage()).sum();
        assert_eq!(bytes, scratch.matching.kept_bytes);
        (most, thrown_away) = (most.max(bytes), thrown_away + usize::from(bytes == 0));
    }
    assert!((128 << 10..=256 << 10).contains(&most), "{most} bytes");
    assert!((1..20).contains(&thrown_away), "{thrown_away} times");
    // All of them answer all the same.
    let text = format!("k39 {}c", "a".repeat(15));
    assert_eq!(lookup.first(&text, &mut lookup.borrow(), |_| true), Some(39));
}
