//! A process that was stopped for a while: afterwards it tells who waited and who was dropped.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{above, knock, wait_for};
use crate::harness::{Server, eventually};

const STOP: Duration = Duration::from_secs(2);
const CLIENTS: usize = 12;
/// A backlog of 4 holds one more.
const FIT: usize = 5;

#[test]
fn a_stop_of_two_seconds_shows_in_drops_overflows_and_accept_waits() {
    let server = Server::with_listener("backlog = 4");
    let before = server.metrics();
    let overflows = "talkback_netns_listen_overflows_total";
    assert_eq!(before.get("talkback_listen_queue_limit{listener=\"main\"}"), 4.0);
    assert_eq!(before.get("talkback_listen_drops_total{listener=\"main\"}"), 0.0);
    server.pause();
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| knock(server.address())).collect();
    eventually("it was stopped for two seconds", || began.elapsed() >= STOP);
    server.signal(Signal::CONT);

    // Those that were dropped ask again after a second, and get in.
    let mut clients: Vec<_> = clients.into_iter().map(wait_for).collect();
    for client in &mut clients {
        eventually("it is connected", || client.stream.peer_addr().is_ok());
        client.echo("hello");
    }

    let metrics = server.metrics();
    let of_main = |name: &str| metrics.get(&format!("{name}{{listener=\"main\"}}"));
    // At once, and when they asked again after a second. An overflow of another kind, where two
    // handshakes race for the last place, is two drops.
    let least = 2.0 * (CLIENTS - FIT) as f64;
    assert!(of_main("talkback_listen_drops_total") >= least, "{metrics}");
    assert!(metrics.get(overflows) - before.get(overflows) >= least, "{metrics}");
    let wait = "talkback_accept_wait_seconds";
    assert_eq!(of_main(&format!("{wait}_count")), CLIENTS as f64, "{metrics}");
    assert_eq!(above(&metrics, wait, "main", "1"), FIT as f64, "{metrics}");
    assert!(of_main(&format!("{wait}_sum")) > FIT as f64 * 1.9, "{metrics}");
    assert_eq!(of_main("talkback_listen_queue_limit"), 4.0, "{metrics}");
    assert_eq!(of_main("talkback_listen_queue_length"), 0.0, "{metrics}");
    assert_eq!(of_main("talkback_connections_accepted_total"), CLIENTS as f64, "{metrics}");
    drop(clients);
    server.eventually_closed(&[("peer_closed", CLIENTS as u64)]);
}
