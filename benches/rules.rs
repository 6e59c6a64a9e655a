//! Answers messages by rules, in one thread and without a server: `rules SCENARIO MESSAGES` for
//! `rules-matching`, which counts the instructions; it says the time, too.

use std::hint::black_box;
use std::time::{Duration, Instant};

use talkback::responder::rules::{Matcher, Rule, RuleBook, Rules};
use talkback::responder::{Answer, Client, Context, Host, Reply, Responder, Sender, Ticket};

const MESSAGE_BYTES: usize = 64;

/// Rules answer at once and, here, with a text that needs neither time nor luck.
struct Nothing;

impl Host for Nothing {
    fn ticket(&mut self) -> Ticket {
        unreachable!("rules answer at once")
    }

    fn sender(&mut self) -> Sender {
        unreachable!("rules say nothing unasked")
    }

    fn unix_time(&mut self) -> Duration {
        Duration::ZERO
    }

    fn random(&mut self) -> u64 {
        0
    }
}

/// A text of that number that looks like what is sent to a device.
fn text(number: usize) -> String {
    format!("MEASure:VOLTage:CH{number}?")
}

fn rule(matcher: Matcher, send: &str) -> Rule {
    Rule { matcher, send: vec![send.to_owned()], ..Rule::default() }
}

/// So many rules of a kind; each is told from the others by its number.
fn rules(kind: &str, count: usize) -> Vec<Rule> {
    let numbers = 0..count;
    let rule = |number: usize| match kind {
        "equals" => rule(Matcher::Equals(padded(number)), "12.5"),
        "prefix" => rule(Matcher::Prefix(text(number)), "12.5"),
        "contains" => rule(Matcher::Contains(format!("channel={number};")), "12.5"),
        "matches" => {
            let pattern = format!(r"^SOURce{number}:LEVel (\d+\.\d+) (\w+)");
            rule(Matcher::Matches(pattern), "${1}")
        }
        "open" => rule(Matcher::Matches(format!(r"level{number}=(\d+);")), "${1}"),
        _ => panic!("no such kind of rules"),
    };
    numbers.map(rule).collect()
}

fn padded(number: usize) -> String {
    let mut text = text(number);
    text.push_str(&" ".repeat(MESSAGE_BYTES - text.len()));
    text
}

/// A message of 64 bytes that the rule of that number answers, as none before it does.
fn message(kind: &str, number: usize) -> String {
    let mut message = match kind {
        "equals" | "prefix" => text(number),
        "contains" => format!("set the level of channel={number}; to"),
        "matches" => format!("SOURce{number}:LEVel 12.50 volt"),
        "open" => format!("set it to level{number}=125; or so"),
        _ => "nothing that a rule would answer".to_owned(),
    };
    message.push_str(&" ".repeat(MESSAGE_BYTES - message.len()));
    message
}

/// The book of a scenario, and the message that its last rule answers.
fn scenario(name: &str) -> (Vec<Rule>, String) {
    let (kind, count) = name.split_once('-').expect("a kind and a count");
    let count: usize = count.parse().expect("a count");
    match kind {
        "all" | "none" => {
            let kinds = ["equals", "prefix", "contains", "matches"];
            let book = kinds.iter().flat_map(|kind| rules(kind, count)).collect();
            (book, message(if kind == "all" { "matches" } else { "none" }, count - 1))
        }
        "literals" => {
            let kinds = ["equals", "prefix", "contains"];
            let book = kinds.iter().flat_map(|kind| rules(kind, count / 3 + 1)).collect();
            (book, message("contains", count / 3))
        }
        // Case ignored, which folds each message.
        "folded" => {
            let mut book = rules("contains", count);
            book.iter_mut().for_each(|rule| rule.ignore_case = true);
            (book, message("contains", count - 1).to_uppercase())
        }
        kind => (rules(kind, count), message(kind, count - 1)),
    }
}

fn main() {
    // Cargo adds words of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, messages] = &words[..] else {
        println!("usage: rules SCENARIO MESSAGES, such as rules all-100 1000000");
        return;
    };
    let messages: u64 = messages.parse().expect("a number of messages");
    let (rules, message) = scenario(name);
    let start = Instant::now();
    let rules = Rules::compile(&RuleBook { rules, ..RuleBook::default() }).expect("good rules");
    let compiled = start.elapsed();
    let mut responder = rules.responder(&Client::new("main", None, None));
    let mut buffer = Vec::new();
    let (start, mut answered) = (Instant::now(), 0);
    for number in 0..messages {
        buffer.clear();
        let mut host = Nothing;
        let mut context = Context::new(&mut host, number);
        let mut reply = Reply::new(&mut buffer);
        let answer = responder.respond(black_box(&message), &mut reply, &mut context);
        answered += u64::from(answer == Answer::Reply && !black_box(&reply).as_bytes().is_empty());
    }
    let nanos = start.elapsed().as_nanos() / u128::from(messages.max(1));
    let expected = if name.starts_with("none") { 0 } else { messages };
    assert_eq!(answered, expected, "of {messages} messages");
    println!("{name}: {nanos} ns a message; compiled in {} ms", compiled.as_millis());
}
