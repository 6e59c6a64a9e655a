//! FINs and resets where only a responder of one's own brings them about: in the inbox of a stalled
//! worker, while a reply is awaited; and stops that nobody asked for in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use talkback::{Answer, Server, Ticket};

use super::stalls::Stalling;
use super::{check_drain, config, connect, echo, eventually_closed, from_fn, metrics, start};
use super::{stalls, start_function};
use crate::harness::{Client, PATIENCE, eventually};
use crate::stuck::Deaf;

/// More than the kernel takes for a client that does not read.
const BIG: usize = 4_000_000;

/// A server that answers `big` with megabytes, and hands out a ticket for `later`.
#[track_caller]
fn promising() -> (Server, Receiver<Ticket>) {
    let (sender, tickets) = channel();
    let mut config = config();
    config.limits.max_pending_bytes = 2 * BIG;
    let server = start(&config, move || {
        let sender = sender.clone();
        from_fn(move |text, reply, context| match text {
            "big" => {
                reply.push(&"x".repeat(BIG));
                Answer::Reply
            }
            "later" => {
                sender.send(context.ticket()).unwrap();
                Answer::LaterWithin(PATIENCE)
            }
            _ => echo(text, reply),
        })
    });
    (server, tickets)
}

/// A client that is owed a reply it does not read, and awaits another.
#[track_caller]
fn owed_and_waiting(server: &Server, tickets: &Receiver<Ticket>) -> (Client, Ticket) {
    let mut client = Deaf::connect(server.addresses()[0].ip().unwrap()).client;
    client.send("big\nlater\n");
    let ticket = tickets.recv_timeout(PATIENCE).unwrap();
    eventually("replies are pending", || metrics(server).sum("talkback_pending_bytes") > 0.0);
    (client, ticket)
}

#[test]
fn a_reset_in_the_inbox_is_counted_by_what_came_before_it() {
    let mut stalling = Stalling::start(&config());
    let mut stalled = stalling.stall();
    for (number, sent) in ["", "a\n", "unfinished", "exit\n", "a\nexit\n"].iter().enumerate() {
        let mut client = connect(&stalling.server);
        client.send(sent);
        let open = number as f64 + 2.0;
        eventually("it is in the inbox", || stalling.metrics().sum("talkback_connections") == open);
        client.reset();
    }
    // And one that leaves in order.
    let mut client = connect(&stalling.server);
    client.send("a\n");
    client.finish();
    stalling.release();
    stalled.expect("stall\n");
    assert_eq!(client.read_to_end(), b"a\n");
    drop((stalled, client));
    let expected = [("unused", 1), ("peer_reset", 3), ("exit", 1), ("peer_closed", 2)];
    eventually_closed(&stalling.server, &expected);
    assert_eq!(stalling.metrics().sum("talkback_worker_connections"), 0.0);
}

#[test]
fn a_reset_behind_a_fin_while_a_reply_is_awaited_closes_at_once() {
    let (server, tickets) = promising();
    let mut client = connect(&server);
    client.send("later\n");
    let ticket = tickets.recv_timeout(PATIENCE).unwrap();
    client.finish();
    // The one worker has seen the FIN when it answers another.
    connect(&server).echo("seen\n");
    client.reset();
    eventually_closed(&server, &[("peer_reset", 1), ("peer_closed", 1)]);
    ticket.answer("too late".to_owned()).unwrap();
    let stale = "talkback_late_replies_refused_total{reason=\"stale\"}";
    eventually("the reply is stale", || metrics(&server).get(stale) == 1.0);
}

#[test]
fn a_reset_while_one_reply_is_pending_and_another_awaited_loses_both() {
    let (server, tickets) = promising();
    let (client, _ticket) = owed_and_waiting(&server, &tickets);
    client.reset();
    eventually_closed(&server, &[("peer_reset", 1)]);
    let end = metrics(&server);
    let discarded = end.sum("talkback_discarded_bytes_total");
    assert!(discarded > 0.0, "{end}");
    assert_eq!(end.sum("talkback_sent_bytes_total") + discarded, (BIG + 1) as f64);
    assert_eq!(end.sum("talkback_pending_bytes"), 0.0);
}

#[test]
fn a_half_close_while_one_reply_is_pending_and_another_awaited_gets_both() {
    let (server, tickets) = promising();
    let (mut client, ticket) = owed_and_waiting(&server, &tickets);
    client.send("behind");
    client.finish();
    ticket.answer("late".to_owned()).unwrap();
    let replies = client.read_to_end();
    assert!(replies.ends_with(b"x\nlate\nbehind\n"), "{} bytes", replies.len());
    assert_eq!(replies.len(), BIG + "\nlate\nbehind\n".len());
    drop(client);
    eventually_closed(&server, &[("peer_closed", 1)]);
}

#[test]
fn a_reset_while_a_drain_waits_for_a_late_reply_ends_the_drain() {
    let (server, tickets) = promising();
    let mut client = connect(&server);
    client.send("later\n");
    let _ticket = tickets.recv_timeout(PATIENCE).unwrap();
    let mut idle = connect(&server);
    idle.echo("here\n");
    let stop = std::thread::spawn(move || server.drain());
    // Its FIN says that the drain is under way.
    idle.expect_end();
    drop(idle);
    let began = Instant::now();
    client.reset();
    let summary = stop.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((summary.served, summary.cut), (2, 0));
}

#[test]
fn a_server_dropped_while_its_worker_is_stalled_is_gone_after_the_deadline() {
    let mut config = config();
    config.shutdown.drain_timeout = Duration::from_millis(100);
    let stalling = Stalling::start(&config);
    let _stalled = stalling.stall();
    let address = stalling.server.addresses()[0].ip().unwrap();
    let stalls::Stalling { release, server, .. } = stalling;
    let began = Instant::now();
    drop(server);
    check_drain(began.elapsed(), config.shutdown.drain_timeout);
    std::net::TcpListener::bind(address).unwrap();
    drop(release);
}

#[test]
fn a_panic_that_drops_a_server_stops_it_in_order() {
    let server = start_function(&config(), |text, reply, _| echo(text, reply));
    let mut client = connect(&server);
    client.echo("a\n");
    client.send("b\n");
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _server = server;
        std::panic::resume_unwind(Box::new("the caller's own"));
    }));
    assert!(result.is_err());
    assert_eq!(client.read_to_end(), b"b\n");
}
