//! From what was written to what is carried out. Every fault is noted and the work goes on, so
//! that the author sees all of them at once.

mod awaited;
mod matchers;
mod reached;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::checked::Test;
use super::gaps::{Gaps, RuleGaps};
use super::lookup::Lookup;
use super::pattern::Pattern;
use super::plan::{Assignment, Becomes, Condition, Plan, Rules};
use super::spec::{Fault, Matcher, Rule, RuleBook, RuleFault};
use super::template::{BUILT_IN, Captures, LineEnds, Mistake, Scope, Template, cut, is_name};

use matchers::too_large;

/// A reply that comes later than this has nobody who waits for it.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What the patterns of a book may become, each by itself: memory for all threads, and time before
/// the start.
const MAX_COMPILED_BYTES: usize = 128 << 20;

pub(super) fn compile(book: &RuleBook) -> Result<Rules, Vec<RuleFault>> {
    compile_within(book, MAX_COMPILED_BYTES)
}

/// All that is wrong whatever fills the gaps.
pub(super) fn faults(book: &RuleBook, gaps: &Gaps) -> Vec<RuleFault> {
    Compiler::new(book, MAX_COMPILED_BYTES, gaps).compile().err().unwrap_or_default()
}

/// So many bytes may the patterns become.
pub(super) fn compile_within(
    book: &RuleBook,
    max_compiled_bytes: usize,
) -> Result<Rules, Vec<RuleFault>> {
    Compiler::new(book, max_compiled_bytes, &Gaps::NONE).compile()
}

/// Where a fault is.
#[derive(Debug, Clone, Copy, Default)]
struct Place<'a> {
    rule: Option<usize>,
    key: &'static str,
    entry: Option<&'a str>,
    index: Option<usize>,
}

impl Place<'_> {
    fn fault(self, at: Option<usize>, problem: impl Into<String>) -> RuleFault {
        let Self { rule, key, entry, index } = self;
        RuleFault { rule, key, entry: entry.map(str::to_owned), index, at, problem: problem.into() }
    }
}

struct Compiler<'b> {
    book: &'b RuleBook,
    gaps: &'b Gaps,
    ends: LineEnds<'b>,
    variables: Vec<String>,
    values: Vec<Box<str>>,
    /// Which variables a rule sets, and to what if that is known.
    becomes: HashMap<&'b str, Known>,
    patterns: Vec<Pattern>,
    /// Equal patterns are one.
    places: HashMap<(&'b str, bool), usize>,
    pattern_bytes: usize,
    compiled_bytes: usize,
    max_compiled_bytes: usize,
    counters: usize,
    faults: Vec<RuleFault>,
}

/// The values that a variable may come to have.
#[derive(Debug, Default)]
struct Known {
    values: BTreeSet<String>,
    is_open: bool,
    /// Whether it is open by what could not be read.
    is_unknown: bool,
}

impl<'b> Compiler<'b> {
    fn new(book: &'b RuleBook, max_compiled_bytes: usize, gaps: &'b Gaps) -> Self {
        let set = book.rules.iter().flat_map(|rule| rule.set.keys());
        let names: BTreeSet<&String> = book.state.keys().chain(set).collect();
        let variables: Vec<String> = names.into_iter().cloned().collect();
        let ends = LineEnds::new(book.terminator.as_deref());
        let initial = |name| book.state.get(name).map_or("", String::as_str);
        let values = variables.iter().map(|name| ends.settle(initial(name)).into()).collect();
        Self {
            book,
            gaps,
            ends,
            variables,
            values,
            becomes: HashMap::new(),
            patterns: Vec::new(),
            places: HashMap::new(),
            pattern_bytes: 0,
            compiled_bytes: 0,
            max_compiled_bytes,
            counters: 0,
            faults: Vec::new(),
        }
    }

    /// The rules; else all that is wrong with them.
    fn compile(mut self) -> Result<Rules, Vec<RuleFault>> {
        self.check_names();
        let greeting = self.greeting();
        let tests: Vec<Option<Test>> = (0..self.book.rules.len()).map(|at| self.test(at)).collect();
        let plans: Vec<Plan> =
            tests.iter().enumerate().map(|(at, test)| self.plan(at, test.as_ref())).collect();
        let place = Place { rule: None, key: "default", ..Place::default() };
        let captures = Captures::Nothing("`default` captures nothing");
        let send = self.texts(place, &self.book.default, captures);
        let counter = (send.len() > 1).then(|| self.counter());
        let default = Plan { send: send.into(), counter, ..Plan::default() };
        self.check_reach(&tests, &plans);
        let Self { values, variables, patterns, counters, mut faults, book, .. } = self;
        if faults.is_empty() {
            let tests: Vec<Test> = tests.into_iter().flatten().collect();
            let mut taken_apart = vec![false; patterns.len()];
            for (test, plan) in tests.iter().zip(&plans) {
                if let Test::Matches(pattern) = test {
                    taken_apart[*pattern] |= plan.has_captures;
                }
            }
            let lookup = Lookup::new(tests, patterns, taken_apart);
            let lookup = lookup.map_err(|error| vec![too_large(error)])?;
            let terminator = book.terminator.as_deref().map(Into::into);
            return Ok(Rules {
                lookup,
                plans,
                default,
                greeting,
                terminator,
                variables,
                values,
                counters,
            });
        }
        faults.sort_by_key(|fault| fault.rule);
        Err(faults)
    }

    fn counter(&mut self) -> usize {
        self.counters += 1;
        self.counters - 1
    }

    fn variable(&self, name: &str) -> Option<usize> {
        self.variables.binary_search_by(|known| known.as_str().cmp(name)).ok()
    }

    fn check_names(&mut self) {
        let state = self.book.state.keys().map(|name| (None, "state", name));
        let set = self.book.rules.iter().enumerate();
        let set =
            set.flat_map(|(at, rule)| rule.set.keys().map(move |name| (Some(at), "set", name)));
        for (rule, key, name) in state.chain(set) {
            let problem = if BUILT_IN.contains(&name.as_str()) {
                format!("{{{name}}} means something else already; choose another name")
            } else if !is_name(name) {
                let shown = cut(name);
                format!("\"{shown}\" is no name: a letter or _, then letters, digits, _ and -")
            } else {
                continue;
            };
            let place = Place { rule, key, entry: Some(name), index: None };
            self.faults.push(place.fault(None, problem));
        }
    }

    // ---- texts ----

    fn template(
        &mut self,
        place: Place<'_>,
        text: &str,
        captures: Option<Captures<'_>>,
    ) -> Template {
        let mut mistakes = Vec::new();
        let scope = Scope { captures, variables: &self.variables, is_open: self.gaps.names };
        let template = Template::read(text, &scope, self.ends, &mut mistakes);
        let faults =
            mistakes.into_iter().map(|Mistake { at, problem }| place.fault(Some(at), problem));
        self.faults.extend(faults);
        template
    }

    /// What is sent: ended as this book's replies are.
    fn text(&mut self, place: Place<'_>, text: &str, captures: Option<Captures<'_>>) -> Template {
        let template = self.template(place, text, captures);
        match &self.book.terminator {
            Some(terminator) => template.ended(terminator),
            None => template,
        }
    }

    fn texts(
        &mut self,
        place: Place<'_>,
        texts: &[String],
        captures: Captures<'_>,
    ) -> Vec<Template> {
        let is_list = texts.len() > 1;
        let mut read = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let place = Place { index: is_list.then_some(index), ..place };
            read.push(self.text(place, text, Some(captures)));
        }
        read
    }

    fn greeting(&mut self) -> Option<Template> {
        let text = self.book.greeting.as_ref()?;
        let place = Place { rule: None, key: "greeting", ..Place::default() };
        Some(self.text(place, text, None))
    }

    // ---- rules ----

    fn plan(&mut self, at: usize, test: Option<&Test>) -> Plan {
        let rule = &self.book.rules[at];
        let groups = match test {
            Some(Test::Matches(pattern)) => Some(self.patterns[*pattern].groups().to_vec()),
            _ => None,
        };
        let captures = match (&rule.matcher, &groups) {
            _ if self.gaps.of(at).captures => Captures::Unknown,
            (Matcher::Any, _) => Captures::Nothing("a rule for any text captures nothing"),
            (Matcher::Equals(_), _) => Captures::Nothing("`equals` captures nothing"),
            (Matcher::Prefix(_), _) => Captures::Numbered("`prefix`", 1),
            (Matcher::Contains(_), _) => Captures::Numbered("`contains`", 2),
            (Matcher::Matches(_), Some(groups)) => Captures::Groups(groups),
            (Matcher::Matches(_), None) => Captures::Unknown,
        };
        let place = Place { rule: Some(at), ..Place::default() };
        let set = self.assignments(place, rule, captures);
        let send = self.texts(Place { key: "send", ..place }, &rule.send, captures);
        let conditions = self.conditions(rule);
        self.check_rule(place, rule, self.gaps.of(at));
        let filled = set.iter().filter_map(|assignment| match &assignment.becomes {
            Becomes::Filled(template) => Some(template),
            Becomes::Fixed(_) => None,
        });
        let has_captures = filled.chain(&send).any(Template::has_captures);
        let counts = rule.times.is_some() || send.len() > 1;
        Plan {
            conditions,
            times: rule.times,
            counter: counts.then(|| self.counter()),
            set,
            send: send.into(),
            has_captures,
            delay: rule.delay,
            jitter: rule.jitter,
            close: rule.close,
            fault: rule.fault,
            probability: rule.probability,
        }
    }

    fn assignments(
        &mut self,
        place: Place<'_>,
        rule: &'b Rule,
        captures: Captures<'_>,
    ) -> Box<[Assignment]> {
        let mut assignments = Vec::with_capacity(rule.set.len());
        for (name, text) in &rule.set {
            let place = Place { key: "set", entry: Some(name), ..place };
            let told = self.faults.len();
            let template = self.template(place, text, Some(captures));
            // What it is meant to become is not known either.
            let is_unknown = self.faults.len() > told
                || self.gaps.values.contains(name)
                || matches!(captures, Captures::Unknown);
            let variable = self.variable(name).expect("every variable that is set is known");
            let known = self.becomes.entry(name).or_default();
            known.is_open |= is_unknown;
            known.is_unknown |= is_unknown;
            let becomes = match template.fixed() {
                Some(value) => {
                    known.values.insert(value.to_owned());
                    self.values.push(value.into());
                    Becomes::Fixed(self.values.len() - 1)
                }
                None => {
                    known.is_open = true;
                    Becomes::Filled(template)
                }
            };
            assignments.push(Assignment { variable, becomes });
        }
        assignments.into()
    }

    /// Whether they can hold is asked when it is known what all rules set.
    fn conditions(&self, rule: &Rule) -> Box<[Condition]> {
        let known = rule.when.iter().filter_map(|(name, value)| {
            let value = self.ends.settle(value).into();
            Some(Condition { variable: self.variable(name)?, value })
        });
        known.collect()
    }

    fn check_rule(&mut self, place: Place<'_>, rule: &Rule, gaps: RuleGaps) {
        let mut refuse = |key, problem: &str| {
            self.faults.push(Place { key, ..place }.fault(None, problem));
        };
        if rule.times == Some(0) {
            refuse("times", "is 0: the rule would never answer; 1 or more");
        }
        if rule.delay.saturating_add(rule.jitter) > MAX_DELAY {
            let key = if rule.delay > MAX_DELAY { "delay" } else { "jitter" };
            refuse(key, "comes to more than a day; delay and jitter together are at most 24h");
        }
        if gaps.answer {
            return;
        }
        if rule.fault.is_none() && rule.probability != super::Probability::CERTAIN {
            refuse("probability", "is that of a `fault`, and the rule has none");
        }
        if rule.send.is_empty() {
            match rule.fault {
                Some(Fault::Half) => refuse("fault", "\"half\" has no `send` to take the half of"),
                Some(Fault::Garbage) => refuse("fault", "\"garbage\" has no `send` to replace"),
                Some(Fault::Reset | Fault::Stall) | None => {}
            }
        }
    }
}

/// What a matcher is called.
pub(super) fn key(matcher: &Matcher) -> &'static str {
    match matcher {
        Matcher::Any => "rule",
        Matcher::Equals(_) => "equals",
        Matcher::Prefix(_) => "prefix",
        Matcher::Contains(_) => "contains",
        Matcher::Matches(_) => "matches",
    }
}

pub(super) fn written(matcher: &Matcher) -> &str {
    match matcher {
        Matcher::Any => "",
        Matcher::Equals(text)
        | Matcher::Prefix(text)
        | Matcher::Contains(text)
        | Matcher::Matches(text) => text,
    }
}
