//! Patterns that cover: those that match a piece of a text match the text too, if what stands
//! around the piece does not matter to them.

use std::cell::OnceCell;

use regex_syntax::hir::{Look, LookSet};

use crate::responder::rules::certain::Certain;
use crate::responder::rules::checked::Test;
use crate::responder::rules::lookup::Lookup;
use crate::responder::rules::pattern::Pattern;

/// The patterns of a group, arranged for the search, in the order of their rules.
pub(super) struct ByPatterns {
    lookup: Lookup,
    rules: Vec<u32>,
    looks: Vec<LookSet>,
    ignore_case: Vec<OnceCell<bool>>,
}

impl ByPatterns {
    /// By the place of each pattern, its first rule. `None` when together they would become too
    /// large, which is a fault that others see.
    pub(super) fn new(
        own: impl Iterator<Item = (usize, u32)>,
        patterns: &[Pattern],
    ) -> Option<Self> {
        let mut own: Vec<(usize, u32)> = own.collect();
        own.sort_unstable_by_key(|(_, rule)| *rule);
        let tests = (0..own.len()).map(Test::Matches).collect();
        let patterns: Vec<Pattern> = own.iter().map(|(at, _)| patterns[*at].clone()).collect();
        let looks = patterns.iter().map(Pattern::looks).collect();
        let lookup = Lookup::new(tests, patterns, vec![false; own.len()]).ok()?;
        let rules = own.iter().map(|(_, rule)| *rule).collect();
        Some(Self { lookup, rules, looks, ignore_case: vec![OnceCell::new(); own.len()] })
    }

    /// The first rule before `best` that answers whatever has this text; else `best`.
    pub(super) fn first(&self, certain: &Certain, best: u32) -> u32 {
        let known = known(certain, LookSet::full());
        self.first_of(certain, best, |at| self.looks[at].subtract(known).is_empty())
    }

    /// The same of a text that is folded.
    pub(super) fn first_folded(&self, certain: &Certain, best: u32) -> u32 {
        // Where a word ends may depend on the case.
        let lines = [Look::Start, Look::End, Look::StartLF, Look::EndLF];
        let known = known(certain, lines.into_iter().fold(LookSet::empty(), LookSet::insert));
        let ignores_case = |at: usize| {
            let pattern = self.lookup.pattern(at);
            *self.ignore_case[at].get_or_init(|| pattern.ignores_all_case())
        };
        self.first_of(certain, best, |at| {
            self.looks[at].subtract(known).is_empty() && ignores_case(at)
        })
    }

    fn first_of(&self, certain: &Certain, best: u32, holds_on: impl Fn(usize) -> bool) -> u32 {
        let is_open = |at: u32| self.rules[at as usize] < best && holds_on(at as usize);
        let found = self.lookup.first(&certain.text, &mut self.lookup.borrow(), is_open);
        found.map_or(best, |at| self.rules[at])
    }
}

/// The looks that see the same in a text of which this is a piece as in the piece alone.
fn known(certain: &Certain, of_whole: LookSet) -> LookSet {
    match certain {
        Certain { is_whole: true, .. } => of_whole,
        // Each looks at what stands before it alone.
        Certain { at_start: true, .. } => LookSet::singleton(Look::Start).insert(Look::StartLF),
        _ => LookSet::empty(),
    }
}
