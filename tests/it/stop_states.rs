//! A stop in every state: while the server starts, under a flood, with readers that have stopped,
//! without descriptors; once, and twice in a row. Stalled responders are in `library`.

mod starting;

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::floods::{Flood, Manner};
use crate::harness::{Server, eventually};
use crate::stuck::{LINE, stuck_client};

/// A TCP listener of lines and a Unix socket in the directory, with these further sections. A drain
/// of this one ends when everybody has left, and by nothing else.
fn config(dir: &tempfile::TempDir, sections: &str) -> String {
    let path = dir.path().join("talkback.sock");
    let ours = "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n";
    let unix = format!("[[listener]]\nname = \"unix\"\naddress = \"unix:{}\"\n", path.display());
    let shutdown = "[shutdown]\ndrain_timeout = \"1h\"\n";
    format!("{ours}{unix}{shutdown}{sections}\n[log]\nlevel = \"info\"\nformat = \"json\"\n")
}

#[track_caller]
fn check_no_file(dir: &tempfile::TempDir) {
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The second signal, and the end that it makes at once.
#[track_caller]
fn check_second_signal(mut server: Server, dir: &tempfile::TempDir) {
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    check_no_file(dir);
}

#[track_caller]
fn await_log(server: &Server, message: &str) {
    eventually(message, || server.logged(message).is_some());
}

#[test]
fn a_second_signal_ends_a_drain_that_waits_for_stopped_readers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&config(&dir, "[limits]\nlinger_timeout = \"0s\""));
    let mut stuck = stuck_client(&server, server.address());
    let (mut lingering, mut unfinished) = (server.connect(), server.connect());
    unfinished.send("unfinished");
    server.signal(Signal::TERM);
    // The drain is under way, and waits for all three.
    lingering.expect_end();
    unfinished.expect_end();
    assert_eq!(server.metrics().sum("talkback_connections"), 3.0);
    check_second_signal(server, &dir);
    // In order or by a reset: a forced end promises nothing.
    let _ = stuck.stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_second_signal_ends_a_stop_in_the_middle_of_a_flood() {
    for waits_for in ["stopping: not ready", "draining: not accepting"] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&config(&dir, "[limits]\nmax_connections_per_ip = 100"));
        // Keeps the drain from ending.
        let _stuck = stuck_client(&server, server.address());
        let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let manners = [Manner::Kept(200), Manner::Reset, Manner::Spoken];
            let flood = Flood::start(scope, (&is_over, &made), server.address(), &manners);
            flood.await_more(500);
            server.signal(Signal::TERM);
            await_log(&server, waits_for);
            check_second_signal(server, &dir);
        });
    }
}

/// Nobody of the flood is waited for, and those who were there before lose nothing.
#[test]
fn a_stop_in_the_middle_of_a_flood_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "[limits]\nmax_connections_per_ip = 20\nlinger_timeout = \"200ms\"";
    let mut server = Server::start(&config(&dir, limits));
    let mut client = server.connect();
    client.echo(LINE);
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let manners = [Manner::Kept(200), Manner::Reset, Manner::Spoken];
        let flood = Flood::start(scope, (&is_over, &made), server.address(), &manners);
        flood.await_more(500);
        client.send(LINE);
        let began = Instant::now();
        server.signal(Signal::TERM);
        assert_eq!(client.read_to_end(), LINE.as_bytes());
        drop(client);
        assert_eq!(server.wait().code(), Some(0));
        // Handshakes are waited for, and the flood's connections linger.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    });
    assert_eq!(server.logged("stopped").unwrap()["cut"], 0);
    check_no_file(&dir);
}

/// The acceptor turns newcomers away, or not even that is possible and it pauses.
#[test]
fn a_stop_without_descriptors_ends_in_order() {
    check_starved("out of descriptors; newcomers are turned away", |server| {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        let numbers = open.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        numbers.map(|number| number.parse::<u64>().unwrap()).max().unwrap() + 1
    });
    check_starved("accept fails; trying again ten times a second", |_| 0);
}

#[track_caller]
fn check_starved(message: &str, limit: fn(&Server) -> u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&config(&dir, ""));
    let mut client = server.connect();
    client.echo(LINE);
    let pid = Pid::from_raw(server.pid().cast_signed());
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(limit(&server)), maximum: hard };
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut newcomers = Vec::new();
    eventually(message, || {
        newcomers.push(server.connect());
        server.logged(message).is_some()
    });
    let began = Instant::now();
    server.signal(Signal::TERM);
    client.expect_end();
    drop((client, newcomers));
    assert_eq!(server.wait().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    check_no_file(&dir);
}
