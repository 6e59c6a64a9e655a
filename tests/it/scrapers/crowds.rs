//! Many at once, who hold places and ask for nothing, take no answer, or only come and go.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::{MEMORY, PLACES, Rest, read_all, refusals, reset, scrape, stranger, stranger_by};
use crate::harness::{Server, eventually};
use crate::quiet::alone;

const HALF: &[u8] = b"GET /metrics HTTP/1.1\r\nHost:";
const WHOLE: &[u8] = b"GET /metrics HTTP/1.1\r\n\r\n";

/// Lets this process have as many connections as it may.
pub(super) fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

pub(super) fn half_sent(sidecar: SocketAddr) -> TcpStream {
    let mut stream = stranger(sidecar);
    // It may have been sent away by now.
    let _ = stream.write_all(HALF);
    stream
}

/// The refusals, once there are so many.
#[track_caller]
fn await_refusals(sidecar: SocketAddr, count: u64) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    eventually(format_args!("{count} are refused"), || {
        counts = refusals(&scrape(sidecar).0);
        counts.values().sum::<u64>() >= count
    });
    counts
}

#[test]
fn a_thousand_half_sent_requests_hold_up_nobody_and_each_is_counted() {
    let _alone = alone();
    const CLIENTS: u64 = 1000;
    raise_own_limit();
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let mut crowd: Vec<_> = (0..PLACES).map(|_| half_sent(sidecar)).collect();
    let seen = rest.scrape_during(&server, || {
        let more = CLIENTS as usize - PLACES;
        crowd.extend((0..more).map(|_| half_sent(sidecar)));
    });
    assert!(seen.most_held >= PLACES - 2, "{seen:?}");
    // Those that still have a place end now, with their head incomplete.
    drop(crowd);
    let counts = await_refusals(sidecar, CLIENTS);
    assert_eq!(counts.values().sum::<u64>(), CLIENTS, "{counts:?}");
    assert!(counts["over_capacity"] >= CLIENTS - PLACES as u64, "{counts:?}");
    rest.check_again(&server, MEMORY);
}

#[test]
fn a_crowd_from_the_scrapers_own_address_does_not_lock_it_out() {
    let _alone = alone();
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let mut crowd = Vec::new();
    for _ in 0..20 {
        for _ in 0..PLACES {
            let mut stream = TcpStream::connect(sidecar).unwrap();
            let _ = stream.write_all(HALF);
            crowd.push(stream);
        }
        rest.scrape_during(&server, || ());
    }
    drop(crowd);
    rest.check_again(&server, MEMORY);
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_five_seconds_for_a_head() {
    let _alone = alone();
    const LIMIT: Duration = Duration::from_secs(5);
    const DRIPS: u32 = 20;
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let connect = |_| (Instant::now(), stranger(sidecar));
    let mut drips: Vec<_> = (0..DRIPS).map(connect).collect();
    let bytes = b"GET / HTTP/1.1\r\n";
    let began = Instant::now();
    rest.scrape_during(&server, || {
        // Those that only connected are no better off.
        for (step, byte) in bytes.iter().take(6).enumerate() {
            let due = Duration::from_millis(900) * u32::try_from(step).unwrap();
            eventually("it drips", || began.elapsed() >= due);
            for (_, stream) in &mut drips[1..] {
                // The last drip may come too late.
                let _ = stream.write_all(&[*byte]);
            }
        }
        for (connected, stream) in &mut drips {
            let (answer, _) = read_all(stream);
            let took = connected.elapsed();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(took >= LIMIT && took < LIMIT + Duration::from_secs(1), "{took:?}");
        }
    });
    let (metrics, _) = scrape(sidecar);
    assert_eq!(refusals(&metrics), [("head_timeout", u64::from(DRIPS))].into());
}

/// Listeners enough that their page is more than the kernel takes for one who does not read.
#[track_caller]
pub(super) fn server_with_a_long_page() -> Server {
    let listener =
        |index| format!("[[listener]]\nname = \"l{index}\"\naddress = \"127.0.0.1:0\"\n");
    Server::start(&(0..24).map(listener).collect::<String>())
}

/// Asks for the metrics and takes nothing of them. Segments are short, for the kernel keeps some
/// tens of them for one who does not read.
pub(super) fn slow_reader(sidecar: SocketAddr) -> TcpStream {
    let mut stream = stranger_by(sidecar, [127, 0, 0, 3], |socket| {
        socket.set_recv_buffer_size(2048).unwrap();
        socket.set_tcp_mss(88).unwrap();
    });
    // It may have been cut by now.
    let _ = stream.write_all(WHOLE);
    stream
}

#[test]
fn readers_that_take_no_answer_hold_up_nobody_and_are_counted() {
    let _alone = alone();
    const CLIENTS: usize = 150;
    raise_own_limit();
    let server = server_with_a_long_page();
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let mut slow = Vec::new();
    let seen = rest.scrape_during(&server, || {
        slow.extend((0..CLIENTS).map(|_| slow_reader(sidecar)));
    });
    // Not all: now and then the kernel takes a whole page, and one may have to go before it asks.
    let counts = await_refusals(sidecar, CLIENTS as u64 / 2);
    let over_capacity = counts.get("over_capacity").copied().unwrap_or_default();
    assert!(counts["slow_reader"] > 10 * over_capacity, "{counts:?}");
    assert_eq!(counts["slow_reader"] + over_capacity, counts.values().sum::<u64>(), "{counts:?}");
    assert!(seen.most_held > 0, "{seen:?}");
    drop(slow);
    rest.check_again(&server, 8 * MEMORY);
}

#[test]
fn ten_thousand_that_connect_and_reset_hold_up_nobody() {
    let _alone = alone();
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    rest.scrape_during(&server, || {
        for _ in 0..10_000 {
            reset(stranger(sidecar));
        }
    });
    rest.check_again(&server, MEMORY);
}

pub(super) fn limit_descriptors(server: &Server, soft: usize) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    let limit = Rlimit { current: Some(soft as u64), maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
fn without_descriptors_a_crowd_still_holds_up_nobody() {
    let _alone = alone();
    const CLIENTS: u64 = 500;
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let mut live = server.connect();
    live.echo("before");
    let rest = Rest::of(&server);
    limit_descriptors(&server, rest.descriptors + PLACES / 2);
    let seen = rest.scrape_during(&server, || {
        drop((0..CLIENTS).map(|_| half_sent(sidecar)).collect::<Vec<_>>());
    });
    assert!(seen.most_held <= PLACES / 2, "{seen:?}");
    live.echo("still served");
    let counts = await_refusals(sidecar, CLIENTS);
    assert_eq!(counts.values().sum::<u64>(), CLIENTS, "{counts:?}");
    rest.check_again(&server, MEMORY);
}
