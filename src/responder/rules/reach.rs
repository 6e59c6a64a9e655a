//! Rules that never answer, because an earlier one always does. What is found is so; a cover by
//! several rules together is not looked for. Of a rule only the texts are known that stand in
//! whatever it answers: an earlier one that answers such a text, whatever is around it, covers it.
//! Whether a pattern matches all that another one does is not asked.

mod by_patterns;

use std::collections::{BTreeMap, HashMap};

use super::certain::{Certain, Certainties};
use super::checked::{Literal, Test, ignoring};
use super::fold::{Folding, is_caseless};
use super::literals::{Gathered, Literals, NONE};
use super::marks::Marks;
use super::pattern::Pattern;

use by_patterns::ByPatterns;

/// A rule, as far as it decides what reaches the next ones.
pub(super) struct Subject<'a> {
    /// `None`: not known, nor so is what it answers.
    pub(super) test: Option<&'a Test>,
    pub(super) when: &'a BTreeMap<String, String>,
    /// Whether it is passed over after some uses.
    pub(super) is_limited: bool,
}

/// So many conditions of a rule are taken apart; of more, only all together and none.
const MAX_CONDITIONS: usize = 4;

type When<'a> = Vec<(&'a str, &'a str)>;

/// Each rule that an earlier one covers, with the first such. Rules are covered by those that ask
/// for no more of the state, so these are grouped by what they ask for.
pub(super) fn covered(subjects: &[Subject<'_>], patterns: &[Pattern]) -> Vec<(usize, usize)> {
    let ignoring = ignoring(subjects.iter().filter_map(|subject| subject.test));
    // Patterns that ignore case have these three times.
    let folding = Folding::of(ignoring.chain(["ks"]));
    let mut groups: HashMap<When<'_>, Group<'_>> = HashMap::new();
    for (rule, subject) in (0..).zip(subjects) {
        if let Some(test) = subject.test
            && !subject.is_limited
        {
            let when = subject.when.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            groups.entry(when.collect()).or_default().add(rule, test, patterns, &folding);
        }
    }
    let of_patterns: Vec<Certainties> =
        patterns.iter().map(|pattern| pattern.certainties(&folding)).collect();
    for (rule, subject) in (0..).zip(subjects) {
        let Some(test) = subject.test else { continue };
        for when in weaker(subject.when) {
            if let Some(group) = groups.get_mut(&when) {
                group.asking.push((rule, test));
            }
        }
    }
    let mut first = BTreeMap::new();
    // One after another: what is searched in takes far more than the rules themselves, and there
    // may be as many groups as rules.
    for group in groups.into_values() {
        for (rule, cover) in group.covered(patterns, &of_patterns, &folding) {
            let best = first.entry(rule as usize).or_insert(cover as usize);
            *best = (cover as usize).min(*best);
        }
    }
    first.into_iter().collect()
}

/// The first rule that answers every text at any time.
pub(super) fn answers_all(subjects: &[Subject<'_>], patterns: &[Pattern]) -> Option<usize> {
    subjects.iter().position(|subject| {
        let fits_all = match subject.test {
            Some(Test::Any) => true,
            Some(Test::Matches(pattern)) => patterns[*pattern].matches_always(),
            _ => false,
        };
        fits_all && subject.when.is_empty() && !subject.is_limited
    })
}

/// What asks for these values of the state, or for less.
fn weaker(when: &BTreeMap<String, String>) -> Vec<When<'_>> {
    let all: When<'_> = when.iter().map(|(name, value)| (&**name, &**value)).collect();
    if all.len() > MAX_CONDITIONS {
        return vec![Vec::new(), all];
    }
    let subset = |bits: usize| {
        let chosen = all.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        chosen.map(|(_, condition)| *condition).collect()
    };
    (0..1 << all.len()).map(subset).collect()
}

/// Rules that ask for the same values of the state.
#[derive(Default)]
struct Group<'a> {
    any: Option<u32>,
    exact: Gathered,
    folded: Gathered,
    /// By the place of the pattern, the first rule.
    patterns: BTreeMap<usize, u32>,
    /// The rules that one of these may cover.
    asking: Vec<(u32, &'a Test)>,
}

impl Group<'_> {
    fn add(&mut self, rule: u32, test: &Test, patterns: &[Pattern], folding: &Folding) {
        type Pick = fn(&mut Gathered) -> &mut BTreeMap<String, Vec<u32>>;
        let (literal, pick): (&Literal, Pick) = match test {
            Test::Equals(literal) => (literal, |texts| &mut texts.equal),
            Test::Prefix(literal) => (literal, |texts| &mut texts.prefixes),
            Test::Contains(literal) => (literal, |texts| &mut texts.contained),
            Test::Matches(pattern) if !patterns[*pattern].matches_always() => {
                self.patterns.entry(*pattern).or_insert(rule);
                return;
            }
            Test::Any | Test::Matches(_) => {
                self.any.get_or_insert(rule);
                return;
            }
        };
        let keep = |texts: &mut Gathered, text: String| {
            // Only the first counts; the rules come in their order.
            pick(texts).entry(text).or_insert_with(|| vec![rule]);
        };
        if !literal.ignores_case {
            keep(&mut self.exact, literal.text.clone());
        }
        // What has no other case covers texts of either kind.
        if literal.ignores_case || is_caseless(&literal.text) {
            keep(&mut self.folded, folding.folded(&literal.text));
        }
    }

    /// Those asking that one before them covers, each with the first such.
    fn covered(
        mut self,
        patterns: &[Pattern],
        of_patterns: &[Certainties],
        folding: &Folding,
    ) -> Vec<(u32, u32)> {
        let asking = std::mem::take(&mut self.asking);
        let first_pattern = self.patterns.values().min().copied().unwrap_or(NONE);
        let asks_patterns = asking.iter().any(|(rule, _)| *rule > first_pattern);
        let mut cover = Cover::new(self, patterns, asks_patterns);
        let first = asking.into_iter().map(|(rule, test)| {
            let first = match test {
                Test::Any => cover.any,
                Test::Matches(pattern) => {
                    let own = cover.patterns.get(pattern).copied().unwrap_or(NONE);
                    cover.first(&of_patterns[*pattern], own.min(rule))
                }
                Test::Equals(text) => {
                    cover.first(&Certainties::of_literal(text, true, true, folding), rule)
                }
                Test::Prefix(text) => {
                    cover.first(&Certainties::of_literal(text, true, false, folding), rule)
                }
                Test::Contains(text) => {
                    cover.first(&Certainties::of_literal(text, false, false, folding), rule)
                }
            };
            (rule, first)
        });
        first.filter(|(rule, first)| first < rule).collect()
    }
}

/// A group, arranged for the search.
struct Cover {
    any: u32,
    exact: (Literals, Marks),
    folded: (Literals, Marks),
    patterns: BTreeMap<usize, u32>,
    by_patterns: Option<ByPatterns>,
}

impl Cover {
    fn new(group: Group<'_>, patterns: &[Pattern], asks_patterns: bool) -> Self {
        let Group { any, exact, folded, patterns: own, asking: _ } = group;
        let by_rules = || own.iter().map(|(at, rule)| (*at, *rule));
        let by_patterns = asks_patterns.then(|| ByPatterns::new(by_rules(), patterns)).flatten();
        // Literals that are too many are a fault that others see.
        let arrange = |texts: &Gathered| {
            let literals = Literals::new(texts).unwrap_or_default();
            let marks = Marks::new(literals.contained_count());
            (literals, marks)
        };
        Self {
            any: any.unwrap_or(NONE),
            exact: arrange(&exact),
            folded: arrange(&folded),
            patterns: own,
            by_patterns,
        }
    }

    /// The first rule that answers whatever has these texts; else `best`.
    fn first(&mut self, certainties: &Certainties, best: u32) -> u32 {
        let mut best = best.min(self.any);
        for certain in &certainties.folded {
            best = first_literal(&mut self.folded, certain, best);
        }
        for certain in &certainties.exact {
            best = first_literal(&mut self.exact, certain, best);
        }
        if let Some(patterns) = &self.by_patterns {
            for certain in &certainties.exact {
                best = patterns.first(certain, best);
            }
            for certain in &certainties.folded {
                best = patterns.first_folded(certain, best);
            }
        }
        best
    }
}

fn first_literal((literals, met): &mut (Literals, Marks), certain: &Certain, best: u32) -> u32 {
    let (mut all, text, mut best) = (|_| true, &*certain.text, best);
    if certain.is_whole {
        best = literals.equal(text, best, &mut all);
    }
    if certain.at_start {
        best = literals.prefix(text, best, &mut all);
    }
    literals.contained(text, best, &mut all, met)
}
