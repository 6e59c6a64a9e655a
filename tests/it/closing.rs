//! How a conversation ends, and who sees what: an orderly end for a client that is owed replies, a
//! reason for every close.

use std::cell::Cell;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::harness::{Client, Server};

const LINE: &str = "framing = \"line\"";

/// A contract's latest: a second after the timeout.
const SLACK: Duration = Duration::from_secs(1);

fn server_with_linger(linger: &str) -> Server {
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{LINE}\n");
    Server::start(&format!("{listener}[limits]\nlinger_timeout = \"{linger}\"\n"))
}

fn received(server: &Server) -> f64 {
    server.metrics().sum("talkback_received_bytes_total")
}

#[test]
fn a_half_close_is_served_to_the_end() {
    let server = Server::with_listener(LINE);
    let mut client = server.connect();
    let lines: String = (0..700_000).map(|number| format!("line {number:06}\n")).collect();
    assert!(lines.len() > 8_000_000);
    let replies = client.exchange(lines.as_bytes());
    assert!(replies == lines.as_bytes(), "{} of {} bytes", replies.len(), lines.len());
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 700_000.0);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), lines.len() as f64);
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 0.0);
}

#[test]
fn what_was_sent_before_the_half_close_is_answered_after_it() {
    for keys in ["", LINE] {
        let server = Server::with_listener(keys);
        let mut client = server.connect();
        let lines = "0123456789abcde\n".repeat(2048);
        client.send(&lines);
        client.finish();
        client.expect(&lines);
        client.expect_end();
        drop(client);
        server.eventually_closed(&[("peer_closed", 1)]);
    }
}

#[test]
fn replies_before_the_exit_word_arrive_though_input_follows_it() {
    let server = Server::with_listener(LINE);
    let mut client = server.connect();
    let lines = "owed\n".repeat(10_000);
    let rest = "x".repeat(1_000_000);
    let sent = format!("{lines}exit\n{rest}");
    assert!(client.exchange(sent.as_bytes()) == lines.as_bytes());
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    assert_eq!(received(&server), sent.len() as f64);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 10_000.0);
}

#[test]
fn a_client_that_stops_sending_after_exit_sees_an_end_and_no_reset() {
    let server = Server::with_listener(LINE);
    let mut client = server.connect();
    client.send(format!("a\nexit\n{}", "x".repeat(1_000_000)));
    client.expect("a\n");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
}

#[test]
fn a_client_that_sends_on_is_cut_off_after_the_linger_timeout() {
    let server = server_with_linger("300ms");
    let mut client = server.connect();
    client.send("a\n");
    client.expect("a\n");
    let began = Instant::now();
    client.send("exit\n");
    client.expect_end();
    let block = [b'x'; 4096];
    while client.stream.write_all(&block).is_ok() {}
    let lasted = began.elapsed();
    server.eventually_closed(&[("exit", 1)]);
    let linger = Duration::from_millis(300);
    assert!(lasted >= linger && lasted <= linger + SLACK, "{lasted:?}");
}

#[test]
fn a_client_that_stays_silent_after_exit_is_closed_after_the_linger_timeout() {
    let server = server_with_linger("300ms");
    let mut client = server.connect();
    let began = Instant::now();
    client.send("exit\n");
    client.expect_end();
    server.eventually_closed(&[("exit", 1)]);
    let lasted = began.elapsed();
    let linger = Duration::from_millis(300);
    assert!(lasted >= linger && lasted <= linger + SLACK, "{lasted:?}");
    drop(client);
}

#[test]
fn a_client_that_has_sent_its_fin_is_not_waited_for() {
    // A timeout of nothing is none: only the client's FIN can end these.
    let server = server_with_linger("0s");
    let mut first = server.connect();
    first.send("exit\n");
    first.finish();
    first.expect_end();
    server.eventually_closed(&[("exit", 1)]);
    let mut second = server.connect();
    second.send("exit\n");
    second.expect_end();
    second.finish();
    server.eventually_closed(&[("exit", 2)]);
}

#[test]
fn nothing_that_happens_while_lingering_changes_the_reason() {
    let server = server_with_linger("0s");
    let mut client = server.connect();
    client.send("a\nexit\n");
    client.expect("a\n");
    client.expect_end();
    client.reset();
    server.eventually_closed(&[("exit", 1)]);
}

#[test]
fn a_connection_without_a_byte_is_unused() {
    let server = Server::with_listener("");
    drop(server.connect());
    server.connect().reset();
    let mut client = server.connect();
    client.finish();
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("unused", 3)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 0.0);
}

#[test]
fn a_reset_after_a_byte_is_a_peer_reset() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("hello");
    client.reset();
    let mut other = server.connect();
    other.echo("hello");
    drop(other);
    server.eventually_closed(&[("peer_reset", 1), ("peer_closed", 1)]);
}

#[test]
fn a_reset_while_replies_are_owed_counts_them_as_discarded() {
    let server = Server::with_listener(LINE);
    let client = server.connect();
    fill(&server, &client, 65_536.0);
    client.reset();
    server.eventually_closed(&[("peer_reset", 1)]);
    assert_discarded(&server);
}

#[test]
fn a_reset_while_replies_are_owed_replaces_the_reason_exit() {
    let server = server_with_much_pending();
    let mut client = server.connect();
    let sent = fill(&server, &client, 100_000.0);
    say_exit(&server, &mut client, sent);
    client.reset();
    server.eventually_closed(&[("peer_reset", 1)]);
    assert_discarded(&server);
}

#[test]
fn replies_owed_at_the_exit_word_reach_a_client_that_reads_late() {
    let server = server_with_much_pending();
    let mut client = server.connect();
    let sent = fill(&server, &client, 100_000.0);
    let owed = say_exit(&server, &mut client, sent);
    let replies = client.read_to_end();
    assert!(replies == BLOCK.repeat(owed).as_bytes(), "{} of {owed} lines", replies.len() / 16);
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    assert_eq!(server.metrics().sum("talkback_discarded_bytes_total"), 0.0);
}

/// The server reads on however much it owes.
fn server_with_much_pending() -> Server {
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{LINE}\n");
    Server::start(&format!("{listener}[limits]\nmax_pending_bytes = 67108864\n"))
}

/// Finishes the line begun and says the exit word behind it, and waits until the server has read
/// it; how many lines that makes.
#[track_caller]
fn say_exit(server: &Server, client: &mut Client, sent: usize) -> usize {
    client.stream.set_nonblocking(false).unwrap();
    let end = &BLOCK[sent % BLOCK.len()..];
    client.send(format!("{end}exit\n"));
    let lines = sent + end.len();
    server.eventually("the exit word is received", |metrics| {
        metrics.sum("talkback_received_bytes_total") == (lines + 5) as f64
    });
    lines / BLOCK.len()
}

/// One line.
const BLOCK: &str = "0123456789abcde\n";

/// Sends lines and reads nothing until more than `pending` bytes of replies wait in the server; how
/// many bytes were sent.
#[track_caller]
fn fill(server: &Server, client: &Client, pending: f64) -> usize {
    let lines = BLOCK.repeat(4096);
    let sent = Cell::new(0);
    client.stream.set_nonblocking(true).unwrap();
    server.eventually("replies are held back", |metrics| {
        while let Ok(length) = (&client.stream).write(&lines.as_bytes()[sent.get() % BLOCK.len()..])
        {
            sent.set(sent.get() + length);
        }
        metrics.sum("talkback_pending_bytes") > pending
    });
    sent.get()
}

/// Every reply that was made is counted as sent or as thrown away.
#[track_caller]
fn assert_discarded(server: &Server) {
    let metrics = server.metrics();
    let discarded = metrics.sum("talkback_discarded_bytes_total");
    let made = metrics.sum("talkback_replies_total") * BLOCK.len() as f64;
    assert!(discarded > 0.0, "{metrics}");
    assert_eq!(metrics.sum("talkback_sent_bytes_total") + discarded, made, "{metrics}");
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
}

#[test]
fn closes_of_every_kind_add_up() {
    let server = Server::with_listener(LINE);
    for _ in 0..20 {
        server.connect().echo("gone\n");
        drop(server.connect());
        let mut client = server.connect();
        client.echo("reset\n");
        client.reset();
        let mut client = server.connect();
        client.send("exit\n");
        client.expect_end();
        let mut client = server.connect();
        client.send(b"\xFF");
        client.stream.read_to_end(&mut Vec::new()).unwrap();
    }
    server.eventually_closed(&[
        ("peer_closed", 20),
        ("unused", 20),
        ("peer_reset", 20),
        ("exit", 20),
        ("invalid_utf8", 20),
    ]);
}
