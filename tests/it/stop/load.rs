//! Clients under whom a server is stopped. Each tells what it saw, by its own address.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::{Client, eventually};

/// The length of each line and so of each reply.
pub const LINE_BYTES: u64 = 16;

/// A connect that the stop turns away is refused at once; one that is not, on an old kernel, is not
/// waited for.
const TURNED_AWAY: Duration = Duration::from_millis(200);

/// What one connection came to for its client.
pub struct Seen {
    pub peer: String,
    /// Whole replies, each the right one.
    pub replies: u64,
    /// `Ok`: the server's FIN, or our own close after the reply.
    pub end: Result<(), ErrorKind>,
}

type Run = fn(SocketAddr, &AtomicUsize) -> Vec<Seen>;

/// Clients at work until the server ends their connections.
pub struct Load {
    address: SocketAddr,
    /// First replies on a connection, and how many were waited for.
    answered: Arc<AtomicUsize>,
    expected: Cell<usize>,
    clients: Vec<JoinHandle<Vec<Seen>>>,
}

impl Load {
    pub fn on(address: SocketAddr) -> Self {
        Self { address, answered: Arc::default(), expected: Cell::new(0), clients: Vec::new() }
    }

    /// Starts clients, and returns when at least one reply a client has come.
    #[track_caller]
    pub fn add(&mut self, count: usize, run: Run) {
        for _ in 0..count {
            let (address, answered) = (self.address, self.answered.clone());
            self.clients.push(thread::spawn(move || run(address, &answered)));
        }
        self.await_more(count);
    }

    /// Returns when so many more first replies have come.
    #[track_caller]
    pub fn await_more(&self, count: usize) {
        let expected = self.expected.get() + count;
        self.expected.set(expected);
        eventually("clients are answered", || self.answered.load(Ordering::SeqCst) >= expected);
    }

    /// What all of them saw, when all of them have ended.
    pub fn join(self) -> Vec<Seen> {
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// A line, its reply, and again.
pub fn one_at_a_time(address: SocketAddr, answered: &AtomicUsize) -> Vec<Seen> {
    converse(address, answered, 1)
}

/// 32 lines in one send, their replies, and again.
pub fn pipelined(address: SocketAddr, answered: &AtomicUsize) -> Vec<Seen> {
    converse(address, answered, 32)
}

/// Lines without any pause; the replies are read beside.
pub fn without_pause(address: SocketAddr, answered: &AtomicUsize) -> Vec<Seen> {
    let mut conversation = Conversation::begin(address);
    let mut stream = conversation.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        let mut number = 0;
        // Ends when the reader has seen the end and shuts our side down.
        while stream.write_all(lines(number, 64).as_bytes()).is_ok() {
            number += 64;
        }
    });
    let end = conversation.read_all(answered);
    // It may be gone altogether by now.
    let _ = conversation.stream().shutdown(Shutdown::Write);
    sender.join().unwrap();
    vec![conversation.seen(end)]
}

/// A connection for each line, until the server takes no more.
pub fn one_connection_each(address: SocketAddr, answered: &AtomicUsize) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, TURNED_AWAY) {
        let mut conversation = Conversation::on(stream);
        let end = conversation.ask(1).map(|_| ()).map_err(|error| error.kind());
        answered.fetch_add(usize::from(conversation.replies > 0), Ordering::SeqCst);
        seen.push(conversation.seen(end));
    }
    seen
}

fn converse(address: SocketAddr, answered: &AtomicUsize, batch: u64) -> Vec<Seen> {
    let mut conversation = Conversation::begin(address);
    let end = loop {
        match conversation.ask(batch) {
            Ok(true) if conversation.replies == batch => {
                answered.fetch_add(1, Ordering::SeqCst);
            }
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error.kind()),
        }
    };
    vec![conversation.seen(end)]
}

struct Conversation {
    reader: BufReader<TcpStream>,
    replies: u64,
}

impl Conversation {
    fn begin(address: SocketAddr) -> Self {
        Self::on(Client::connect(address).stream)
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream), replies: 0 }
    }

    fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends the next lines and reads their replies; no: the server's FIN came.
    fn ask(&mut self, count: u64) -> io::Result<bool> {
        self.reader.get_mut().write_all(lines(self.replies, count).as_bytes())?;
        for _ in 0..count {
            if !self.read_reply()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_all(&mut self, answered: &AtomicUsize) -> Result<(), ErrorKind> {
        while self.read_reply().map_err(|error| error.kind())? {
            if self.replies == 1 {
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// The next reply, which must be whole and in its turn.
    fn read_reply(&mut self) -> io::Result<bool> {
        let mut reply = String::new();
        if self.reader.read_line(&mut reply)? == 0 {
            return Ok(false);
        }
        assert_eq!(reply, lines(self.replies, 1));
        self.replies += 1;
        Ok(true)
    }

    fn seen(&self, end: Result<(), ErrorKind>) -> Seen {
        let peer = self.stream().local_addr().unwrap().to_string();
        Seen { peer, replies: self.replies, end }
    }
}

/// Numbered lines of [`LINE_BYTES`] each.
fn lines(first: u64, count: u64) -> String {
    (first..first + count).map(|number| format!("{number:015}\n")).collect()
}
