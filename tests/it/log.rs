//! The log on standard error: what it holds, in which form, and that nobody depends on it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{PATIENCE, Server, eventually};

fn config(log: &str) -> String {
    let listener = "name = \"front\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"";
    format!("[[listener]]\n{listener}\n[log]\n{log}")
}

#[test]
fn a_close_is_one_line_with_everything_about_the_connection() {
    let server = Server::start(&config("level = \"debug\"\nformat = \"json\""));
    let mut client = server.connect();
    let peer = client.stream.local_addr().unwrap().to_string();
    client.echo("one\ntwo\n");
    client.send("exit\n");
    client.expect_end();
    drop(client);
    server.connect().reset();
    server.eventually_closed(&[("exit", 1), ("unused", 1)]);
    let lines = server.await_close_lines(2);
    assert_eq!(lines.len(), 2);
    let line = lines.iter().find(|line| line["reason"] == "exit").unwrap();
    let expected = [
        ("level", Value::from("DEBUG")),
        ("listener", "front".into()),
        ("peer", peer.into()),
        ("received_bytes", 13.into()),
        ("sent_bytes", 8.into()),
        ("discarded_bytes", 0.into()),
        ("messages", 2.into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}");
    }
    let milliseconds = line["duration_ms"].as_f64().unwrap();
    assert!((0.0..1e3 * PATIENCE.as_secs_f64()).contains(&milliseconds), "{milliseconds}");
    assert!(line["timestamp"].is_string());
}

/// Whether closes are shown, and at which level.
#[track_caller]
fn check_close_level(log: &str, expected: Option<&str>) {
    let mut server = Server::start(&config(log));
    server.connect().echo("hello\n");
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.stop(), Some(0));
    let lines = server.close_lines();
    let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn closes_are_shown_at_the_level_that_was_configured() {
    let json = "format = \"json\"";
    check_close_level(&format!("{json}\nlevel = \"info\"\nconnections = \"info\""), Some("INFO"));
    check_close_level(
        &format!("{json}\nlevel = \"trace\"\nconnections = \"trace\""),
        Some("TRACE"),
    );
    check_close_level(
        &format!("{json}\nlevel = \"debug\"\nconnections = \"error\""),
        Some("ERROR"),
    );
}

#[test]
fn closes_are_not_shown_by_default() {
    check_close_level("format = \"json\"", None);
}

/// A server that logs text, the lines of which the harness keeps as strings; and its address.
#[track_caller]
fn start_with_text(log: &str) -> (Server, String) {
    let server = Server::spawn(&config(log), |command| command);
    let mut address = None;
    eventually("it is ready", || {
        let lines = lines(&server);
        let listening = lines.iter().find(|line| line.contains(" listening "));
        address = listening
            .and_then(|line| line.split("address=").nth(1))
            .map(|rest| rest.split(' ').next().unwrap().to_owned());
        lines.iter().any(|line| line.ends_with(" ready"))
    });
    (server, address.expect("an address"))
}

fn lines(server: &Server) -> Vec<String> {
    let text = |line: Value| line.as_str().map_or_else(|| line.to_string(), ToOwned::to_owned);
    server.log().into_iter().map(text).collect()
}

#[test]
fn text_is_a_line_an_event_without_colours() {
    let (mut server, address) = start_with_text("format = \"text\"\nconnections = \"info\"");
    let mut client = crate::harness::Client::connect(address.parse().unwrap());
    let peer = client.stream.local_addr().unwrap();
    client.echo("hello\n");
    client.finish();
    client.expect_end();
    drop(client);
    assert_eq!(server.stop(), Some(0));
    let lines = lines(&server);
    let closes: Vec<_> = lines.iter().filter(|line| line.contains("connection closed")).collect();
    assert_eq!(closes.len(), 1, "{lines:?}");
    for part in [
        " INFO ",
        "listener=\"front\"",
        &format!("peer=\"{peer}\""),
        "reason=\"peer_closed\"",
        "received_bytes=6 sent_bytes=6 discarded_bytes=0 messages=1",
    ] {
        assert!(closes[0].contains(part), "{} should hold {part}", closes[0]);
    }
    assert!(lines.iter().all(|line| !line.contains('\x1b')), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("stopped") && line.contains("served=1 cut=0")));
}

/// Clients whose texts would do harm in a log say them in every way that ends a conversation.
#[track_caller]
fn check_no_client_text(format: &str) {
    let log = format!("format = \"{format}\"\nlevel = \"trace\"\nconnections = \"trace\"");
    let mut server = Server::spawn(&config(&log), |command| command);
    let address = || {
        let lines = lines(&server);
        let line = lines.iter().find(|line| line.contains("listening"))?;
        let at = line.find("127.0.0.1:")?;
        let end = line[at..].find(['"', ' ']).map_or(line.len(), |end| at + end);
        line[at..end].parse().ok()
    };
    eventually("it is ready", || lines(&server).iter().any(|line| line.contains("ready")));
    let address = address().unwrap();
    let text = "HARMFUL\x1b[2J\r ERROR forged=1";
    let say = |bytes: &[u8]| {
        let mut client = crate::harness::Client::connect(address);
        client.send(bytes);
        client.finish();
        client.read_to_end();
    };
    for end in ["", "\nexit\n", "\n\u{0}\n"] {
        say(format!("{text}{end}").as_bytes());
    }
    say(b"HARMFUL forged\xff\n");
    say("HARMFUL".repeat(10_000).as_bytes());
    assert_eq!(server.stop(), Some(0));
    let lines = lines(&server);
    let closes = lines.iter().filter(|line| line.contains("connection closed")).count();
    assert_eq!(closes, 5, "{lines:?}");
    for line in lines {
        assert!(!line.contains("HARMFUL") && !line.contains("forged"), "{line}");
    }
}

#[test]
fn no_client_text_reaches_the_log() {
    check_no_client_text("text");
    check_no_client_text("json");
}

/// A program whose standard error is not the harness's.
pub struct Program {
    pub child: Child,
    _dir: tempfile::TempDir,
}

impl Program {
    pub fn serve(listener: &str, stderr: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talkback.toml");
        let config = format!("[[listener]]\naddress = \"{listener}\"\n[metrics]\naddress = \"\"\n");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
        command.args(["serve", "--config"]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Self { child: command.spawn().unwrap(), _dir: dir }
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Either fails where the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, stops and is refused as ever with such a standard error.
#[track_caller]
fn check_nobody_reads(stderr: impl Fn() -> Stdio) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    let listener = format!("unix:{}", path.display());
    let mut server = Program::serve(&listener, stderr());
    let mut client = None;
    eventually("it listens", || {
        client = UnixStream::connect(&path).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write_all(b"hello").unwrap();
    let mut reply = [0; 5];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"hello");
    assert_eq!(Program::serve(&listener, stderr()).wait().code(), Some(1));
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert_eq!(client.read(&mut reply).unwrap(), 0);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    check_nobody_reads(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    });
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    check_nobody_reads(|| fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
}
