//! Which rule fits a text: the first of all that match and are open, found without trying one
//! after another. What it costs depends on the text, not on how many rules there are.

use std::collections::BTreeMap;
use std::fmt;

use regex_automata::meta::Cache;
use regex_automata::util::pool::{Pool, PoolGuard};

use super::fold::{Folding, is_caseless};
use super::literals::{Gathered, Literals, NONE};
use super::pattern::{Pattern, PatternsAtOnce, SetCache, Slot};

/// A matcher that was checked.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Any,
    Equals(Literal),
    Prefix(Literal),
    Contains(Literal),
    /// By its place among the patterns.
    Matches(usize),
}

/// A plain text to compare with.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    pub(super) text: String,
    /// Only where it has characters of another case.
    pub(super) ignores_case: bool,
}

impl Literal {
    pub(super) fn new(text: &str, ignore_case: bool) -> Self {
        Self { text: text.to_owned(), ignores_case: ignore_case && !is_caseless(text) }
    }
}

/// All tests, arranged for the search.
pub(super) struct Lookup {
    tests: Vec<Test>,
    /// The rules that any text fits, in order.
    any: Vec<u32>,
    exact: Literals,
    /// Its texts are folded.
    folded: Option<Literals>,
    folding: Folding,
    patterns: Vec<Pattern>,
    all_patterns: Option<PatternsAtOnce>,
    /// The rules of each pattern, in order.
    pattern_rules: Vec<Vec<u32>>,
    first_with_pattern: u32,
    scratch: Option<Pool<Scratch, MakeScratch>>,
}

type MakeScratch =
    Box<dyn Fn() -> Scratch + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// What a search writes to: kept with the rules, one for each thread that searches at once, since
/// for each connection it would be too much. Taking one never waits.
pub(super) struct Scratch {
    folded: String,
    set: Option<SetCache>,
    /// Of each pattern, once it was needed.
    caches: Vec<Option<Cache>>,
    slots: Vec<Slot>,
}

/// Borrowed for one message.
pub(super) type Borrowed<'l> = Option<PoolGuard<'l, Scratch, MakeScratch>>;

/// The rules are more than a search can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    Literals,
    Patterns,
}

impl Lookup {
    pub(super) fn new(tests: Vec<Test>, patterns: Vec<Pattern>) -> Result<Self, TooLarge> {
        let folding = folding(&tests);
        let mut any = Vec::new();
        let (mut exact, mut folded) = (Gathered::default(), Gathered::default());
        let mut pattern_rules = vec![Vec::new(); patterns.len()];
        for (rule, test) in (0..).zip(&tests) {
            let mut gather = |pick: fn(&mut Gathered) -> &mut BTreeMap<String, Vec<u32>>,
                              literal: &Literal| {
                let (texts, text) = match literal.ignores_case {
                    true => (&mut folded, folding.folded(&literal.text)),
                    false => (&mut exact, literal.text.clone()),
                };
                pick(texts).entry(text).or_default().push(rule);
            };
            match test {
                Test::Any => any.push(rule),
                Test::Equals(literal) => gather(|texts| &mut texts.equal, literal),
                Test::Prefix(literal) => gather(|texts| &mut texts.prefixes, literal),
                Test::Contains(literal) => gather(|texts| &mut texts.contained, literal),
                Test::Matches(pattern) => pattern_rules[*pattern].push(rule),
            }
        }
        let folded = match folded.is_empty() {
            true => None,
            false => Some(Literals::new(&folded).ok_or(TooLarge::Literals)?),
        };
        let exact = Literals::new(&exact).ok_or(TooLarge::Literals)?;
        let all_patterns = match patterns.is_empty() {
            true => None,
            false => Some(PatternsAtOnce::new(&patterns).ok_or(TooLarge::Patterns)?),
        };
        let first_with_pattern = pattern_rules.iter().flatten().min().copied().unwrap_or(NONE);
        let scratch = scratch(folded.is_some(), all_patterns.as_ref(), patterns.len());
        Ok(Self {
            tests,
            any,
            exact,
            folded,
            folding,
            patterns,
            all_patterns,
            pattern_rules,
            first_with_pattern,
            scratch,
        })
    }

    pub(super) fn borrow(&self) -> Borrowed<'_> {
        self.scratch.as_ref().map(Pool::get)
    }

    /// The first rule that fits the text and is open.
    pub(super) fn first(
        &self,
        text: &str,
        scratch: &mut Borrowed<'_>,
        is_open: impl Fn(u32) -> bool,
    ) -> Option<usize> {
        let any = self.any.iter().copied().find(|rule| is_open(*rule));
        let mut best = first_literal(&self.exact, text, any.unwrap_or(NONE), &is_open);
        if let Some(scratch) = scratch {
            let Scratch { folded, set, .. } = &mut **scratch;
            if let Some(literals) = &self.folded {
                self.folding.fold(text, folded);
                best = first_literal(literals, folded, best, &is_open);
            }
            if self.first_with_pattern < best
                && let (Some(all), Some(cache)) = (&self.all_patterns, set)
            {
                for pattern in all.find(text, cache) {
                    let rules = self.pattern_rules[pattern].iter().copied();
                    let open = rules.take_while(|rule| *rule < best).find(|rule| is_open(*rule));
                    best = open.unwrap_or(best);
                }
            }
        }
        (best != NONE).then_some(best as usize)
    }

    /// Whether the rule fits, by itself: for a person who asks, not for a server that answers.
    pub(super) fn fits(&self, rule: usize, text: &str) -> bool {
        let compare = |literal: &Literal, holds: fn(&str, &str) -> bool| match literal.ignores_case
        {
            true => holds(&self.folding.folded(text), &self.folding.folded(&literal.text)),
            false => holds(text, &literal.text),
        };
        match &self.tests[rule] {
            Test::Any => true,
            Test::Equals(literal) => compare(literal, |text, literal| text == literal),
            Test::Prefix(literal) => compare(literal, |text, literal| text.starts_with(literal)),
            Test::Contains(literal) => compare(literal, |text, literal| text.contains(literal)),
            Test::Matches(pattern) => self.patterns[*pattern].is_match(text),
        }
    }

    /// What the rule, which fits the text, captures of it.
    pub(super) fn capture<'t>(
        &self,
        rule: usize,
        text: &'t str,
        scratch: &'t mut Borrowed<'_>,
    ) -> Captured<'t> {
        match &self.tests[rule] {
            Test::Any | Test::Equals(_) => Captured::Nothing,
            Test::Prefix(literal) => {
                let end = match literal.ignores_case {
                    true => skip(text, literal.text.chars().count()),
                    false => literal.text.len(),
                };
                Captured::Behind(&text[end..])
            }
            Test::Contains(literal) => {
                let (start, end) = self.place(literal, text);
                Captured::Around { before: &text[..start], behind: &text[end..] }
            }
            Test::Matches(pattern) => {
                let scratch = scratch.as_mut().expect("whoever has patterns has a scratch");
                let Scratch { caches, slots, .. } = &mut **scratch;
                let place = *pattern;
                let pattern = &self.patterns[place];
                let cache = caches[place].get_or_insert_with(|| pattern.create_cache());
                pattern.find(text, cache, slots);
                Captured::Groups { text, slots }
            }
        }
    }

    /// The first place of a literal in a text that has it.
    fn place(&self, literal: &Literal, text: &str) -> (usize, usize) {
        let found = "the text has it";
        if !literal.ignores_case {
            let start =
                memchr::memmem::find(text.as_bytes(), literal.text.as_bytes()).expect(found);
            return (start, start + literal.text.len());
        }
        // Folded, a text has other bytes but as many characters.
        let (folded, literal) = (self.folding.folded(text), self.folding.folded(&literal.text));
        let start = memchr::memmem::find(folded.as_bytes(), literal.as_bytes()).expect(found);
        let start = skip(text, folded[..start].chars().count());
        (start, start + skip(&text[start..], literal.chars().count()))
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("tests", &self.tests).finish_non_exhaustive()
    }
}

/// The first open rule before `best` with a literal that fits; else `best`.
fn first_literal(literals: &Literals, text: &str, best: u32, is_open: impl Fn(u32) -> bool) -> u32 {
    let best = literals.equal(text, best, &is_open);
    let best = literals.prefix(text, best, &is_open);
    literals.contained(text, best, &is_open)
}

/// What folds texts to compare them with the literals of these tests.
pub(super) fn folding<'t>(tests: impl IntoIterator<Item = &'t Test>) -> Folding {
    Folding::of(tests.into_iter().filter_map(|test| match test {
        Test::Equals(literal) | Test::Prefix(literal) | Test::Contains(literal) => {
            literal.ignores_case.then_some(literal.text.as_str())
        }
        Test::Any | Test::Matches(_) => None,
    }))
}

fn scratch(
    folds: bool,
    patterns: Option<&PatternsAtOnce>,
    count: usize,
) -> Option<Pool<Scratch, MakeScratch>> {
    if !folds && patterns.is_none() {
        return None;
    }
    let patterns = patterns.cloned();
    let make: MakeScratch = Box::new(move || Scratch {
        folded: String::new(),
        set: patterns.as_ref().map(PatternsAtOnce::create_cache),
        caches: (0..count).map(|_| None).collect(),
        slots: Vec::new(),
    });
    Some(Pool::new(make))
}

/// Where so many characters of the text end.
fn skip(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

/// What a matcher took out of a text.
pub(super) enum Captured<'t> {
    Nothing,
    Behind(&'t str),
    Around { before: &'t str, behind: &'t str },
    Groups { text: &'t str, slots: &'t [Slot] },
}

impl Captured<'_> {
    /// A group; empty if it took no part.
    pub(super) fn group(&self, number: usize) -> &str {
        match (self, number) {
            (Self::Behind(behind), 1) | (Self::Around { behind, .. }, 2) => behind,
            (Self::Around { before, .. }, 1) => before,
            (Self::Groups { text, slots }, number) => {
                match (slots[2 * number], slots[2 * number + 1]) {
                    (Some(start), Some(end)) => &text[start.get()..end.get()],
                    _ => "",
                }
            }
            _ => "",
        }
    }
}
