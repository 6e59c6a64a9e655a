//! What of a book is not known, as it could not be read: nothing is concluded from that, and all
//! else is told.

use std::collections::{BTreeMap, BTreeSet};

/// Nothing of a book that code built, or that was read as a whole.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// Whether there may be variables that stand nowhere in the book.
    pub(crate) names: bool,
    /// Variables of the book that may have other values.
    pub(crate) values: BTreeSet<String>,
    /// Whether a rule that does not say it by itself may ignore case or not.
    pub(crate) case: bool,
    /// By the rules' places.
    pub(crate) rules: BTreeMap<usize, RuleGaps>,
}

/// What is not known of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RuleGaps {
    /// How it matches, and so what it captures.
    pub(crate) captures: bool,
    /// When it answers.
    pub(crate) reach: bool,
    /// What it answers.
    pub(crate) answer: bool,
}

impl Gaps {
    pub(super) const NONE: Self =
        Self { names: false, values: BTreeSet::new(), case: false, rules: BTreeMap::new() };

    pub(super) fn of(&self, rule: usize) -> RuleGaps {
        let gaps = self.rules.get(&rule).copied().unwrap_or_default();
        RuleGaps { reach: gaps.reach || self.case, ..gaps }
    }
}
