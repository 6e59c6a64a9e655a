//! The stop in its steps: not ready, not accepting, one last receive, the deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::{Client, PATIENCE, Server, eventually};
use crate::stuck::{LINE, stuck_client};

const LINES: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"";

/// SIGTERM to a server that was stopped by SIGSTOP, so that everything sent so far and the stop
/// come at once.
#[track_caller]
fn stop_paused(server: &Server) {
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
}

/// Waits for the end of the server; the reasons in its log, by their clients.
#[track_caller]
fn check_end(server: &mut Server, expected: &[(SocketAddr, &str)]) {
    assert_eq!(server.wait().code(), Some(0));
    let lines = server.close_lines();
    let mut found: Vec<_> = lines
        .iter()
        .map(|line| (line["peer"].as_str().unwrap(), line["reason"].as_str().unwrap()))
        .collect();
    let expected: Vec<_> =
        expected.iter().map(|(peer, reason)| (peer.to_string(), *reason)).collect();
    let mut expected: Vec<_> =
        expected.iter().map(|(peer, reason)| (peer.as_str(), *reason)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn address_of(client: &Client) -> SocketAddr {
    client.stream.local_addr().unwrap()
}

#[test]
fn complete_lines_are_answered_and_an_unfinished_one_is_dropped() {
    let mut server = Server::start(LINES);
    let mut client = server.connect();
    client.echo("before\n");
    server.pause();
    client.send("one\ntwo\nunfinished");
    stop_paused(&server);
    assert_eq!(client.read_to_end(), b"one\ntwo\n");
    let peer = address_of(&client);
    drop(client);
    check_end(&mut server, &[(peer, "shutdown")]);
    assert_eq!(server.close_lines()[0]["messages"], 3);
}

#[test]
fn a_raw_message_that_came_with_the_stop_is_answered_and_a_cut_character_is_dropped() {
    let mut server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("before");
    server.pause();
    client.send(b"\xe4\xbd\xa0\xe5\xa5");
    stop_paused(&server);
    assert_eq!(client.read_to_end(), "你".as_bytes());
    let peer = address_of(&client);
    drop(client);
    check_end(&mut server, &[(peer, "shutdown")]);
}

#[test]
fn an_end_that_the_client_makes_in_the_drain_keeps_its_own_reason() {
    let mut server = Server::start(LINES);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients[..3] {
        client.echo("before\n");
    }
    let peers: Vec<_> = clients.iter().map(address_of).collect();
    server.pause();
    clients[0].send("last\nexit\n");
    clients[1].send("last\nunfinished");
    clients[1].finish();
    stop_paused(&server);
    assert_eq!(clients[0].read_to_end(), b"last\n");
    assert_eq!(clients[1].read_to_end(), b"last\nunfinished\n");
    clients[2].expect_end();
    clients[3].expect_end();
    drop(clients);
    let reasons = ["exit", "peer_closed", "shutdown", "shutdown"];
    let expected: Vec<_> = peers.into_iter().zip(reasons).collect();
    check_end(&mut server, &expected);
}

#[test]
fn clients_queued_in_the_kernel_at_the_stop_are_served() {
    let mut server = Server::with_listener("");
    server.connect().echo("before");
    server.pause();
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients[..49] {
        client.send("hello");
    }
    stop_paused(&server);
    for client in &mut clients[..49] {
        assert_eq!(client.read_to_end(), b"hello");
    }
    // The last one said nothing.
    clients[49].expect_end();
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.logged("stopped").unwrap()["served"], 51);
}

#[test]
fn a_handshake_under_way_at_the_stop_is_finished_and_served() {
    let mut server = Server::with_listener("");
    let address = server.address();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    // So the last segment of the handshake waits for the first bytes, or a fifth of a second.
    rustix::net::sockopt::set_tcp_quickack(&socket, false).unwrap();
    socket.connect(&address.into()).unwrap();
    server.signal(Signal::TERM);
    eventually("newcomers are refused", || TcpStream::connect(address).is_err());
    let mut client = Client { stream: socket.into() };
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send("hello");
    assert_eq!(client.read_to_end(), b"hello");
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn newcomers_are_refused_at_once_while_others_are_drained() {
    let mut server = Server::with_listener("");
    let address = server.address();
    let mut client = server.connect();
    client.echo("hello");
    server.signal(Signal::TERM);
    client.expect_end();
    let began = Instant::now();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Not only after the second that an unanswered SYN waits.
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn clients_queued_on_a_unix_socket_at_the_stop_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let config = format!("[[listener]]\naddress = \"unix:{}\"", path.display());
    let mut server = Server::start(&config);
    server.pause();
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"hello").unwrap();
            stream
        })
        .collect();
    stop_paused(&server);
    for client in &mut clients {
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "hello");
    }
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.logged("stopped").unwrap()["served"], 20);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "socket and lock are left");
}

#[test]
fn while_the_delay_passes_it_is_not_ready_but_serves_newcomers() {
    let mut server = Server::start(&format!("{LINES}\n[shutdown]\ndrain_delay = \"1s\""));
    assert_eq!(server.get("/readyz").0, 200);
    let began = Instant::now();
    server.signal(Signal::TERM);
    eventually("it is not ready", || server.get("/readyz").0 == 503);
    let mut client = server.connect();
    client.echo("after the signal\n");
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.metrics().get("talkback_draining"), 1.0);
    client.expect_end();
    assert!(began.elapsed() >= Duration::from_secs(1), "the delay was cut short");
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_sidecar_answers_until_the_last_connection_is_gone() {
    let mut server = Server::start(LINES);
    let mut client = server.connect();
    client.echo("before\n");
    server.signal(Signal::TERM);
    // Our FIN is still to come, so the drain waits.
    client.expect_end();
    assert_eq!(server.get("/readyz").0, 503);
    let metrics = server.metrics();
    assert_eq!(metrics.get("talkback_draining"), 1.0);
    assert_eq!(metrics.sum("talkback_connections"), 1.0);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_slow_client_is_answered_what_was_received_and_one_buffer_more() {
    let mut server = Server::start(LINES);
    let mut client = stuck_client(&server, server.address());
    let peer = address_of(&client);
    let received = server.metrics().sum("talkback_received_bytes_total");
    server.signal(Signal::TERM);
    eventually("the drain has begun", || server.logged("draining: not accepting").is_some());
    let replies = client.read_to_end();
    drop(client);
    check_end(&mut server, &[(peer, "shutdown")]);
    let line = &server.close_lines()[0];
    let messages = usize::try_from(line["messages"].as_u64().unwrap()).unwrap();
    assert!(replies == LINE.repeat(messages).as_bytes(), "replies are not what was counted");
    assert_eq!(line["discarded_bytes"], 0);
    let more = replies.len() as f64 - received;
    assert!((0.0..=65_536.0).contains(&more), "{more} bytes more");
    // The client had sent more than that, which the server only discarded.
    assert!(line["received_bytes"].as_u64().unwrap() > replies.len() as u64 + 65_536);
}

#[test]
fn a_slow_client_that_sends_on_gets_every_reply_however_long_it_takes() {
    let linger = Duration::from_millis(100);
    let mut server = Server::start(&format!("{LINES}\n[limits]\nlinger_timeout = \"100ms\""));
    let client = stuck_client(&server, server.address());
    let peer = address_of(&client);
    let owed = server.metrics().sum("talkback_received_bytes_total") as usize;
    server.signal(Signal::TERM);
    eventually("the drain has begun", || server.logged("draining: not accepting").is_some());

    client.stream.set_nonblocking(true).unwrap();
    let (mut replies, mut sip, mut began) = (Vec::new(), vec![0; owed / 550], None);
    eventually("the server's FIN", || {
        // Where the FIN is here and not yet read, the server may have closed since.
        let said = (&client.stream).write(LINE.repeat(64).as_bytes());
        let error = said.err().map(|error| error.kind());
        assert_ne!(error, Some(ErrorKind::ConnectionReset), "{} bytes", replies.len());
        let pending = || server.metrics().sum("talkback_pending_bytes");
        if began.is_none() && pending() == 0.0 {
            began = Some(Instant::now());
        }
        match (&client.stream).read(&mut sip) {
            Ok(0) => return true,
            Ok(read) => replies.extend_from_slice(&sip[..read]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        false
    });
    let took = began.expect("the server sent its last long before").elapsed();
    assert!(took > 2 * linger, "the client was not slow: {took:?}");
    drop(client);
    check_end(&mut server, &[(peer, "shutdown")]);
    let line = &server.close_lines()[0];
    let whole = replies.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(line["messages"], whole);
    assert_eq!(line["sent_bytes"], replies.len());
    assert_eq!(line["discarded_bytes"], 0);
}

/// Cuts a client that never reads, beside an idle one, which ends in an orderly way; returns how
/// long the stop took.
#[track_caller]
fn cut(drain_timeout: &str) -> Duration {
    let config = format!("{LINES}\n[shutdown]\ndrain_timeout = \"{drain_timeout}\"");
    let mut server = Server::start(&config);
    let mut idle = server.connect();
    idle.echo("before\n");
    let mut stuck = stuck_client(&server, server.address());
    let peers = [(address_of(&idle), "shutdown"), (address_of(&stuck), "shutdown_forced")];
    let began = Instant::now();
    server.signal(Signal::TERM);
    idle.expect_end();
    drop(idle);
    check_end(&mut server, &peers);
    let took = began.elapsed();
    stuck.expect_reset();
    let summary = server.logged("stopped").unwrap();
    assert_eq!((&summary["served"], &summary["cut"]), (&Value::from(1), &Value::from(1)));
    took
}

#[test]
fn what_is_left_at_the_deadline_is_cut() {
    let took = cut("300ms");
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took <= Duration::from_millis(1300), "{took:?}");
}

#[test]
fn a_drain_timeout_of_zero_cuts_at_once() {
    let took = cut("0s");
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[test]
fn lingering_does_not_outlive_the_drain_and_keeps_its_reason() {
    let config = "[limits]\nlinger_timeout = \"0s\"\n[shutdown]\ndrain_timeout = \"200ms\"";
    let mut server = Server::start(&format!("{LINES}\n{config}"));
    let mut client = server.connect();
    client.send("exit\n");
    client.expect_end();
    server.signal(Signal::TERM);
    check_end(&mut server, &[(address_of(&client), "exit")]);
    assert_eq!(server.logged("stopped").unwrap()["cut"], 0);
}

#[test]
fn a_stop_without_connections_waits_for_nothing() {
    let mut server = Server::with_listener("");
    let began = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
