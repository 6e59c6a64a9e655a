//! A client of the model's server: no call of it waits for ever, and what it does not get is an
//! error to report, so that a failing case can be cut down.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::actions::Source;
use crate::harness::eventually;

/// What a correct server never needs, however busy its host.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A case that has failed is tried again and again, and each time some count will not come. A stop
/// may take that long on a busy host, so that a socket is given more.
const WAIT_FOR_A_WRONG_COUNT: Duration = Duration::from_secs(1);
const WAIT_FOR_A_LOST_REPLY: Duration = Duration::from_secs(5);

thread_local! {
    // Each test has a thread of its own.
    static HAS_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// From now on less patience will do.
pub fn note_failure() {
    HAS_FAILED.set(true);
}

/// Whether a case of this test has failed.
pub fn has_failed() -> bool {
    HAS_FAILED.get()
}

/// How long a socket waits for what must come.
fn patience() -> Duration {
    if has_failed() { WAIT_FOR_A_LOST_REPLY } else { LONGEST_WAIT }
}

/// Waits until `look` has an answer; `None` where it never has one.
pub fn wait_for<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    wait_at_most(if has_failed() { WAIT_FOR_A_WRONG_COUNT } else { LONGEST_WAIT }, look)
}

/// Waits until `look` has an answer, but no longer than that.
pub fn wait_at_most<T>(longest: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    // Most of what is waited for is a few microseconds away.
    for _ in 0..8 {
        if let Some(answer) = look() {
            return Some(answer);
        }
        std::thread::yield_now();
    }
    let until = Instant::now() + longest;
    let mut answer = None;
    eventually("an answer, or the end of patience", || {
        answer = look();
        answer.is_some() || Instant::now() >= until
    });
    answer
}

/// One client's socket.
pub struct Peer {
    stream: TcpStream,
}

type Outcome<T = ()> = Result<T, String>;

impl Peer {
    pub fn connect(source: Source, server: SocketAddr) -> Outcome<Self> {
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // One that does not grow: what a client that never reads can be sent has a bound.
            socket.set_recv_buffer_size(65_536)?;
            let source = Ipv4Addr::new(127, 0, 0, source);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.connect_timeout(&server.into(), patience())?;
            socket.set_tcp_nodelay(true)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience()))?;
            stream.set_write_timeout(Some(patience()))?;
            Ok(Self { stream })
        };
        connect().map_err(|error: std::io::Error| format!("cannot connect: {error}"))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.stream.write_all(bytes).map_err(|error| format!("cannot send: {error}"))
    }

    /// Reads exactly that.
    pub fn expect(&mut self, expected: &[u8]) -> Outcome {
        let mut got = vec![0; expected.len()];
        let mut length = 0;
        while length < got.len() {
            match self.stream.read(&mut got[length..]) {
                Ok(0) => return Err(differs(expected, &got[..length], "the end")),
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(differs(expected, &got[..length], error)),
            }
        }
        if got == expected { Ok(()) } else { Err(differs(expected, &got, "no end")) }
    }

    /// Reads up to the server's FIN; a reset is an error.
    pub fn read_to_end(&mut self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(format!("no end after {} bytes: {error}", bytes.len())),
        }
    }

    /// The server has ended the connection in an orderly way and says nothing more.
    pub fn expect_end(&mut self) -> Outcome {
        let rest = self.read_to_end()?;
        if rest.is_empty() { Ok(()) } else { Err(differs(&[], &rest, "the end")) }
    }

    /// Waits until the kernel holds that, and leaves it there.
    pub fn see(&self, expected: &[u8]) -> Outcome {
        if expected.is_empty() {
            return Ok(());
        }
        let mut seen = vec![0; expected.len() + 1];
        let mut length = 0;
        let whole = wait_for(|| {
            length = self.stream.peek(&mut seen).unwrap_or(0);
            (length >= expected.len()).then_some(())
        });
        let is_so = whole.is_some() && seen[..length] == *expected;
        if is_so { Ok(()) } else { Err(differs(expected, &seen[..length], "not read")) }
    }

    pub fn finish(&self) -> Outcome {
        self.stream.shutdown(Shutdown::Write).map_err(|error| format!("cannot half-close: {error}"))
    }

    pub fn reset(self) -> Outcome {
        let linger = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        linger.map_err(|error| format!("cannot reset: {error}"))
    }
}

fn differs(expected: &[u8], got: &[u8], behind: impl Display) -> String {
    format!("the client expected {}\nand got {}, then {behind}", shown(expected), shown(got))
}

/// Not more than a screen can take.
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
    let more =
        if bytes.len() > 60 { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("{text:?}{more}")
}
