//! The log on standard error: what it holds, in which form, and that nobody depends on it.

mod flood;
mod hostile;
mod sink;

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Client, PATIENCE, Server, eventually};

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

/// A server that logs in either form, and its address.
#[track_caller]
fn start(config: &str) -> (Server, SocketAddr) {
    let server = Server::spawn(config, |command| command);
    eventually("it is ready", || lines(&server).iter().any(|line| line.contains("ready")));
    let lines = lines(&server);
    let line = lines.iter().find(|line| line.contains("listening")).unwrap();
    let address = &line[line.find("127.0.0.1:").unwrap()..];
    let end = address.find(['"', ' ']).unwrap_or(address.len());
    let address = address[..end].parse().unwrap();
    (server, address)
}

/// The lines so far, as they are or as JSON.
fn lines(server: &Server) -> Vec<String> {
    let text = |line: Value| line.as_str().map_or_else(|| line.to_string(), ToOwned::to_owned);
    server.log().into_iter().map(text).collect()
}

#[test]
fn text_is_a_line_an_event_without_colours() {
    let (mut server, address) = start(&config("format = \"text\"\nconnections = \"info\""));
    let mut client = Client::connect(address);
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

/// A program whose standard error is not the harness's.
pub struct Program {
    pub child: Child,
    _dir: tempfile::TempDir,
}

impl Program {
    /// Serves by a command that lacks the arguments.
    pub fn start(mut command: Command, config: &str) -> Self {
        crate::quiet::share();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talkback.toml");
        fs::write(&path, config).unwrap();
        command.args(["serve", "--config"]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), _dir: dir }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
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

/// The config of one listener without metrics.
pub fn alone(listener: &str) -> String {
    format!("[[listener]]\naddress = \"{listener}\"\n[metrics]\naddress = \"\"\n")
}
