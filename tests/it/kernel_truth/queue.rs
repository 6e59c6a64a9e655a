//! The accept queue as it is now: who waits, what has one at all, and until when.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use super::knock;
use crate::harness::{Metrics, PATIENCE, Server};

const LENGTH: &str = "talkback_listen_queue_length";
const LIMIT: &str = "talkback_listen_queue_limit";
const DROPS: &str = "talkback_listen_drops_total";
/// What the kernel tells of TCP alone.
const OF_TCP: [&str; 8] = [
    LENGTH,
    LIMIT,
    DROPS,
    "talkback_accept_wait_seconds_count",
    "talkback_accept_wait_seconds_sum",
    "talkback_tcp_rtt_seconds_count",
    "talkback_tcp_rtt_seconds_sum",
    "talkback_tcp_retransmits_total",
];

fn has(metrics: &Metrics, name: &str, listener: &str) -> bool {
    let series = format!("{name}{{listener=\"{listener}\"}}");
    metrics.series().any(|found| found == series)
}

#[test]
fn the_queue_shows_who_waits_while_its_acceptor_is_held_back() {
    let server = Server::with_listener("backlog = 16\nmax_accept_rate = 1");
    let mut first = server.connect();
    first.echo("hello");
    let waiting: Vec<_> = (0..9).map(|_| knock(server.address())).collect();
    let metrics = server.eventually("each is in the queue or was let in", |metrics| {
        let length = metrics.sum(LENGTH);
        length >= 1.0 && length + metrics.sum("talkback_connections_accepted_total") == 10.0
    });
    // One a second: nearly all of them wait, unless the machine lost seconds just now.
    assert!(metrics.sum(LENGTH) >= 4.0, "{metrics}");
    assert_eq!(metrics.sum(LIMIT), 16.0);
    assert_eq!(metrics.sum(DROPS), 0.0);
    drop(waiting);
}

#[test]
fn an_empty_queue_stands_at_0_and_its_limit_is_what_the_kernel_made_of_the_backlog() {
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let somaxconn: f64 = somaxconn.trim().parse().unwrap();
    for (backlog, limit) in [(1, 1.0), (65_535, somaxconn.min(65_535.0))] {
        let server = Server::with_listener(&format!("backlog = {backlog}"));
        let metrics = server.metrics();
        assert_eq!(metrics.get("talkback_listen_queue_limit{listener=\"main\"}"), limit);
        assert_eq!(metrics.get("talkback_listen_queue_length{listener=\"main\"}"), 0.0);
    }
}

#[test]
fn nothing_is_claimed_of_the_queue_and_path_of_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("talkback.sock");
    let server = Server::start(&format!(
        "[[listener]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"local\"\naddress = \"unix:{}\"\n",
        path.display()
    ));
    let check = |metrics: &Metrics| {
        for name in OF_TCP {
            assert!(has(metrics, name, "main"), "{name}");
            assert!(!has(metrics, name, "local"), "{name}");
        }
        // It has all the others.
        assert!(has(metrics, "talkback_respond_seconds_count", "local"));
        assert!(has(metrics, "talkback_connection_duration_seconds_count", "local"));
    };
    check(&server.metrics());
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    check(&server.metrics());
}

/// The queue of a listener that has closed is not an empty one: there is none.
#[test]
fn the_queue_is_gone_when_its_listener_has_closed_and_its_drops_stay() {
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nlinger_timeout = \"20s\"\n\
                  [shutdown]\ndrain_timeout = \"20s\"\n";
    let mut server = Server::start(config);
    let mut client = server.connect();
    client.echo("hello");
    let metrics = server.metrics();
    assert!(has(&metrics, LENGTH, "main") && has(&metrics, LIMIT, "main"), "{metrics}");
    server.signal(Signal::TERM);
    client.expect_end();
    // It keeps its side open, and that holds the drain.
    let metrics = server.eventually("the queue is gone", |metrics| !has(metrics, LENGTH, "main"));
    assert!(!has(&metrics, LIMIT, "main"), "{metrics}");
    for name in &OF_TCP[2..] {
        assert!(has(&metrics, name, "main"), "{name} is gone too");
    }
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_namespaces_overflows_are_those_that_the_kernel_counts() {
    let told = || {
        let text = fs::read_to_string("/proc/net/netstat").unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let [names, values] = [(); 2].map(|()| lines.next().unwrap().split(' '));
        let (_, value) = names.zip(values).find(|(name, _)| *name == "ListenOverflows").unwrap();
        value.parse::<f64>().unwrap()
    };
    let server = Server::with_listener("");
    let before = told();
    let shown = server.metrics().get("talkback_netns_listen_overflows_total");
    // Others of this host may overflow meanwhile.
    assert!((before..=told()).contains(&shown), "{shown}, not {before} to {}", told());
}
