//! How a process that one client has to itself ends, who outlives it, and what is counted of that.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use super::*;

fn each(script: &str) -> Server {
    Server::start(&config(&sh(script), "", "mode = \"per_connection\""))
}

#[track_caller]
fn check_said(script: &str, expected: &str) {
    let server = each(script);
    let said = server.connect().read_to_end();
    assert_eq!(String::from_utf8(said).unwrap(), expected);
    server.eventually("it has ended", |metrics| ends(metrics, "exited") == 1.0);
}

#[test]
fn what_those_have_to_say_who_outlive_the_process_is_said() {
    check_said(&format!("echo one; ({}; echo two) & exit 0", pause(0.3)), "one\ntwo\n");
    let script = format!("{{ {}; tr a-z A-Z; }} <<E &\nlate\nE\nexit 0", pause(0.2));
    check_said(&script, "LATE\n");
}

#[test]
fn who_outlives_the_process_and_says_nothing_holds_up_the_end_for_two_seconds_at_most() {
    let server = each("tail -f /dev/null & echo $!");
    let began = Instant::now();
    let said = String::from_utf8(server.connect().read_to_end()).unwrap();
    let pid: u32 = said.trim().parse().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    eventually_gone(pid);
    server.eventually_closed(&[("responder_closed", 1)]);
}

#[test]
fn a_client_that_leaves_does_not_wait_for_who_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    // In a subshell $$ is still the leader.
    let server = each(&format!(
        "(trap 'echo told > {}; exit' TERM; echo $$; while :; do {}; done) & exit 0",
        told.display(),
        pause(0.05)
    ));
    let client = server.connect();
    let mut line = String::new();
    BufReader::new(&client.stream).read_line(&mut line).unwrap();
    eventually_gone(line.trim().parse().unwrap());
    client.reset();
    // Whoever is only killed when the time is over writes nothing.
    eventually("it is told", || fs::read_to_string(&told).is_ok_and(|said| said == "told\n"));
}

#[test]
fn a_process_that_ends_with_a_failure_because_its_client_left_has_not_failed() {
    let script = format!("trap 'exit 143' TERM; echo hi; while :; do {}; done", pause(0.05));
    let server = each(&script);
    let mut client = server.connect();
    client.expect("hi\n");
    client.reset();
    let metrics = server
        .eventually("it has ended", |metrics| metrics.sum("talkback_command_ends_total") == 1.0);
    assert_eq!(ends(&metrics, "connection_closed"), 1.0);
}

#[test]
fn a_process_that_has_ended_is_no_busy_one_though_its_client_is_still_there() {
    let server = each("echo hi");
    let mut client = server.connect();
    client.expect("hi\n");
    client.expect_end();
    let metrics = server.eventually("it has ended", |metrics| ends(metrics, "exited") == 1.0);
    assert_eq!(metrics.sum("talkback_command_processes"), 0.0);
    assert_eq!(metrics.sum("talkback_connections"), 1.0);
    // Pieces of output are the replies that can be counted.
    assert_eq!(metrics.sum("talkback_replies_total"), 1.0);
}
