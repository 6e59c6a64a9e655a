//! Rules as they are written: plain values, not yet looked at. Texts with holes stand here as
//! their author wrote them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// All that a listener with rules needs to answer its clients.
///
/// `greeting`, `default`, and a rule's `send` and `set` are texts with holes: `${1}` and `${name}`
/// are what the rule's matcher captured, `{message}`, `{peer}`, `{time}` (RFC 3339, UTC; in `send`
/// with the rule's delay, in `set` without), `{count}` (the number of the message on its
/// connection, from 1) and `{random:1..6}` (both ends included) what their names say, and `{NAME}`
/// is a variable of the connection's state. `{{` and `}}` are braces.
///
/// A line feed inside a text becomes the terminator; one at its very end is dropped, so that
/// TOML's multi-line strings read well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleBook {
    /// Sent when the connection opens.
    pub greeting: Option<String>,
    /// What ends each reply and each line in it. `None`: as the framing has it, LF for lines and
    /// nothing for raw; then a line feed inside a text stays one. So it does with an empty one.
    pub terminator: Option<String>,
    /// Sent, in turn, for a message that no rule answers. Empty: it gets no answer.
    pub default: Vec<String>,
    /// The variables of a connection's state, and with what each begins. One that only a rule's
    /// `set` names begins empty.
    pub state: BTreeMap<String, String>,
    /// Tried in this order; the first that fits answers.
    pub rules: Vec<Rule>,
}

/// When to answer, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The texts that it answers.
    pub matcher: Matcher,
    /// Whether upper and lower case are one (Unicode's simple case folding).
    pub ignore_case: bool,
    /// The plain values that variables of the state must have, all of them.
    pub when: BTreeMap<String, String>,
    /// What variables become with the answer: each text sees the state as it was before, and
    /// `send` sees it as it is behind.
    pub set: BTreeMap<String, String>,
    /// After so many uses on a connection the rule is passed over.
    pub times: Option<u32>,
    /// What is sent: one of these in turn, from the first again behind the last, each connection
    /// by itself. Empty: nothing.
    pub send: Vec<String>,
    /// How much later the answer takes effect.
    pub delay: Duration,
    /// Up to so much more, by chance.
    pub jitter: Duration,
    /// Whether the connection closes behind the answer.
    pub close: bool,
    /// What goes wrong instead of the answer.
    pub fault: Option<Fault>,
    /// How often the fault happens; else the rule answers as usual.
    pub probability: Probability,
}

/// The texts that a rule answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Matcher {
    /// Every text.
    #[default]
    Any,
    /// This text alone.
    Equals(String),
    /// Texts that begin like this; `${1}` is what stands behind.
    Prefix(String),
    /// Texts with this in them, its first place if there are more; `${1}` is what stands before,
    /// `${2}` what stands behind.
    Contains(String),
    /// Texts in which this regular expression matches anywhere, by the syntax of the crate
    /// `regex`; `${0}` is what matched, `${1}` and `${name}` are its groups. What it costs grows no
    /// faster than the text, but with what it repeats: 60,000 bytes may take `[ab]*a[ab]{3000}` as
    /// much as a second.
    Matches(String),
}

/// A failure to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset; what was not yet sent is thrown away.
    Reset,
    /// The first half of the reply's bytes is sent, without a terminator, and the connection
    /// closes.
    Half,
    /// From now on nothing is answered; the connection stays open.
    Stall,
    /// Random bytes that are no UTF-8 stand in the reply's place, as many as it has and at least
    /// one.
    Garbage,
}

/// How often something happens, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probability(u32);

impl Probability {
    /// Every time.
    pub const CERTAIN: Self = Self(1_000_000);

    /// So many times in a million; `None` above a million.
    #[must_use]
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        (millionths <= Self::CERTAIN.0).then_some(Self(millionths))
    }

    /// How many times in a million.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }
}

impl Default for Probability {
    fn default() -> Self {
        Self::CERTAIN
    }
}

/// One thing that is wrong with a [`RuleBook`], and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// Which of the rules, from 0; `None`: a key of the book itself.
    pub rule: Option<usize>,
    /// The key as it is called in a file: `send`, `when`, `default`. That of a rule as a whole is
    /// its matcher's, or `rule` for one that answers any text.
    pub key: &'static str,
    /// The variable, where `key` is `state`, `when` or `set`.
    pub entry: Option<String>,
    /// Which of the texts of a list, from 0.
    pub index: Option<usize>,
    /// The byte in the text where it is wrong.
    pub at: Option<usize>,
    /// What is wrong and what would be right, in one line without a final dot.
    pub problem: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule {
            write!(f, "rule[{rule}]: ")?;
        }
        f.write_str(self.key)?;
        if let Some(entry) = &self.entry {
            write!(f, ".{}", entry.escape_debug())?;
        }
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        if let Some(at) = self.at {
            write!(f, ", byte {at}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for RuleFault {}
