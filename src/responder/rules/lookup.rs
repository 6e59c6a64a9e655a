//! Which rule fits a text: the first of all that match and are open, found without trying one
//! after another. What it costs depends on the text, not on how many rules there are.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use regex_automata::meta::Cache;
use regex_automata::util::pool::{Pool, PoolGuard};

use super::arrange::Arrangement;
use super::checked::{Literal, Test};
use super::fold::Folding;
use super::literals::{Literals, NONE};
use super::marks::Marks;
use super::pattern::{Pattern, PatternsAtOnce, SetCache, Slot};

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
    /// Of each pattern, whether what it captures is asked for.
    taken_apart: Vec<bool>,
    /// The patterns that are not found by a literal.
    together: Option<PatternsAtOnce>,
    /// The rules of each of those, in order.
    together_rules: Vec<Vec<u32>>,
    first_together: u32,
    scratch: Option<Pool<Scratch, MakeScratch>>,
}

type MakeScratch = Box<dyn Fn() -> Scratch + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// What a search writes to: kept with the rules, one for each thread that searches at once, since
/// for each connection it would be too much. Taking one never waits.
pub(super) struct Scratch {
    folded: String,
    /// Which contained texts were met.
    exact_met: Marks,
    folded_met: Marks,
    together: Option<SetCache>,
    matching: Matching,
}

/// What the caches of single patterns may take together, in each thread: clients decide how many
/// states their messages lead to, and the bound of one pattern is none for thousands.
const MAX_CACHES_BYTES: usize = 32 << 20;

/// What single patterns are tried with.
struct Matching {
    /// Of each pattern, once it was needed.
    caches: Vec<Option<Kept>>,
    /// What they all take.
    kept_bytes: usize,
    max_kept_bytes: usize,
    slots: Vec<Slot>,
    /// The pattern that the slots are of, if it matches the text at hand.
    found: Option<usize>,
    /// Those that do not match the text at hand: each is tried once, whatever it is found by.
    failed: Marks,
    /// How often a pattern was tried.
    #[cfg(test)]
    tries: usize,
}

struct Kept {
    cache: Cache,
    /// What it took when it was last used.
    bytes: usize,
}

/// Borrowed for one message.
pub(super) type Borrowed<'l> = Option<PoolGuard<'l, Scratch, MakeScratch>>;

/// The rules are more than a search can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    Literals,
    /// Those that are tried together, from the first up to this rule's.
    Patterns(u32),
}

impl Lookup {
    pub(super) fn new(
        tests: Vec<Test>,
        patterns: Vec<Pattern>,
        taken_apart: Vec<bool>,
    ) -> Result<Self, TooLarge> {
        let Arrangement { any, exact, folded, folding, together } =
            Arrangement::new(&tests, &patterns);
        let folded = match folded.is_empty() {
            true => None,
            false => Some(Literals::new(&folded).ok_or(TooLarge::Literals)?),
        };
        let exact = Literals::new(&exact).ok_or(TooLarge::Literals)?;
        let (which, together_rules): (Vec<usize>, Vec<Vec<u32>>) = together.into_iter().unzip();
        let together = match which.is_empty() {
            true => None,
            false => {
                let which: Vec<&Pattern> =
                    which.iter().map(|pattern| &patterns[*pattern]).collect();
                let too_large = || {
                    let most = PatternsAtOnce::most(&which);
                    TooLarge::Patterns(together_rules[most][0])
                };
                Some(PatternsAtOnce::new(&which).ok_or_else(too_large)?)
            }
        };
        let first_together = together_rules.iter().flatten().min().copied().unwrap_or(NONE);
        let mut lookup = Self {
            tests,
            any,
            exact,
            folded,
            folding,
            patterns,
            taken_apart,
            together,
            together_rules,
            first_together,
            scratch: None,
        };
        lookup.scratch = lookup.needs_scratch().then(|| lookup.make_scratch());
        Ok(lookup)
    }

    fn needs_scratch(&self) -> bool {
        self.folded.is_some() || !self.patterns.is_empty() || self.exact.contained_count() > 0
    }

    fn make_scratch(&self) -> Pool<Scratch, MakeScratch> {
        let (together, patterns) = (self.together.clone(), self.patterns.len());
        let exact = self.exact.contained_count();
        let folded = self.folded.as_ref().map_or(0, Literals::contained_count);
        let make: MakeScratch = Box::new(move || Scratch {
            folded: String::new(),
            exact_met: Marks::new(exact),
            folded_met: Marks::new(folded),
            together: together.as_ref().map(PatternsAtOnce::create_cache),
            matching: Matching::new(patterns),
        });
        Pool::new(make)
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
        let any = self.any.iter().copied().find(|rule| is_open(*rule)).unwrap_or(NONE);
        let best = match scratch {
            // Without it there is no text that another may contain.
            None => {
                let none = &mut Marks::default();
                first_literal(&self.exact, text, any, &mut |rule| is_open(rule), none)
            }
            Some(scratch) => self.first_of_all(text, any, scratch, is_open),
        };
        (best != NONE).then_some(best as usize)
    }

    fn first_of_all(
        &self,
        text: &str,
        best: u32,
        scratch: &mut Scratch,
        is_open: impl Fn(u32) -> bool,
    ) -> u32 {
        let Scratch { folded, exact_met, folded_met, together, matching } = scratch;
        matching.begin();
        // A literal only says that its pattern may match.
        let mut fits = |rule: u32| {
            is_open(rule)
                && match self.tests[rule as usize] {
                    Test::Matches(pattern) => matching.matches(self, pattern, text),
                    _ => true,
                }
        };
        let mut best = first_literal(&self.exact, text, best, &mut fits, exact_met);
        if let Some(literals) = &self.folded {
            self.folding.fold(text, folded);
            best = first_literal(literals, folded, best, &mut fits, folded_met);
        }
        if self.first_together < best
            && let (Some(patterns), Some(cache)) = (&self.together, together)
        {
            for pattern in patterns.find(text, cache) {
                let rules = self.together_rules[pattern].iter().copied();
                let open = rules.take_while(|rule| *rule < best).find(|rule| is_open(*rule));
                best = open.unwrap_or(best);
            }
        }
        best
    }

    pub(super) fn pattern(&self, pattern: usize) -> &Pattern {
        &self.patterns[pattern]
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
                let matching = &mut scratch.matching;
                if matching.found != Some(*pattern) {
                    matching.find(self, *pattern, text);
                }
                Captured::Groups { text, slots: &matching.slots }
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

impl Matching {
    fn new(patterns: usize) -> Self {
        Self {
            caches: (0..patterns).map(|_| None).collect(),
            kept_bytes: 0,
            max_kept_bytes: MAX_CACHES_BYTES,
            slots: Vec::new(),
            found: None,
            failed: Marks::new(patterns),
            #[cfg(test)]
            tries: 0,
        }
    }

    /// Another text is at hand.
    fn begin(&mut self) {
        self.found = None;
        self.failed.clear();
    }

    fn matches(&mut self, lookup: &Lookup, pattern: usize, text: &str) -> bool {
        if self.failed.has(pattern) {
            return false;
        }
        #[cfg(test)]
        {
            self.tries += 1;
        }
        let is_found = if lookup.taken_apart[pattern] {
            self.find(lookup, pattern, text)
        } else {
            let kept = kept(&mut self.caches, lookup, pattern);
            let is_found = lookup.patterns[pattern].matches_with(text, &mut kept.cache);
            self.account(pattern);
            is_found
        };
        if !is_found {
            self.failed.add(pattern);
        }
        is_found
    }

    /// Takes the text apart at once: where the rule answers, that is needed next.
    fn find(&mut self, lookup: &Lookup, pattern: usize, text: &str) -> bool {
        let kept = kept(&mut self.caches, lookup, pattern);
        let is_found = lookup.patterns[pattern].find(text, &mut kept.cache, &mut self.slots);
        self.account(pattern);
        self.found = is_found.then_some(pattern);
        is_found
    }

    /// Throws all caches away once they take too much: those in use come back soon, and which ones
    /// were not used for long need not be known.
    fn account(&mut self, used: usize) {
        let Some(kept) = &mut self.caches[used] else { return };
        let bytes = kept.cache.memory_usage();
        self.kept_bytes = self.kept_bytes - kept.bytes + bytes;
        kept.bytes = bytes;
        if self.kept_bytes > self.max_kept_bytes {
            self.caches.fill_with(|| None);
            self.kept_bytes = 0;
        }
    }
}

fn kept<'k>(caches: &'k mut [Option<Kept>], lookup: &Lookup, pattern: usize) -> &'k mut Kept {
    caches[pattern]
        .get_or_insert_with(|| Kept { cache: lookup.patterns[pattern].create_cache(), bytes: 0 })
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("tests", &self.tests).finish_non_exhaustive()
    }
}

/// The first rule before `best` that fits by a literal; else `best`.
fn first_literal(
    literals: &Literals,
    text: &str,
    best: u32,
    fits: &mut impl FnMut(u32) -> bool,
    met: &mut Marks,
) -> u32 {
    let best = literals.equal(text, best, fits);
    let best = literals.prefix(text, best, fits);
    literals.contained(text, best, fits, met)
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

#[cfg(test)]
mod tests;
