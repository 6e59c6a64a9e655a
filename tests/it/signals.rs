//! What each signal does to a running server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Server, eventually};
use crate::log::{Program, alone};

/// Two signals; the second ends a drain that would last long, and leaves no file of ours.
#[track_caller]
fn check_forced(first: Signal, second: Signal, code: i32) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let config = format!(
        "[[listener]]\naddress = \"unix:{}\"\n[shutdown]\ndrain_delay = \"1h\"",
        path.display()
    );
    let mut server = Server::start(&config);
    let _client = UnixStream::connect(&path).unwrap();
    server.signal(first);
    eventually("the stop has begun", || server.logged("stopping: not ready").is_some());
    assert!(path.exists());
    let began = Instant::now();
    server.signal(second);
    assert_eq!(server.wait().code(), Some(code));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "socket and lock are left");
}

#[test]
fn a_second_sigterm_ends_the_process_at_once_with_143() {
    check_forced(Signal::TERM, Signal::TERM, 143);
    check_forced(Signal::INT, Signal::TERM, 143);
}

#[test]
fn a_second_sigint_ends_the_process_at_once_with_130() {
    check_forced(Signal::INT, Signal::INT, 130);
    check_forced(Signal::TERM, Signal::INT, 130);
}

#[test]
fn a_second_sigterm_ends_the_process_at_once_though_nobody_takes_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
    command.stderr(writer.try_clone().unwrap());
    let config = alone(&format!("unix:{}", path.display()));
    let mut server =
        Program::start(command, &format!("{config}[shutdown]\ndrain_delay = \"1h\"\n"));
    let mut lines = BufReader::new(&reader).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(" ready")));

    // Not waiting is a property of the pipe, which the server shares: it must wait again.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let (began, mut status) = (Instant::now(), None);
    // The first may be taken together with some that follow it.
    eventually("the server ends", || {
        server.signal(Signal::TERM);
        status = server.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "socket and lock are left");
}

#[track_caller]
fn check_graceful(signal: Signal, name: &str) {
    let mut server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("hello");
    server.signal(signal);
    client.expect_end();
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
    let requested = server.log().into_iter().find(|event| event["signal"] == name);
    assert!(requested.is_some(), "the log does not name the signal");
    let summary = server.logged("stopped").unwrap();
    assert_eq!((summary["served"].as_u64(), summary["cut"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn a_first_sigint_stops_gracefully() {
    check_graceful(Signal::INT, "SIGINT");
}

#[test]
fn a_first_sigterm_stops_gracefully() {
    check_graceful(Signal::TERM, "SIGTERM");
}

#[test]
fn a_sighup_is_no_stop() {
    let mut server = Server::with_listener("");
    let mut client = server.connect();
    let is_taken = |event: &serde_json::Value| {
        event["message"].as_str().is_some_and(|message| message.starts_with("SIGHUP"))
    };
    server.signal(Signal::HUP);
    eventually("the signal is taken", || server.log().iter().any(is_taken));
    client.echo("still here");
    server.connect().echo("new");
    assert_eq!(server.get("/readyz").0, 200);
    drop(client);
    // Nor does it count as the first of two.
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_pause_of_the_process_disturbs_nobody() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    for round in 0..5 {
        client.echo(&format!("before pause {round}"));
        server.pause();
        let mut newcomer = server.connect();
        newcomer.send("while it was paused");
        server.signal(Signal::CONT);
        newcomer.expect("while it was paused");
        client.echo(&format!("after pause {round}"));
    }
    drop(client);
    server.eventually_closed(&[("peer_closed", 6)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_worker_panics_total"), 0.0);
    assert_eq!(metrics.sum("talkback_accept_errors_total"), 0.0);
}
