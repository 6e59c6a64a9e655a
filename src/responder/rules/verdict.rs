//! Which rule would answer, and why none before it: for a person who tries rules out.

use super::answering::RulesResponder;

/// What would happen to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict<'a> {
    /// The rule that answers, from 0; `None`: the book's `default` does.
    pub rule: Option<usize>,
    /// The rules before it, all of them if none answers.
    pub passed_over: Vec<PassedOver<'a>>,
    /// Which of the texts of `send` or `default` it would be, from 0; `None`: there are none.
    pub text: Option<usize>,
    /// An earlier answer has stalled the connection, so that nothing is answered any more.
    pub is_stalled: bool,
}

/// A rule that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver<'a> {
    /// Which, from 0.
    pub rule: usize,
    /// Why not.
    pub why: Why<'a>,
}

/// Why a rule does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why<'a> {
    /// Its matcher asks for another text.
    Text,
    /// The text would do, but the state is not what it asks for.
    State {
        /// The first such variable.
        variable: &'a str,
        /// What it is now.
        is: &'a str,
        /// What the rule asks for.
        wants: &'a str,
    },
    /// Text and state would do, but it has answered as often as it may.
    UsedUp {
        /// How often that is.
        times: u32,
    },
}

impl RulesResponder {
    /// What [`respond`](crate::Responder::respond) would do with the message, rule by rule; nothing
    /// changes. To take the answer, call that.
    #[must_use]
    pub fn consider(&self, message: &str) -> Verdict<'_> {
        let mut passed_over = Vec::new();
        let mut rule = None;
        for at in 0..self.rules.plans.len() {
            match self.objection(at, message) {
                Some(why) => passed_over.push(PassedOver { rule: at, why }),
                None => {
                    rule = Some(at);
                    break;
                }
            }
        }
        let plan = rule.map_or(&self.rules.default, |rule| &self.rules.plans[rule]);
        let text = (!plan.send.is_empty()).then(|| self.memory.turn(plan));
        Verdict { rule, passed_over, text, is_stalled: self.memory.is_stalled }
    }

    fn objection(&self, rule: usize, message: &str) -> Option<Why<'_>> {
        let plan = &self.rules.plans[rule];
        if !self.rules.lookup.fits(rule, message) {
            return Some(Why::Text);
        }
        for condition in &plan.conditions {
            let is = self.memory.state.get(&self.rules, condition.variable);
            if *is != *condition.value {
                let variable = &self.rules.variables[condition.variable];
                return Some(Why::State { variable, is, wants: &condition.value });
            }
        }
        let times = plan.times.filter(|_| self.memory.is_used_up(plan))?;
        Some(Why::UsedUp { times })
    }
}
