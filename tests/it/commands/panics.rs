//! Programs that live with a worker whose loop panics, which an epoll_wait(2) that fails makes it
//! do: its processes end with what they were asked, and others take their place.

use std::collections::BTreeSet;

use super::*;
use crate::faults::Faults;
use crate::harness::Client;

/// The first program lives here.
const HOME: &str = "worker-0";
const BROKEN: &str = "epoll_wait:error=EBADF:when=1";

/// The processes that the server has started and not reaped.
fn children(server: &Server) -> BTreeSet<u32> {
    let all = server.threads("children").map(|(_, list)| list).collect::<Vec<_>>().join(" ");
    all.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Those of the server's descriptors that are of processes, their pipes among them.
fn descriptors_of_processes(server: &Server) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let names = all.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let is_of_process = |name: &std::path::PathBuf| {
        let name = name.to_string_lossy();
        name.starts_with("pipe:") || name.contains("pidfd")
    };
    names.filter(is_of_process).count()
}

/// Clients that were answered once: those of the home, and those of the other worker.
#[track_caller]
fn clients_by_worker(server: &Server, count: usize) -> [Vec<Client>; 2] {
    let mut clients = [Vec::new(), Vec::new()];
    for _ in 0..count {
        let mut client = server.connect();
        client.echo("here\n");
        let peer = client.stream.local_addr().unwrap().to_string();
        let page = server.get("/connections").1;
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let mut told = page["connections"].as_array().unwrap().iter();
        let row = told.find(|row| row["peer"] == peer).expect("it is open");
        clients[usize::try_from(row["worker"].as_u64().unwrap()).unwrap()].push(client);
    }
    clients
}

#[track_caller]
fn panic_once(server: &Server) {
    let faults = Faults::inject(server, HOME, &[BROKEN]);
    let panics = "talkback_worker_panics_total";
    server.eventually("the panic is counted", |metrics| metrics.get(panics) == 1.0);
    drop(faults);
}

fn answers_unless_told_to_hold() -> String {
    python("if line == 'hold': time.sleep(600)\nprint(line)")
}

#[test]
fn a_pool_begins_anew_after_a_panic_of_the_worker_that_it_lives_with() {
    let keys = "min_processes = 2\nmax_processes = 2";
    let mut server = shared(&answers_unless_told_to_hold(), keys);
    let are_idle = |metrics: &Metrics| processes(metrics, "idle") == 2.0;
    server.eventually("both are there", are_idle);
    let (before, at_rest) = (children(&server), descriptors_of_processes(&server));
    let [mut of_home, mut of_other] = clients_by_worker(&server, 6);
    assert_eq!((of_home.len(), of_other.len()), (3, 3));
    // At each worker one client has a process, one waits for one, and one asks for nothing.
    of_home[0].send("hold\n");
    of_other[0].send("hold\n");
    server.eventually("they have them", |metrics| processes(metrics, "busy") == 2.0);
    of_home[1].send("next\n");
    of_other[1].send("next\n");
    server.eventually("they wait", |metrics| of_main(metrics, "queue_length") == 2.0);

    panic_once(&server);
    // They are owed a reply, so that their end is no orderly one.
    of_home[0].expect_reset();
    of_home[1].expect_reset();
    of_home[2].expect_end();
    of_other[0].expect_end();
    of_other[1].expect_end();
    of_other[2].echo("still here\n");
    server.connect().echo("new here\n");
    before.into_iter().for_each(eventually_gone);
    let metrics = server.eventually("two others are there", |metrics| {
        are_idle(metrics) && ends(metrics, "stopped") == 2.0
    });
    assert_eq!(metrics.sum("talkback_command_processes"), 2.0);
    assert_eq!(metrics.sum("talkback_command_ends_total"), 2.0, "{metrics}");
    assert_eq!(of_main(&metrics, "starts_total"), 4.0);
    assert_eq!(of_main(&metrics, "queue_length"), 0.0);
    assert_eq!(metrics.get("talkback_workers"), 2.0);
    assert_eq!(children(&server).len(), 2);
    drop((of_home, of_other));
    let closed = [("worker_panic", 3), ("responder_error", 2), ("peer_closed", 2)];
    server.eventually_closed(&closed);
    eventually("no descriptor is left", || descriptors_of_processes(&server) == at_rest);
    let after = children(&server);
    assert_eq!(server.stop(), Some(0));
    after.into_iter().for_each(eventually_gone);
}

#[test]
fn processes_of_their_own_end_with_their_clients_at_a_panic() {
    let keys = "mode = \"per_connection\"";
    let server = Server::start(&config("[\"cat\"]", "framing = \"line\"", keys));
    let at_rest = descriptors_of_processes(&server);
    let [mut of_home, mut of_other] = clients_by_worker(&server, 6);
    assert_eq!((of_home.len(), of_other.len()), (3, 3));
    let before = children(&server);
    assert_eq!(before.len(), 6);
    panic_once(&server);
    of_home.iter_mut().for_each(Client::expect_end);
    let metrics = server.eventually("theirs have ended", |metrics| {
        metrics.sum("talkback_command_ends_total") == 3.0
    });
    // Some may have ended by themselves, when their input did.
    let [told, alone] = ["connection_closed", "exited"].map(|reason| ends(&metrics, reason));
    assert_eq!(told + alone, 3.0, "{metrics}");
    assert_eq!(processes(&metrics, "busy"), 3.0);
    assert_eq!(metrics.sum("talkback_command_processes"), 3.0);
    assert!(children(&server).is_subset(&before) && children(&server).len() == 3);
    of_other.iter_mut().for_each(|client| client.echo("still here\n"));
    let [mut news, _] = clients_by_worker(&server, 1);
    news.iter_mut().for_each(|client| client.echo("new here\n"));
    assert_eq!(news.len(), 1, "the rebuilt worker is as good as the other");
    drop((of_home, of_other, news));
    server.eventually_closed(&[("worker_panic", 3), ("peer_closed", 4)]);
    server.eventually("every process has ended", |metrics| {
        metrics.sum("talkback_command_ends_total") == 7.0
    });
    assert_eq!(children(&server), BTreeSet::new());
    eventually("no descriptor is left", || descriptors_of_processes(&server) == at_rest);
}

#[test]
fn a_server_that_gives_up_leaves_no_process_behind() {
    let mut server = shared(&answers_unless_told_to_hold(), "min_processes = 2");
    let [mut of_home, of_other] = clients_by_worker(&server, 2);
    of_home[0].send("hold\n");
    server.eventually("one works", |metrics| processes(metrics, "busy") == 1.0);
    let before = children(&server);
    let faults = Faults::inject(&server, HOME, &["epoll_wait:error=EBADF"]);
    assert_eq!(server.wait().code(), Some(70));
    drop((faults, of_other));
    before.into_iter().for_each(eventually_gone);
}
