//! A client that sends and does not read, until the server holds replies that the kernel does not
//! take any more.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, PATIENCE, Server, eventually};

/// A line that such a client sends, again and again.
pub const LINE: &str = "0123456789abcde\n";

/// The server's `max_pending_bytes`, unless a test sets another.
const MAX_PENDING_BYTES: f64 = 65_536.0;

/// Sends lines as long as somebody takes them, and reads nothing.
pub struct Deaf {
    pub client: Client,
    block: String,
    at: usize,
}

impl Deaf {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        // A small window, so that little is needed to fill it.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let client = Client { stream: socket.into() };
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { client, block: LINE.repeat(1024), at: 0 }
    }

    /// Sends what is taken without waiting; says whether that was anything.
    pub fn send(&mut self) -> io::Result<bool> {
        let stream = &mut self.client.stream;
        stream.set_nonblocking(true)?;
        let mut has_sent = false;
        let end = loop {
            match stream.write(&self.block.as_bytes()[self.at..]) {
                Ok(written) => self.at = (self.at + written) % self.block.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(has_sent),
                Err(error) => break Err(error),
            }
            has_sent = true;
        };
        stream.set_nonblocking(false)?;
        end
    }
}

/// Connects a client and returns when the server does not read it any more, for its replies are
/// pending above the bound. The last line sent may be unfinished.
#[track_caller]
pub fn stuck_client(server: &Server, address: SocketAddr) -> Client {
    let before = server.metrics().sum("talkback_pending_bytes");
    let mut deaf = Deaf::connect(address);
    eventually("replies are pending", || {
        deaf.send().unwrap();
        server.metrics().sum("talkback_pending_bytes") > before + MAX_PENDING_BYTES
    });
    deaf.client
}
