//! Values that conditions wait for: which of them never come, as only rules set them that wait in
//! vain themselves.

use std::collections::{BTreeSet, HashMap};

use super::Compiler;
use crate::responder::rules::plan::{Becomes, Condition, Plan};

/// The rules that wait for a value, by the variable and the value.
type Waiting<'p> = HashMap<usize, HashMap<&'p str, Vec<usize>>>;

impl Compiler<'_> {
    /// The rules that wait in vain, each with the variable, but for those that wait for what no
    /// rule sets: these are told of by themselves, and what is meant is not known.
    pub(super) fn in_vain(&self, plans: &[Plan]) -> BTreeSet<(usize, usize)> {
        let mut waiting = Waiting::new();
        let mut missing = vec![0_usize; plans.len()];
        for (rule, plan) in plans.iter().enumerate() {
            for condition in plan.conditions.iter().filter(|condition| self.is_awaited(condition)) {
                let by_value = waiting.entry(condition.variable).or_default();
                by_value.entry(&*condition.value).or_default().push(rule);
                missing[rule] += 1;
            }
        }
        let mut reached: Vec<usize> = (0..plans.len()).filter(|rule| missing[*rule] == 0).collect();
        while let Some(rule) = reached.pop() {
            for assignment in &plans[rule].set {
                let variable = assignment.variable;
                let met: Vec<usize> = match assignment.becomes {
                    Becomes::Fixed(value) => {
                        let by_value = waiting.get_mut(&variable);
                        let met = by_value.and_then(|by| by.remove(&*self.values[value]));
                        met.unwrap_or_default()
                    }
                    Becomes::Filled(_) => {
                        let by_value = waiting.remove(&variable).unwrap_or_default();
                        by_value.into_values().flatten().collect()
                    }
                };
                for rule in met {
                    missing[rule] -= 1;
                    if missing[rule] == 0 {
                        reached.push(rule);
                    }
                }
            }
        }
        let left = waiting.into_iter().flat_map(|(variable, by_value)| {
            by_value.into_values().flatten().map(move |rule| (rule, variable))
        });
        left.collect()
    }

    /// Whether the condition does not hold from the beginning, and some rule makes it hold.
    fn is_awaited(&self, condition: &Condition) -> bool {
        let name = self.variables[condition.variable].as_str();
        let Some(known) = self.becomes.get(name) else { return false };
        let is_unknown = known.is_unknown || self.gaps.values.contains(name);
        !is_unknown
            && self.values[condition.variable] != condition.value
            && (known.is_open || known.values.contains(&*condition.value))
    }
}
