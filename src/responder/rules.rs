//! Replies from a list of rules, tried in order: a device or a line protocol that is simulated
//! without a script. [`RuleBook`] is what somebody wrote.

mod spec;

pub use spec::{Fault, Matcher, Probability, Rule, RuleBook, RuleFault};
