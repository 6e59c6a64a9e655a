//! Where each rule is looked for: under its own text, or under a text that whatever its pattern
//! matches must have, and only where there is none together with other such patterns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::checked::{Literal, Test, ignoring};
use super::fold::Folding;
use super::literals::Gathered;
use super::pattern::Pattern;

/// Patterns that need the same text are tried one after another where it stands; more than this
/// many are tried together.
const MAX_SHARING: usize = 4;
/// A pattern that needs one of so many texts is not looked for under each of them.
const MAX_NEEDED: usize = 16;

/// The rules by what they are looked for.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    /// Any text fits them; in order.
    pub(super) any: Vec<u32>,
    pub(super) exact: Gathered,
    /// Its texts are folded.
    pub(super) folded: Gathered,
    pub(super) folding: Folding,
    /// The patterns that are tried together, with the rules of each in order.
    pub(super) together: Vec<(usize, Vec<u32>)>,
}

/// What a pattern is looked for under.
#[derive(Debug)]
struct Key {
    literals: BTreeSet<String>,
    at_start: bool,
    is_folded: bool,
}

type Pick = fn(&mut Gathered) -> &mut BTreeMap<String, Vec<u32>>;

impl Arrangement {
    pub(super) fn new(tests: &[Test], patterns: &[Pattern]) -> Self {
        let needed: Vec<_> = patterns.iter().map(Pattern::needed).collect();
        let of_patterns =
            patterns.iter().zip(&needed).filter(|(pattern, _)| pattern.ignores_case());
        let of_patterns = of_patterns.filter_map(|(_, needed)| needed.as_ref());
        let of_patterns = of_patterns.flat_map(|needed| needed.literals.iter().map(String::as_str));
        let folding = Folding::of(ignoring(tests).chain(of_patterns));
        let keys: Vec<Option<Key>> = patterns
            .iter()
            .zip(needed)
            .map(|(pattern, needed)| {
                let (needed, is_folded) = (needed?, pattern.ignores_case());
                let fold = |text: String| if is_folded { folding.folded(&text) } else { text };
                let literals: BTreeSet<String> = needed.literals.into_iter().map(fold).collect();
                let at_start = needed.at_start;
                (literals.len() <= MAX_NEEDED).then_some(Key { literals, at_start, is_folded })
            })
            .collect();
        let keys = unshared(keys);
        let mut arrangement = Self { folding, ..Self::default() };
        let mut together: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (rule, test) in (0..).zip(tests) {
            match test {
                Test::Any => arrangement.any.push(rule),
                Test::Equals(literal) => arrangement.add(rule, literal, |texts| &mut texts.equal),
                Test::Prefix(literal) => {
                    arrangement.add(rule, literal, |texts| &mut texts.prefixes)
                }
                Test::Contains(literal) => {
                    arrangement.add(rule, literal, |texts| &mut texts.contained);
                }
                Test::Matches(pattern) => match &keys[*pattern] {
                    Some(key) => arrangement.add_key(rule, key),
                    None => together.entry(*pattern).or_default().push(rule),
                },
            }
        }
        Self { together: together.into_iter().collect(), ..arrangement }
    }

    fn add(&mut self, rule: u32, literal: &Literal, pick: Pick) {
        let (texts, text) = match literal.ignores_case {
            true => (&mut self.folded, self.folding.folded(&literal.text)),
            false => (&mut self.exact, literal.text.clone()),
        };
        pick(texts).entry(text).or_default().push(rule);
    }

    fn add_key(&mut self, rule: u32, key: &Key) {
        let texts = if key.is_folded { &mut self.folded } else { &mut self.exact };
        let texts = if key.at_start { &mut texts.prefixes } else { &mut texts.contained };
        for literal in &key.literals {
            texts.entry(literal.clone()).or_default().push(rule);
        }
    }
}

/// The keys but for those with a text that too many others have too.
fn unshared(keys: Vec<Option<Key>>) -> Vec<Option<Key>> {
    let places = |key: &Key| {
        let (at_start, is_folded) = (key.at_start, key.is_folded);
        let literals = key.literals.iter().cloned();
        literals.map(move |literal| (literal, at_start, is_folded)).collect::<Vec<_>>()
    };
    let mut sharing: HashMap<(String, bool, bool), usize> = HashMap::new();
    for place in keys.iter().flatten().flat_map(places) {
        *sharing.entry(place).or_default() += 1;
    }
    let is_alone = |key: &Key| places(key).iter().all(|place| sharing[place] <= MAX_SHARING);
    keys.into_iter().map(|key| key.filter(is_alone)).collect()
}
