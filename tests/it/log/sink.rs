//! A standard error that takes nothing more: nobody waits for it, and what is lost is counted.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Program, alone};
use crate::harness::{Client, Metrics, eventually, get};

/// At a stop nobody waits for a standard error that hangs longer than this.
const PROMPT: Duration = Duration::from_secs(2);

/// A server that logs to a pipe, every event and in JSON.
struct Watched {
    program: Program,
    log: BufReader<PipeReader>,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Watched {
    #[track_caller]
    fn start(reader: PipeReader, writer: PipeWriter) -> Self {
        let config = "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
                      [metrics]\naddress = \"127.0.0.1:0\"\n\
                      [log]\nlevel = \"debug\"\nformat = \"json\"\nmax_lines_per_second = 0\n";
        let mut command = talkback();
        command.stderr(writer);
        let program = Program::start(command, config);
        let mut log = BufReader::new(reader);
        let (mut addresses, mut line) = (Vec::new(), String::new());
        while !line.contains("\"ready\"") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            if let Some(address) = event["address"].as_str() {
                addresses.push(address.parse().unwrap());
            }
        }
        let [address, metrics] = addresses[..] else { panic!("{addresses:?}") };
        Self { program, log, address, metrics }
    }

    /// Clients that have two lines of the longest kind each: they are refused, and closed.
    fn refuse(&self, clients: u64) {
        let said = ["\u{202e}".repeat(64).as_bytes(), b"\xff\n"].concat();
        let say = |_| {
            let mut client = Client::connect(self.address);
            client.send(&said);
            client
        };
        for mut client in (0..clients).map(say).collect::<Vec<_>>() {
            client.read_to_end();
        }
    }

    /// Clients are refused until lines are dropped; how many that were.
    #[track_caller]
    fn refuse_until_dropped(&self) -> u64 {
        let mut refused = 0;
        eventually("lines are dropped", || {
            self.refuse(100);
            refused += 100;
            dropped(self.metrics) > 0.0
        });
        refused
    }

    /// Reads the log from here on.
    fn follow(self) -> Followed {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (log, sink) = (self.log, lines.clone());
        let reading = thread::spawn(move || {
            for line in log.lines() {
                // Every line is a whole one.
                sink.lock().unwrap().push(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        let Self { program, address, metrics, .. } = self;
        Followed { program, address, metrics, lines, reading }
    }
}

/// A server whose log is read.
struct Followed {
    program: Program,
    address: SocketAddr,
    metrics: SocketAddr,
    lines: Arc<Mutex<Vec<Value>>>,
    reading: JoinHandle<()>,
}

impl Followed {
    /// Waits until a line of now is read, so that all before it are; how many clients that took.
    #[track_caller]
    fn catch_up(&self) -> u64 {
        let mut clients = 0;
        eventually("the log has caught up", || {
            let mut client = Client::connect(self.address);
            client.echo("hello\n");
            drop(client);
            clients += 1;
            self.lines.lock().unwrap().iter().any(|line| line["reason"] == "peer_closed")
        });
        clients
    }

    /// All lines, once the log has ended.
    #[track_caller]
    fn end(self) -> Vec<Value> {
        drop(self.program);
        self.reading.join().unwrap();
        Arc::into_inner(self.lines).unwrap().into_inner().unwrap()
    }
}

/// Lines that were dropped, as the sidecar has it.
#[track_caller]
fn dropped(sidecar: SocketAddr) -> f64 {
    let (_, metrics) = get(sidecar, "/metrics").unwrap();
    Metrics::parse(&metrics).get("talkback_log_lines_dropped_total")
}

fn talkback() -> Command {
    Command::new(env!("CARGO_BIN_EXE_talkback"))
}

fn lines_of(log: &[Value], reason: &str) -> u64 {
    log.iter().filter(|event| event["reason"] == reason).count() as u64
}

#[test]
fn a_log_that_is_not_read_any_more_holds_up_neither_service_nor_stop() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut server = Watched::start(reader, writer);
    let mut client = Client::connect(server.address);
    client.echo("before\n");
    server.refuse_until_dropped();
    client.echo("still here\n");
    Client::connect(server.address).echo("new\n");
    server.program.signal(Signal::TERM);
    client.expect_end();
    drop(client);
    let began = Instant::now();
    assert_eq!(server.program.wait().code(), Some(0));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    // What stands in the pipe is whole.
    assert!(lines_of(&server.follow().end(), "invalid_utf8") > 0);
}

#[test]
fn every_line_is_read_or_counted() {
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Watched::start(reader, writer);
    let refused = server.refuse_until_dropped();
    let mut server = server.follow();
    let others = server.catch_up();
    let dropped = dropped(server.metrics);
    server.program.signal(Signal::TERM);
    assert_eq!(server.program.wait().code(), Some(0));
    let log = server.end();
    let read = lines_of(&log, "invalid_utf8") + lines_of(&log, "peer_closed");
    assert_eq!(read + dropped as u64, 2 * refused + others);
    assert_eq!(log.last().unwrap()["message"], "stopped");
}

#[test]
fn a_pipe_that_somebody_made_non_blocking_loses_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    // A property of the pipe, which the server shares.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let server = Watched::start(reader, writer);
    // More than a pipe holds.
    server.refuse(200);
    let mut server = server.follow();
    server.catch_up();
    assert_eq!(dropped(server.metrics), 0.0);
    server.program.signal(Signal::TERM);
    assert_eq!(server.program.wait().code(), Some(0));
    assert_eq!(lines_of(&server.end(), "invalid_utf8"), 400);
}

/// A Unix client that is served.
#[track_caller]
fn converse(path: &Path) -> UnixStream {
    let mut client = None;
    eventually("it listens", || {
        client = UnixStream::connect(path).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write_all(b"hello").unwrap();
    let mut reply = [0; 5];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"hello");
    client
}

/// Serves, stops and is refused as ever, started by such a command.
#[track_caller]
fn check_nobody_reads(command: impl Fn() -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let config = alone(&format!("unix:{}", path.display()));
    let mut server = Program::start(command(), &config);
    let mut client = converse(&path);
    assert_eq!(Program::start(command(), &config).wait().code(), Some(1));
    server.signal(Signal::TERM);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    check_nobody_reads(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = talkback();
        command.stderr(writer);
        command
    });
}

#[test]
fn a_log_that_is_closed_stops_nothing() {
    check_nobody_reads(|| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>&-", env!("CARGO_BIN_EXE_talkback")]);
        command
    });
}

fn full_disk() -> Command {
    let mut command = talkback();
    command.stderr(OpenOptions::new().write(true).open("/dev/full").unwrap());
    command
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    check_nobody_reads(full_disk);
}

/// The one TCP port where a process listens, whatever it logs.
fn listening_port(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let targets: Vec<_> = targets.map(|target| target.display().to_string()).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_ours = targets.contains(&format!("socket:[{}]", fields[9]));
        let port = fields[1].rsplit_once(':')?.1;
        (is_ours && fields[3] == "0A").then(|| u16::from_str_radix(port, 16).unwrap())
    })
}

#[test]
fn each_line_for_a_full_disk_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let config = format!(
        "[[listener]]\naddress = \"unix:{}\"\nbacklog = 64\n[limits]\nmax_connections = 100\n\
         [metrics]\naddress = \"127.0.0.1:0\"\n\
         [log]\nconnections = \"info\"\nmax_lines_per_second = 0\n",
        path.display()
    );
    let mut server = Program::start(full_disk(), &config);
    drop(converse(&path));
    let mut port = None;
    eventually("the sidecar listens", || {
        port = listening_port(server.child.id());
        port.is_some()
    });
    let metrics = SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    // Nothing here is worth a warning: "starting", two addresses and "ready" come before closes.
    for closes in 1..=20 {
        let expected = f64::from(4 + closes);
        eventually("the lines are counted", || dropped(metrics) >= expected);
        assert_eq!(dropped(metrics), expected);
        drop(converse(&path));
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// A failed start tells nobody why, and ends all the same.
#[track_caller]
fn check_fails(config: &str, code: i32) {
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = talkback();
    command.stderr(Stdio::from(writer));
    let began = Instant::now();
    assert_eq!(Program::start(command, config).wait().code(), Some(code));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[test]
fn a_failed_start_does_not_wait_until_somebody_reads_why() {
    check_fails(&alone("unix:/nowhere/talkback.sock"), 1);
    check_fails("workers = 0", 2);
}
