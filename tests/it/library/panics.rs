//! Responders that panic: in an answer, while they are made, and while they are dropped. What was
//! whole stays whole, and the ledger stays exact.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use talkback::{Answer, Context, Reply, Responder, Server, from_fn};

use super::{
    config, connect, echo, eventually_closed, metrics, start, start_function, with_workers,
};
use crate::harness::{Client, eventually};

/// Echoes; `panic` panics. Where asked to, its drop panics too.
struct Fragile {
    panics_on_drop: bool,
}

impl Responder for Fragile {
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        self.panics_on_drop |= text == "fragile";
        reply.push(text);
        assert_ne!(text, "panic");
        Answer::Reply
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.panics_on_drop, "dropped");
    }
}

#[track_caller]
fn fragile(workers: usize) -> Server {
    let config = with_workers(workers);
    start(&config, || Box::new(Fragile { panics_on_drop: false }))
}

#[track_caller]
fn neighbours(server: &Server, count: usize) -> Vec<Client> {
    let neighbour = |_| {
        let mut client = connect(server);
        client.echo("here\n");
        client
    };
    (0..count).map(neighbour).collect()
}

#[track_caller]
fn check_panics(server: &Server, expected: f64) {
    let metrics = metrics(server);
    assert_eq!(metrics.sum("talkback_worker_panics_total"), expected);
    let workers = metrics.series().filter(|it| it.starts_with("talkback_worker_connections"));
    assert_eq!(metrics.sum("talkback_workers"), workers.count() as f64, "a worker is gone");
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
}

#[test]
fn a_panic_costs_its_own_connection_and_no_reply_before_it() {
    let server = fragile(1);
    let mut neighbours = neighbours(&server, 3);
    let mut client = connect(&server);
    client.send("a\nb\npanic\nc\n");
    assert_eq!(client.read_to_end(), b"a\nb\n");
    drop(client);
    neighbours.iter_mut().for_each(|neighbour| neighbour.echo("still here\n"));
    drop(neighbours);
    eventually_closed(&server, &[("responder_panic", 1), ("peer_closed", 3)]);
    check_panics(&server, 1.0);
    assert_eq!(metrics(&server).sum("talkback_discarded_bytes_total"), 0.0);
}

#[test]
fn every_panic_is_counted() {
    let server = start_function(&config(), |_, _, _| panic!("always"));
    for _ in 0..20 {
        let mut client = connect(&server);
        client.send("a\n");
        client.expect_end();
    }
    eventually_closed(&server, &[("responder_panic", 20)]);
    check_panics(&server, 20.0);
}

#[test]
fn a_panic_while_a_responder_is_made_costs_its_connection_alone() {
    let made = AtomicUsize::new(0);
    let server = start(&config(), move || {
        assert_ne!(made.fetch_add(1, Ordering::SeqCst), 1, "the second");
        super::from_fn(|text, reply, _| echo(text, reply))
    });
    let mut first = connect(&server);
    first.echo("a\n");
    let mut second = connect(&server);
    second.expect_end();
    drop(second);
    let mut third = connect(&server);
    third.echo("a\n");
    first.echo("b\n");
    drop((first, third));
    eventually_closed(&server, &[("responder_panic", 1), ("peer_closed", 2)]);
    check_panics(&server, 1.0);
}

#[test]
fn a_panic_in_a_drop_costs_nobody_else_anything() {
    let server = fragile(1);
    let mut neighbours = neighbours(&server, 3);
    let mut client = connect(&server);
    client.echo("fragile\n");
    client.send("exit\n");
    client.expect_end();
    drop(client);
    neighbours.iter_mut().for_each(|neighbour| neighbour.echo("still here\n"));
    drop(neighbours);
    eventually_closed(&server, &[("exit", 1), ("peer_closed", 3)]);
    check_panics(&server, 1.0);
}

/// What a panic carries may itself panic when it is dropped, and then no one connection is to
/// blame.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload of a panic");
    }
}

#[track_caller]
fn with_bombs(workers: usize) -> Server {
    let config = with_workers(workers);
    start_function(&config, |text, reply, _| match text {
        "bomb" => std::panic::panic_any(Bomb),
        text => echo(text, reply),
    })
}

/// Its drop panics with something whose drop panics.
struct Booby;

impl Responder for Booby {
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        echo(text, reply)
    }
}

impl Drop for Booby {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn a_responder_that_goes_with_a_bomb_is_still_counted() {
    let server = start(&config(), || Box::new(Booby));
    for _ in 0..5 {
        connect(&server).echo("hello\n");
    }
    eventually_closed(&server, &[("peer_closed", 5)]);
    check_panics(&server, 5.0);
}

#[test]
fn a_panic_of_the_loop_ends_its_connections_and_not_the_worker() {
    let server = with_bombs(1);
    let mut clients = neighbours(&server, 4);
    clients[0].send("bomb\n");
    eventually_closed(&server, &[("worker_panic", 4)]);
    // Nothing was owed to anyone, so that nobody is reset.
    clients.iter_mut().for_each(Client::expect_end);
    neighbours(&server, 3);
    eventually_closed(&server, &[("worker_panic", 4), ("peer_closed", 3)]);
    let metrics = metrics(&server);
    assert_eq!(metrics.sum("talkback_worker_connections"), 0.0);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    assert_eq!(metrics.sum("talkback_messages_total"), 8.0);
    assert_eq!(metrics.sum("talkback_replies_total"), 7.0);
}

#[test]
fn who_is_in_the_inbox_at_a_panic_of_the_loop_is_served_all_the_same() {
    let (enter, entered) = mpsc::channel();
    let (leave, left) = mpsc::channel();
    let (enter, left) = (Mutex::new(enter), Mutex::new(left));
    let responder = Arc::new(move |text: &str, reply: &mut Reply<'_>| match text {
        "hold" => {
            enter.lock().send(()).unwrap();
            left.lock().recv().unwrap();
            Answer::Silence
        }
        "bomb" => std::panic::panic_any(Bomb),
        text => echo(text, reply),
    });
    let server = start(&with_workers(1), move || {
        let responder = responder.clone();
        Box::new(from_fn(move |text, reply, _| responder(text, reply)))
    });
    let mut busy = connect(&server);
    // Not within the turn in which it was taken out of the inbox.
    busy.echo("ready\n");
    busy.send("hold\n");
    entered.recv().unwrap();
    connect(&server).send("bomb\n");
    let mut last = connect(&server);
    let taken = || metrics(&server).sum("talkback_worker_connections");
    eventually("all are with the worker", || taken() == 3.0);
    leave.send(()).unwrap();
    last.echo("hello\n");
    drop((busy, last));
    eventually_closed(&server, &[("worker_panic", 2), ("peer_closed", 1)]);
}

#[test]
fn a_panic_of_one_workers_loop_leaves_the_other_alone() {
    let server = with_bombs(2);
    let mut clients = neighbours(&server, 4);
    clients[0].send("bomb\n");
    eventually("its worker's are closed", || !metrics(&server).closes().is_empty());
    eventually("its worker's are gone", || metrics(&server).adds_up());
    let left = metrics(&server).sum("talkback_worker_connections");
    let gone = metrics(&server).closes()["worker_panic"];
    assert_eq!(left + gone as f64, 4.0);
    assert!(left > 0.0);
    let mut alive = 0.0;
    for client in &mut clients {
        // One that is gone may still take a write.
        let _ = client.stream.write_all(b"still here\n");
        alive += f64::from(client.stream.read(&mut [0; 64]).is_ok_and(|read| read > 0));
    }
    assert_eq!(alive, left);
}

/// The third panic of the loop within ten seconds.
#[test]
fn a_loop_that_panics_again_and_again_gives_the_server_up() {
    let server = with_bombs(1);
    let (tell, told) = crossbeam_channel::bounded(2);
    server.on_give_up(move |why| tell.send(why).unwrap());
    for round in 1..=3 {
        assert!(told.is_empty(), "round {round}");
        let mut clients = neighbours(&server, 2);
        clients[1].send("bomb\n");
        eventually_closed(&server, &[("worker_panic", 2 * round)]);
    }
    let why = told.recv_timeout(crate::harness::PATIENCE).unwrap();
    assert_eq!(why.thread, "worker-0");
    assert_eq!(metrics(&server).sum("talkback_workers"), 0.0);
    // Who comes before the stop is turned away at once, and counted.
    connect(&server).expect_end();
    eventually_closed(&server, &[("worker_panic", 7)]);
    let summary = server.drain();
    assert_eq!((summary.served, summary.cut), (7, 0));
}

/// What was received, answered, sent and lost up to the panic, to the byte.
#[test]
fn what_a_worker_had_counted_survives_its_panic_exactly() {
    let server = with_bombs(1);
    let mut clients = neighbours(&server, 3);
    // Both replies are gathered when the bomb goes off, so that neither is sent.
    clients[0].send("one\ntwo\nbomb\nnever\n");
    eventually_closed(&server, &[("worker_panic", 3)]);
    let metrics = metrics(&server);
    let of = |name: &str| metrics.sum(&format!("talkback_{name}"));
    assert_eq!(of("received_bytes_total"), f64::from(3 * 5 + 19));
    assert_eq!((of("messages_total"), of("replies_total")), (6.0, 5.0));
    assert_eq!((of("sent_bytes_total"), of("discarded_bytes_total")), (15.0, 8.0));
    assert_eq!(of("pending_bytes"), 0.0);
    assert_eq!(of("worker_panics_total"), 2.0, "the responder's, and the loop's");
}

#[test]
fn ten_thousand_panics_cost_no_bystander_anything() {
    const PANICS: u64 = 10_000;
    // Not by panic!, whose hook would print each of them.
    let server = start_function(&config(), |text, reply, _| match text {
        "panic" => std::panic::resume_unwind(Box::new("a panic")),
        text => echo(text, reply),
    });
    let mut bystanders = neighbours(&server, 10);
    for round in 0..PANICS {
        let mut client = connect(&server);
        client.send("panic\n");
        client.expect_end();
        if round % 100 == 0 {
            bystanders.iter_mut().for_each(|bystander| bystander.echo("still here\n"));
        }
    }
    bystanders.iter_mut().for_each(|bystander| bystander.echo("still here\n"));
    drop(bystanders);
    eventually_closed(&server, &[("responder_panic", PANICS), ("peer_closed", 10)]);
    check_panics(&server, PANICS as f64);
}

#[test]
fn a_stop_after_a_panic_of_the_loop_ends_in_order() {
    let server = with_bombs(1);
    let mut clients = neighbours(&server, 2);
    clients[0].send("bomb\n");
    eventually_closed(&server, &[("worker_panic", 2)]);
    let mut last = connect(&server);
    last.echo("here\n");
    let summary = server.drain();
    assert_eq!((summary.served, summary.cut), (3, 0));
    last.expect_end();
}

#[test]
fn a_responder_that_panics_in_its_answer_and_in_its_drop_costs_nobody_else_anything() {
    let server = fragile(1);
    let mut neighbours = neighbours(&server, 1);
    let mut client = connect(&server);
    client.send("fragile\npanic\n");
    assert_eq!(client.read_to_end(), b"fragile\n");
    drop(client);
    neighbours[0].echo("still here\n");
    drop(neighbours);
    eventually_closed(&server, &[("responder_panic", 1), ("peer_closed", 1)]);
    check_panics(&server, 2.0);
}

#[test]
fn a_stop_after_a_panic_in_a_drop_ends_in_order() {
    let server = fragile(1);
    let mut client = connect(&server);
    client.echo("fragile\n");
    let summary = server.drain();
    assert_eq!((summary.served, summary.cut), (1, 0));
    client.expect_end();
}
