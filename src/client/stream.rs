//! A connected stream of either family, and the one line that says why there is none.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use thiserror::Error;

use super::Address;

/// The kernel alone would try an address that swallows packets for more than two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a server. A shared reference reads and writes, as with std's own streams.
#[derive(Debug)]
pub enum Stream {
    /// Over IPv4 or IPv6.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Why there is no connection: one line with what, where, why and what to do.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The host's name leads to no address.
    #[error("cannot connect to {address}: {source}; is the name spelled right?")]
    Resolve {
        /// Where to.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address took the connection; `source` is what the last one tried said.
    #[error("cannot connect to {address}{tried}: {source}; {advice}")]
    Connect {
        /// Where to.
        address: Address,
        /// ` (tried 127.0.0.1, ::1)` where a name stands for more than itself.
        tried: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
}

/// Connects to the first of the address's hosts that accepts, each for at most ten seconds.
///
/// # Errors
/// When the name does not resolve, or none of its addresses takes the connection.
pub fn connect(address: &Address) -> Result<Stream, ConnectError> {
    let (result, tried) = match address {
        Address::Tcp { host, port } => {
            let addresses = (host.as_str(), *port)
                .to_socket_addrs()
                .map_err(|source| ConnectError::Resolve { address: address.clone(), source })?;
            let addresses: Vec<SocketAddr> = addresses.collect();
            (first_that_accepts(&addresses).map(Stream::Tcp), tried(host, &addresses))
        }
        Address::UnixPath(path) => (UnixStream::connect(path).map(Stream::Unix), String::new()),
        Address::UnixAbstract(name) => {
            let stream = UnixAddr::from_abstract_name(name)
                .and_then(|name| UnixStream::connect_addr(&name))
                .map(Stream::Unix);
            (stream, String::new())
        }
    };
    result.map_err(|source| {
        let advice = advice(address, source.kind());
        ConnectError::Connect { address: address.clone(), tried, source, advice }
    })
}

fn first_that_accepts(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT).and_then(refuse_self) {
            Ok(stream) => {
                // A typed line is worth its own packet; without the option it only waits longer.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connect to a free port of one's own host can be given that very port as its own, and TCP then
/// connects the socket to itself: an echo where nothing listens.
fn refuse_self(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(stream)
}

fn tried(host: &str, addresses: &[SocketAddr]) -> String {
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    if ips.is_empty() || ips == [host] {
        return String::new();
    }
    format!(" (tried {})", ips.join(", "))
}

fn advice(address: &Address, kind: ErrorKind) -> &'static str {
    let unix = !matches!(address, Address::Tcp { .. });
    match kind {
        ErrorKind::ConnectionRefused if unix => "no server listens on that socket: start it first",
        ErrorKind::ConnectionRefused => "nothing listens there: start the server or check the port",
        ErrorKind::NotFound => "is the server running, and is this its address?",
        ErrorKind::PermissionDenied => "this user may not: check the socket's mode, or a firewall",
        ErrorKind::TimedOut => "nothing answers there: check the address, or a firewall on the way",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "no way leads there: check the address and this host's network"
        }
        ErrorKind::WouldBlock => "the server's backlog is full: try again",
        _ => "check the address",
    }
}

impl Stream {
    /// Says that nothing more will be sent; replies still come.
    ///
    /// # Errors
    /// When the connection has already ended, which the next read tells better.
    pub fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// After so long without a byte a read fails with `WouldBlock`; `None` = it waits for ever.
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(bytes),
            Stream::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[track_caller]
    fn refusal(text: &str) -> String {
        let address = text.parse().expect("an address");
        connect(&address).expect_err("nothing listens there").to_string()
    }

    #[test]
    fn a_name_is_resolved_and_the_family_that_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let address = Address::Tcp { host: "localhost".to_owned(), port };
        assert!(matches!(connect(&address), Ok(Stream::Tcp(_))));
    }

    #[test]
    fn a_refusal_says_what_where_why_and_what_to_do() {
        // Bound and not listening: the port is taken, and refuses.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
        let bound = socket.local_addr().expect("bound").as_socket().expect("IPv4");
        let line = refusal(&bound.to_string());
        assert!(line.starts_with(&format!("cannot connect to {bound}: ")), "{line}");
        assert!(line.contains("refused") && line.contains("nothing listens there"), "{line}");
        let named = refusal(&format!("localhost:{}", bound.port()));
        assert!(named.contains("127.0.0.1") && !named.contains('\n'), "{named}");
    }

    #[test]
    fn a_name_that_leads_nowhere_is_told_from_a_refusal() {
        // No label of a name is that long: the resolver says so without asking anyone.
        let name = "x".repeat(300);
        let line = refusal(&format!("{name}:1"));
        assert!(line.contains(&format!("{name}:1")) && line.contains("spelled"), "{line}");
    }

    #[test]
    fn a_unix_socket_is_reached_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.sock");
        let missing = refusal(&format!("unix:{}", path.display()));
        assert!(missing.contains("is the server running"), "{missing}");

        let listener = UnixListener::bind(&path).expect("a new path");
        assert!(matches!(connect(&Address::UnixPath(path.clone())), Ok(Stream::Unix(_))));
        drop(listener);
        let stale = refusal(&format!("unix:{}", path.display()));
        assert!(stale.contains("no server listens on that socket"), "{stale}");

        let name = path.display().to_string();
        let abstract_name = UnixAddr::from_abstract_name(&name).expect("a name");
        let _listener = UnixListener::bind_addr(&abstract_name).expect("a new name");
        assert!(matches!(connect(&Address::UnixAbstract(name)), Ok(Stream::Unix(_))));
    }
}
