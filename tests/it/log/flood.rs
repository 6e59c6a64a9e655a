//! Many events of one kind: so many lines a second, and a count of the others.

use std::time::Instant;

use serde_json::Value;

use super::{config, lines, start};
use crate::harness::{Client, Server, eventually};

const CLIENTS: u64 = 1000;

/// The limit unless the config says otherwise.
const LINES_A_SECOND: u64 = 10;

/// Clients that only connect, as health checks do.
#[track_caller]
fn flood(server: &Server, clients: u64) {
    for _ in 0..clients {
        drop(server.connect());
    }
}

/// The closes of health checks: those with a line, and those that a line counts.
fn accounted(log: &[Value]) -> (u64, u64) {
    let of_kind = log.iter().filter(|event| event["reason"] == "unused");
    let (shown, counts): (Vec<_>, Vec<_>) =
        of_kind.partition(|event| event["message"] == "connection closed");
    let suppressed = counts.iter().map(|count| {
        let suppressed = count["suppressed"].as_u64().unwrap();
        assert_eq!(count["message"], format!("{suppressed} suppressed: connection closed"));
        assert_eq!(count["level"], "DEBUG");
        suppressed
    });
    (shown.len() as u64, suppressed.sum())
}

#[test]
fn a_flood_is_ten_lines_a_second_and_a_count_that_comes_by_itself() {
    let server = Server::start(&config("level = \"debug\"\nformat = \"json\""));
    let began = Instant::now();
    flood(&server, CLIENTS / 2);
    let mut client = server.connect();
    client.send("exit\n");
    client.expect_end();
    drop(client);
    flood(&server, CLIENTS / 2);
    server.eventually_closed(&[("unused", CLIENTS), ("exit", 1)]);

    eventually("every close is told of", || {
        let (shown, suppressed) = accounted(&server.log());
        assert!(shown + suppressed <= CLIENTS, "{shown} + {suppressed}");
        shown + suppressed == CLIENTS
    });
    let seconds = began.elapsed().as_secs() + 1;
    let (shown, _) = accounted(&server.log());
    let most = LINES_A_SECOND * seconds;
    assert!((LINES_A_SECOND..=most).contains(&shown), "{shown} lines in {seconds} s");
    let is_count = |event: &Value| !event["suppressed"].is_null();
    let counts = server.log().into_iter().filter(is_count).count() as u64;
    assert!((1..=seconds).contains(&counts), "{counts} counts in {seconds} s");
    // A flood of one kind does not hide another.
    let exits = server.close_lines().into_iter().filter(|line| line["reason"] == "exit").count();
    assert_eq!(exits, 1);
}

#[test]
fn what_was_left_out_is_told_before_the_end() {
    let mut server = Server::start(&config("level = \"debug\"\nformat = \"json\""));
    flood(&server, 300);
    server.eventually_closed(&[("unused", 300)]);
    assert_eq!(server.stop(), Some(0));
    let (shown, suppressed) = accounted(&server.log());
    assert_eq!(shown + suppressed, 300, "{shown} shown, {suppressed} told of");
    assert!(suppressed > 0);
}

/// How many lines a few closes have under a limit.
#[track_caller]
fn check_limit(limit: u32, closes: u64, expected: u64) {
    let log = format!("level = \"debug\"\nformat = \"json\"\nmax_lines_per_second = {limit}");
    let mut server = Server::start(&config(&log));
    flood(&server, closes);
    server.eventually_closed(&[("unused", closes)]);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(accounted(&server.log()), (expected, closes - expected));
}

#[test]
fn below_the_limit_and_without_one_every_event_has_its_line() {
    check_limit(100, 100, 100);
    check_limit(0, 100, 100);
}

#[test]
fn text_tells_what_was_left_out_too() {
    let log = "level = \"debug\"\nmax_lines_per_second = 1\nformat = \"text\"";
    let (mut server, address) = start(&config(log));
    for _ in 0..100 {
        drop(Client::connect(address));
    }
    let closed = |server: &Server| {
        let lines = lines(server);
        let count = |line: &String| {
            let (count, _) = line.split_once(" suppressed: ")?;
            let (_, count) = count.rsplit_once(' ')?;
            let fields = format!("reason=\"unused\" suppressed={count}");
            assert!(line.ends_with(&fields), "{line} should end with {fields}");
            count.parse::<u64>().ok()
        };
        let shown = lines.iter().filter(|line| line.contains("connection closed listener"));
        shown.count() as u64 + lines.iter().filter_map(count).sum::<u64>()
    };
    eventually("every close is told of", || closed(&server) == 100);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_lines_of_the_start_are_all_there_whatever_the_limit() {
    let listener = |at| format!("[[listener]]\nname = \"n{at}\"\naddress = \"127.0.0.1:0\"\n");
    let listeners: String = (0..12).map(listener).collect();
    let server =
        Server::start(&format!("{listeners}[log]\nformat = \"json\"\nmax_lines_per_second = 1"));
    let is_bound = |event: &Value| event["message"] == "listening";
    assert_eq!(server.log().into_iter().filter(is_bound).count(), 12);
}
