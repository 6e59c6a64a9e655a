//! The way to a client as the kernel knew it at the connection's close.

use std::fs;
use std::net::SocketAddr;

use socket2::{SockFilter, SockRef};

use super::above;
use crate::harness::{Client, Server, eventually};

const RTT: &str = "talkback_tcp_rtt_seconds";
const RETRANSMITS: &str = "talkback_tcp_retransmits_total";

/// How often the kernel has in a row sent something again on the server's side of that connection:
/// `retrnsmt` of `/proc/net/tcp` (proc(5)).
fn sent_again(server: SocketAddr, client: &Client) -> u32 {
    let ends = [server.port(), client.stream.local_addr().unwrap().port()];
    let [ours, theirs] = ends.map(|port| format!("0100007F:{port:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| line.contains(&format!("{ours} {theirs} ")));
    let count = line.and_then(|line| line.split_whitespace().nth(6));
    count.map_or(0, |count| u32::from_str_radix(count, 16).unwrap())
}

#[test]
fn what_the_kernel_sent_again_counts_at_the_close() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("hello");
    let drop_everything = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(&client.stream).attach_filter(&[drop_everything]).unwrap();
    client.send("is anybody there");
    eventually("the reply is sent again", || sent_again(server.address(), &client) >= 2);
    assert_eq!(server.metrics().sum(RETRANSMITS), 0.0, "before the close");
    // Its FIN would wait for acknowledgements that it does not hear.
    client.reset();
    let metrics = server.eventually("it is counted", |metrics| metrics.sum(RETRANSMITS) >= 2.0);
    server.eventually_closed(&[("peer_reset", 1)]);
    assert!(metrics.sum(RETRANSMITS) <= 10.0, "{metrics}");
}

#[test]
fn each_close_tells_one_round_trip_time_of_this_host() {
    let server = Server::with_listener("");
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.echo("hello"));
    assert_eq!(server.metrics().sum(&format!("{RTT}_count")), 0.0, "before the close");
    drop(clients);
    server.eventually_closed(&[("peer_closed", 10)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum(&format!("{RTT}_count")), 10.0);
    // The kernel's smallest unit is a microsecond.
    assert!(metrics.sum(&format!("{RTT}_sum")) >= 10.0 / 1e6, "{metrics}");
    assert_eq!(above(&metrics, RTT, "main", "1"), 0.0, "{metrics}");
    assert_eq!(metrics.sum(RETRANSMITS), 0.0);
}
