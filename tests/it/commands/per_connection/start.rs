//! What a client says before its process runs, however long that takes and whether or not it ever
//! does.

use std::time::Instant;

use super::*;

/// More than a pipe holds.
const LONG: usize = 200_000;

/// The first process starts so many milliseconds late.
fn each_delayed(listener: &str, late: u64) -> (Server, Faults) {
    let server = each("[\"cat\"]", &format!("{listener}\nreply_timeout = \"300ms\""));
    let delay = format!("clone:delay_enter={}:when=1", late * 1000);
    let delay = ["epoll_wait:error=EINTR:when=1", &delay];
    let faults = Faults::inject(&server, "processes", &delay);
    (server, faults)
}

#[track_caller]
fn check_all_is_answered(listener: &str, text: &[u8]) {
    // Longer than a process that runs may be idle.
    let (server, _faults) = each_delayed(listener, 700);
    assert!(server.connect().exchange(text) == text, "something else comes back");
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn what_came_before_the_start_is_answered_and_nobody_is_blamed_for_the_wait() {
    check_all_is_answered("", b"hello");
    check_all_is_answered("framing = \"line\"", b"one\ntwo\n");
}

#[test]
fn more_than_a_pipe_holds_waits_for_the_start() {
    check_all_is_answered("", &vec![b'x'; LONG]);
}

#[test]
fn without_a_process_a_client_is_refused_whatever_it_has_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    script(&path, "#!/bin/sh\nexec cat\n");
    let server = each(&format!("[\"{}\"]", path.display()), "");
    std::fs::remove_file(path).unwrap();
    let says = |text: &[u8], finishes: bool| {
        let mut client = server.connect();
        // It may be refused before it has said all.
        let _ = (&client.stream).write_all(text);
        if finishes {
            let _ = client.stream.shutdown(std::net::Shutdown::Write);
        }
        assert_eq!(client.stream.read(&mut [0; 1]).unwrap_or(0), 0);
    };
    says(b"", true);
    says(b"hello", false);
    says(b"hello", true);
    says(&vec![b'x'; LONG], false);
    says(&vec![b'x'; LONG], true);
    server.eventually_closed(&[("responder_error", 5)]);
    let metrics = server.metrics();
    assert_eq!(refused(&metrics, "start_failed"), 5.0);
    assert_eq!(of_main(&metrics, "start_failures_total"), 5.0);
    assert_eq!(metrics.sum("talkback_command_processes"), 0.0);
}

#[test]
fn who_leaves_before_the_start_leaves_no_descriptor() {
    const CLIENTS: usize = 20;
    let (server, _faults) = each_delayed("", 5000);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let _first = server.connect();
    server.eventually("it is served", |metrics| metrics.sum("talkback_connections") == 1.0);
    let before = descriptors();
    (0..CLIENTS).for_each(|_| server.connect().reset());
    server.eventually("they are closed", |metrics| {
        metrics.sum("talkback_connections_closed_total") == CLIENTS as f64
    });
    // The sidecar's own come and go.
    let most = before + CLIENTS / 2;
    eventually("theirs are closed", || descriptors() <= most);
    assert_eq!(of_main(&server.metrics(), "starts_total"), 0.0, "the test is too slow");
}

#[test]
fn more_starts_than_there_are_processors_wait_until_others_have_done_with_theirs() {
    let processors = std::thread::available_parallelism().unwrap().get();
    // At work from its first instruction on; then it says since when and until when it was.
    let script = "from=$EPOCHREALTIME; for ((i = 0; i < 60000; i++)); do :; done; \
                  echo $from $EPOCHREALTIME; read line";
    let server = each(&format!("[\"bash\", \"-c\", \"{script}\"]"), "");
    let converse = |mut client: Client| {
        client.finish();
        let said = String::from_utf8(client.read_to_end()).unwrap();
        let (from, until) = said.trim_end().split_once(' ').unwrap();
        (from.parse::<f64>().unwrap(), until.parse::<f64>().unwrap())
    };
    // Where it has to be read from the disk first, it waits for that.
    converse(server.connect());
    let clients: Vec<_> = (0..=processors).map(|_| server.connect()).collect();
    let (mut from, mut until): (Vec<_>, Vec<_>) = clients.into_iter().map(converse).unzip();
    from.sort_by(f64::total_cmp);
    until.sort_by(f64::total_cmp);
    for (done, next) in until.iter().zip(&from[processors..]) {
        assert!(done <= next, "from {from:?} until {until:?}");
    }
}

#[test]
fn nobody_waits_for_long_until_others_have_done_with_their_start() {
    let processors = std::thread::available_parallelism().unwrap().get();
    let server = each("[\"nice\", \"-n\", \"19\", \"sh\", \"-c\", \"while :; do :; done\"]", "");
    // After a second the first ones are taken for started, and after two nobody waits any more.
    let began = Instant::now();
    let clients: Vec<_> = (0..=4 * processors).map(|_| server.connect()).collect();
    let is_last = |metrics: &Metrics| of_main(metrics, "starts_total") == clients.len() as f64;
    server.eventually("the last one has started", is_last);
    let took = began.elapsed();
    assert!((1.9..3.9).contains(&took.as_secs_f64()), "{took:?}");
}
