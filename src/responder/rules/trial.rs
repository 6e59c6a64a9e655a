//! Rules on trial: a conversation with them is held to a slow model, which tries one rule after
//! another. For the tests here and for those in `fuzz`.

mod model;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{RuleBook, RuleFault, Rules};
use crate::responder::{Answer, Client, Context, Host, Reply, Responder, Sender, Ticket};

use model::Model;

/// A connection's other end, its clock, and its chance, of which each number is 0.
struct Stage;

impl Stage {
    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4711);
    const NOW: Duration = Duration::from_millis(1_795_386_605_250);
}

impl Host for Stage {
    fn ticket(&mut self) -> Ticket {
        unreachable!("rules answer at once")
    }

    fn sender(&mut self) -> Sender {
        unreachable!("rules say nothing unasked")
    }

    fn unix_time(&mut self) -> Duration {
        Self::NOW
    }

    fn random(&mut self) -> u64 {
        0
    }
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
struct Heard<'c> {
    /// `None`: the default, or nothing as the connection has stalled.
    rule: Option<usize>,
    answer: Answer,
    reply: Vec<u8>,
    is_terminated: bool,
    delay: Duration,
    /// The variables and their values.
    state: BTreeMap<&'c str, &'c str>,
}

/// Everything that must hold for a book and the messages of a client. What is wrong with it, if
/// something is.
#[track_caller]
pub(crate) fn check(book: &RuleBook, messages: &[impl AsRef<str>]) -> Vec<RuleFault> {
    let faults = Rules::compile(book).err().unwrap_or_default();
    faults.iter().for_each(|fault| check_fault(book, fault));
    stay_silent(book, &faults, messages);
    if let Some((rules, left)) = reached(book, &faults) {
        converse(book, &rules, &left, messages);
    }
    faults
}

#[track_caller]
fn check_fault(book: &RuleBook, fault: &RuleFault) {
    let said = fault.to_string();
    assert!(!said.contains(char::is_control), "{said:?}");
    assert!(said.chars().count() < 1000, "{said}");
    let Some(at) = fault.at else { return };
    let rule = fault.rule.map(|rule| &book.rules[rule]);
    let text = match (fault.key, rule, &fault.entry) {
        ("greeting", None, _) => book.greeting.as_deref(),
        ("default", None, _) => book.default.get(fault.index.unwrap_or(0)).map(String::as_str),
        ("send", Some(rule), _) => rule.send.get(fault.index.unwrap_or(0)).map(String::as_str),
        ("set", Some(rule), Some(name)) => rule.set.get(name).map(String::as_str),
        ("when", Some(rule), Some(name)) => rule.when.get(name).map(String::as_str),
        ("matches", Some(rule), _) => Some(super::compile::written(&rule.matcher)),
        _ => None,
    };
    let text = text.unwrap_or_else(|| panic!("it has a place in no text: {said}"));
    assert!(text.is_char_boundary(at), "{said}");
}

/// What is said of a rule that never answers.
const NEVER: [&str; 3] = ["is never reached", "never fits", "never becomes this"];

/// No rule answers of which that was told.
#[track_caller]
fn stay_silent(book: &RuleBook, faults: &[RuleFault], messages: &[impl AsRef<str>]) {
    let is_told = |fault: &RuleFault| NEVER.iter().any(|said| fault.problem.starts_with(said));
    if !faults.iter().all(is_told) {
        return;
    }
    let mut model = Model::new(book);
    for (number, message) in (1..).zip(messages.iter().map(AsRef::as_ref)) {
        let heard = model.hear(number, message);
        let fault = faults.iter().find(|fault| heard.rule.is_some() && fault.rule == heard.rule);
        assert_eq!(fault, None, "it answers {number}: {message:?}");
        if !matches!(heard.answer, Answer::Reply | Answer::Silence) {
            return;
        }
    }
}

/// The book without what is refused as never reached, and the numbers of what is left: by the
/// promise of such a refusal that book answers as the whole one. `None`: something else is wrong.
fn reached(book: &RuleBook, faults: &[RuleFault]) -> Option<(Arc<Rules>, Vec<usize>)> {
    let mut left: Vec<usize> = (0..book.rules.len()).collect();
    let mut faults = faults.to_vec();
    let mut book = book.clone();
    loop {
        for fault in faults.iter().rev() {
            match fault.rule {
                Some(rule) if NEVER[..2].iter().any(|said| fault.problem.starts_with(said)) => {
                    left.remove(rule);
                    book.rules.remove(rule);
                }
                None if fault.problem.starts_with("is never sent") => book.default.clear(),
                _ => return None,
            }
        }
        match Rules::compile(&book) {
            Ok(rules) => return Some((rules, left)),
            Err(others) => faults = others,
        }
    }
}

/// The rules' own numbers are places in `left`.
#[track_caller]
fn converse(book: &RuleBook, rules: &Arc<Rules>, left: &[usize], messages: &[impl AsRef<str>]) {
    let mut responder = rules.responder(&Client::new("main", Some(Stage::PEER), None));
    let mut model = Model::new(book);
    let greeting = said(0, |reply, context| responder.open(reply, context));
    assert_eq!(greeting, model.greeting(), "the greeting");
    for (number, message) in (1..).zip(messages.iter().map(AsRef::as_ref)) {
        let verdict = responder.consider(message);
        let rule = verdict.rule.filter(|_| !verdict.is_stalled).map(|rule| left[rule]);
        let (answer, reply, is_terminated, delay) =
            said(number, |reply, context| responder.respond(message, reply, context));
        let state: BTreeMap<_, _> = responder.state().collect();
        let mut expected = model.hear(number, message);
        // What only a rule sets that is never reached, nobody has to know.
        expected.state.retain(|name, _| state.contains_key(name));
        // Nor what is left of a state that has grown too large: the connection closes.
        let state = if answer == Answer::Failed { expected.state.clone() } else { state };
        let heard = Heard { rule, answer, reply, is_terminated, delay, state };
        assert_eq!(heard, expected, "{number}: {message:?}");
        if !matches!(answer, Answer::Reply | Answer::Silence) {
            return;
        }
    }
}

type Said = (Answer, Vec<u8>, bool, Duration);

fn said(number: u64, ask: impl FnOnce(&mut Reply<'_>, &mut Context<'_>) -> Answer) -> Said {
    let mut bytes = Vec::new();
    let mut reply = Reply::new(&mut bytes);
    let mut stage = Stage;
    let mut context = Context::new(&mut stage, number);
    let answer = ask(&mut reply, &mut context);
    let is_terminated = reply.is_terminated();
    let delay = context.delayed();
    (answer, bytes, is_terminated, delay)
}
