//! From what a rule matches to its test, and how much text and how many patterns there may be.

use super::{Compiler, Place, key, written};
use crate::responder::rules::Matcher;
use crate::responder::rules::checked::{Literal, Test};
use crate::responder::rules::lookup::TooLarge;
use crate::responder::rules::pattern::{MAX_SET_BYTES, Pattern};
use crate::responder::rules::spec::RuleFault;
use crate::responder::rules::template::Mistake;

/// What the patterns of a book may have together, in bytes.
const MAX_PATTERNS_BYTES: usize = 1 << 20;

impl<'b> Compiler<'b> {
    pub(super) fn test(&mut self, at: usize) -> Option<Test> {
        let rule = &self.book.rules[at];
        let place = Place { rule: Some(at), key: key(&rule.matcher), ..Place::default() };
        let test: fn(Literal) -> Test = match &rule.matcher {
            Matcher::Any => return Some(Test::Any),
            Matcher::Equals(_) => Test::Equals,
            Matcher::Prefix(_) => Test::Prefix,
            Matcher::Contains(_) => Test::Contains,
            Matcher::Matches(_) => |_| Test::Any,
        };
        let text = written(&rule.matcher);
        if text.is_empty() && !matches!(rule.matcher, Matcher::Equals(_)) {
            let problem = "is empty, and so is part of every text; a rule for any text has none";
            self.faults.push(place.fault(None, problem));
            return None;
        }
        if !matches!(rule.matcher, Matcher::Matches(_)) {
            return Some(test(Literal::new(text, rule.ignore_case)));
        }
        if self.compiled_bytes > self.max_compiled_bytes {
            // That was told, and to read the others would only take longer.
            return None;
        }
        match self.pattern(text, rule.ignore_case) {
            Ok(pattern) => {
                let problem = self.patterns[pattern].objection();
                if let Some(problem) = problem.filter(|_| !self.gaps.of(at).reach) {
                    self.faults.push(place.fault(None, problem));
                    return None;
                }
                Some(Test::Matches(pattern))
            }
            Err(Mistake { at, problem }) => {
                self.faults.push(place.fault(Some(at), problem));
                None
            }
        }
    }

    fn pattern(&mut self, text: &'b str, ignore_case: bool) -> Result<usize, Mistake> {
        if let Some(known) = self.places.get(&(text, ignore_case)) {
            return Ok(*known);
        }
        self.pattern_bytes += text.len();
        if self.pattern_bytes > MAX_PATTERNS_BYTES {
            let problem =
                format!("all patterns together have more than {MAX_PATTERNS_BYTES} bytes");
            return Err(Mistake { at: 0, problem });
        }
        let pattern = Pattern::new(text, ignore_case)?;
        self.compiled_bytes += pattern.compiled_bytes();
        if self.compiled_bytes > self.max_compiled_bytes {
            let max = self.max_compiled_bytes;
            let problem = format!(
                "up to here the patterns become larger than {max} bytes together; \
                 [0-9] and [A-Za-z] take far less than \\d and \\w"
            );
            return Err(Mistake { at: 0, problem });
        }
        self.patterns.push(pattern);
        self.places.insert((text, ignore_case), self.patterns.len() - 1);
        Ok(self.patterns.len() - 1)
    }
}

/// What only shows when all are arranged for the search.
pub(super) fn too_large(error: TooLarge) -> RuleFault {
    match error {
        TooLarge::Literals => {
            let place = Place { rule: None, key: "rules", ..Place::default() };
            place.fault(None, "hold more text than can be searched for at once")
        }
        TooLarge::Patterns(rule) => {
            let place = Place { rule: Some(rule as usize), key: "matches", ..Place::default() };
            let problem = format!(
                "up to here the patterns without a text of their own become larger than \
                 {MAX_SET_BYTES} bytes together; repeat less in them"
            );
            place.fault(None, problem)
        }
    }
}
