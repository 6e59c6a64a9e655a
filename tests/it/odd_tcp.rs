//! TCP as hardly anybody uses it, and as anybody may: urgent data, tiny segments and windows, a FIN
//! where nobody reads, a reset in every state. Nothing is stranded, and the ledger is exact.

mod fins;
mod resets;
mod tiny;
mod urgent;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, PATIENCE, Server, eventually};
use crate::stuck;

const LINE: &str = "framing = \"line\"";

/// A line that fills what it is sent into: many of them make whole blocks.
const FULL: &str = stuck::LINE;

/// One worker and one listener with these keys and limits.
#[track_caller]
fn start(listener: &str, limits: &str) -> Server {
    Server::start(&format!(
        "workers = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n{listener}\n[limits]\n{limits}\n"
    ))
}

/// A client whose socket is prepared before it connects.
#[track_caller]
fn connect_with(address: SocketAddr, prepare: impl FnOnce(&Socket)) -> Client {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    prepare(&socket);
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    Client { stream: socket.into() }
}

/// Exactly these closes, nothing open, nothing pending, and no socket of any of them.
#[track_caller]
fn check_nothing_left(server: &Server, closes: &[(&str, u64)]) {
    server.eventually_closed(closes);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    assert_eq!(metrics.sum("talkback_worker_connections"), 0.0);
    assert_eq!(metrics.sum("talkback_worker_panics_total"), 0.0);
    // A scrape may still be on its way out.
    eventually("every socket is closed", || !has_stray_socket(server));
}

/// Whether the server holds a socket of a client, or one that is in none of the kernel's tables:
/// there a socket that was reset is found no more.
fn has_stray_socket(server: &Server) -> bool {
    const LISTEN: &str = "0A";
    let own = format!(":{:04X}", server.address().port());
    let [tcp, unix] = ["/proc/net/tcp", "/proc/net/unix"].map(fs::read_to_string);
    let (tcp, unix) = (tcp.unwrap(), unix.unwrap());
    let known_tcp = tcp.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        (!local.ends_with(&own) || state == LISTEN).then(|| fields.nth(5))?
    });
    let known_unix = unix.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6));
    let known: BTreeSet<&str> = known_tcp.chain(known_unix).collect();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    // One that has gone since it was listed is not held.
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.any(|link| {
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| !known.contains(inode))
    })
}

/// A client that sends lines and reads nothing until the server has replies that its kernel does
/// not take; and how many bytes it has sent. One block more than the server has read, at most.
#[track_caller]
fn fill(server: &Server) -> (Client, usize) {
    let block = FULL.repeat(2048);
    // Not the least: what the client's kernel has to drop is sent again seconds later.
    let client = connect_with(server.address(), |socket| {
        socket.set_recv_buffer_size(65_536).unwrap();
    });
    let before = server.metrics().sum("talkback_received_bytes_total");
    let sent = Cell::new(0);
    server.eventually("replies are pending", |metrics| {
        let received = metrics.sum("talkback_received_bytes_total") - before;
        let is_pending = metrics.sum("talkback_pending_bytes") > 0.0;
        if !is_pending && received >= sent.get() as f64 {
            (&client.stream).write_all(block.as_bytes()).unwrap();
            sent.set(sent.get() + block.len());
        }
        is_pending
    });
    (client, sent.get())
}
