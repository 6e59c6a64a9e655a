//! What of rules could not be read, and may be anything.

use toml::de::{DeTable, DeValue};

use super::{below, keys};
use crate::config::{Fault, rules_reference};
use crate::responder::rules::{Gaps, Rule, RuleBook, RuleGaps};

/// A table of rules or of one rule, and what was found wrong with it.
struct Read<'r> {
    table: &'r DeTable<'r>,
    path: &'r str,
    kind: &'static str,
    faults: &'r [Fault],
}

impl Read<'_> {
    fn is_unread(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| {
            let name = below(self.path, key);
            let inside = format!("{name}.");
            self.faults.iter().any(|fault| fault.key == name || fault.key.starts_with(&inside))
        })
    }

    /// The values of keys that there are not: each may be meant for any.
    fn unknown(&self) -> impl Iterator<Item = &DeValue<'_>> {
        let is_known = |name: &str| {
            name == "rule" || rules_reference().iter().any(|key| key.split() == (self.kind, name))
        };
        let unknown = self.table.iter().filter(move |(name, _)| !is_known(name.get_ref()));
        unknown.map(|(_, value)| value.get_ref())
    }

    /// Whether some of its variables are not even known by name.
    fn hides_names(&self, key: &str) -> bool {
        let is_table = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
        let named = self.table.get(key).map(|value| value.get_ref());
        self.unknown().any(is_table) || named.is_some_and(|value| !is_table(value))
    }

    /// The variables under the key whose texts could not be read.
    fn without_text(&self, key: &str) -> Vec<String> {
        let named = self.table.get(key).and_then(|value| value.get_ref().as_table());
        let entries = named.into_iter().flatten();
        let without = entries.filter(|(_, value)| value.get_ref().as_str().is_none());
        without.map(|(name, _)| name.get_ref().clone().into_owned()).collect()
    }
}

/// Notes what of the book's own keys could not be read.
pub(super) fn note_book(
    gaps: &mut Gaps,
    book: &mut RuleBook,
    table: &DeTable<'_>,
    path: &str,
    faults: &[Fault],
) {
    let read = Read { table, path, kind: "rules", faults };
    let is_flag = |value: &DeValue<'_>| matches!(value, DeValue::Boolean(_));
    let rules = table.get("rule").map(|value| value.get_ref());
    gaps.names |= read.hides_names("state");
    gaps.names |= rules.is_some_and(|value| value.as_array().is_none());
    gaps.case |= read.is_unread(&["ignore_case"]) || read.unknown().any(is_flag);
    for name in read.without_text("state") {
        book.state.entry(name.clone()).or_default();
        gaps.values.insert(name);
    }
}

/// Notes what of a rule could not be read.
pub(super) fn note_rule(
    gaps: &mut Gaps,
    at: usize,
    rule: &mut Rule,
    table: Option<&DeTable<'_>>,
    path: &str,
    faults: &[Fault],
) {
    if faults.is_empty() {
        return;
    }
    let Some(table) = table else {
        gaps.names = true;
        gaps.rules.insert(at, RuleGaps { captures: true, reach: true, answer: true });
        return;
    };
    let read = Read { table, path, kind: "rule", faults };
    let has_unknown = read.unknown().next().is_some();
    let has_matcher = keys::MATCHERS.iter().any(|key| table.contains_key(*key));
    let matches = read.is_unread(&keys::MATCHERS);
    gaps.names |= read.hides_names("set");
    for name in read.without_text("set") {
        rule.set.entry(name.clone()).or_default();
        gaps.values.insert(name);
    }
    let of_rule = RuleGaps {
        captures: matches || has_unknown && !has_matcher,
        reach: matches || has_unknown || read.is_unread(&["ignore_case", "when", "times"]),
        answer: has_unknown || read.is_unread(&["send", "fault", "probability"]),
    };
    gaps.rules.insert(at, of_rule);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use crate::config::rules::read_file;
    use crate::config::section::Notes;
    use crate::config::{Fault, Origin};

    type Line = (&'static str, &'static str);

    const OF_A_RULE: [&[&[Line]]; 7] = [
        &[
            &[],
            &[("equals", "\"a\"")],
            &[("equals", "\"ab\"")],
            &[("prefix", "\"a\"")],
            &[("contains", "\"b\"")],
            &[("matches", "'^a(b)$'")],
        ],
        &[&[], &[], &[("ignore_case", "true")], &[("ignore_case", "false")]],
        &[&[], &[], &[("when", "{ x = \"1\" }")], &[("when", "{ y = \"2\" }")]],
        &[
            &[],
            &[("set", "{ x = \"1\" }")],
            &[("set", "{ y = \"${1}\" }")],
            &[("set", "{ x = \"{z}\" }")],
        ],
        &[&[], &[], &[("times", "1")]],
        &[&[], &[("send", "\"{x}\"")], &[("send", "\"{y}\"")], &[("send", "\"${1}\"")]],
        &[&[], &[], &[("fault", "\"half\"")], &[("delay", "\"25h\"")]],
    ];
    const OF_ALL: [&[&[Line]]; 4] = [
        &[&[], &[("state", "{ x = \"1\" }")], &[("state", "{ y = \"0\" }")]],
        &[&[], &[], &[("ignore_case", "true")]],
        &[&[], &[("default", "\"d\"")]],
        &[&[], &[("greeting", "\"{x}\"")]],
    ];

    fn lines(choices: &'static [&'static [&'static [Line]]]) -> impl Strategy<Value = Vec<Line>> {
        let choose = |choice: &&'static [&'static [Line]]| select(*choice);
        let chosen = choices.iter().map(choose).collect::<Vec<_>>();
        chosen.prop_map(|lines| lines.concat())
    }

    /// The lines of a file, with what is left of a table's header as lines without a value.
    fn file() -> impl Strategy<Value = Vec<Line>> {
        (lines(&OF_ALL), vec(lines(&OF_A_RULE), 1..5)).prop_map(|(all, rules)| {
            let rules = rules.into_iter().flat_map(|rule| [vec![("[[rule]]", "")], rule].concat());
            all.into_iter().chain(rules).collect()
        })
    }

    fn written(lines: &[(&str, &str)]) -> String {
        let line = |(key, value): &(&str, &str)| match *value {
            "" => format!("{key}\n"),
            value => format!("{key} = {value}\n"),
        };
        lines.iter().map(line).collect()
    }

    fn faults(source: &str) -> Vec<Fault> {
        let mut notes = Notes::new(Path::new("t.toml"), source, &|_| unreachable!());
        read_file(&mut notes, true, "");
        notes.faults
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 600,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_told_beside_a_line_that_could_not_be_read_is_so_without_it(
            lines in file(),
            damaged in any::<Index>(),
            kind in 0..3,
        ) {
            let with_values: Vec<usize> =
                (0..lines.len()).filter(|at| !lines[*at].1.is_empty()).collect();
            prop_assume!(!with_values.is_empty());
            let at = *damaged.get(&with_values);
            let (key, value) = lines[at];
            let mut broken = lines.clone();
            broken[at] = match (kind, value.starts_with('{')) {
                (0, _) => (key, "1979-05-27"),
                (1, true) if value.starts_with("{ y") => (key, "{ y = 5 }"),
                (1, true) => (key, "{ x = 5 }"),
                _ => ("zq", value),
            };
            let before = faults(&written(&lines));
            let known: BTreeSet<&str> = before.iter().map(|fault| fault.key.as_str()).collect();
            for fault in faults(&written(&broken)) {
                let line = match &fault.origin {
                    Some(Origin::File { line, .. }) => *line,
                    other => panic!("{other:?}"),
                };
                let is_so = line == at + 1 || known.contains(fault.key.as_str());
                prop_assert!(is_so, "{}\n{}", fault, written(&broken));
            }
        }
    }
}
