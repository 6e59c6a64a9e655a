//! Responders that block, on threads of their own: what they hold up, what they are told, how many
//! wait, and what is left of them at a stop.

mod ends;
mod seam;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use talkback::offload::Offload;
use talkback::{Answer, Config, Responder, Responders, Server, from_fn, offload};

use super::{config, connect, echo, eventually_closed, metrics};
use crate::harness::{Client, PATIENCE, eventually};

/// A server that asks, on the pool's threads, responders that `make` makes.
#[track_caller]
fn start<R: Responder + 'static>(
    config: &Config,
    pool: &Offload,
    make: impl Fn() -> R + Send + Sync + 'static,
) -> Server {
    super::start_with(config, pool.responder(move |_| make()))
}

/// Calls that say what they were asked, and return when the test says so. Dropped, it lets go of
/// every one.
struct Gate {
    asked: Receiver<String>,
    open: Sender<()>,
}

/// The calls' side of a [`Gate`].
#[derive(Clone)]
struct Turnstile {
    asked: Sender<String>,
    open: std::sync::Arc<std::sync::Mutex<Receiver<()>>>,
}

fn gate() -> (Gate, Turnstile) {
    let (asked, told) = channel();
    let (open, opened) = channel();
    let turnstile = Turnstile { asked, open: std::sync::Arc::new(opened.into()) };
    (Gate { asked: told, open }, turnstile)
}

impl Turnstile {
    /// Blocks where the text begins with `block`.
    fn pass(&self, text: &str) {
        // A test that has ended is told no more.
        let _ = self.asked.send(text.to_owned());
        if text.starts_with("block") {
            let _ = self.open.lock().unwrap().recv();
        }
    }
}

impl Gate {
    #[track_caller]
    fn expect(&self, text: &str) {
        assert_eq!(self.asked.recv_timeout(PATIENCE).unwrap(), text);
    }

    fn let_one_pass(&self) {
        self.open.send(()).unwrap();
    }
}

/// Echoes through a [`Gate`].
#[track_caller]
fn gated(config: &Config, pool: &Offload) -> (Server, Gate) {
    let (gate, turnstile) = gate();
    let server = start(config, pool, move || {
        let turnstile = turnstile.clone();
        from_fn(move |text, reply, _| {
            turnstile.pass(text);
            echo(text, reply)
        })
    });
    (server, gate)
}

#[track_caller]
fn pool(threads: usize) -> Offload {
    Offload::new(threads).unwrap()
}

#[test]
fn a_call_that_blocks_holds_up_neither_worker_nor_neighbour() {
    let (server, gate) = gated(&config(), &pool(2));
    let mut blocked = connect(&server);
    blocked.send("block\n");
    gate.expect("block");
    let mut neighbour = connect(&server);
    for _ in 0..20 {
        neighbour.echo("a\n");
    }
    gate.let_one_pass();
    blocked.expect("block\n");
}

#[test]
fn pools_in_which_all_threads_block_leave_other_listeners_alone() {
    let mut config = config();
    let mut other = config.listeners[0].clone();
    (other.name, other.responder) = ("other".to_owned(), "echo".to_owned());
    config.listeners.push(other);
    let (server, gate) = gated(&config, &pool(1));
    let mut blocked = connect(&server);
    blocked.send("block\n");
    gate.expect("block");
    Client::connect(server.addresses()[1].ip().unwrap()).echo("a\n");
    // Who needs the thread waits for it.
    let mut waiting = connect(&server);
    waiting.send("b\n");
    gate.let_one_pass();
    blocked.expect("block\n");
    waiting.expect("b\n");
}

#[test]
fn the_replies_of_many_threads_keep_each_connections_order() {
    const CLIENTS: usize = 6;
    const MESSAGES: usize = 50;
    let server = start(&config(), &pool(4), || {
        let is_asked = std::sync::atomic::AtomicBool::new(false);
        from_fn(move |text, reply, _| {
            use std::sync::atomic::Ordering::SeqCst;
            assert!(!is_asked.swap(true, SeqCst), "asked twice at once");
            std::thread::yield_now();
            is_asked.store(false, SeqCst);
            echo(text, reply)
        })
    });
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| connect(&server)).collect();
    let text = |of: usize| (0..MESSAGES).map(|at| format!("{of} {at}\n")).collect::<String>();
    for (of, client) in clients.iter_mut().enumerate() {
        client.send(text(of));
    }
    for (of, client) in clients.iter_mut().enumerate() {
        client.expect(text(of));
    }
    assert_eq!(metrics(&server).sum("talkback_worker_panics_total"), 0.0);
}

#[test]
fn a_factory_of_its_own_pool_needs_no_more_than_a_number_of_threads() {
    let shout = offload(2, |_| {
        from_fn(|text, reply, _| {
            reply.push(&text.to_uppercase());
            Answer::Reply
        })
    });
    let server = super::start_with(&config(), shout.unwrap());
    let mut client = connect(&server);
    client.send("a\n");
    client.expect("A\n");
}

#[test]
fn a_pool_of_no_threads_is_an_error() {
    let error = Offload::new(0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn two_responders_may_share_one_pool() {
    let pool = pool(1);
    let mut config = config();
    let mut other = config.listeners[0].clone();
    (other.name, other.responder) = ("other".to_owned(), "theirs".to_owned());
    config.listeners.push(other);
    let named = |name: &'static str| {
        pool.responder(move |_| {
            from_fn(move |_, reply, _| {
                let thread = std::thread::current();
                reply.push(&format!("{name} by {}", thread.name().unwrap()));
                Answer::Reply
            })
        })
    };
    let responders =
        Responders::default().with("ours", named("ours")).with("theirs", named("theirs"));
    crate::quiet::share();
    let server = Server::start_with(&config, &responders).unwrap();
    for (at, expected) in ["ours by offload-0\n", "theirs by offload-0\n"].iter().enumerate() {
        let mut client = Client::connect(server.addresses()[at].ip().unwrap());
        client.send("?\n");
        client.expect(expected);
    }
}

/// One thread, blocked, and one question that waits; who comes then is refused.
#[track_caller]
fn full(pool: &Offload) -> (Server, Gate, [Client; 3]) {
    let (server, gate) = gated(&config(), pool);
    // One after the other, as there is room for one.
    let mut clients = [(); 3].map(|()| {
        let mut client = connect(&server);
        client.echo("hello\n");
        gate.expect("hello");
        client
    });
    clients[0].send("block\n");
    gate.expect("block");
    clients[1].send("waits\n");
    eventually("one waits", || pool.waiting() == 1);
    (server, gate, clients)
}

#[test]
fn a_message_for_which_there_is_no_room_is_refused_and_the_conversation_goes_on() {
    let pool = pool(1).max_waiting(1).refusal("busy");
    let (_server, gate, mut clients) = full(&pool);
    clients[2].send("a\nb\n");
    clients[2].expect("busy\nbusy\n");
    assert_eq!(pool.refused(), 2);
    gate.let_one_pass();
    clients[0].expect("block\n");
    clients[1].expect("waits\n");
    clients[2].echo("c\n");
    assert_eq!((pool.refused(), pool.waiting()), (2, 0));
}

#[test]
fn without_a_refusal_there_is_an_end() {
    let pool = pool(1).max_waiting(1);
    let (server, gate, [mut blocked, mut waiting, mut refused]) = full(&pool);
    refused.send("a\n");
    refused.expect_end();
    drop(refused);
    eventually_closed_of(&server, "responder_error", 1);
    gate.let_one_pass();
    blocked.expect("block\n");
    waiting.expect("waits\n");
    // One after the other, as there is room for one's last question.
    drop(blocked);
    eventually_closed_of(&server, "peer_closed", 1);
    drop(waiting);
    eventually_closed(&server, &[("responder_error", 1), ("peer_closed", 2)]);
}

#[test]
fn a_client_for_whom_there_is_no_room_is_told_so() {
    let pool = pool(1).max_waiting(1).refusal("busy");
    let (server, gate, clients) = full(&pool);
    let mut late = connect(&server);
    assert_eq!(late.read_to_end(), b"busy\n");
    drop(late);
    eventually_closed_of(&server, "responder_closed", 1);
    gate.let_one_pass();
    drop(clients);
}

#[test]
fn what_a_client_asked_that_has_gone_is_not_asked() {
    let pool = pool(1);
    let mut config = config();
    config.listeners[0].reply_timeout = Duration::from_millis(100);
    let (server, gate) = gated(&config, &pool);
    let mut one = connect(&server);
    one.echo("hello\n");
    let mut other = connect(&server);
    other.echo("hello\n");
    (0..2).for_each(|_| gate.expect("hello"));
    one.send("block\n");
    gate.expect("block");
    other.send("never\n");
    drop((one, other));
    eventually_closed(&server, &[("responder_timeout", 2)]);
    gate.let_one_pass();
    let mut next = connect(&server);
    next.echo("next\n");
    gate.expect("next");
    assert_eq!(pool.waiting(), 0);
    assert_eq!(metrics(&server).sum("talkback_late_replies_refused_total"), 1.0, "the first's");
}

#[track_caller]
fn eventually_closed_of(server: &Server, reason: &str, count: u64) {
    eventually(format!("{count} closed as {reason}"), || {
        metrics(server).closes().get(reason) == Some(&count)
    });
}
