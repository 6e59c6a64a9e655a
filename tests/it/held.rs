//! `max_accept_rate`: above it newcomers wait in the kernel's queue, and nothing is lost.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Client, Metrics, Server};

const HELD: &str = "talkback_accept_held_seconds_total{listener=\"main\"}";

fn server(keys: &str) -> Server {
    Server::with_listener(&format!("framing = \"line\"\n{keys}"))
}

/// Clients that have said something, and may have been accepted or not.
fn newcomers(server: &Server, count: usize) -> Vec<Client> {
    let newcomer = |_| {
        let mut client = server.connect();
        client.send("hello\n");
        client
    };
    (0..count).map(newcomer).collect()
}

fn accepted(metrics: &Metrics) -> f64 {
    metrics.sum("talkback_connections_accepted_total")
}

#[test]
fn a_burst_is_let_through_at_once_and_the_rest_at_the_rate() {
    let server = server("max_accept_rate = 20\nmax_accept_burst = 5");
    let began = Instant::now();
    let mut clients = newcomers(&server, 15);
    clients[..5].iter_mut().for_each(|client| client.expect("hello\n"));
    clients[5..].iter_mut().for_each(|client| client.expect("hello\n"));
    let took = began.elapsed();
    // Ten at 20 a second.
    assert!(took >= Duration::from_millis(500), "{took:?}");
    let metrics = server.metrics();
    let held = metrics.get(HELD);
    assert!((0.3..=took.as_secs_f64()).contains(&held), "{held} of {took:?}");
    drop(clients);
    server.eventually_closed(&[("peer_closed", 15)]);
}

#[test]
fn nobody_is_held_back_by_a_limit_that_nobody_reaches() {
    let server = server("max_accept_rate = 1000000");
    newcomers(&server, 50).iter_mut().for_each(|client| client.expect("hello\n"));
    server.eventually("all are accepted", |metrics| accepted(metrics) == 50.0);
    // Nor while nobody is there to be held back.
    let slow = self::server("max_accept_rate = 1");
    slow.connect().echo("hello\n");
    slow.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(slow.metrics().get(HELD), 0.0);
}

#[test]
fn those_who_are_served_notice_nothing_of_those_who_wait() {
    let server = server("max_accept_rate = 2\nmax_accept_burst = 3");
    let mut served = newcomers(&server, 3);
    served.iter_mut().for_each(|client| client.expect("hello\n"));
    let waiting = newcomers(&server, 20);
    for _ in 0..200 {
        served.iter_mut().for_each(|client| client.echo("still\n"));
    }
    let metrics = server.metrics();
    assert!(accepted(&metrics) <= 6.0, "{metrics}");
    drop(waiting);
}

#[track_caller]
fn check_stop(signal: Signal) {
    // If the rate were all that counts, the last would be let in long after any patience.
    let mut server = server("max_accept_rate = 1\nmax_accept_burst = 2\nbacklog = 64");
    let mut served = newcomers(&server, 2);
    served.iter_mut().for_each(|client| client.expect("hello\n"));
    let mut waiting = newcomers(&server, 30);
    let metrics = server.metrics();
    assert!(accepted(&metrics) <= 8.0, "nobody is held back\n{metrics}");
    server.signal(signal);
    // What the kernel had queued is served, in the drain's last receive at the latest.
    for client in &mut waiting {
        assert_eq!(client.read_to_end(), b"hello\n");
    }
    served.iter_mut().for_each(Client::expect_end);
    drop((waiting, served));
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.close_lines().len(), 32);
    assert!(server.close_lines().iter().all(|line| line["reason"] == "shutdown"));
}

#[test]
fn a_stop_while_accept_is_held_back_serves_what_is_queued() {
    check_stop(Signal::TERM);
}

#[test]
fn ctrl_c_while_accept_is_held_back_serves_what_is_queued() {
    check_stop(Signal::INT);
}

#[test]
fn a_unix_listener_is_held_back_and_stopped_like_any_other() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.sock");
    let mut server = Server::start(&format!(
        "[[listener]]\naddress = \"unix:{}\"\nframing = \"line\"\nmax_accept_rate = 1\n",
        path.display()
    ));
    let mut clients: Vec<_> = (0..5)
        .map(|_| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(b"hello\n").unwrap();
            client
        })
        .collect();
    clients[0].read_exact(&mut [0; 6]).unwrap();
    let metrics = server.metrics();
    assert!(accepted(&metrics) <= 3.0, "nobody is held back\n{metrics}");
    assert_eq!(server.stop(), Some(0));
    for client in &mut clients[1..] {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"hello\n");
    }
}
