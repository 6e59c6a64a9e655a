//! From a message to the kernel's taking the last byte of its replies, whatever lies between.

use std::io::Write;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Histogram;
use crate::harness::{Client, PATIENCE, Server, eventually};

const RESPOND: &str = "talkback_respond_seconds";
const WAIT: Duration = Duration::from_millis(300);

/// A reply is given when the kernel has taken its last byte, which it does not while the client
/// reads nothing.
#[test]
fn the_time_of_a_client_that_does_not_read_lasts_until_the_kernel_took_the_last_byte() {
    let server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         max_message_bytes = 4000000\n[limits]\nmax_pending_bytes = 4000000\n",
    );
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client { stream: socket.into() };
    // One message, far more than the sockets of both sides hold.
    let text = "x".repeat(3_000_000) + "\n";
    client.stream.write_all(text.as_bytes()).unwrap();
    server.eventually("it is answered, and not taken", |metrics| {
        metrics.sum("talkback_replies_total") == 1.0 && metrics.sum("talkback_pending_bytes") > 0.0
    });
    let answered = Instant::now();
    eventually("time passes", || answered.elapsed() >= WAIT);
    assert_eq!(Histogram::of(&server.metrics(), RESPOND).count(), 0.0);
    client.expect(text);
    let metrics =
        server.eventually("it is timed", |metrics| Histogram::of(metrics, RESPOND).count() == 1.0);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    let took = Histogram::of(&metrics, RESPOND).sum();
    assert!((WAIT.as_secs_f64()..20.0).contains(&took), "{took}");
}

#[test]
fn replies_that_never_left_are_not_timed() {
    let server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         max_message_bytes = 8000000\n[limits]\nmax_pending_bytes = 8000000\n",
    );
    let mut client = server.connect();
    client.send("x".repeat(7_000_000) + "\n");
    server.eventually("it is answered, and not taken", |metrics| {
        metrics.sum("talkback_replies_total") == 1.0 && metrics.sum("talkback_pending_bytes") > 0.0
    });
    client.reset();
    server.eventually_closed(&[("peer_reset", 1)]);
    assert_eq!(Histogram::of(&server.metrics(), RESPOND).count(), 0.0);
}
