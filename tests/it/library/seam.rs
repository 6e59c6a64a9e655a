//! What a responder is told of beside messages, and the answers that are more than a reply: a
//! greeting, the end of input, the end, delays, resets, and texts that nobody asked for.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use talkback::responder::SendError;
use talkback::{Answer, Config, Context, Late, Reply, Responder, Sender, Server, Ticket};

use super::{config, connect, echo, eventually_closed, from_fn, metrics, start, start_function};
use crate::harness::{PATIENCE, eventually};

/// What a [`Told`] was told.
#[derive(Debug, PartialEq)]
enum Event {
    Open(u64),
    Message(u64, String),
    Finish(u64),
    End(String),
}

/// Tells the test everything that it is told, and answers as it was made to.
struct Told {
    events: std::sync::mpsc::Sender<Event>,
    tickets: std::sync::mpsc::Sender<Ticket>,
    opening: Answer,
    last: Answer,
}

impl Told {
    fn answer(
        &self,
        what: &str,
        answer: Answer,
        reply: &mut Reply<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        reply.push(what);
        if matches!(answer, Answer::Later | Answer::LaterWithin(_)) {
            self.tickets.send(context.ticket()).unwrap();
        }
        answer
    }
}

impl Responder for Told {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.events.send(Event::Open(context.message())).unwrap();
        self.answer("hello", self.opening, reply, context)
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.events.send(Event::Message(context.message(), text.to_owned())).unwrap();
        echo(text, reply)
    }

    fn finish(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.events.send(Event::Finish(context.message())).unwrap();
        self.answer("goodbye", self.last, reply, context)
    }

    fn end(&mut self, reason: &str) {
        self.events.send(Event::End(reason.to_owned())).unwrap();
    }
}

struct Telling {
    server: Server,
    events: Receiver<Event>,
    tickets: Receiver<Ticket>,
}

impl Telling {
    #[track_caller]
    fn start(config: &Config, opening: Answer, last: Answer) -> Self {
        let (events, told) = channel();
        let (tickets, taken) = channel();
        let server = start(config, move || {
            let (events, tickets) = (events.clone(), tickets.clone());
            Box::new(Told { events, tickets, opening, last })
        });
        Self { server, events: told, tickets: taken }
    }

    #[track_caller]
    fn check(&self, expected: &[Event]) {
        for event in expected {
            assert_eq!(self.events.recv_timeout(PATIENCE).unwrap(), *event);
        }
        assert!(self.events.try_recv().is_err(), "nothing else is told");
    }

    #[track_caller]
    fn ticket(&self) -> Ticket {
        self.tickets.recv_timeout(PATIENCE).unwrap()
    }
}

/// What was sent is counted when its turn has ended.
#[track_caller]
fn eventually_replied(server: &Server, count: f64) {
    let replies = || metrics(server).sum("talkback_replies_total");
    eventually(format!("{count} replies"), || replies() == count);
}

fn message(number: u64, text: &str) -> Event {
    Event::Message(number, text.to_owned())
}

fn end(reason: &str) -> Event {
    Event::End(reason.to_owned())
}

#[test]
fn a_responder_is_told_of_the_open_of_each_message_and_of_the_end() {
    let telling = Telling::start(&config(), Answer::Silence, Answer::Silence);
    let mut client = connect(&telling.server);
    client.send("a\nb\n");
    client.finish();
    assert_eq!(client.read_to_end(), b"a\nb\n");
    drop(client);
    eventually_closed(&telling.server, &[("peer_closed", 1)]);
    let messages = [message(1, "a"), message(2, "b")];
    let [a, b] = messages;
    telling.check(&[Event::Open(0), a, b, Event::Finish(3), end("peer_closed")]);
    assert_eq!(metrics(&telling.server).sum("talkback_messages_total"), 2.0);
}

#[test]
fn a_greeting_comes_before_the_client_has_said_anything() {
    let telling = Telling::start(&config(), Answer::Reply, Answer::Silence);
    let mut client = connect(&telling.server);
    client.expect("hello\n");
    client.echo("a\n");
    eventually_replied(&telling.server, 2.0);
}

#[test]
fn a_client_that_only_listens_gets_the_greeting_and_is_unused() {
    let telling = Telling::start(&config(), Answer::Reply, Answer::Silence);
    let mut client = connect(&telling.server);
    client.finish();
    assert_eq!(client.read_to_end(), b"hello\n");
    drop(client);
    eventually_closed(&telling.server, &[("unused", 1)]);
    telling.check(&[Event::Open(0), Event::Finish(1), end("unused")]);
}

#[test]
fn a_greeting_may_be_all() {
    let telling = Telling::start(&config(), Answer::ReplyAndClose, Answer::Silence);
    let mut client = connect(&telling.server);
    client.send("a\n");
    assert_eq!(client.read_to_end(), b"hello\n");
    drop(client);
    eventually_closed(&telling.server, &[("responder_closed", 1)]);
    telling.check(&[Event::Open(0), end("responder_closed")]);
}

#[test]
fn messages_wait_for_a_greeting_that_comes_later() {
    let telling = Telling::start(&config(), Answer::Later, Answer::Silence);
    let mut client = connect(&telling.server);
    client.send("a\n");
    telling.ticket().answer("welcome".to_owned()).unwrap();
    client.expect("welcome\na\n");
}

#[test]
fn the_last_answer_may_come_later_and_is_asked_for_once() {
    let telling = Telling::start(&config(), Answer::Silence, Answer::Later);
    let mut client = connect(&telling.server);
    client.send("a\n");
    client.finish();
    client.expect("a\n");
    telling.ticket().answer("at the very end".to_owned()).unwrap();
    assert_eq!(client.read_to_end(), b"at the very end\n");
    drop(client);
    eventually_closed(&telling.server, &[("peer_closed", 1)]);
    let told = [Event::Open(0), message(1, "a"), Event::Finish(2), end("peer_closed")];
    telling.check(&told);
}

#[test]
fn the_last_answer_is_sent_behind_an_unfinished_line() {
    let telling = Telling::start(&config(), Answer::Silence, Answer::Reply);
    let mut client = connect(&telling.server);
    client.send("a\nb");
    client.finish();
    assert_eq!(client.read_to_end(), b"a\nb\ngoodbye\n");
}

#[test]
fn what_ends_the_reading_otherwise_is_no_end_of_input() {
    let mut config = config();
    config.listeners[0].exit_word = Some("exit".to_owned());
    let telling = Telling::start(&config, Answer::Silence, Answer::Reply);
    let mut client = connect(&telling.server);
    client.send("exit\n");
    assert_eq!(client.read_to_end(), b"");
    drop(client);
    eventually_closed(&telling.server, &[("exit", 1)]);
    telling.check(&[Event::Open(0), end("exit")]);
}

#[test]
fn the_end_is_told_at_a_stop_too() {
    let telling = Telling::start(&config(), Answer::Reply, Answer::Silence);
    let mut client = connect(&telling.server);
    client.expect("hello\n");
    let Telling { server, events, .. } = telling;
    let draining = std::thread::spawn(move || server.drain());
    client.expect_end();
    drop(client);
    draining.join().unwrap();
    let told: Vec<Event> = events.iter().collect();
    assert_eq!(told, [Event::Open(0), end("shutdown")]);
}

#[test]
fn a_panic_at_the_end_costs_nobody_else() {
    struct Grumpy;
    impl Responder for Grumpy {
        fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
            assert_ne!(text, "panic");
            echo(text, reply)
        }
        fn end(&mut self, _: &str) {
            panic!("not like this");
        }
    }
    let server = start(&config(), || Box::new(Grumpy));
    let mut neighbour = connect(&server);
    neighbour.echo("a\n");
    let mut client = connect(&server);
    client.echo("a\n");
    client.finish();
    client.expect_end();
    drop(client);
    neighbour.echo("b\n");
    neighbour.send("panic\n");
    neighbour.expect_end();
    drop(neighbour);
    eventually_closed(&server, &[("peer_closed", 1), ("responder_panic", 1)]);
    // One at the end, one at a message, and none more for its end.
    assert_eq!(metrics(&server).sum("talkback_worker_panics_total"), 2.0);
}

#[test]
fn the_listeners_bound_holds_for_a_reply_that_names_none() {
    let mut config = config();
    config.listeners[0].reply_timeout = Duration::from_millis(200);
    let telling = Telling::start(&config, Answer::Silence, Answer::Later);
    let asked = Instant::now();
    let mut client = connect(&telling.server);
    client.finish();
    let ticket = telling.ticket();
    assert_eq!(client.read_to_end(), b"");
    assert!(asked.elapsed() >= Duration::from_millis(200));
    drop(client);
    eventually_closed(&telling.server, &[("responder_timeout", 1)]);
    ticket.answer("too late".to_owned()).unwrap();
}

/// A server that does with `later` what `late` is.
#[track_caller]
fn check_late(late: Late, output: &str, reason: &str) {
    let (sender, tickets) = channel();
    let server = start(&config(), move || {
        let sender = sender.clone();
        from_fn(move |text, reply, context| {
            if text != "later" {
                return echo(text, reply);
            }
            sender.send(context.ticket()).unwrap();
            Answer::Later
        })
    });
    let mut client = connect(&server);
    client.send("a\nlater\nb\n");
    tickets.recv_timeout(PATIENCE).unwrap().resolve(late).unwrap();
    client.finish();
    assert_eq!(String::from_utf8(client.read_to_end()).unwrap(), output);
    drop(client);
    eventually_closed(&server, &[(reason, 1)]);
}

#[test]
fn a_late_answer_may_be_anything_that_an_answer_at_once_may_be() {
    check_late(Late::Reply("x".to_owned()), "a\nx\nb\n", "peer_closed");
    check_late(Late::ReplyAndClose("x".to_owned()), "a\nx\n", "responder_closed");
    check_late(Late::Bytes(b"x".to_vec()), "a\nxb\n", "peer_closed");
    check_late(Late::Silence, "a\nb\n", "peer_closed");
    check_late(Late::Close, "a\n", "responder_closed");
    check_late(Late::Failed, "a\n", "responder_error");
}

#[test]
fn a_reset_reaches_the_client_as_one() {
    let server = start_function(&config(), |text, reply, _| match text {
        "reset" => Answer::Reset,
        _ => echo(text, reply),
    });
    let mut client = connect(&server);
    client.echo("a\n");
    client.send("reset\n");
    client.expect_reset();
    eventually_closed(&server, &[("responder_closed", 1)]);
}

#[test]
fn a_reply_may_bring_its_own_ending_and_a_close_may_send_nothing() {
    let server = start_function(&config(), |text, reply, _| {
        reply.push(text);
        match text {
            "close" => Answer::Close,
            _ => {
                reply.push("\r\n");
                reply.without_terminator();
                Answer::Reply
            }
        }
    });
    let mut client = connect(&server);
    client.send("a\nclose\nb\n");
    assert_eq!(client.read_to_end(), b"a\r\n");
    drop(client);
    eventually_closed(&server, &[("responder_closed", 1)]);
}

/// A server that answers `slow…` after `delay`, and all else at once.
fn slow(delay: Duration, answer: Answer) -> Server {
    start_function(&config(), move |text, reply, context| {
        if !text.starts_with("slow") {
            return echo(text, reply);
        }
        context.delay(delay);
        reply.push(text);
        answer
    })
}

#[test]
fn a_delayed_reply_is_not_early_and_keeps_the_order() {
    const DELAY: Duration = Duration::from_millis(120);
    let server = slow(DELAY, Answer::Reply);
    let mut client = connect(&server);
    let asked = Instant::now();
    client.send("a\nslow\nb\nslow too\n");
    client.expect("a\n");
    let mut neighbour = connect(&server);
    neighbour.echo("not held up\n");
    client.expect("slow\nb\n");
    assert!(asked.elapsed() >= DELAY);
    client.expect("slow too\n");
    assert!(asked.elapsed() >= 2 * DELAY);
}

#[test]
fn a_delayed_reply_is_owed_to_a_client_that_has_ended_its_side_and_in_a_drain() {
    let server = slow(Duration::from_millis(300), Answer::Reply);
    let mut finished = connect(&server);
    finished.send("slow\n");
    finished.finish();
    let mut drained = connect(&server);
    drained.send("slow\n");
    let messages = || metrics(&server).sum("talkback_messages_total");
    eventually("both are asked", || messages() == 2.0);
    let draining = std::thread::spawn(move || server.drain());
    assert_eq!(finished.read_to_end(), b"slow\n");
    assert_eq!(drained.read_to_end(), b"slow\n");
    drop((finished, drained));
    assert_eq!(draining.join().unwrap().cut, 0);
}

#[test]
fn a_close_may_be_delayed() {
    let server = slow(Duration::from_millis(50), Answer::Close);
    let mut client = connect(&server);
    client.send("slow\na\n");
    assert_eq!(client.read_to_end(), b"");
    drop(client);
    eventually_closed(&server, &[("responder_closed", 1)]);
}

#[test]
fn a_delayed_reply_to_a_client_that_is_gone_counts_as_thrown_away() {
    let server = slow(Duration::from_secs(3600), Answer::Reply);
    let mut client = connect(&server);
    client.send("slow\n");
    let messages = || metrics(&server).sum("talkback_messages_total");
    eventually("it is asked", || messages() == 1.0);
    client.reset();
    eventually_closed(&server, &[("peer_reset", 1)]);
    assert_eq!(metrics(&server).sum("talkback_discarded_bytes_total"), 5.0);
    // The stop does not wait for it.
    assert_eq!(server.drain().cut, 0);
}

/// A server that hands the test a sender for each connection, and echoes.
fn sending(config: &Config) -> (Server, Receiver<Sender>) {
    let (senders, taken) = channel();
    let server = start(config, move || {
        let senders = senders.clone();
        from_fn(move |text, reply, context| {
            if text == "sender" {
                senders.send(context.sender()).unwrap();
            }
            echo(text, reply)
        })
    });
    (server, taken)
}

#[test]
fn a_text_that_nobody_asked_for_is_sent_from_any_thread() {
    let (server, senders) = sending(&config());
    let mut client = connect(&server);
    client.echo("sender\n");
    let sender = senders.recv_timeout(PATIENCE).unwrap();
    std::thread::spawn(move || sender.clone().send("news")).join().unwrap().unwrap();
    client.expect("news\n");
    client.echo("a\n");
    eventually_replied(&server, 3.0);
}

#[test]
fn a_sender_may_close_the_connection() {
    let (server, senders) = sending(&config());
    let mut client = connect(&server);
    client.echo("sender\n");
    let sender = senders.recv_timeout(PATIENCE).unwrap();
    sender.send("last words").unwrap();
    sender.close().unwrap();
    assert_eq!(client.read_to_end(), b"last words\n");
    drop(client);
    eventually_closed(&server, &[("responder_closed", 1)]);
    sender.send("nobody is there").unwrap();
    let stale = "talkback_late_replies_refused_total{reason=\"stale\"}";
    eventually("it is counted", || metrics(&server).get(stale) == 1.0);
    server.drain();
    assert_eq!(sender.send("no server either"), Err(SendError::Ended));
}

#[test]
fn a_client_that_reads_nothing_is_not_sent_texts_without_end() {
    let mut config = config();
    config.limits.max_pending_bytes = 100_000;
    let (server, senders) = sending(&config);
    let mut client = connect(&server);
    client.echo("sender\n");
    let sender = senders.recv_timeout(PATIENCE).unwrap();
    let text: std::sync::Arc<str> = "x".repeat(100_000).into();
    let full = "talkback_late_replies_refused_total{reason=\"pending_full\"}";
    eventually("one finds no room", || {
        let is_sent = sender.send(text.clone());
        assert!(matches!(is_sent, Ok(()) | Err(SendError::Full)));
        metrics(&server).get(full) > 0.0
    });
    let pending = metrics(&server).sum("talkback_pending_bytes");
    assert!(pending <= 200_002.0, "{pending}");
}
