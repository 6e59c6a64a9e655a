//! The rules of a listener on one connection: what it remembers, and how a rule is carried out.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lookup::Captured;
use super::plan::{Becomes, Condition, Plan, Rules};
use super::spec::{Fault, Probability};
use super::state::{Bounded, State, Value};
use super::template::{Filling, Template};
use super::timestamp::Timestamp;
use crate::responder::{Answer, Client, Context, Reply, Responder};

/// Answers the messages of one connection by rules.
#[derive(Debug)]
pub struct RulesResponder {
    pub(super) rules: Arc<Rules>,
    pub(super) memory: Memory,
}

impl RulesResponder {
    pub(super) fn new(rules: Arc<Rules>, client: &Client<'_>) -> Self {
        Self { rules, memory: Memory { peer: client.peer, ..Memory::default() } }
    }

    /// The variables and what they are now, in the order of their names.
    pub fn state(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.rules.variables.iter().enumerate();
        names.map(|(at, name)| (name.as_str(), self.memory.state.get(&self.rules, at)))
    }

    /// Whether the last message was answered by its rule's simulated fault, which may be a matter
    /// of chance and cannot always be told from what was sent.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.memory.has_failed
    }
}

/// What a connection has of its own. It does not hold its rules: those are shared by all, and
/// counting who holds them would cost each message.
#[derive(Debug, Default)]
pub(super) struct Memory {
    peer: Option<SocketAddr>,
    pub(super) state: State,
    /// How often each plan that counts was used; empty until the first was.
    uses: Box<[u32]>,
    /// Nothing is answered any more.
    pub(super) is_stalled: bool,
    /// Whether the last answer was its rule's fault.
    has_failed: bool,
}

impl Memory {
    fn uses(&self, plan: &Plan) -> u32 {
        plan.counter.and_then(|counter| self.uses.get(counter)).copied().unwrap_or(0)
    }

    pub(super) fn is_used_up(&self, plan: &Plan) -> bool {
        plan.times.is_some_and(|times| self.uses(plan) >= times)
    }

    /// Whether state and uses let a rule answer.
    fn allows(&self, rules: &Rules, plan: &Plan) -> bool {
        let holds =
            |condition: &Condition| *self.state.get(rules, condition.variable) == *condition.value;
        plan.conditions.iter().all(holds) && !self.is_used_up(plan)
    }

    /// Which of the texts is sent next.
    pub(super) fn turn(&self, plan: &Plan) -> usize {
        match plan.send.len() {
            0 | 1 => 0,
            many => self.uses(plan) as usize % many,
        }
    }

    fn count(&mut self, rules: &Rules, plan: &Plan) {
        let Some(counter) = plan.counter else { return };
        if self.uses.is_empty() {
            self.uses = vec![0; rules.counters].into();
        }
        // What may be used so many times is counted to there; a list goes round and round.
        let next = self.uses[counter] + 1;
        self.uses[counter] = match plan.times {
            Some(_) => next,
            None => next % u32::try_from(plan.send.len()).unwrap_or(u32::MAX),
        };
    }

    fn respond(
        &mut self,
        rules: &Rules,
        text: &str,
        reply: &mut Reply<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        self.has_failed = false;
        if self.is_stalled {
            return Answer::Silence;
        }
        let mut scratch = rules.lookup.borrow();
        let is_open = |rule: u32| self.allows(rules, &rules.plans[rule as usize]);
        let rule = rules.lookup.first(text, &mut scratch, is_open);
        let plan = rule.map_or(&rules.default, |rule| &rules.plans[rule]);
        let captured = match rule {
            Some(rule) if plan.has_captures => rules.lookup.capture(rule, text, &mut scratch),
            _ => Captured::Nothing,
        };
        self.carry_out(rules, plan, &Said { text, captured }, reply, context)
    }

    fn carry_out(
        &mut self,
        rules: &Rules,
        plan: &Plan,
        said: &Said<'_>,
        reply: &mut Reply<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        let turn = self.turn(plan);
        self.count(rules, plan);
        if !plan.set.is_empty() && self.assign(rules, plan, said, context).is_err() {
            return Answer::Failed;
        }
        delay(plan, context);
        let fault = plan.fault.filter(|_| happens(plan.probability, context));
        self.has_failed = fault.is_some();
        match fault {
            Some(Fault::Reset) => return Answer::Reset,
            Some(Fault::Stall) => {
                self.is_stalled = true;
                return Answer::Silence;
            }
            Some(Fault::Half | Fault::Garbage) | None => {}
        }
        let Some(template) = plan.send.get(turn) else {
            return if plan.close { Answer::Close } else { Answer::Silence };
        };
        self.send(rules, template, said, reply, context);
        match fault {
            Some(Fault::Half) => {
                reply.truncate(rules.length_of_text(reply) / 2);
                reply.without_terminator();
                return Answer::ReplyAndClose;
            }
            Some(Fault::Garbage) => rules.spoil(reply, context),
            Some(Fault::Reset | Fault::Stall) | None => {}
        }
        if plan.close { Answer::ReplyAndClose } else { Answer::Reply }
    }

    fn send(
        &self,
        rules: &Rules,
        template: &Template,
        said: &Said<'_>,
        reply: &mut Reply<'_>,
        context: &mut Context<'_>,
    ) {
        let mut filling = Moment { rules, memory: self, said, context };
        template.fill(reply, &mut filling).expect("a reply takes any text");
        if rules.terminator.is_some() {
            reply.without_terminator();
        }
    }

    /// Each text sees the state as it was before. An error: the values become too long.
    fn assign(
        &mut self,
        rules: &Rules,
        plan: &Plan,
        said: &Said<'_>,
        context: &mut Context<'_>,
    ) -> fmt::Result {
        if let [assignment] = &*plan.set {
            let value = self.value(rules, &assignment.becomes, said, context)?;
            self.state.set(rules, assignment.variable, value);
        } else {
            let mut values = Vec::with_capacity(plan.set.len());
            for assignment in &plan.set {
                values.push(self.value(rules, &assignment.becomes, said, context)?);
            }
            for (assignment, value) in plan.set.iter().zip(values) {
                self.state.set(rules, assignment.variable, value);
            }
        }
        if self.state.is_bounded() { Ok(()) } else { Err(fmt::Error) }
    }

    fn value(
        &self,
        rules: &Rules,
        becomes: &Becomes,
        said: &Said<'_>,
        context: &mut Context<'_>,
    ) -> Result<Value, fmt::Error> {
        match becomes {
            Becomes::Fixed(at) => Ok(Value::Fixed(*at)),
            Becomes::Filled(template) => {
                let mut text = Bounded::default();
                template.fill(&mut text, &mut Moment { rules, memory: self, said, context })?;
                Ok(Value::Written(text.0.into()))
            }
        }
    }
}

impl Rules {
    /// What was written, without its terminator.
    fn length_of_text(&self, reply: &Reply<'_>) -> usize {
        let terminator = self.terminator.as_ref().map_or(0, |terminator| terminator.len());
        reply.as_bytes().len() - terminator
    }

    /// Puts bytes that are no UTF-8 in the place of the text.
    fn spoil(&self, reply: &mut Reply<'_>, context: &mut Context<'_>) {
        let length = self.length_of_text(reply).max(1);
        reply.truncate(0);
        // No text has this byte, and those behind it end no line.
        reply.push_bytes(&[0xFF]);
        let mut left = length - 1;
        while left > 0 {
            let bytes = context.random().to_le_bytes().map(|byte| byte | 0x80);
            let some = left.min(bytes.len());
            reply.push_bytes(&bytes[..some]);
            left -= some;
        }
        if let Some(terminator) = &self.terminator {
            reply.push(terminator);
        }
    }
}

impl Responder for RulesResponder {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let Some(greeting) = &self.rules.greeting else { return Answer::Silence };
        let said = Said { text: "", captured: Captured::Nothing };
        self.memory.send(&self.rules, greeting, &said, reply, context);
        Answer::Reply
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.memory.respond(&self.rules, text, reply, context)
    }
}

/// A message, and what its rule took out of it.
struct Said<'t> {
    text: &'t str,
    captured: Captured<'t>,
}

/// What fills the holes of a text, at the moment when it is sent.
struct Moment<'a, 'c> {
    rules: &'a Rules,
    memory: &'a Memory,
    said: &'a Said<'a>,
    context: &'a mut Context<'c>,
}

impl Filling for Moment<'_, '_> {
    fn capture(&self, group: usize) -> &str {
        self.said.captured.group(group)
    }

    fn variable(&self, variable: usize) -> &str {
        self.memory.state.get(self.rules, variable)
    }

    fn message(&self) -> &str {
        self.said.text
    }

    fn count(&self) -> u64 {
        self.context.message()
    }

    fn write_peer(&self, out: &mut impl Write) -> fmt::Result {
        match self.memory.peer {
            Some(peer) => write!(out, "{peer}"),
            None => out.write_str("unix"),
        }
    }

    fn write_time(&mut self, out: &mut impl Write) -> fmt::Result {
        let sent = self.context.unix_time() + self.context.delayed();
        write!(out, "{}", Timestamp(sent))
    }

    fn random(&mut self) -> u64 {
        self.context.random()
    }
}

fn delay(plan: &Plan, context: &mut Context<'_>) {
    if plan.delay.is_zero() && plan.jitter.is_zero() {
        return;
    }
    let jitter = match u64::try_from(plan.jitter.as_micros()) {
        Ok(most @ 1..) => share(context.random(), most),
        _ => 0,
    };
    context.delay(plan.delay + Duration::from_micros(jitter));
}

fn happens(probability: Probability, context: &mut Context<'_>) -> bool {
    let certain = Probability::CERTAIN.millionths();
    probability.millionths() == certain
        || share(context.random(), (certain - 1).into()) < probability.millionths().into()
}

/// The number from 0 to `most` that a random one stands for.
fn share(random: u64, most: u64) -> u64 {
    let share = (u128::from(random) * (u128::from(most) + 1)) >> 64;
    u64::try_from(share).expect("a share is no more than the whole")
}
