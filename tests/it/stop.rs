//! A stop under load: every client that reads gets every reply that the server counted for it, and
//! an orderly end. `TALKBACK_TEST_STOPS=20 cargo test --test it stop:: -- --nocapture` runs as many
//! rounds and shows their figures.

mod load;

use std::time::Instant;

use serde_json::Value;

use crate::harness::Server;
use crate::stuck::stuck_client;

use load::{LINE_BYTES, Load, Seen};

const STUCK: usize = 8;
const CONNECTING: usize = 12;

const CONFIG: &str = r#"
[[listener]]
name = "readers"
address = "127.0.0.1:0"
framing = "line"

[[listener]]
name = "stuck"
address = "127.0.0.1:0"
framing = "line"

[shutdown]
drain_timeout = "1500ms"
"#;

#[test]
fn a_stop_under_load_loses_no_reply_and_resets_nobody_who_reads() {
    for round in 1..=rounds(2) {
        eprintln!("stop {round}: {}", stop_under_load());
    }
}

/// Nobody else is there, so that all of the stop falls into the making of connections.
#[test]
fn a_stop_resets_no_client_of_those_who_keep_connecting() {
    for round in 1..=rounds(10) {
        eprintln!("stop {round}: {}", stop_under_newcomers());
    }
}

fn rounds(usual: u32) -> u32 {
    std::env::var("TALKBACK_TEST_STOPS").map_or(usual, |rounds| rounds.parse().unwrap())
}

#[track_caller]
fn stop_under_newcomers() -> String {
    let mut server = Server::start(CONFIG);
    let mut load = Load::on(server.address_of(0));
    load.add(CONNECTING, load::one_connection_each);
    load.await_more(200);
    let began = Instant::now();
    let code = server.stop();
    let took = began.elapsed();
    let seen = load.join();
    assert_eq!(code, Some(0));
    check_readers(&seen, server.close_lines().iter().collect());
    format!("{} connections, 0 resets; took {took:.1?}", seen.len())
}

/// One server, its load, its stop; the figures.
#[track_caller]
fn stop_under_load() -> String {
    let mut server = Server::start(CONFIG);
    let stuck: Vec<_> = (0..STUCK).map(|_| stuck_client(&server, server.address_of(1))).collect();
    let mut load = Load::on(server.address_of(0));
    load.add(20, load::one_at_a_time);
    load.add(10, load::pipelined);
    load.add(10, load::without_pause);
    load.add(CONNECTING, load::one_connection_each);
    let began = Instant::now();
    let code = server.stop();
    let took = began.elapsed();
    drop(stuck);
    let seen = load.join();
    assert_eq!(code, Some(0));

    let lines = server.close_lines();
    let (readers, stuck) = lines.iter().partition(|line| line["listener"] == "readers");
    check_readers(&seen, readers);
    let discarded = check_stuck(&stuck);
    let summary = server.logged("stopped").unwrap();
    assert_eq!(summary["cut"], STUCK);
    assert_eq!(summary["served"], seen.len());
    let replies: u64 = seen.iter().map(|seen| seen.replies).sum();
    format!(
        "{} connections that read, {replies} replies, 0 resets; {STUCK} cut, {discarded} bytes \
         discarded; took {took:.1?}",
        seen.len()
    )
}

/// Replies received = replies counted, for each connection; the end is a FIN.
#[track_caller]
fn check_readers(seen: &[Seen], lines: Vec<&Value>) {
    let failed: Vec<_> =
        seen.iter().filter(|seen| seen.end.is_err()).map(|seen| (&seen.peer, seen.end)).collect();
    assert!(failed.is_empty(), "ends that are no FIN: {failed:?}");
    let mut received: Vec<_> = seen.iter().map(|seen| (seen.peer.as_str(), seen.replies)).collect();
    let mut counted: Vec<_> = lines
        .iter()
        .map(|line| (line["peer"].as_str().unwrap(), line["messages"].as_u64().unwrap()))
        .collect();
    received.sort_unstable();
    counted.sort_unstable();
    let differing: Vec<_> =
        received.iter().zip(&counted).filter(|(received, counted)| received != counted).collect();
    assert_eq!((received.len(), differing), (counted.len(), Vec::new()), "received, counted");
    for line in lines {
        assert_eq!(line["discarded_bytes"], 0, "{line}");
    }
}

/// Cut at the deadline, with every byte of their replies accounted for; returns what was lost.
#[track_caller]
fn check_stuck(lines: &[&Value]) -> u64 {
    assert_eq!(lines.len(), STUCK);
    let number = |line: &Value, field: &str| line[field].as_u64().unwrap();
    for line in lines {
        assert_eq!(line["reason"], "shutdown_forced");
        let accounted = number(line, "sent_bytes") + number(line, "discarded_bytes");
        assert_eq!(number(line, "messages") * LINE_BYTES, accounted, "{line}");
        assert_ne!(number(line, "discarded_bytes"), 0);
    }
    lines.iter().map(|line| number(line, "discarded_bytes")).sum()
}
