//! Signals while the server starts, at many moments between its first instruction and `ready`: it
//! ends by itself, and leaves neither a socket nor a lock.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::check_no_file;
use crate::harness::{Server, eventually, run_by};

/// Starts that are interrupted, spread over the time that one takes and a fifth more.
const STARTS: u32 = 50;

const LATEST: Duration = Duration::from_secs(5);

/// Several Unix sockets, so that much of a start is the making of files.
fn config(dir: &tempfile::TempDir, drain_delay: &str) -> String {
    let unix = |number: u32| {
        let path = dir.path().join(format!("{number}.sock"));
        format!("[[listener]]\nname = \"unix-{number}\"\naddress = \"unix:{}\"\n", path.display())
    };
    let unix: String = (0..8).map(unix).collect();
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n{unix}[shutdown]\ndrain_delay = \"{drain_delay}\""
    )
}

/// How long a start takes that nobody disturbs.
#[track_caller]
fn usual_start() -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let _server = Server::start(&config(&dir, "0s"));
    began.elapsed()
}

/// Sends the signals at that time after the start has begun, and waits for the end.
#[track_caller]
fn interrupt(config: &str, at: Duration, signals: &[Signal]) -> (Server, ExitStatus) {
    let mut server = Server::spawn(config, with_ordinary_signals);
    let name = format!("/proc/{}/comm", server.pid());
    eventually("it is itself", || fs::read_to_string(&name).is_ok_and(|name| name == "talkback\n"));
    let began = Instant::now();
    while began.elapsed() < at {
        std::hint::spin_loop();
    }
    signals.iter().for_each(|&signal| server.signal(signal));
    let sent = Instant::now();
    let status = server.wait();
    assert!(sent.elapsed() < LATEST, "{:?} after {at:?}", sent.elapsed());
    // The handlers stand before this is said, and before anything is made.
    if server.logged("starting").is_some() {
        assert_eq!(status.signal(), None, "killed after {at:?}");
    }
    (server, status)
}

#[track_caller]
fn check_port_is_free(server: &Server) {
    let events = server.log();
    let addresses = events.iter().filter_map(|event| event.get("address")?.as_str());
    for address in addresses.filter_map(|address| address.parse::<SocketAddr>().ok()) {
        TcpListener::bind(address).unwrap();
    }
}

#[test]
fn a_signal_while_the_server_starts_ends_it_and_leaves_nothing() {
    let usual = usual_start();
    let (mut killed, mut stopped) = (0, 0);
    for number in 0..STARTS {
        let dir = tempfile::tempdir().unwrap();
        let signal = [Signal::TERM, Signal::INT][number as usize % 2];
        let at = usual * 6 / 5 * number / STARTS;
        let (server, status) = interrupt(&config(&dir, "0s"), at, &[signal]);
        match (status.code(), status.signal()) {
            (Some(0), None) => stopped += 1,
            (None, Some(by)) if by == signal.as_raw() => killed += 1,
            _ => panic!("{status} after {at:?} of {usual:?}: {:#?}", server.log()),
        }
        check_no_file(&dir);
        check_port_is_free(&server);
    }
    eprintln!("{stopped} stopped, {killed} killed before the handlers stood, in {usual:?}");
    assert!(stopped > 0);
}

#[test]
fn a_second_signal_while_the_server_starts_leaves_nothing_either() {
    let usual = usual_start();
    let mut forced = 0;
    for number in 0..STARTS {
        let dir = tempfile::tempdir().unwrap();
        // Not twice the same: the kernel would make one of them.
        let mut signals = [Signal::TERM, Signal::INT];
        signals.rotate_left(number as usize % 2);
        let at = usual * 6 / 5 * number / STARTS;
        let (server, status) = interrupt(&config(&dir, "1h"), at, &signals);
        let is_forced = matches!(status.code(), Some(130 | 143));
        forced += u32::from(is_forced);
        let log = server.log();
        assert!(is_forced || status.signal().is_some(), "{status} after {at:?}: {log:#?}");
        check_no_file(&dir);
    }
    assert!(forced > 0, "all came before the handlers");
}

/// The kernel is slow to return from each change of what a signal does, so that signals come
/// between that and what the program makes of it.
fn with_slow_handlers(command: &mut Command) -> &mut Command {
    // -D: the server is our own child, and strace is not.
    let trace = ["strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=rt_sigaction"];
    run_by(command, &[&trace[..], &["-e", "inject=rt_sigaction:delay_exit=100000"]].concat())
}

/// Who runs the tests may ignore SIGINT, as a shell has what runs in the background do.
fn with_ordinary_signals(command: &mut Command) -> &mut Command {
    run_by(command, &["env", "--default-signal"])
}

#[test]
fn no_signal_is_lost_while_its_handler_is_being_set() {
    const APART: Duration = Duration::from_millis(80);
    let began = Instant::now();
    let start = |_| Server::spawn("[[listener]]\naddress = \"127.0.0.1:0\"\n", with_slow_handlers);
    let servers: Vec<_> = (0..20).map(start).collect();
    for (number, server) in (0_u32..).zip(&servers) {
        eventually("it is its turn", || began.elapsed() >= APART * number);
        if number == 19 {
            // However slow the host is, this one has its handlers.
            eventually("it says so", || server.logged("starting").is_some());
        }
        server.signal(Signal::TERM);
    }
    let mut stopped = 0;
    for mut server in servers {
        let status = server.wait();
        let is_killed = status.signal() == Some(Signal::TERM.as_raw());
        assert!(is_killed || status.code() == Some(0), "{status}");
        stopped += u32::from(!is_killed);
    }
    assert!(stopped > 0, "all came before the handlers");
}
