//! Hostile scrapers against the real program. Whatever they do, a good scrape is answered within a
//! second, at most 32 connections and a fixed number of threads are spent on them, memory does not
//! grow, and each refusal is counted.

mod crowds;
mod drain;
mod heads;
mod together;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{Metrics, PATIENCE, Server, eventually, get};

/// A good scrape is answered within that.
const AT_MOST: Duration = Duration::from_secs(1);
/// The door's places.
const PLACES: usize = 32;
/// What hostile scrapers of any number may cost in memory, in KiB: 32 heads of 8 KiB, and room for
/// the allocator.
const MEMORY: u64 = 1024;
const REASONS: [&str; 8] = [
    "over_capacity",
    "head_too_large",
    "head_timeout",
    "malformed",
    "incomplete",
    "body",
    "unavailable",
    "slow_reader",
];

/// A connection to the sidecar, from an address of this host that is not the good scraper's.
fn stranger(sidecar: SocketAddr) -> TcpStream {
    stranger_by(sidecar, [127, 0, 0, 2], |_| ())
}

/// From that address, by a socket with a say in its options.
fn stranger_by(sidecar: SocketAddr, origin: [u8; 4], prepare: impl FnOnce(&Socket)) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    prepare(&socket);
    socket.bind(&SocketAddr::from((origin, 0)).into()).unwrap();
    socket.connect(&sidecar.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Closes with RST.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// All that comes until the end, and whether that is an orderly one.
fn read_all(stream: &mut TcpStream) -> (String, bool) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    if let Err(error) = &end {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "no end after {} bytes", bytes.len());
    }
    (String::from_utf8(bytes).unwrap(), end.is_ok())
}

/// A good scrape, timed.
#[track_caller]
fn scrape(sidecar: SocketAddr) -> (Metrics, Duration) {
    let began = Instant::now();
    let (status, body) = get(sidecar, "/metrics").expect("the sidecar answers");
    let took = began.elapsed();
    assert_eq!(status, 200, "{body}");
    assert!(took < AT_MOST, "{took:?}");
    (Metrics::parse(&body), took)
}

/// The refusals by reason, without those at 0.
fn refusals(metrics: &Metrics) -> BTreeMap<&'static str, u64> {
    let count = |reason| {
        metrics.get(&format!("talkback_scrapes_rejected_total{{reason=\"{reason}\"}}")) as u64
    };
    let counts: BTreeMap<_, _> = REASONS.map(|reason| (reason, count(reason))).into();
    let sum = counts.values().sum::<u64>() as f64;
    assert_eq!(sum, metrics.sum("talkback_scrapes_rejected_total"), "a reason is not known here");
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn answered(metrics: &Metrics, path: &str, code: u16) -> u64 {
    metrics.get(&format!("talkback_scrapes_total{{code=\"{code}\",path=\"{path}\"}}")) as u64
}

/// What the server has when nobody scrapes it.
struct Rest {
    descriptors: usize,
    threads: usize,
    /// Resident, in KiB.
    memory: u64,
}

impl Rest {
    /// After a scrape, which shows that all threads have been started: more may end, none may come.
    #[track_caller]
    fn of(server: &Server) -> Self {
        scrape(server.metrics_address());
        Self {
            descriptors: descriptors(server),
            threads: entries(server, "task"),
            memory: memory(server, "VmRSS"),
        }
    }

    /// Scrapes without a pause for as long as the company is at work, each within a second.
    /// Connections and threads are counted all the while.
    #[track_caller]
    fn scrape_during(&self, server: &Server, company: impl FnOnce() + Send) -> Seen {
        let mut seen = Seen::default();
        thread::scope(|scope| {
            let company = scope.spawn(company);
            let mut last = false;
            while !last {
                last = company.is_finished();
                let (_, took) = scrape(server.metrics_address());
                seen.scrapes += 1;
                seen.slowest = seen.slowest.max(took);
                let held = descriptors(server).saturating_sub(self.descriptors);
                seen.most_held = seen.most_held.max(held);
                let threads = entries(server, "task");
                assert!(threads <= self.threads, "{threads} threads, {} at rest", self.threads);
            }
            company.join().unwrap();
        });
        // One is accepted before it is known that another has to go for it.
        assert!(seen.most_held <= PLACES, "{seen:?}");
        seen
    }

    /// Waits until all that was held is let go, and looks how much memory it took at the most.
    #[track_caller]
    fn check_again(&self, server: &Server, at_most: u64) {
        eventually("nothing is held", || descriptors(server) <= self.descriptors);
        let grown = memory(server, "VmHWM").saturating_sub(self.memory);
        assert!(grown <= at_most, "{grown} KiB more than at rest");
    }
}

/// What good scrapes saw while there was company.
#[derive(Debug, Default)]
struct Seen {
    scrapes: u64,
    slowest: Duration,
    most_held: usize,
}

fn entries(server: &Server, of: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{of}", server.pid())).unwrap().count()
}

fn descriptors(server: &Server) -> usize {
    entries(server, "fd")
}

/// A field of the server's status in KiB: resident now is `VmRSS`, at its highest `VmHWM`.
fn memory(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned());
    let value = status.lines().find_map(value).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
