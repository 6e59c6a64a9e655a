//! Replies that come later: their order, their deadline, and what becomes of those that nobody
//! waits for any more.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use talkback::{Answer, Config, Server, Ticket};

use super::{check_drain, config, connect, echo, eventually_closed, from_fn, metrics, start};
use crate::harness::{Client, PATIENCE, eventually};

/// A server that hands the test a ticket for each `later` and echoes all else.
struct Promising {
    server: Server,
    tickets: Receiver<Ticket>,
}

impl Promising {
    #[track_caller]
    fn start(config: &Config, within: Duration) -> Self {
        let (sender, tickets) = channel();
        let server = start(config, move || {
            let sender = sender.clone();
            from_fn(move |text, reply, context| {
                if text != "later" {
                    return echo(text, reply);
                }
                sender.send(context.ticket()).unwrap();
                reply.push("dropped: the reply comes with the ticket");
                Answer::LaterWithin(within)
            })
        });
        Self { server, tickets }
    }

    #[track_caller]
    fn ticket(&self) -> Ticket {
        self.tickets.recv_timeout(PATIENCE).unwrap()
    }

    /// A client that asked for a late reply, and its ticket.
    #[track_caller]
    fn asked(&self, input: &str) -> (Client, Ticket) {
        let mut client = connect(&self.server);
        client.send(input);
        (client, self.ticket())
    }

    /// When this returns, the one worker has seen everything that was sent before.
    #[track_caller]
    fn see_everything(&self) {
        connect(&self.server).echo("seen\n");
    }

    fn dropped(&self, reason: &str) -> f64 {
        let series = format!("talkback_late_replies_refused_total{{reason=\"{reason}\"}}");
        metrics(&self.server).get(&series)
    }
}

fn promising() -> Promising {
    Promising::start(&config(), PATIENCE)
}

#[track_caller]
fn answer(ticket: Ticket, text: &str) {
    ticket.answer(text.to_owned()).unwrap();
}

#[test]
fn a_reply_may_come_from_another_thread() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\n");
    std::thread::spawn(move || answer(ticket, "at last")).join().unwrap();
    client.expect("at last\n");
    client.echo("and on\n");
    let replies = || metrics(&promising.server).sum("talkback_replies_total");
    eventually("both replies are counted", || replies() == 2.0);
}

#[test]
fn the_time_to_the_reply_includes_what_a_late_one_takes() {
    const WAIT: Duration = Duration::from_millis(300);
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\n");
    let asked = Instant::now();
    eventually("time passes", || asked.elapsed() >= WAIT);
    let timed = |suffix: &str| {
        metrics(&promising.server).sum(&format!("talkback_respond_seconds_{suffix}"))
    };
    assert_eq!(timed("count"), 0.0);
    answer(ticket, "at last");
    client.expect("at last\n");
    eventually("it is timed", || timed("count") == 1.0);
    assert!((WAIT..PATIENCE).contains(&Duration::from_secs_f64(timed("sum"))), "{}", timed("sum"));
}

#[test]
fn a_client_that_is_always_one_message_ahead_has_each_reply_timed() {
    let promising = promising();
    let (mut client, mut ticket) = promising.asked("later\n");
    let timed = || metrics(&promising.server).sum("talkback_respond_seconds_count");
    for answered in 1..=3 {
        client.send("later\n");
        let sent = Instant::now();
        eventually("it is there", || sent.elapsed() >= Duration::from_millis(50));
        answer(ticket, "at last");
        client.expect("at last\n");
        ticket = promising.ticket();
        eventually("the reply before is timed", || timed() == f64::from(answered));
    }
    drop(ticket);
}

#[test]
fn messages_behind_a_late_reply_wait_and_their_replies_keep_the_order() {
    let promising = promising();
    let (mut client, first) = promising.asked("a\nlater\nb\nlater\nc\n");
    client.expect("a\n");
    promising.see_everything();
    answer(first, "one");
    client.expect("one\nb\n");
    answer(promising.ticket(), "two");
    client.expect("two\nc\n");
}

#[test]
fn input_that_arrives_meanwhile_is_answered_behind_the_late_reply() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\n");
    client.send("b\n");
    promising.see_everything();
    let messages = || metrics(&promising.server).sum("talkback_messages_total");
    eventually("the late one and the neighbour's are counted", || messages() >= 2.0);
    assert_eq!(messages(), 2.0);
    answer(ticket, "a");
    client.expect("a\nb\n");
}

#[test]
fn a_late_reply_reaches_a_client_that_has_ended_its_side() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\nb\n");
    client.finish();
    promising.see_everything();
    answer(ticket, "a");
    assert_eq!(client.read_to_end(), b"a\nb\n");
    eventually_closed(&promising.server, &[("peer_closed", 2)]);
}

#[test]
fn a_reply_promised_before_the_exit_word_is_delivered() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\nexit\nb\n");
    promising.see_everything();
    answer(ticket, "a");
    assert_eq!(client.read_to_end(), b"a\n");
    drop(client);
    eventually_closed(&promising.server, &[("exit", 1), ("peer_closed", 1)]);
}

#[test]
fn a_late_reply_of_a_megabyte_arrives_whole() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\n");
    let text = "好".repeat(350_000);
    answer(ticket, &text);
    client.expect(text + "\n");
}

#[test]
fn a_reset_while_a_reply_is_awaited_closes_at_once_and_the_reply_is_stale() {
    let promising = promising();
    let (client, ticket) = promising.asked("later\n");
    client.reset();
    eventually_closed(&promising.server, &[("peer_reset", 1)]);
    answer(ticket, "too late");
    eventually("the reply is counted as stale", || promising.dropped("stale") == 1.0);
    promising.see_everything();
}

#[test]
fn a_late_reply_never_reaches_the_connection_that_came_after() {
    let promising = promising();
    let (client, ticket) = promising.asked("later\n");
    client.reset();
    eventually_closed(&promising.server, &[("peer_reset", 1)]);
    // It has the place of the first, and awaits a reply to a message of the same number.
    let (mut next, own) = promising.asked("later\n");
    answer(ticket, "for the first");
    answer(own, "for the second");
    next.expect("for the second\n");
    assert_eq!(promising.dropped("stale"), 1.0);
}

#[test]
fn a_second_reply_to_the_same_message_is_stale() {
    let (sender, tickets) = channel();
    let server = start(&config(), move || {
        let sender = sender.clone();
        from_fn(move |_, _, context| {
            sender.send([context.ticket(), context.ticket()]).unwrap();
            Answer::LaterWithin(PATIENCE)
        })
    });
    let mut client = connect(&server);
    client.send("a\n");
    let [one, other] = tickets.recv_timeout(PATIENCE).unwrap();
    answer(one, "one");
    answer(other, "other");
    client.send("b\n");
    let [one, _dropped] = tickets.recv_timeout(PATIENCE).unwrap();
    answer(one, "two");
    client.expect("one\ntwo\n");
    let stale = "talkback_late_replies_refused_total{reason=\"stale\"}";
    eventually("one is stale", || metrics(&server).get(stale) >= 1.0);
}

#[test]
fn a_ticket_that_was_not_promised_is_stale() {
    let server = start(&config(), || {
        from_fn(|text, reply, context| {
            answer(context.ticket(), "from the ticket");
            echo(text, reply)
        })
    });
    let mut client = connect(&server);
    client.echo("a\n");
    let stale = "talkback_late_replies_refused_total{reason=\"stale\"}";
    eventually("the ticket's reply is stale", || metrics(&server).get(stale) == 1.0);
    client.finish();
    client.expect_end();
}

#[test]
fn a_ticket_may_be_used_before_the_promise_is_made() {
    let server = start(&config(), || {
        from_fn(|text, _, context| {
            answer(context.ticket(), text);
            Answer::LaterWithin(PATIENCE)
        })
    });
    let mut client = connect(&server);
    client.echo("a\nb\nc\n");
}

#[test]
fn a_promise_not_kept_in_time_closes_behind_the_replies_before_it() {
    let within = Duration::from_millis(200);
    let promising = Promising::start(&config(), within);
    let asked = Instant::now();
    let (mut client, ticket) = promising.asked("a\nlater\nb\n");
    assert_eq!(client.read_to_end(), b"a\n");
    let took = asked.elapsed();
    assert!(took >= within && took < within + Duration::from_secs(1), "{took:?}");
    drop(client);
    eventually_closed(&promising.server, &[("responder_timeout", 1)]);
    answer(ticket, "too late");
    eventually("the reply is counted as stale", || promising.dropped("stale") == 1.0);
}

#[test]
fn a_promise_may_be_for_ever() {
    let promising = Promising::start(&config(), Duration::MAX);
    let (mut client, ticket) = promising.asked("later\n");
    promising.see_everything();
    answer(ticket, "at last");
    client.expect("at last\n");
    assert_eq!(metrics(&promising.server).sum("talkback_worker_panics_total"), 0.0);
}

#[test]
fn the_other_timeouts_rest_while_a_reply_is_awaited() {
    let mut config = config();
    config.limits.idle_timeout = Duration::from_millis(50);
    config.limits.message_timeout = Duration::from_millis(50);
    let promising = Promising::start(&config, PATIENCE);
    // Behind the late one stands half a line, which nobody may hold against the client now.
    let (mut client, ticket) = promising.asked("later\nhal");
    let idler = connect(&promising.server);
    // The neighbour's idle timeout was begun later than this client's message.
    eventually("the neighbour idles out", || !metrics(&promising.server).closes().is_empty());
    answer(ticket, "a");
    client.expect("a\n");
    drop(idler);
}

#[test]
fn a_ticket_dropped_unused_closes_behind_the_replies_before_it() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("a\nlater\nb\n");
    drop(ticket);
    assert_eq!(client.read_to_end(), b"a\n");
    drop(client);
    eventually_closed(&promising.server, &[("responder_error", 1)]);
}

#[test]
fn a_stop_waits_for_a_promised_reply() {
    let promising = promising();
    let (mut client, ticket) = promising.asked("later\n");
    let address = promising.server.addresses()[0].ip().unwrap();
    let stop = std::thread::spawn(move || promising.server.drain());
    // The listener closes before the drain begins.
    eventually("nothing is accepted", || std::net::TcpStream::connect(address).is_err());
    answer(ticket, "a");
    assert_eq!(client.read_to_end(), b"a\n");
    drop(client);
    assert_eq!(stop.join().unwrap().cut, 0);
}

#[test]
fn a_promise_not_kept_is_cut_at_the_end_of_a_drain() {
    let mut config = config();
    config.shutdown.drain_timeout = Duration::from_millis(200);
    let promising = Promising::start(&config, PATIENCE);
    let (mut client, _ticket) = promising.asked("later\n");
    let began = Instant::now();
    let summary = promising.server.drain();
    let took = began.elapsed();
    assert_eq!((summary.served, summary.cut), (0, 1));
    check_drain(took, config.shutdown.drain_timeout);
    client.expect_reset();
}
