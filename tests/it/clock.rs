//! The clock of the host jumps by an hour, forth and back. What the server times it times by one
//! that does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::Server;
use crate::stuck::stuck_client;

/// A server whose wall clock is the host's and what its file says more.
struct Shifted {
    server: Server,
    shift: PathBuf,
    _dir: tempfile::TempDir,
}

/// Debian's libfaketime, wherever the architecture has it.
fn library() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found = directories.map(|path| path.join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("the package faketime is installed")
}

fn write_shift(path: &Path, seconds: i64) {
    // In one step: the server may look at any time.
    let whole = path.with_extension("new");
    fs::write(&whole, format!("{seconds:+}")).unwrap();
    fs::rename(whole, path).unwrap();
}

impl Shifted {
    fn start(limits: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shift = dir.path().join("shift");
        write_shift(&shift, 0);
        let config = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n[limits]\n{limits}\n"
        );
        let server = Server::start_by(&config, |command| {
            command
                .env("LD_PRELOAD", library())
                .env("FAKETIME_TIMESTAMP_FILE", &shift)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        });
        Self { server, shift, _dir: dir }
    }

    /// The wall clock jumps, and the server has seen it: its log tells the new time.
    #[track_caller]
    fn jump_to(&self, seconds: i64) {
        write_shift(&self.shift, seconds);
        let before = self.server.close_lines().len();
        let mut client = self.server.connect();
        client.send("exit\n");
        client.expect_end();
        drop(client);
        let line = self.server.await_close_lines(before + 1).pop().unwrap();
        let told = line["timestamp"].as_str().unwrap().to_owned();
        let shifted = seconds_of(&told) - now();
        assert!((shifted - seconds).abs() < 60, "{told} is {shifted} s from now");
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Of a timestamp such as 2026-01-31T12:00:00.5Z, since 1970.
fn seconds_of(timestamp: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| timestamp[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From March of the year 0 to 1970.
    let days = days - 719_468;
    days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

#[test]
fn no_timeout_fires_because_the_clock_jumps() {
    let minute = ["idle", "message", "send", "linger"].map(|it| format!("{it}_timeout = \"1m\""));
    let shifted = Shifted::start(&minute.join("\n"));
    let server = &shifted.server;
    let mut idle = server.connect();
    idle.echo("idle\n");
    let mut unfinished = server.connect();
    unfinished.send("unfinished");
    let mut lingering = server.connect();
    lingering.send("exit\n");
    lingering.expect_end();
    let stuck = stuck_client(server, server.address());
    for jump in [3600, -3600, 0, 7200] {
        shifted.jump_to(jump);
        idle.echo("still here\n");
        server.eventually(&format!("four are left at {jump}"), |metrics| {
            metrics.sum("talkback_connections") == 4.0
        });
    }
    unfinished.send(" and finished\n");
    unfinished.expect("unfinished and finished\n");
    drop((idle, unfinished, lingering, stuck));
    let metrics =
        server.eventually("all end", |metrics| metrics.sum("talkback_connections") == 0.0);
    for timeout in ["idle_timeout", "message_timeout", "send_timeout"] {
        assert_eq!(metrics.closes().get(timeout), None);
    }
    metrics.assert_ledger();
}

#[test]
fn a_timeout_is_on_time_although_the_clock_jumps() {
    for jump in [3600, -3600] {
        let shifted = Shifted::start("idle_timeout = \"1s\"");
        let mut client = shifted.server.connect();
        let began = Instant::now();
        client.echo("hello\n");
        shifted.jump_to(jump);
        client.expect_end();
        let took = began.elapsed();
        let range = Duration::from_secs(1)..=Duration::from_secs(2);
        assert!(range.contains(&took), "{jump}: {took:?}");
    }
}
