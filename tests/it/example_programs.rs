//! The programs of `examples/`, as they were built, and clients who talk to them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, PATIENCE, eventually};

/// A running example, on a port that the kernel picked.
struct Example {
    child: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Example {
    #[track_caller]
    fn start(name: &str, arguments: &[&OsStr]) -> Self {
        crate::quiet::share();
        let path = built(name);
        let mut command = Command::new(&path);
        command.arg("127.0.0.1:0").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit_once(" on ").expect("it says where").1;
        Self { child, output, address: address.parse().unwrap() }
    }

    #[track_caller]
    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Ctrl-C; it drains, and says how many it served.
    #[track_caller]
    fn stop(mut self, served: usize) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("served {served} connections\n"));
        let mut status = None;
        eventually("the example ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Either fails where it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo puts examples beside the directory of the test binaries. It builds them for `cargo test`,
/// but not for one that names its tests.
#[track_caller]
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().with_file_name("examples").join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").expect("cargo runs the tests");
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--locked", "--example", name]);
        assert!(build.status().unwrap().success(), "{name} can be built");
    }
    path
}

/// Sends lines in one piece, and expects a reply to each.
#[track_caller]
fn check(client: &mut Client, conversation: &[(&str, &str)]) {
    let lines =
        |side: fn(&(&str, &str)) -> String| conversation.iter().map(side).collect::<String>();
    client.send(lines(|(text, _)| format!("{text}\n")));
    client.expect(lines(|(_, reply)| format!("{reply}\n")));
}

#[test]
fn the_key_value_store_is_one_for_all() {
    let example = Example::start("kv", &[]);
    let (mut one, mut other) = (example.connect(), example.connect());
    check(&mut one, &[("get a", "unknown key"), ("set a 1 2 3", "stored"), ("get a", "1 2 3")]);
    check(&mut other, &[("get a", "1 2 3"), ("set a 4", "replaced"), ("count", "1")]);
    check(&mut one, &[("delete a", "deleted"), ("delete a", "unknown key"), ("count", "0")]);
    let usage = "usage: set KEY VALUE | get KEY | delete KEY | count | quit";
    check(&mut one, &[("set a", usage), ("", usage)]);
    one.send("quit\n");
    one.expect_end();
    drop(one);
    other.finish();
    other.expect_end();
    drop(other);
    example.stop(2);
}

#[test]
fn the_key_value_store_loses_nothing_of_many_writers() {
    const WRITERS: usize = 8;
    const KEYS: usize = 200;
    let example = Example::start("kv", &[]);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut client = example.connect();
            scope.spawn(move || {
                let sets: String =
                    (0..KEYS).map(|key| format!("set {writer}-{key} {key}\n")).collect();
                client.send(sets);
                client.expect("stored\n".repeat(KEYS));
            });
        }
    });
    check(&mut example.connect(), &[("count", "1600"), ("get 7-199", "199")]);
}

#[test]
fn the_phone_book_survives_its_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("book.sqlite");
    let example = Example::start("database", &[file.as_os_str()]);
    let (mut one, mut other) = (example.connect(), example.connect());
    check(&mut one, &[("find Ada", "not found"), ("add Ada 12 34", "added")]);
    check(&mut other, &[("find Ada", "12 34"), ("add Ada 56", "added"), ("count", "1")]);
    check(&mut one, &[("find Ada", "56"), ("find", "usage: add NAME NUMBER | find NAME | count")]);
    check(&mut one, &[("add Bobby'); DROP TABLE entries;-- 1", "added"), ("count", "2")]);
    drop((one, other));
    example.stop(2);
    let example = Example::start("database", &[file.as_os_str()]);
    let mut client = example.connect();
    check(&mut client, &[("find Ada", "56"), ("count", "2")]);
    client.finish();
    client.expect_end();
    drop(client);
    example.stop(1);
}

#[test]
fn the_phone_book_takes_what_many_write_at_once() {
    const WRITERS: usize = 6;
    const NAMES: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let example = Example::start("database", &[dir.path().join("book.sqlite").as_os_str()]);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mut client = example.connect();
            scope.spawn(move || {
                let adds: String =
                    (0..NAMES).map(|name| format!("add {writer}-{name} {name}\n")).collect();
                client.send(adds);
                client.expect("added\n".repeat(NAMES));
            });
        }
    });
    check(&mut example.connect(), &[("count", "60"), ("find 5-9", "9")]);
}

/// A member of the chat room who reads lines.
struct Member(BufReader<std::net::TcpStream>);

impl Member {
    #[track_caller]
    fn join(example: &Example) -> Self {
        Self::greeted(example.connect().stream)
    }

    #[track_caller]
    fn greeted(stream: std::net::TcpStream) -> Self {
        let mut member = Self(BufReader::new(stream));
        assert_eq!(member.line(), "welcome; /nick NAME, /who, /quit");
        member
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the room ended behind {line:?}");
        line.truncate(line.len() - 1);
        line
    }

    /// A line to all: its number, and what it says.
    #[track_caller]
    fn numbered(&mut self) -> (u64, String) {
        let line = self.line();
        let (number, text) = line.split_once(' ').expect("a number before it");
        (number.parse().unwrap(), text.to_owned())
    }

    /// Reads what was kept for it, until the numbers jump: lines were left out. What comes then is
    /// said after `before`, by `speaker`, who says something whenever there is nothing to read.
    #[track_caller]
    fn expect_gap(&mut self, before: u64, speaker: &mut Self) {
        self.0.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (mut heard, mut line) = (0, String::new());
        eventually("lines are left out", || {
            if let Err(error) = self.0.read_line(&mut line) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                speaker.say("are you there?");
                return false;
            }
            let number = line.split(' ').next().unwrap().parse::<u64>().unwrap();
            line.clear();
            let follows = number == std::mem::replace(&mut heard, number) + 1;
            !follows && number > before
        });
    }

    #[track_caller]
    fn expect(&mut self, number: u64, text: &str) {
        assert_eq!(self.numbered(), (number, text.to_owned()));
    }
}

#[test]
fn a_chat_room_tells_everybody_who_comes_speaks_and_goes() {
    let example = Example::start("chat", &[]);
    let mut one = Member::join(&example);
    one.expect(1, "* guest-1 has joined");
    let mut two = Member::join(&example);
    one.expect(2, "* guest-2 has joined");
    two.expect(2, "* guest-2 has joined");
    one.say("/nick Ada");
    one.expect(3, "* guest-1 is now Ada");
    two.expect(3, "* guest-1 is now Ada");
    two.say("/nick Ada");
    assert_eq!(two.line(), "Ada is taken");
    two.say("/who");
    assert_eq!(two.line(), "Ada, guest-2");
    // Three lines in one piece keep their order, also before the last word.
    two.say("hello\nyou\n/quit");
    for member in [&mut one, &mut two] {
        member.expect(4, "guest-2: hello");
        member.expect(5, "guest-2: you");
    }
    one.expect(6, "* guest-2 has left");
    assert_eq!(two.0.read_line(&mut String::new()).unwrap(), 0);
    drop((one, two));
    example.stop(2);
}

/// What the speaker says in one go is less than `max_pending_bytes`, and all together more than
/// what server and kernel keep for a client that reads nothing.
#[test]
fn a_hundred_members_hear_the_same_and_one_that_is_deaf_holds_up_nobody() {
    const MEMBERS: u64 = 100;
    const ROUNDS: u64 = 10;
    const LINES: u64 = 10;
    let example = Example::start("chat", &[]);
    let mut deaf = Member::greeted(deaf(example.address));
    let mut members: Vec<Member> = (0..MEMBERS).map(|_| Member::join(&example)).collect();
    let mut number = MEMBERS + 1;
    for member in &mut members {
        while member.numbered().0 != number {}
    }
    let padding = "x".repeat(4000);
    for round in 0..ROUNDS {
        let lines: Vec<_> = (0..LINES).map(|line| format!("{round} {line} {padding}")).collect();
        members[0].say(&lines.join("\n"));
        for member in &mut members {
            for (line, at) in lines.iter().zip(number + 1..) {
                let (heard, text) = member.numbered();
                assert_eq!((heard, text.strip_prefix("guest-2: ")), (at, Some(line.as_str())));
            }
        }
        number += LINES;
    }
    deaf.expect_gap(number, &mut members[0]);
}

/// A client with a small buffer, which reads nothing yet.
fn deaf(address: SocketAddr) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}
