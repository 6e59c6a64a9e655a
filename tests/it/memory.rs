//! What clients cost of the server's memory, and that it is given back.

use std::io::Write;
use std::net::SocketAddr;
use std::{cell, fs};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::crowd::Crowd;
use crate::harness::{Client, Server, eventually};
use crate::quiet::alone;
use crate::stuck::LINE;

/// The hostile clients of one kind: 250, or as many as `TALKBACK_TEST_HOSTILE` says.
fn crowd_of_hostile() -> u64 {
    std::env::var("TALKBACK_TEST_HOSTILE").map_or(250, |count| count.parse().unwrap())
}

/// The defaults of the config.
const MAX_MESSAGE_BYTES: u64 = 65_536;
const MAX_PENDING_BYTES: u64 = 65_536;
const RECEIVE_BYTES: u64 = 65_536;

/// The most that a connection costs while it owns no buffer.
const IDLE_BYTES: u64 = 400;

/// Bytes of memory that are the process's own; those of the program's file are not among them.
fn memory(server: &Server) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid())).unwrap();
    let anonymous = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    anonymous.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Clients of one listener that send, and never read.
struct Hostile<'s> {
    server: &'s Server,
    clients: Vec<Client>,
    received_before: f64,
    sent: u64,
}

impl<'s> Hostile<'s> {
    #[track_caller]
    fn connect(server: &'s Server, listener: usize) -> Self {
        let address = server.address_of(listener);
        let received_before = server.metrics().sum("talkback_received_bytes_total");
        let clients = (0..crowd_of_hostile()).map(|_| Self::connect_one(address)).collect();
        Self { server, clients, received_before, sent: 0 }
    }

    fn connect_one(address: SocketAddr) -> Client {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        // Little is needed to fill the window, and no send waits.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_send_buffer_size(1 << 20).unwrap();
        socket.connect(&address.into()).unwrap();
        Client { stream: socket.into() }
    }

    fn count(&self) -> u64 {
        self.clients.len() as u64
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        for client in &mut self.clients {
            client.stream.write_all(bytes).unwrap();
        }
        self.sent += self.count() * bytes.len() as u64;
    }

    /// Sends, and waits until the server has received it all.
    #[track_caller]
    fn send_to_reader(&mut self, bytes: &[u8]) {
        self.send(bytes);
        let received = self.received_before + self.sent as f64;
        self.server.eventually("everything is received", |metrics| {
            metrics.sum("talkback_received_bytes_total") >= received
        });
    }

    /// Sends so that the server finds it all at once.
    #[track_caller]
    fn send_at_once(&mut self, bytes: &[u8]) {
        self.server.pause();
        self.send(bytes);
        self.server.signal(Signal::CONT);
    }

    /// Replies pending, a client.
    fn pending(&self) -> u64 {
        self.server.metrics().sum("talkback_pending_bytes") as u64 / self.count()
    }

    /// Fills what the kernel takes, and the server's own room for pending replies up to about
    /// `bytes`, in pieces of `piece`.
    #[track_caller]
    fn fill(&mut self, piece: usize, bytes: u64) {
        let piece = LINE.repeat(piece / LINE.len());
        while self.pending() == 0 {
            self.send_to_reader(LINE.repeat(1024).as_bytes());
        }
        while self.pending() < bytes {
            self.send_to_reader(piece.as_bytes());
        }
    }

    /// Waits until the replies pending are at least so many bytes a client and no more are added.
    #[track_caller]
    fn await_pending(&self, least: u64) {
        let last = cell::Cell::new(0);
        eventually(format_args!("{least} bytes are pending"), || {
            let before = last.replace(self.pending());
            before == last.get() && before >= least
        });
    }
}

/// What may be held of a connection: input, replies pending, and what it costs when idle.
fn bound(one_reply: u64) -> u64 {
    let input = MAX_MESSAGE_BYTES + RECEIVE_BYTES;
    input + MAX_PENDING_BYTES + one_reply + IDLE_BYTES
}

/// The growth of the server's memory by hostile clients, which are still there.
#[track_caller]
fn check(hostile: &Hostile<'_>, what: &str, before: u64, one_reply: u64) {
    let grown = (memory(hostile.server).saturating_sub(before)) / hostile.count();
    let (pending, bound) = (hostile.pending(), bound(one_reply));
    println!("{what}: {grown} bytes a client, {pending} of them replies; the bound is {bound}");
    assert!(grown <= bound, "{what}: {grown} bytes a client");
}

/// A line that cannot be longer, the reply to it behind others, and as many lines behind it as one
/// receive takes.
#[track_caller]
fn send_longest_lines(hostile: &mut Hostile<'_>, byte: u8) {
    hostile.fill(4096, 50_000);
    hostile.send_to_reader(&vec![byte; MAX_MESSAGE_BYTES as usize]);
    let lines = LINE.repeat(RECEIVE_BYTES as usize / LINE.len());
    hostile.send_at_once(format!("\n{}", &lines[1..]).as_bytes());
}

fn listener(name: &str, keys: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{keys}\n")
}

/// Each byte that is no text becomes three, in the reply.
const MENDED: u64 = 3;

#[test]
fn what_hostile_clients_cost_is_bounded_and_given_back() {
    let _alone = alone();
    let listeners = [
        listener("lines", "framing = \"line\""),
        listener("mended-lines", "framing = \"line\"\ninvalid_utf8 = \"replace\""),
        listener("mended", "invalid_utf8 = \"replace\""),
        listener("raw", ""),
    ];
    // However long the tests take, none of the clients is ended for it.
    let server = Server::start(&format!(
        "workers = 2\n{}[limits]\nmessage_timeout = \"0s\"\nsend_timeout = \"0s\"\n\
         [log]\nformat = \"json\"\n",
        listeners.concat(),
    ));
    let before = memory(&server);
    for (index, what) in ["lines", "mended lines", "mended text", "small pieces"].iter().enumerate()
    {
        let mut hostile = Hostile::connect(&server, index);
        let one_reply = match index {
            0 => {
                send_longest_lines(&mut hostile, b'x');
                hostile.await_pending(MAX_MESSAGE_BYTES + 50_000);
                MAX_MESSAGE_BYTES + 1
            }
            1 => {
                send_longest_lines(&mut hostile, 0xFF);
                hostile.await_pending(MENDED * MAX_MESSAGE_BYTES + 45_000);
                MENDED * MAX_MESSAGE_BYTES + 1
            }
            2 => {
                hostile.fill(4096, 50_000);
                hostile.send_at_once(&[0xFF; RECEIVE_BYTES as usize]);
                hostile.await_pending(MENDED * RECEIVE_BYTES + 45_000);
                // A character may be cut off before the message.
                MENDED * (RECEIVE_BYTES + 1)
            }
            _ => {
                hostile.fill(2048, MAX_PENDING_BYTES);
                2048
            }
        };
        check(&hostile, what, before, one_reply);
        drop(hostile);
        server.eventually("all are gone", |metrics| metrics.sum("talkback_connections") == 0.0);
    }
    let left = cell::Cell::new(0);
    eventually(std::fmt::from_fn(|f| write!(f, "{} bytes are still held", left.get())), || {
        left.set(memory(&server).saturating_sub(before));
        left.get() < 4 << 20
    });
    println!("{} bytes more than before are left", left.get());
}

#[test]
fn ten_thousand_idle_clients_cost_at_most_400_bytes_each() {
    let mut crowd = Crowd::of_at_most(10_000);
    let server = Server::start(&format!(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nmax_connections = {}\n[log]\nformat = \"json\"\n",
        crowd.size() + 2,
    ));
    let all = crowd.size();
    let mut with = |size: usize| {
        crowd.connect_at_ease(server.address(), size);
        let size = size as f64;
        server.eventually("all are served", |metrics| metrics.sum("talkback_connections") == size);
        memory(&server)
    };
    // What comes with the first conversations and scrapes, or lies in inboxes, is no client's.
    let few = all / 4;
    let with_few = with(few);
    let each = (with(all).saturating_sub(with_few)) / (all - few) as u64;
    println!("{each} bytes for each of {all} idle clients");
    assert!(each <= IDLE_BYTES, "{each} bytes");
}
