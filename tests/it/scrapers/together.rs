//! All kinds at once, while there are too few descriptors.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::quiet::alone;

use super::crowds::{
    half_sent, limit_descriptors, raise_own_limit, server_with_a_long_page, slow_reader,
};
use super::heads::{GOOD, send_long};
use super::{MEMORY, PLACES, Rest, refusals, reset, scrape, stranger, stranger_by};

const DURATION: Duration = Duration::from_secs(3);

/// One round of a kind; whatever becomes of it, for the door may have had no place for it.
type Kind = fn(SocketAddr);

/// Waits until the door has taken in all that came before. Without it, a crowd would only show who
/// gets more of the processor.
fn keep_pace(sidecar: SocketAddr) {
    let mut stream = stranger(sidecar);
    let _ = stream.write_all(b"rubbish\n");
    let _ = stream.read_to_end(&mut Vec::new());
}

fn half(sidecar: SocketAddr) {
    let crowd: Vec<_> = (0..100).map(|_| half_sent(sidecar)).collect();
    keep_pace(sidecar);
    drop(crowd);
}

fn slow(sidecar: SocketAddr) {
    let crowd: Vec<_> = (0..40).map(|_| slow_reader(sidecar)).collect();
    keep_pace(sidecar);
    drop(crowd);
}

fn long(sidecar: SocketAddr) {
    for (beginning, piece) in
        [("GET /", &b"x"[..]), ("GET / HTTP/1.1\r\n", b"a: b\r\n"), ("", b"\n")]
    {
        let mut stream = stranger_by(sidecar, [127, 0, 0, 4], |_| ());
        if stream.write_all(beginning.as_bytes()).is_ok() {
            send_long(&mut stream, piece, 64 << 20);
        }
    }
}

fn pipelined(sidecar: SocketAddr) {
    let mut stream = stranger_by(sidecar, [127, 0, 0, 5], |_| ());
    send_long(&mut stream, GOOD, 10_000 * GOOD.len());
    let _ = stream.read_to_end(&mut Vec::new());
}

fn rubbish(sidecar: SocketAddr) {
    for bytes in [&b"GET /metrics\r\n"[..], b"\x16\x03\x01", b"\0", b"GET / HT", b"", GOOD] {
        for with_reset in [false, true] {
            let mut stream = stranger_by(sidecar, [127, 0, 0, 6], |_| ());
            let _ = stream.write_all(bytes);
            if with_reset {
                reset(stream);
            } else {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    }
}

fn hasty(sidecar: SocketAddr) {
    for _ in 0..100 {
        reset(stranger(sidecar));
    }
    keep_pace(sidecar);
}

const KINDS: [Kind; 6] = [half, slow, long, pipelined, rubbish, hasty];

#[test]
fn all_kinds_at_once_hold_up_nobody() {
    let _alone = alone();
    raise_own_limit();
    let server = server_with_a_long_page();
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    limit_descriptors(&server, rest.descriptors + PLACES / 2);
    let until = Instant::now() + DURATION;
    rest.scrape_during(&server, || {
        thread::scope(|scope| {
            for kind in KINDS {
                scope.spawn(move || {
                    while Instant::now() < until {
                        kind(sidecar);
                    }
                });
            }
        });
    });
    let mut counts = refusals(&scrape(sidecar).0);
    for reason in ["over_capacity", "head_too_large", "malformed", "incomplete", "slow_reader"] {
        assert!(counts.remove(reason).is_some(), "{reason}, but {counts:?}");
    }
    // Under a crowd nobody has a place for long enough to run out of time.
    assert_eq!(counts, [].into());
    rest.check_again(&server, 8 * MEMORY);
}
