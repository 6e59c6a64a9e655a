//! Rules written back as TOML, which must read as the same rules again.

use std::collections::BTreeMap;

use super::fault_word;
use crate::config::duration;
use crate::config::settings::quoted;
use crate::responder::rules::{Matcher, Rule, RuleBook};

/// As an inline table, on one line.
pub(in crate::config) fn written(book: &RuleBook) -> String {
    let mut keys = Vec::new();
    keys.extend(book.greeting.as_deref().map(|text| format!("greeting = {}", quoted(text))));
    keys.extend(book.terminator.as_deref().map(|text| format!("terminator = {}", quoted(text))));
    keys.extend(texts("default", &book.default));
    keys.extend(named("state", &book.state));
    let rules: Vec<String> = book.rules.iter().map(rule).collect();
    keys.push(format!("rule = [{}]", rules.join(", ")));
    table(&keys)
}

fn rule(rule: &Rule) -> String {
    let mut keys = Vec::new();
    match &rule.matcher {
        Matcher::Any => {}
        Matcher::Equals(text) => keys.push(format!("equals = {}", quoted(text))),
        Matcher::Prefix(text) => keys.push(format!("prefix = {}", quoted(text))),
        Matcher::Contains(text) => keys.push(format!("contains = {}", quoted(text))),
        Matcher::Matches(text) => keys.push(format!("matches = {}", quoted(text))),
    }
    keys.push(format!("ignore_case = {}", rule.ignore_case));
    keys.extend(named("when", &rule.when));
    keys.extend(named("set", &rule.set));
    keys.extend(rule.times.map(|times| format!("times = {times}")));
    keys.extend(texts("send", &rule.send));
    keys.push(format!("delay = {}", quoted(&duration::format(rule.delay))));
    keys.push(format!("jitter = {}", quoted(&duration::format(rule.jitter))));
    keys.push(format!("close = {}", rule.close));
    if let Some(fault) = rule.fault {
        keys.push(format!("fault = {}", quoted(fault_word(fault))));
        keys.push(format!("probability = {}", f64::from(rule.probability.millionths()) / 1e6));
    }
    table(&keys)
}

fn table(keys: &[String]) -> String {
    format!("{{ {} }}", keys.join(", "))
}

fn texts(key: &str, texts: &[String]) -> Option<String> {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    (!quoted.is_empty()).then(|| format!("{key} = [{}]", quoted.join(", ")))
}

fn named(key: &str, texts: &BTreeMap<String, String>) -> Option<String> {
    let entry = |(name, text): (&String, &String)| format!("{} = {}", quoted(name), quoted(text));
    let entries: Vec<String> = texts.iter().map(entry).collect();
    (!entries.is_empty()).then(|| format!("{key} = {}", table(&entries)))
}
