//! The ledger: every label is there from the start, and after thousands of connections of every
//! ending each stands under its reason and nothing is left of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use talkback::metrics::names::{AcceptError, CloseReason, LateReplyRefusal, Rejection};
use talkback::sidecar;

use crate::harness::{Client, Server, eventually};

/// The metric's series are these and no others, all at 0.
#[track_caller]
fn check(server: &Server, name: &str, labels: impl IntoIterator<Item = String>) {
    let metrics = server.metrics();
    let expected: BTreeSet<String> =
        labels.into_iter().map(|labels| format!("{name}{{{labels}}}")).collect();
    let begin = format!("{name}{{");
    let found: BTreeSet<String> =
        metrics.series().filter(|series| series.starts_with(&begin)).map(str::to_owned).collect();
    assert_eq!(found, expected);
    for series in &expected {
        assert_eq!(metrics.get(series), 0.0, "{series}");
    }
}

#[test]
fn every_label_of_every_listener_is_there_at_0_from_the_start() {
    let listener = |name| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    let server = Server::start(&(listener("one") + &listener("other")));
    let each = |label: &'static str, values: Vec<&'static str>| {
        let of_listener = move |listener: &'static str| {
            let labels = values.clone().into_iter();
            labels.map(move |value| {
                let mut labels =
                    [format!("listener=\"{listener}\""), format!("{label}=\"{value}\"")];
                labels.sort();
                labels.join(",")
            })
        };
        of_listener("one").chain(of_listener("other")).collect::<Vec<_>>()
    };
    let closes = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
    check(&server, "talkback_connections_closed_total", each("reason", closes));
    let rejections = Rejection::ALL.iter().map(|reason| reason.label()).collect();
    check(&server, "talkback_connections_rejected_total", each("reason", rejections));
    let errors = AcceptError::ALL.iter().map(|error| error.label()).collect();
    check(&server, "talkback_accept_errors_total", each("error", errors));
    let drops = LateReplyRefusal::ALL.iter().map(|drop| format!("reason=\"{}\"", drop.label()));
    check(&server, "talkback_late_replies_refused_total", drops);
    let scrapes = sidecar::Rejection::ALL.iter().map(|it| format!("reason=\"{}\"", it.label()));
    check(&server, "talkback_scrapes_rejected_total", scrapes);
    for name in ["connections_accepted", "received_bytes", "sent_bytes", "discarded_bytes"] {
        let listeners = ["one", "other"].map(|name| format!("listener=\"{name}\""));
        check(&server, &format!("talkback_{name}_total"), listeners);
    }
}

#[test]
fn every_answer_of_the_sidecar_is_counted_and_was_there_at_0() {
    let server = Server::with_listener("");
    let metrics = server.metrics();
    for scrape in sidecar::Scrape::ALL {
        let (path, code) = (scrape.page.label(), scrape.code.label());
        let series = format!("talkback_scrapes_total{{code=\"{code}\",path=\"{path}\"}}");
        // A scrape is counted when it is answered, behind what it shows.
        assert_eq!(metrics.get(&series), 0.0, "{series}");
    }
    assert_eq!(server.get("/nowhere").0, 404);
    let series = "talkback_scrapes_total{code=\"404\",path=\"other\"}";
    assert_eq!(server.metrics().get(series), 1.0);
}

/// What a client does up to its end, the reason that this is counted as, and how many bytes the
/// server receives and sends.
type Ending = (fn(SocketAddr), &'static str, [usize; 2]);

const ENDINGS: &[Ending] = &[
    (close, "peer_closed", [5, 5]),
    (reset, "peer_reset", [5, 5]),
    (exit, "exit", [10, 6]),
    (bad_utf8, "invalid_utf8", [6, 5]),
    (half_close, "peer_closed", [5, 5]),
    (close_unused, "unused", [0, 0]),
    (reset_unused, "unused", [0, 0]),
    (speak_and_leave, "peer_reset", [10, 10]),
];

fn close(address: SocketAddr) {
    Client::connect(address).echo("hello");
}

fn reset(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.echo("hello");
    client.reset();
}

fn exit(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.echo("你好");
    client.send("exit");
    client.expect_end();
}

fn bad_utf8(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.send(b"hello\xff");
    assert_eq!(client.read_to_end(), b"hello");
}

fn half_close(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.send("hello");
    client.finish();
    assert_eq!(client.read_to_end(), b"hello");
}

fn close_unused(address: SocketAddr) {
    Client::connect(address);
}

fn reset_unused(address: SocketAddr) {
    Client::connect(address).reset();
}

/// Leaves with a reply unread, which makes the client's kernel reset the connection.
fn speak_and_leave(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.echo("hello");
    client.send("again");
    // The reply is there when the close comes.
    while client.stream.peek(&mut [0; 5]).unwrap() < 5 {}
    drop(client);
}

/// Runs so many connections, every ending in turn, from several threads.
fn run(address: SocketAddr, connections: usize) {
    const THREADS: usize = 4;
    let ending = |number: usize| ENDINGS[number % ENDINGS.len()];
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            scope.spawn(move || {
                (first..connections).step_by(THREADS).for_each(|n| ending(n).0(address));
            });
        }
    });
}

/// What has to be counted for so many runs of every ending.
fn counts(rounds: usize) -> Vec<(&'static str, u64)> {
    let reasons = ENDINGS.iter().map(|ending| ending.1).collect::<BTreeSet<_>>();
    let endings = |reason| ENDINGS.iter().filter(|ending| ending.1 == reason).count();
    reasons.into_iter().map(|reason| (reason, (rounds * endings(reason)) as u64)).collect()
}

/// Bytes received and sent in so many runs of every ending.
fn bytes(rounds: usize) -> [f64; 2] {
    [0, 1].map(|way| (rounds * ENDINGS.iter().map(|ending| ending.2[way]).sum::<usize>()) as f64)
}

/// What the process has open, and the names of its threads.
#[derive(Debug)]
struct Holdings {
    descriptors: Vec<String>,
    threads: Vec<String>,
}

impl Holdings {
    fn of(server: &Server) -> Self {
        let entries = |directory: &str| {
            let path = format!("/proc/{}/{directory}", server.pid());
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())
        };
        // One that has gone since it was listed is not held.
        let link = |path| Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
        let comm = |path: PathBuf| fs::read_to_string(path.join("comm")).ok();
        Self {
            descriptors: entries("fd").filter_map(link).collect(),
            threads: entries("task").filter_map(comm).collect(),
        }
    }

    /// tiny_http lets go of threads that have had nothing to do for a while.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.descriptors.len() <= before.descriptors.len()
            && self.threads.len() <= before.threads.len()
    }
}

/// Resident memory in KiB.
fn memory(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn five_thousand_connections_of_every_ending_are_each_counted_once_and_leave_nothing() {
    const ROUNDS: usize = 5000 / ENDINGS.len();
    const WARM_UP: usize = 25;
    let log = "[log]\nlevel = \"info\"\nformat = \"json\"";
    let config = format!("workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n{log}");
    let server = Server::start(&config);
    run(server.address(), WARM_UP * ENDINGS.len());
    server.eventually_closed(&counts(WARM_UP));
    let before = Holdings::of(&server);
    let resident = memory(&server);

    run(server.address(), ROUNDS * ENDINGS.len());
    server.eventually_closed(&counts(WARM_UP + ROUNDS));
    let metrics = server.metrics();
    let accepted = ((WARM_UP + ROUNDS) * ENDINGS.len()) as f64;
    assert_eq!(metrics.sum("talkback_connections_accepted_total"), accepted);
    assert_eq!(metrics.sum("talkback_connections_rejected_total"), 0.0);
    assert_eq!(metrics.sum("talkback_worker_connections"), 0.0);
    let moved = ["received", "sent"].map(|way| metrics.sum(&format!("talkback_{way}_bytes_total")));
    assert_eq!(moved, bytes(WARM_UP + ROUNDS));
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 0.0);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    assert_eq!(metrics.sum("talkback_worker_panics_total"), 0.0);
    let after = RefCell::new(Holdings::of(&server));
    let why = std::fmt::from_fn(|f| write!(f, "{:#?} is not {before:#?}", after.borrow()));
    eventually(why, || {
        after.replace(Holdings::of(&server));
        after.borrow().is_no_more_than(&before)
    });
    let grown = memory(&server).saturating_sub(resident);
    assert!(grown < 4096, "{grown} KiB more than before");
}
