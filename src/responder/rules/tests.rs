//! Conversations with rules. Here is what the tests are told with: books, shortly written, and a
//! connection.

mod covered;
mod endings;
mod generated;
mod matching;
mod refused;
mod state;
mod texts;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Fault, Matcher, PassedOver, Probability, Rule, RuleBook, Rules, RulesResponder, Verdict, Why,
};
use crate::responder::{Answer, Client, Context, Host, Reply, Responder, Sender, Ticket};

// ---- books, shortly ----

fn rule(matcher: Matcher) -> Rule {
    Rule { matcher, ..Rule::default() }
}

fn any() -> Rule {
    rule(Matcher::Any)
}

fn equals(text: &str) -> Rule {
    rule(Matcher::Equals(text.to_owned()))
}

fn prefix(text: &str) -> Rule {
    rule(Matcher::Prefix(text.to_owned()))
}

fn contains(text: &str) -> Rule {
    rule(Matcher::Contains(text.to_owned()))
}

fn matches(pattern: &str) -> Rule {
    rule(Matcher::Matches(pattern.to_owned()))
}

impl Rule {
    fn sends(mut self, text: &str) -> Self {
        self.send.push(text.to_owned());
        self
    }

    fn ignoring_case(self) -> Self {
        Self { ignore_case: true, ..self }
    }

    fn when(mut self, variable: &str, value: &str) -> Self {
        self.when.insert(variable.to_owned(), value.to_owned());
        self
    }

    fn sets(mut self, variable: &str, text: &str) -> Self {
        self.set.insert(variable.to_owned(), text.to_owned());
        self
    }

    fn fails(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }
}

fn book(rules: impl IntoIterator<Item = Rule>) -> RuleBook {
    RuleBook { rules: rules.into_iter().collect(), ..RuleBook::default() }
}

#[track_caller]
fn is_taken(rules: impl IntoIterator<Item = Rule>) {
    Rules::compile(&book(rules)).unwrap();
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

// ---- a connection ----

/// The surroundings of a connection: its random numbers are those given, then zeros.
#[derive(Default)]
struct Surroundings {
    numbers: VecDeque<u64>,
}

impl Host for Surroundings {
    fn ticket(&mut self) -> Ticket {
        unreachable!("rules answer at once")
    }

    fn sender(&mut self) -> Sender {
        unreachable!("rules say nothing unasked")
    }

    fn unix_time(&mut self) -> Duration {
        Duration::from_millis(1_795_386_605_250)
    }

    fn random(&mut self) -> u64 {
        self.numbers.pop_front().unwrap_or(0)
    }
}

struct Conversation {
    responder: RulesResponder,
    surroundings: Surroundings,
    messages: u64,
    /// Of the last answer.
    delay: Duration,
}

/// What came of a message: the bytes, whether the framing would end them, and the answer.
type Outcome = (Vec<u8>, bool, Answer);

impl Conversation {
    #[track_caller]
    fn new(book: &RuleBook) -> Self {
        let rules = Rules::compile(book).unwrap_or_else(|faults| panic!("{faults:?}"));
        Self::with(&rules)
    }

    fn with(rules: &Arc<Rules>) -> Self {
        let peer = "192.0.2.7:4711".parse().unwrap();
        let responder = rules.responder(&Client::new("main", Some(peer), None));
        let surroundings = Surroundings::default();
        Self { responder, surroundings, messages: 0, delay: Duration::ZERO }
    }

    fn ask(
        &mut self,
        ask: impl FnOnce(&mut RulesResponder, &mut Reply<'_>, &mut Context<'_>) -> Answer,
    ) -> Outcome {
        let mut buffer = b"before".to_vec();
        let mut reply = Reply::new(&mut buffer);
        let mut context = Context::new(&mut self.surroundings, self.messages);
        let answer = ask(&mut self.responder, &mut reply, &mut context);
        self.delay = context.delayed();
        let is_terminated = reply.is_terminated();
        assert!(buffer.starts_with(b"before"));
        (buffer.split_off(6), is_terminated, answer)
    }

    fn open(&mut self) -> Outcome {
        self.ask(|responder, reply, context| responder.open(reply, context))
    }

    fn hear(&mut self, text: &str) -> Outcome {
        self.messages += 1;
        self.ask(|responder, reply, context| responder.respond(text, reply, context))
    }

    /// The reply; `None`: there is none.
    #[track_caller]
    fn say(&mut self, text: &str) -> Option<String> {
        let (reply, _, answer) = self.hear(text);
        match answer {
            Answer::Reply => Some(String::from_utf8(reply).unwrap()),
            Answer::Silence if reply.is_empty() => None,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn state(&self) -> Vec<(&str, &str)> {
        self.responder.state().collect()
    }
}

/// What each of these messages, on one connection, is answered.
#[track_caller]
fn check<const N: usize>(book: &RuleBook, exchanges: [(&str, Option<&str>); N]) {
    let mut conversation = Conversation::new(book);
    for (message, reply) in exchanges {
        let expected = reply.map(str::to_owned);
        assert_eq!(conversation.say(message), expected, "{message:?}");
    }
}
