//! Rules that were checked, as they are carried out.

use std::time::Duration;

use super::lookup::Lookup;
use super::spec::{Fault, Probability};
use super::template::Template;

/// A [`RuleBook`](super::RuleBook) that was checked and prepared, for all connections of a
/// listener.
#[derive(Debug)]
pub struct Rules {
    pub(super) lookup: Lookup,
    pub(super) plans: Vec<Plan>,
    pub(super) default: Plan,
    pub(super) greeting: Option<Template>,
    /// `None`: the framing's.
    pub(super) terminator: Option<Box<str>>,
    /// In order.
    pub(super) variables: Vec<String>,
    /// Values that need not be written anew: first what each variable begins with.
    pub(super) values: Vec<Box<str>>,
    /// How many plans count their uses on a connection.
    pub(super) counters: usize,
}

/// What a rule does.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) conditions: Box<[Condition]>,
    pub(super) times: Option<u32>,
    /// Its place among those that count their uses.
    pub(super) counter: Option<usize>,
    pub(super) set: Box<[Assignment]>,
    pub(super) send: Box<[Template]>,
    /// Whether a text has a hole for what the matcher captures.
    pub(super) has_captures: bool,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) close: bool,
    pub(super) fault: Option<Fault>,
    pub(super) probability: Probability,
}

/// A variable's place, and the value that it must have.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) variable: usize,
    pub(super) value: Box<str>,
}

/// A variable's place, and what it becomes.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) variable: usize,
    pub(super) becomes: Becomes,
}

#[derive(Debug)]
pub(super) enum Becomes {
    /// One of the values that are kept with the rules.
    Fixed(usize),
    Filled(Template),
}
