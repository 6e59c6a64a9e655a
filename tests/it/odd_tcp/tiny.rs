//! Segments of a byte, and windows as small as the kernel makes them.

use std::io::Read;
use std::time::{Duration, Instant};

use super::{LINE, check_nothing_left, connect_with, start};
use crate::harness::Client;

/// A character of every length, and lines of every length up to some.
fn text() -> String {
    (0..80).map(|count| "aé你🙂".repeat(count) + "\n").collect()
}

/// A send for each byte, and the replies meanwhile, up to the server's FIN.
#[track_caller]
fn exchange_by_the_byte(mut client: Client, bytes: &[u8]) -> Vec<u8> {
    let mut out = Client { stream: client.stream.try_clone().unwrap() };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            bytes.chunks(1).for_each(|byte| out.send(byte));
            out.finish();
        });
        client.read_to_end()
    })
}

#[test]
fn text_in_segments_of_a_byte_is_the_same_text() {
    let text = text();
    for keys in ["", LINE] {
        let server = start(keys, "");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let replies = exchange_by_the_byte(server.connect(), text.as_bytes());
                    assert!(replies == text.as_bytes(), "{} bytes", replies.len());
                });
            }
        });
        check_nothing_left(&server, &[("peer_closed", 3)]);
        let received = server.metrics().sum("talkback_received_bytes_total");
        assert_eq!(received, 3.0 * text.len() as f64);
    }
}

#[test]
fn bad_bytes_in_segments_of_a_byte_are_as_bad() {
    let bad = b"good\nbad\xF0\x9F\x99\n";
    for (keys, replies) in [("", &b"good\nbad"[..]), (LINE, b"good\n")] {
        let server = start(keys, "");
        let mut client = server.connect();
        // The last one may find the server gone.
        bad[..bad.len() - 1].chunks(1).for_each(|byte| client.send(byte));
        client.send("\n");
        assert_eq!(client.read_to_end(), replies);
        drop(client);
        server.eventually_closed(&[("invalid_utf8", 1)]);
    }
}

#[test]
fn the_smallest_segments_that_a_peer_may_ask_for_carry_everything() {
    const LENGTH: usize = 500_000;
    let server = start(LINE, "");
    let lines = "0123456789abcde\n".repeat(LENGTH / 16);
    let mut client = connect_with(server.address(), |socket| {
        // Linux takes no less (TCP_MIN_MSS).
        socket.set_tcp_mss(88).unwrap();
    });
    let replies = client.exchange(lines.as_bytes());
    assert!(replies == lines.as_bytes(), "{} of {}", replies.len(), lines.len());
    drop(client);
    check_nothing_left(&server, &[("peer_closed", 1)]);
}

/// The smallest window there is, and replies taken from it a byte at a time: the server hears of
/// room late and little by little, but it hears.
#[test]
fn a_client_that_reads_a_byte_at_a_time_is_not_taken_for_stuck() {
    const SEND_TIMEOUT: Duration = Duration::from_millis(500);
    const LENGTH: usize = 4_000_000;
    let server = start(LINE, "send_timeout = \"500ms\"");
    let mut client = connect_with(server.address(), |socket| {
        // The kernel takes it for its own least.
        socket.set_recv_buffer_size(1).unwrap();
    });
    let lines = "0123456789abcde\n".repeat(LENGTH / 16);
    let mut out = Client { stream: client.stream.try_clone().unwrap() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            out.send(&lines);
            out.finish();
        });
        let began = Instant::now();
        let mut read = 0;
        while began.elapsed() < 2 * SEND_TIMEOUT {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], lines.as_bytes()[read]);
            read += 1;
        }
        assert!(read < LENGTH, "the client was not slow");
        assert!(client.read_to_end() == lines.as_bytes()[read..]);
    });
    drop((client, out));
    check_nothing_left(&server, &[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_discarded_bytes_total"), 0.0);
}
