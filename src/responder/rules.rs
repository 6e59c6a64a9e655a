//! Replies from a list of rules, tried in order: a device or a line protocol that is simulated
//! without a script. [`RuleBook`] is what somebody wrote, [`Rules`] what came of it for all
//! connections, [`RulesResponder`] answers one of them.

mod answering;
mod arrange;
mod certain;
mod checked;
mod compile;
mod fold;
mod futile;
mod gaps;
mod hearing;
mod literals;
mod lookup;
mod marks;
mod pattern;
mod plan;
mod reach;
mod spec;
mod state;
mod template;
mod timestamp;
#[cfg(any(test, fuzzing))]
pub(crate) mod trial;
mod verdict;

use std::sync::Arc;

pub use answering::RulesResponder;
pub(crate) use gaps::{Gaps, RuleGaps};
pub(crate) use hearing::Hearing;
pub use plan::Rules;
pub use spec::{Fault, Matcher, Probability, Rule, RuleBook, RuleFault};
pub use verdict::{PassedOver, Verdict, Why};

use crate::responder::Client;

impl Rules {
    /// Checks a book and prepares it for its connections.
    ///
    /// # Errors
    /// All that is wrong with it: first what concerns the book, then the rules in their order.
    pub fn compile(book: &RuleBook) -> Result<Arc<Self>, Vec<RuleFault>> {
        compile::compile(book).map(Arc::new)
    }

    /// All that is wrong with a book of which not all is known.
    pub(crate) fn faults(book: &RuleBook, gaps: &Gaps) -> Vec<RuleFault> {
        compile::faults(book, gaps)
    }

    /// What answers one connection.
    #[must_use]
    pub fn responder(self: &Arc<Self>, client: &Client<'_>) -> RulesResponder {
        RulesResponder::new(self.clone(), client)
    }
}

#[cfg(test)]
mod tests;
