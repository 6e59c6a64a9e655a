//! Panics, timeouts and stops of responders on threads of their own.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use talkback::offload::Offload;
use talkback::{Answer, Context, Reply, Responder, Server};

use super::{eventually_closed_of, gate, gated, pool, start};
use crate::harness::{Client, PATIENCE, eventually};
use crate::library::{check_drain, config, connect, echo, eventually_closed, from_fn, metrics};

/// Panics where it is told to.
#[derive(Default)]
struct Fragile {
    at_its_end: bool,
    on_drop: bool,
}

impl Responder for Fragile {
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        self.at_its_end |= text.contains("end");
        self.on_drop |= text.contains("drop");
        assert!(!text.contains("now"), "now");
        echo(text, reply)
    }

    fn end(&mut self, _: &str) {
        assert!(!self.at_its_end, "at its end");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.on_drop, "dropped");
    }
}

/// One client says `text`, which ends in so many panics; its neighbours notice nothing.
#[track_caller]
fn check_panics(text: &str, reason: &str, panics: f64) {
    let server = start(&config(), &pool(1), Fragile::default);
    let mut neighbour = connect(&server);
    neighbour.echo("here\n");
    let mut client = connect(&server);
    client.send(format!("a\n{text}\nb\n"));
    client.finish();
    assert!(client.read_to_end().starts_with(b"a\n"));
    drop(client);
    eventually_closed_of(&server, reason, 1);
    neighbour.echo("still here\n");
    eventually(format!("{panics} panics"), || {
        metrics(&server).sum("talkback_worker_panics_total") == panics
    });
    drop(neighbour);
    eventually("the ledger adds up", || metrics(&server).adds_up());
    assert_eq!(metrics(&server).sum("talkback_late_replies_refused_total"), 0.0);
}

#[test]
fn a_panic_costs_its_own_connection_alone() {
    check_panics("now", "responder_panic", 1.0);
}

#[test]
fn a_panic_at_the_end_is_contained_and_counted() {
    check_panics("end", "peer_closed", 1.0);
    check_panics("drop", "peer_closed", 1.0);
    check_panics("end and drop", "peer_closed", 2.0);
    check_panics("drop now", "responder_panic", 2.0);
}

#[test]
fn a_panic_while_a_responder_is_made_costs_its_connection_alone() {
    let made = std::sync::atomic::AtomicUsize::new(0);
    let server = start(&config(), &pool(1), move || {
        assert_ne!(made.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 1, "the second");
        from_fn(|text, reply, _| echo(text, reply))
    });
    let mut first = connect(&server);
    first.echo("a\n");
    let mut second = connect(&server);
    second.expect_end();
    drop(second);
    connect(&server).echo("a\n");
    first.echo("b\n");
    drop(first);
    eventually_closed(&server, &[("responder_panic", 1), ("peer_closed", 2)]);
    assert_eq!(metrics(&server).sum("talkback_worker_panics_total"), 1.0);
}

/// Says when it has ended, and how.
struct Ending(Sender<String>, super::Turnstile);

impl Responder for Ending {
    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, _: &mut Context<'_>) -> Answer {
        self.1.pass(text);
        echo(text, reply)
    }

    fn end(&mut self, reason: &str) {
        self.0.send(reason.to_owned()).unwrap();
    }
}

#[test]
fn a_call_that_takes_too_long_costs_its_connection_which_ends_when_it_returns() {
    let mut config = config();
    config.listeners[0].reply_timeout = Duration::from_millis(100);
    let (gate, turnstile) = gate();
    let (ends, ended) = channel();
    let server = start(&config, &pool(1), move || Ending(ends.clone(), turnstile.clone()));
    let mut client = connect(&server);
    client.send("a\nblock\n");
    gate.expect("a");
    gate.expect("block");
    assert_eq!(client.read_to_end(), b"a\n");
    drop(client);
    eventually_closed(&server, &[("responder_timeout", 1)]);
    assert!(ended.try_recv().is_err(), "it is still asked");
    gate.let_one_pass();
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), "responder_timeout");
}

/// A pool's one thread is held until an answer is due, and on; who waits for it then lingers as
/// long as the client likes.
#[track_caller]
fn overdue(pool: &Offload) -> (Server, super::Gate, Receiver<String>) {
    let mut config = config();
    config.listeners[0].reply_timeout = Duration::from_millis(300);
    config.limits.linger_timeout = PATIENCE;
    let (gate, turnstile) = gate();
    let (ends, ended) = channel();
    let server = start(&config, pool, move || {
        turnstile.pass("made");
        Ending(ends.clone(), turnstile.clone())
    });
    (server, gate, ended)
}

#[test]
fn a_question_whose_time_is_over_is_not_asked_and_the_end_comes_once() {
    let pool = pool(1);
    let (server, gate, ended) = overdue(&pool);
    let mut clients = [(); 2].map(|()| {
        let mut client = connect(&server);
        client.echo("hello\n");
        gate.expect("made");
        gate.expect("hello");
        client
    });
    clients[0].send("block\n");
    gate.expect("block");
    clients[1].send("never\n");
    // It has not closed yet.
    clients[1].expect_end();
    gate.let_one_pass();
    let mut next = connect(&server);
    next.echo("next\n");
    gate.expect("made");
    gate.expect("next");
    assert!(ended.try_recv().is_err(), "nobody has left");
    drop((clients, next));
    eventually_closed(&server, &[("responder_timeout", 2), ("peer_closed", 1)]);
    server.drain();
    drop(pool);
    let mut ends: Vec<_> = ended.iter().collect();
    ends.sort();
    assert_eq!(ends, ["peer_closed", "responder_timeout", "responder_timeout"]);
}

#[test]
fn a_client_whose_greeting_is_overdue_gets_no_responder() {
    let pool = pool(1);
    let (server, gate, ended) = overdue(&pool);
    let mut blocked = connect(&server);
    blocked.send("block\n");
    gate.expect("made");
    gate.expect("block");
    let mut late = connect(&server);
    late.expect_end();
    gate.let_one_pass();
    let mut next = connect(&server);
    next.echo("next\n");
    gate.expect("made");
    gate.expect("next");
    drop((blocked, late, next));
    eventually_closed(&server, &[("responder_timeout", 2), ("peer_closed", 1)]);
    server.drain();
    drop(pool);
    let mut ends: Vec<_> = ended.iter().collect();
    ends.sort();
    assert_eq!(ends, ["peer_closed", "responder_timeout"]);
}

#[test]
fn a_stop_waits_for_a_call_that_is_under_way() {
    let (server, gate) = gated(&config(), &pool(1));
    let mut client = connect(&server);
    client.send("block\n");
    gate.expect("block");
    let address = server.addresses()[0].ip().unwrap();
    let stop = std::thread::spawn(move || server.drain());
    eventually("nothing is accepted", || std::net::TcpStream::connect(address).is_err());
    gate.let_one_pass();
    assert_eq!(client.read_to_end(), b"block\n");
    drop(client);
    assert_eq!(stop.join().unwrap().cut, 0);
}

#[test]
fn a_call_that_blocks_for_ever_hangs_no_stop() {
    let mut config = config();
    config.shutdown.drain_timeout = Duration::from_millis(200);
    let (server, gate) = gated(&config, &pool(1));
    let mut client = connect(&server);
    client.send("block\n");
    gate.expect("block");
    let began = Instant::now();
    let summary = server.drain();
    // Behind the drain the thread gets a second.
    check_drain(began.elapsed(), config.shutdown.drain_timeout + Duration::from_secs(1));
    assert_eq!((summary.served, summary.cut), (0, 1));
    client.expect_reset();
}

/// Tells that the thread has ended on which it was made.
struct Farewell(Sender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

/// A server in whose pool the threads that were asked tell of their end.
#[track_caller]
fn with_farewells(tell: Sender<()>) -> Server {
    start(&config(), &pool(2), move || {
        let tell = tell.clone();
        from_fn(move |text, reply, _| {
            let tell = tell.clone();
            FAREWELL.with_borrow_mut(|farewell| {
                farewell.get_or_insert_with(|| Farewell(tell));
            });
            echo(text, reply)
        })
    })
}

#[test]
fn the_threads_have_ended_when_the_server_has() {
    let (tell, told) = channel();
    let server = with_farewells(tell);
    let mut clients: Vec<Client> = (0..4).map(|_| connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.echo("a\n"));
    assert!(told.try_recv().is_err(), "they live on");
    server.drain();
    let ended = told.try_iter().count();
    assert!((1..=2).contains(&ended), "{ended} threads have ended");
    assert!(told.recv().is_err(), "nothing is left of the responders");
}
