//! One connection after the other, as a client would have them: which rule answers each message,
//! and what is sent.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use talkback::config::{Listener, Scripted};
use talkback::responder::rules::{Rule, Rules, RulesResponder, Verdict};
use talkback::responder::{Client, Host, Sender, Ticket};
use talkback::wire::{Framing, InvalidUtf8};
use talkback::{Answer, Context, Reply, Responder};

use super::shown;

/// The client that rules are told of; there is none.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);

/// Rules, and the connection that is open.
pub(super) struct Session<'s> {
    chosen: &'s Scripted,
    is_verbose: bool,
    rules: Arc<Rules>,
    connection: Option<RulesResponder>,
    /// Messages on this connection.
    messages: u64,
}

/// What an answer came to.
struct Outcome {
    answer: Answer,
    sent: Vec<u8>,
    waits: Duration,
    /// Whether it was the rule's fault.
    has_failed: bool,
}

impl<'s> Session<'s> {
    /// The first client connects.
    pub(super) fn open(
        chosen: &'s Scripted,
        is_verbose: bool,
        out: &mut impl Write,
    ) -> io::Result<Self> {
        let rules = Rules::compile(&chosen.book).expect("what was loaded compiles");
        let mut session = Self { chosen, is_verbose, rules, connection: None, messages: 0 };
        session.connect(out)?;
        Ok(session)
    }

    fn listener(&self) -> Option<&'s Listener> {
        self.chosen.listener.as_ref()
    }

    fn connect(&mut self, out: &mut impl Write) -> io::Result<()> {
        let name = self.listener().map_or("", |listener| &listener.name);
        let mut responder = self.rules.responder(&Client::new(name, Some(PEER), None));
        self.messages = 0;
        let outcome = self
            .outcome(&mut responder, |responder, reply, context| responder.open(reply, context));
        let state = owned(&responder);
        if !state.is_empty() {
            writeln!(out, "  state {}", shown::state(&state, &state))?;
        }
        if outcome.answer == Answer::Reply {
            shown::write_sent(out, "greets", &outcome.sent)?;
        }
        self.connection = Some(responder);
        Ok(())
    }

    /// What becomes of a message, told line by line.
    pub(super) fn answer(&mut self, message: &[u8], out: &mut impl Write) -> io::Result<()> {
        if self.connection.is_none() {
            writeln!(out, "a new connection")?;
            self.connect(out)?;
        }
        let listener = self.listener();
        let replaces = listener.is_some_and(|one| one.invalid_utf8 == InvalidUtf8::Replace);
        let text = String::from_utf8_lossy(message);
        // In raw framing what is longer is several messages, and not refused.
        let bounded = listener.filter(|one| one.framing == Framing::Line);
        let most = bounded.map_or(usize::MAX, |one| one.max_message_bytes);
        let refused = match str::from_utf8(message) {
            _ if message.len() > most => Some(format!("max_message_bytes is {most}")),
            Err(error) if !replaces => {
                Some(format!("byte {} is not UTF-8", error.valid_up_to() + 1))
            }
            _ => None,
        };
        let word = listener.map_or("", Listener::exit_word);
        let is_exit = !word.is_empty() && message == word.as_bytes();
        if let Some(why) = refused.or(is_exit.then(|| "it is the exit word".to_owned())) {
            self.connection = None;
            return writeln!(out, "no rule is asked: {why}\n  closes the connection");
        }
        self.respond(&text, out)
    }

    fn respond(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        let mut responder = self.connection.take().expect("a connection is open");
        let verdict = responder.consider(text);
        self.write_verdict(&verdict, out)?;
        let (chosen, was_stalled) = (verdict.rule, verdict.is_stalled);
        let turn = verdict.text;
        let before = owned(&responder);
        self.messages += 1;
        let outcome = self.outcome(&mut responder, |responder, reply, context| {
            responder.respond(text, reply, context)
        });
        if !was_stalled {
            let after = owned(&responder);
            if !after.is_empty() {
                writeln!(out, "  state {}", shown::state(&before, &after))?;
            }
            let rule = chosen.map(|at| &self.chosen.book.rules[at]);
            self.write_outcome(rule, turn, &outcome, out)?;
        }
        let is_open = matches!(outcome.answer, Answer::Reply | Answer::Silence);
        self.connection = is_open.then_some(responder);
        Ok(())
    }

    fn outcome(
        &self,
        responder: &mut RulesResponder,
        act: impl FnOnce(&mut RulesResponder, &mut Reply<'_>, &mut Context<'_>) -> Answer,
    ) -> Outcome {
        let (mut sent, mut bench) = (Vec::new(), Bench);
        let mut reply = Reply::new(&mut sent);
        let mut context = Context::new(&mut bench, self.messages);
        let answer = act(responder, &mut reply, &mut context);
        let (waits, is_terminated) = (context.delayed(), reply.is_terminated());
        // A rules file does not say for which framing it is; rules are mostly for lines.
        if is_terminated && self.listener().is_none_or(|one| one.framing == Framing::Line) {
            sent.push(b'\n');
        }
        Outcome { answer, sent, waits, has_failed: responder.has_failed() }
    }

    fn write_verdict(&self, verdict: &Verdict<'_>, out: &mut impl Write) -> io::Result<()> {
        if verdict.is_stalled {
            return writeln!(out, "no rule is asked: this connection is stalled");
        }
        let book = &self.chosen.book;
        match verdict.rule {
            Some(at) => {
                let matcher = shown::matcher(&book.rules[at]);
                writeln!(out, "rule[{at}] {}  {matcher}", self.chosen.places[at])?;
            }
            None if book.default.is_empty() => writeln!(out, "no rule, and there is no default")?,
            None => writeln!(out, "no rule, so the default")?,
        }
        let mut others = 0;
        for passed_over in &verdict.passed_over {
            match shown::why(&passed_over.why) {
                Some(why) => self.write_passed_over(passed_over.rule, &why, out)?,
                None if self.is_verbose => {
                    let matcher = shown::matcher(&book.rules[passed_over.rule]);
                    let why = format!("is for another text: {matcher}");
                    self.write_passed_over(passed_over.rule, &why, out)?;
                }
                None => others += 1,
            }
        }
        match others {
            0 => Ok(()),
            _ => writeln!(out, "  before it {} for other texts", shown::counted(others, "rule")),
        }
    }

    fn write_passed_over(&self, at: usize, why: &str, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  not rule[{at}] {}: it {why}", self.chosen.places[at])
    }

    fn write_outcome(
        &self,
        rule: Option<&Rule>,
        turn: Option<usize>,
        outcome: &Outcome,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if !outcome.waits.is_zero() {
            writeln!(out, "  waits {}", shown::duration(outcome.waits))?;
        }
        let texts = rule.map_or(&self.chosen.book.default, |rule| &rule.send);
        let sends = match turn {
            Some(turn) if texts.len() > 1 => &format!("sends text {} of {}", turn + 1, texts.len()),
            _ => "sends",
        };
        match outcome.answer {
            Answer::Reply | Answer::ReplyAndClose => {
                shown::write_sent(out, sends, &outcome.sent)?;
            }
            Answer::Silence | Answer::Close => writeln!(out, "  sends nothing")?,
            _ => {}
        }
        match outcome.answer {
            Answer::Reply | Answer::Silence => {}
            Answer::Reset => writeln!(out, "  resets the connection")?,
            Answer::Failed => writeln!(out, "  fails, as the state is too long, and closes")?,
            _ => writeln!(out, "  closes the connection")?,
        }
        match rule.and_then(|rule| Some((rule, rule.fault?))) {
            Some((rule, fault)) => shown::write_fault(out, rule, fault, outcome.has_failed),
            None => Ok(()),
        }
    }
}

fn owned(responder: &RulesResponder) -> Vec<(String, String)> {
    responder.state().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What rules take from a server: the time, and chance.
struct Bench;

impl Host for Bench {
    fn ticket(&mut self) -> Ticket {
        unreachable!("rules answer at once")
    }

    fn sender(&mut self) -> Sender {
        unreachable!("rules say nothing unasked")
    }

    fn unix_time(&mut self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn random(&mut self) -> u64 {
        // Keyed anew for each.
        RandomState::new().hash_one(())
    }
}
