//! Much at once: pipelined lines, long messages, a client that does not read, one that never stops,
//! and urgent data in the middle.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

use crate::harness::{Client, Metrics, PATIENCE, Server};

const LINE: &str = "framing = \"line\"";

fn start(listener: &str, limits: &str) -> Server {
    let address = "address = \"127.0.0.1:0\"";
    Server::start(&format!(
        "workers = 1\n[[listener]]\n{address}\n{listener}\n[limits]\n{limits}\n"
    ))
}

/// Sends all without a pause, and expects the joined replies to be the same.
#[track_caller]
fn check_echo(server: &Server, sent: &str) {
    let mut client = server.connect();
    let replies = client.exchange(sent.as_bytes());
    let same = replies.iter().zip(sent.as_bytes()).take_while(|(one, other)| one == other).count();
    assert!(replies == sent.as_bytes(), "{} of {}, alike: {same}", replies.len(), sent.len());
}

#[test]
fn pipelined_lines_are_answered_in_their_order() {
    let server = start(LINE, "messages_per_turn = 3");
    let lines: String = (0..20_000).map(|number| format!("{number} 你好\n")).collect();
    check_echo(&server, &lines);
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 20_000.0);
}

#[test]
fn tiny_lines_by_the_hundred_thousand_are_each_a_message() {
    let server = start(LINE, "");
    check_echo(&server, &"\n".repeat(200_000));
    server.eventually_closed(&[("peer_closed", 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 200_000.0);
    assert_eq!(metrics.sum("talkback_replies_total"), 200_000.0);
    assert_eq!(metrics.sum("talkback_received_bytes_total"), 200_000.0);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), 200_000.0);
}

#[test]
fn lines_that_echo_from_elsewhere_keep_their_order() {
    // CR is dropped, so that these replies are not where the bytes were received.
    let server = start(LINE, "");
    let sent: String = (0..20_000).map(|number| format!("{number}\n{number}\r\n")).collect();
    let mut client = server.connect();
    let replies = client.exchange(sent.as_bytes());
    assert!(replies == sent.replace('\r', "").as_bytes());
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn raw_messages_of_any_size_come_back_whole() {
    let server = start("", "");
    for length in [65_535, 65_536, 65_537, 4_000_000] {
        check_echo(&server, &"0123456789abcdef".repeat(length / 16 + 1)[..length]);
        check_echo(&server, &"é你🙂".repeat(length / 9));
    }
    server.eventually_closed(&[("peer_closed", 8)]);
}

#[test]
fn a_small_receive_cuts_no_raw_character() {
    let server = start("max_message_bytes = 1\nexit_word = \"\"", "");
    check_echo(&server, &"aé你🙂".repeat(500));
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 2000.0);
}

#[test]
fn a_line_of_any_length_up_to_the_limit_comes_back_whole() {
    let server = start(&format!("{LINE}\nmax_message_bytes = 3000000"), "");
    let long = "你".repeat(1_000_000);
    check_echo(&server, &format!("short\n{long}\n\n{long}\nshort\n"));
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 5.0);
    let mut client = server.connect();
    assert_eq!(client.exchange(format!("a\n{long}b\n").as_bytes()), b"a\n");
    drop(client);
    server.eventually_closed(&[("peer_closed", 1), ("message_too_long", 1)]);
}

#[test]
fn the_smallest_bounds_lose_nothing() {
    let limits = "messages_per_turn = 1\nmax_pending_bytes = 1";
    let lines = "a\n你好\n\n🙂 ends without a newline";
    let server = start(LINE, limits);
    let mut client = server.connect();
    let replies = client.exchange(lines.repeat(500).as_bytes());
    assert!(replies == format!("{}\n", lines.repeat(500)).as_bytes());
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    let server = start("invalid_utf8 = \"replace\"\nmax_message_bytes = 4", limits);
    let sent = b"aaaa\xFF\xE4\xBD\xA0bbb\xF0\x9F";
    assert_eq!(server.connect().exchange(sent), String::from_utf8_lossy(sent).as_bytes());
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn a_unix_socket_carries_as_much() {
    let name = format!("talkback-volume-{}", std::process::id());
    let address = format!("address = \"unix:@{name}\"");
    let server = Server::start(&format!("[[listener]]\n{address}\n{LINE}\n"));
    let mut stream =
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines = "0123456789abcde\n".repeat(250_000);
    let mut out = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            out.write_all(lines.as_bytes()).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        server.eventually("replies are held back", |metrics| {
            metrics.sum("talkback_pending_bytes") > 65_536.0
        });
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).unwrap();
        assert!(replies == lines.as_bytes(), "{} of {}", replies.len(), lines.len());
    });
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn urgent_data_strands_nothing_behind_it() {
    for keys in ["", LINE] {
        let server = Server::with_listener(keys);
        for _ in 0..20 {
            let mut client = server.connect();
            client.send("abc");
            urge(&client);
            client.send("def\n");
            client.expect("abc!def\n");
            // Again, on a connection that has already been waited for.
            client.send("abc");
            urge(&client);
            client.send("def\n");
            client.expect("abc!def\n");
            client.finish();
            client.expect_end();
        }
        server.eventually_closed(&[("peer_closed", 20)]);
    }
}

#[track_caller]
fn urge(client: &Client) {
    assert_eq!(SockRef::from(&client.stream).send_out_of_band(b"!").unwrap(), 1);
}

#[test]
fn a_client_that_does_not_read_is_not_read_and_gets_everything_in_the_end() {
    const MAX_PENDING: f64 = 4096.0;
    const LENGTH: usize = 16_000_000;
    let server = start(LINE, "max_pending_bytes = 4096");
    let mut client = server.connect();
    let lines = "0123456789abcde\n".repeat(LENGTH / 16);
    let mut out = Client { stream: client.stream.try_clone().unwrap() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            out.send(&lines);
            out.finish();
        });
        server.eventually("replies are held back", |metrics| {
            assert_bounded(metrics);
            metrics.sum("talkback_pending_bytes") > MAX_PENDING
        });
        for _ in 0..20 {
            let metrics = server.metrics();
            assert_bounded(&metrics);
            assert!(metrics.sum("talkback_received_bytes_total") < LENGTH as f64, "{metrics}");
        }
        assert!(client.read_to_end() == lines.as_bytes());
    });
    drop((client, out));
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_discarded_bytes_total"), 0.0);
}

/// `max_pending_bytes` of 4,096 and the one reply that went over it.
#[track_caller]
fn assert_bounded(metrics: &Metrics) {
    let pending = metrics.sum("talkback_pending_bytes");
    assert!(pending <= 4096.0 + 16.0, "{metrics}");
}

#[test]
fn a_client_that_never_stops_does_not_starve_its_neighbours() {
    // Messages of a byte or none, so that the server is slower than who sends them.
    check_fairness(LINE);
    check_fairness("max_message_bytes = 1\nexit_word = \"\"");
}

#[track_caller]
fn check_fairness(keys: &str) {
    let address = "address = \"127.0.0.1:0\"";
    let busy = format!("[[listener]]\nname = \"busy\"\n{address}\nresponder = \"discard\"\n{keys}");
    let calm = format!("[[listener]]\nname = \"calm\"\n{address}");
    let server = Server::start(&format!("workers = 1\n{busy}\n{calm}\n"));
    let mut busy = server.connect();
    let mut neighbours: Vec<_> = (0..8).map(|_| Client::connect(server.address_of(1))).collect();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let lines = "\n".repeat(65_536);
            while !is_done.load(Ordering::Relaxed) {
                busy.send(&lines);
            }
            // Nobody wants to wait for what the server has not read.
            busy.reset();
        });
        // On a failure too, or the scope would wait for ever.
        let _done = Done(&is_done);
        server.eventually("the busy one is read", |metrics| {
            metrics.sum("talkback_received_bytes_total") > 0.0
        });
        for _ in 0..10 {
            for neighbour in &mut neighbours {
                neighbour.echo("hello");
            }
        }
        assert!(!sender.is_finished());
    });
    drop(neighbours);
    server.eventually_closed(&[("peer_closed", 8), ("peer_reset", 1)]);
}

/// Set when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
