//! A reset in every state of a connection: it is gone at once, its reason tells whether replies
//! were lost, and nothing of it is left. Those of the inbox and of late replies are in `library`.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{FULL, LINE, check_nothing_left, fill, start};
use crate::harness::{Client, Server, eventually};
use crate::stuck::{Deaf, stuck_client};

/// The server goes on reading however much it owes.
const ROOMY: &str = "max_pending_bytes = 67108864\nlinger_timeout = \"0s\"";

/// The server stops reading at the first byte that the kernel does not take.
const NARROW: &str = "max_pending_bytes = 1";

/// Resets clients that `bring` has brought into some state, beside one that is in none.
#[track_caller]
fn check(limits: &str, reason: &str, loses: bool, bring: fn(&Server) -> Client) {
    const ROUNDS: u64 = 2;
    let server = start(LINE, limits);
    let mut bystander = server.connect();
    for round in 1..=ROUNDS {
        let client = bring(&server);
        client.reset();
        server.eventually("the reset one is gone", |metrics| {
            metrics.closes() == [(reason.to_owned(), round)].into()
        });
        bystander.echo(FULL);
    }
    bystander.reset();
    let left = server.eventually("all are gone", |metrics| {
        metrics.sum("talkback_connections") == 0.0 && metrics.adds_up()
    });
    // The bystander had spoken, and was owed nothing.
    let mut expected = vec![(reason, ROUNDS), ("peer_reset", 1)];
    if reason == "peer_reset" {
        expected = vec![(reason, ROUNDS + 1)];
    }
    check_nothing_left(&server, &expected);
    let discarded = left.sum("talkback_discarded_bytes_total");
    assert_eq!(discarded > 0.0, loses, "{discarded} bytes are lost");
    let replied = left.sum("talkback_replies_total") * FULL.len() as f64;
    assert_eq!(left.sum("talkback_sent_bytes_total") + discarded, replied);
}

#[test]
fn a_reset_in_the_middle_of_a_line_is_a_peer_reset() {
    check(ROOMY, "peer_reset", false, |server| {
        let mut client = server.connect();
        client.echo(FULL);
        client.send("unfinished");
        client
    });
}

#[test]
fn a_reset_while_the_server_is_paused_is_a_peer_reset() {
    check(NARROW, "peer_reset", true, |server| fill(server).0);
}

#[test]
fn a_reset_behind_a_fin_while_the_server_is_paused_is_a_peer_reset() {
    check(NARROW, "peer_reset", true, |server| {
        let (client, _) = fill(server);
        client.finish();
        // The server's kernel has the FIN by the time that this is answered.
        assert_eq!(server.metrics().sum("talkback_connections"), 2.0);
        client
    });
}

/// Leaving with replies unread makes the client's kernel reset the connection.
#[test]
fn a_client_that_leaves_while_the_server_is_paused_is_a_peer_reset() {
    let server = start(LINE, NARROW);
    for round in 1..=3 {
        drop(fill(&server));
        server.eventually("it is gone", |metrics| metrics.closes().values().sum::<u64>() == round);
    }
    check_nothing_left(&server, &[("peer_reset", 3)]);
}

/// What ends the reading while replies are pending is replaced by a reset, for they are lost.
#[track_caller]
fn check_flushing(end: fn(&Server, &mut Client)) {
    let server = start(LINE, ROOMY);
    let (mut client, sent) = fill(&server);
    end(&server, &mut client);
    server.eventually("it is received", |metrics| {
        metrics.sum("talkback_received_bytes_total") > sent as f64
    });
    assert!(server.metrics().closes().is_empty());
    client.reset();
    check_nothing_left(&server, &[("peer_reset", 1)]);
    assert!(server.metrics().sum("talkback_discarded_bytes_total") > 0.0);
}

#[test]
fn a_reset_while_owed_replies_are_flushed_is_a_peer_reset_whatever_came_before() {
    check_flushing(|_, client| client.send("exit\n"));
    check_flushing(|_, client| client.send(b"\xFF\n"));
    check_flushing(|_, client| client.send("x".repeat(70_000)));
    check_flushing(|_, client| {
        client.send("last");
        client.finish();
    });
}

#[test]
fn a_reset_while_the_server_lingers_changes_nothing() {
    let server = start(LINE, ROOMY);
    for round in 1..=3 {
        let mut client = server.connect();
        client.send("a\nexit\n");
        assert_eq!(client.read_to_end(), b"a\n");
        client.reset();
        // Here the replies and our FIN are still in the server's kernel.
        let mut deaf = Deaf::connect(server.address()).client;
        deaf.send(format!("{}exit\n", FULL.repeat(2048)));
        server.eventually("its kernel has everything", |metrics| {
            metrics.sum("talkback_sent_bytes_total") == f64::from(round * (2 + 16 * 2048))
        });
        assert_eq!(server.metrics().sum("talkback_connections"), 1.0);
        deaf.reset();
    }
    check_nothing_left(&server, &[("exit", 6)]);
    assert_eq!(server.metrics().sum("talkback_discarded_bytes_total"), 0.0);
}

#[test]
fn a_reset_while_messages_wait_for_their_turns_is_a_peer_reset() {
    for responder in ["echo", "discard"] {
        let server =
            start(&format!("{LINE}\nresponder = \"{responder}\""), "messages_per_turn = 1");
        for _ in 0..3 {
            let mut client = server.connect();
            client.send("\n".repeat(10_000));
            client.reset();
        }
        check_nothing_left(&server, &[("peer_reset", 3)]);
        let metrics = server.metrics();
        let [replied, sent, discarded] = ["replies", "sent_bytes", "discarded_bytes"]
            .map(|name| metrics.sum(&format!("talkback_{name}_total")));
        assert_eq!(sent + discarded, replied, "{metrics}");
    }
}

/// The kernel has the handshake, the bytes and the reset before accept(2) is called.
#[test]
fn a_reset_in_the_kernels_queue_is_counted_by_what_came_before_it() {
    let server = start(LINE, "");
    server.pause();
    for sent in ["", "", "a\n", "unfinished", "exit\n", "a\nexit\n"] {
        let mut client = server.connect();
        client.send(sent);
        client.reset();
    }
    server.signal(Signal::CONT);
    check_nothing_left(&server, &[("unused", 2), ("peer_reset", 3), ("exit", 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 2.0);
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 4.0);
}

#[test]
fn resets_during_a_drain_end_it_at_once_and_keep_their_reasons() {
    let mut server = start(LINE, "linger_timeout = \"0s\"");
    let (mut lingering, mut idle) = (server.connect(), server.connect());
    lingering.send("exit\n");
    lingering.expect_end();
    idle.echo(FULL);
    let stuck = stuck_client(&server, server.address());
    server.signal(Signal::TERM);
    // Its FIN says that the drain is under way.
    idle.expect_end();
    let reasons = [(lingering, "exit"), (idle, "shutdown"), (stuck, "peer_reset")];
    let expected = reasons.each_ref().map(|(client, reason)| {
        (client.stream.local_addr().unwrap().to_string(), (*reason).to_owned())
    });
    let began = Instant::now();
    reasons.into_iter().for_each(|(client, _)| client.reset());
    assert_eq!(server.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let word = |line: &serde_json::Value, field: &str| line[field].as_str().unwrap().to_owned();
    let lines = server.close_lines();
    let mut found: Vec<_> =
        lines.iter().map(|line| (word(line, "peer"), word(line, "reason"))).collect();
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let summary = server.logged("stopped").unwrap();
    assert_eq!((summary["served"].as_u64(), summary["cut"].as_u64()), (Some(3), Some(0)));
}

/// Between the signal and the end of the delay a connection is as before.
#[test]
fn a_reset_while_the_drain_delay_passes_is_a_peer_reset() {
    let mut server = Server::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n{LINE}\n[shutdown]\ndrain_delay = \"300ms\""
    ));
    let mut client = server.connect();
    client.echo(FULL);
    server.signal(Signal::TERM);
    eventually("it is not ready", || server.get("/readyz").0 == 503);
    client.reset();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.close_lines()[0]["reason"], "peer_reset");
}
