//! What all rules together make of one: it is never reached, or waits for what never comes.

use std::collections::BTreeSet;

use super::{Compiler, Place, key, written};
use crate::nearest::nearest;
use crate::responder::rules::Matcher;
use crate::responder::rules::checked::Test;
use crate::responder::rules::plan::Plan;
use crate::responder::rules::reach::{self, Subject};
use crate::responder::rules::template::{cut, listed};

impl Compiler<'_> {
    pub(super) fn check_reach(&mut self, tests: &[Option<Test>], plans: &[Plan]) {
        let in_vain = self.in_vain(plans);
        for at in 0..self.book.rules.len() {
            self.check_when(at, &in_vain);
        }
        let rules = &self.book.rules;
        let tests = tests.iter().enumerate();
        let tests = tests.map(|(at, test)| test.as_ref().filter(|_| !self.gaps.of(at).reach));
        let subjects = tests.zip(rules).map(|(test, rule)| Subject {
            test,
            when: &rule.when,
            is_limited: rule.times.is_some(),
        });
        let subjects: Vec<Subject<'_>> = subjects.collect();
        for (rule, earlier) in reach::covered(&subjects, &self.patterns) {
            let place =
                Place { rule: Some(rule), key: key(&rules[rule].matcher), ..Place::default() };
            let earlier = shown(earlier, &rules[earlier].matcher);
            let problem = format!("is never reached: {earlier} answers every such text first");
            self.faults.push(place.fault(None, problem));
        }
        if !self.book.default.is_empty()
            && let Some(at) = reach::answers_all(&subjects, &self.patterns)
        {
            let place = Place { rule: None, key: "default", ..Place::default() };
            let earlier = shown(at, &rules[at].matcher);
            self.faults
                .push(place.fault(None, format!("is never sent: {earlier} answers every text")));
        }
    }

    fn check_when(&mut self, at: usize, in_vain: &BTreeSet<(usize, usize)>) {
        if self.gaps.names {
            return;
        }
        for (name, value) in &self.book.rules[at].when {
            let place = Place { rule: Some(at), key: "when", entry: Some(name), index: None };
            let Some(known) = self.becomes.get(name.as_str()) else {
                let problem = match nearest(name, self.becomes.keys().copied()) {
                    Some(meant) => {
                        let meant = cut(meant);
                        format!("no rule sets this variable; did you mean \"{meant}\"?")
                    }
                    None => {
                        "no rule sets this variable, so there is nothing to wait for".to_owned()
                    }
                };
                self.faults.push(place.fault(None, problem));
                continue;
            };
            let value = self.ends.settle(value);
            let variable = self.variable(name).expect("what is set is known");
            if in_vain.contains(&(at, variable)) {
                let problem = "never becomes this: what sets it so waits in vain itself";
                self.faults.push(place.fault(Some(0), problem));
                continue;
            }
            let initial = &self.values[variable];
            let is_open = known.is_open || self.gaps.values.contains(name);
            if is_open || known.values.contains(&value) || **initial == *value {
                continue;
            }
            let mut values = known.values.clone();
            values.insert(initial.to_string());
            let problem = match nearest(&value, values.iter().map(String::as_str)) {
                Some(meant) => format!("never becomes this; did you mean \"{}\"?", cut(meant)),
                None => {
                    let values = values.iter().map(|value| format!("\"{}\"", cut(value)));
                    format!("never becomes this, only {}", listed(values))
                }
            };
            self.faults.push(place.fault(Some(0), problem));
        }
    }
}

fn shown(rule: usize, matcher: &Matcher) -> String {
    match matcher {
        Matcher::Any => format!("rule[{rule}] (any text)"),
        matcher => format!("rule[{rule}] ({} \"{}\")", key(matcher), cut(written(matcher))),
    }
}
