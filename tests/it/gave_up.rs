//! The server's own threads panic: they are rebuilt and counted, and a row of them ends the
//! process with a message. What makes them panic is an epoll_wait(2) that fails, by strace.

use std::net::SocketAddr;

use crate::faults::Faults;
use crate::harness::{Client, Server, eventually};

const BROKEN: &str = "epoll_wait:error=EBADF:when=1";

/// Breaks the wait of one worker once, or as often as `when` says.
#[track_caller]
fn break_worker(server: &Server, worker: &str, fault: &str) -> Faults {
    let panics = server.metrics().get("talkback_worker_panics_total");
    let faults = Faults::inject(server, worker, &[fault]);
    server.eventually("the panic is counted", |metrics| {
        metrics.get("talkback_worker_panics_total") > panics
    });
    faults
}

fn two_workers() -> Server {
    Server::start(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         [shutdown]\ndrain_timeout = \"1s\"\n",
    )
}

/// Clients that have had an answer, in turns of one worker and the other.
fn clients(address: SocketAddr, count: usize) -> Vec<Client> {
    let client = |_| {
        let mut client = Client::connect(address);
        client.echo("here\n");
        client
    };
    (0..count).map(client).collect()
}

#[test]
fn a_worker_that_panics_is_rebuilt_and_only_its_own_connections_end() {
    let server = two_workers();
    let mut before = clients(server.address(), 10);
    let faults = break_worker(&server, "worker-0", BROKEN);
    drop(faults);
    let metrics = server.eventually("its connections are closed", |metrics| {
        metrics.closes() == [("worker_panic".to_owned(), 5)].into() && metrics.adds_up()
    });
    assert_eq!(metrics.get("talkback_workers"), 2.0);
    assert_eq!(metrics.get("talkback_connections{listener=\"main\"}"), 5.0);
    // They were owed nothing, so that the end is orderly; the others notice nothing.
    let mut served = 0;
    for client in &mut before {
        served += u64::from(is_served(client));
    }
    assert_eq!(served, 5);
    // The rebuilt worker serves its share of newcomers.
    let after = clients(server.address(), 10);
    let metrics = server.metrics();
    assert!(metrics.get("talkback_worker_connections{worker=\"0\"}") > 0.0, "{metrics}");
    drop((before, after));
    server.eventually_closed(&[("worker_panic", 5), ("peer_closed", 15)]);
}

/// Whether it is answered; if not, its end was orderly.
fn is_served(client: &mut Client) -> bool {
    use std::io::{Read, Write};
    // One that is gone may still take a write.
    let _ = client.stream.write_all(b"x\n");
    match client.stream.read(&mut [0; 8]) {
        Ok(read) => read > 0,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_wait_that_is_interrupted_a_thousand_times_is_no_panic() {
    let server = two_workers();
    let mut clients = clients(server.address(), 4);
    let faults = Faults::inject(&server, "worker-0", &["epoll_wait:error=EINTR:when=1..1000"]);
    eventually("it was interrupted", || {
        clients.iter_mut().for_each(|client| client.echo("still\n"));
        faults.times().len() == 1000
    });
    drop(faults);
    clients.iter_mut().for_each(|client| client.echo("here\n"));
    assert_eq!(server.metrics().get("talkback_worker_panics_total"), 0.0);
}

#[test]
fn three_panics_within_ten_seconds_end_the_process_with_a_message() {
    let mut server = two_workers();
    let mut clients = clients(server.address(), 10);
    // Two on one worker and one on the other: they count together.
    break_worker(&server, "worker-0", BROKEN);
    break_worker(&server, "worker-1", BROKEN);
    let faults = Faults::inject(&server, "worker-0", &[BROKEN]);
    assert_eq!(server.wait().code(), Some(70));
    drop(faults);
    let log = server.log();
    let last = log.last().and_then(|line| line.as_str()).expect("a line that is no event");
    let text = "talkback: gave up: 3 panics of the server's own threads within 10 s, the last in \
                worker-0";
    assert_eq!(last, text);
    assert!(server.logged("stopped").is_some(), "it drains first");
    for client in &mut clients {
        assert!(!is_served(client), "nobody is left hanging");
    }
}

#[test]
fn a_server_that_has_given_up_waits_for_no_load_balancer() {
    let mut server = Server::start(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [shutdown]\ndrain_delay = \"1h\"\n",
    );
    let faults = Faults::inject(&server, "worker-0", &["epoll_wait:error=EBADF"]);
    assert_eq!(server.wait().code(), Some(70));
    drop(faults);
    // Nor if it comes to that while it waits.
    let mut server = Server::start(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [shutdown]\ndrain_delay = \"1h\"\n",
    );
    server.signal(rustix::process::Signal::TERM);
    eventually("it waits", || server.logged("stopping: not ready").is_some());
    let faults = Faults::inject(&server, "worker-0", &["epoll_wait:error=EBADF"]);
    assert_eq!(server.wait().code(), Some(70));
    drop(faults);
}

#[test]
fn a_wait_that_never_works_again_ends_the_process_and_accounts_for_everybody() {
    let mut server = two_workers();
    let clients = clients(server.address(), 10);
    let faults = Faults::inject(&server, "worker-0", &["epoll_wait:error=EBADF"]);
    assert_eq!(server.wait().code(), Some(70));
    let lines = server.close_lines();
    let of = |reason: &str| lines.iter().filter(|line| line["reason"] == reason).count();
    assert_eq!((of("worker_panic"), of("shutdown"), lines.len()), (5, 5, 10));
    drop((faults, clients));
}
