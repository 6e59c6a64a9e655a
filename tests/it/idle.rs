//! Silent company: clients that say nothing cost those that speak nothing. And how a burst of
//! connects spreads over the workers.

use std::time::{Duration, Instant};

use crate::crowd::raise_descriptor_limit;
use crate::faults::Faults;
use crate::harness::{Client, Metrics, Server, eventually};
use crate::quiet::alone;

/// Set it to try with more than the thousand of every run: `TALKBACK_TEST_SILENT=10000`.
const SILENT: &str = "TALKBACK_TEST_SILENT";

#[test]
fn behind_a_thousand_silent_clients_the_next_one_is_answered_in_under_50_ms() {
    let _alone = alone();
    let silent = std::env::var(SILENT).map_or(1000, |count| count.parse().unwrap());
    raise_descriptor_limit();
    let limit = silent + 3;
    let server = Server::start(&format!(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nmax_connections = {limit}"
    ));
    let address = server.address();
    let company: Vec<Client> = (0..silent).map(|_| Client::connect(address)).collect();
    eventually("all are in service", || {
        server.metrics().sum("talkback_connections") == silent as f64
    });
    // A host that is busy with something else may delay one of them.
    let took = [(); 3].map(|()| {
        let began = Instant::now();
        Client::connect(address).echo("hello");
        began.elapsed()
    });
    println!("answered in {took:?} behind {silent} silent clients");
    assert!(took.iter().min() < Some(&Duration::from_millis(50)), "{took:?}");
    // Each of the silent ones is still a client like any other.
    for mut client in company.into_iter().step_by(silent / 10) {
        client.echo("hello");
    }
}

/// Connects when no worker is in a turn, so that none can be taken for stalled.
#[track_caller]
fn connect_at_rest(server: &Server) -> Client {
    server.eventually("every worker waits", |metrics| {
        metrics.sum("talkback_worker_turn_seconds") == 0.0
    });
    let mut client = server.connect();
    client.echo("hello");
    client
}

fn open_by_worker(metrics: &Metrics, workers: usize) -> Vec<f64> {
    let series = |worker| format!("talkback_worker_connections{{worker=\"{worker}\"}}");
    (0..workers).map(|worker| metrics.get(&series(worker))).collect()
}

#[test]
fn a_burst_of_connects_spreads_evenly_over_the_workers() {
    let server = Server::start("workers = 4\n[[listener]]\naddress = \"127.0.0.1:0\"");
    // None gets to see any of them before the burst is over, and none can be taken for stalled,
    // as on a loaded host one that works may.
    let names = (0..4).map(|worker| format!("worker-{worker}"));
    let asleep: Vec<Faults> = names.map(|name| Faults::hold_asleep(&server, &name)).collect();
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    let metrics = server.eventually("all are handed over", |metrics| {
        metrics.sum("talkback_worker_connections") == 200.0
    });
    assert_eq!(open_by_worker(&metrics, 4), [50.0; 4], "{metrics}");
    assert_eq!(metrics.sum("talkback_worker_inbox_connections"), 200.0, "{metrics}");
    drop(asleep);
    clients.iter_mut().for_each(|client| client.send("hello"));
    clients.iter_mut().for_each(|client| client.expect("hello"));
}

#[test]
fn newcomers_go_to_the_worker_with_the_fewest() {
    let server = Server::start("workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"");
    let mut clients: Vec<Client> = (0..20).map(|_| connect_at_rest(&server)).collect();
    // Ties go round, so that every other client is with the same worker.
    let mut number = 0;
    clients.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    let metrics = server
        .eventually("half are gone", |metrics| metrics.sum("talkback_worker_connections") == 10.0);
    let uneven = open_by_worker(&metrics, 2);
    assert!(uneven == [0.0, 10.0] || uneven == [10.0, 0.0], "{metrics}");
    clients.extend((0..10).map(|_| connect_at_rest(&server)));
    assert_eq!(open_by_worker(&server.metrics(), 2), [10.0, 10.0]);
}
