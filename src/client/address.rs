//! Where a client connects to, as it is written on a command line.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// What `sockaddr_un` holds of a path with a NUL behind it, or of a name with one before it.
const MAX_UNIX_BYTES: usize = 107;

/// One server to connect to. Reads back what `Display` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:8889`, `[::1]:8889` or `localhost:8889`; the host without brackets.
    Tcp {
        /// A name, an IPv4 or an IPv6 address, not yet resolved.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// `unix:/path`
    UnixPath(PathBuf),
    /// `unix:@name`, Linux's abstract namespace.
    UnixAbstract(String),
}

/// Why a text names no server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It has none of the forms.
    #[error("expected HOST:PORT, [IPv6]:PORT, unix:/path or unix:@name")]
    Form,
    /// An IPv6 address stands there without brackets, so that its port cannot be told.
    #[error("an IPv6 address stands in brackets, as in [::1]:8889")]
    Brackets,
    /// What follows the last colon is not a port that can be connected to.
    #[error("a port is a number from 1 to 65535, not `{0}`")]
    Port(String),
    /// A server listens on it, but it names no host.
    #[error("{0} is for a server to listen on; a client names one host, as in 127.0.0.1:8889")]
    Unspecified(IpAddr),
    /// A path or name that no Unix socket can have.
    #[error("a Unix socket is unix:/path or unix:@name, of at most {MAX_UNIX_BYTES} bytes")]
    Unix,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains(|c: char| c.is_control()) {
            return Err(AddressError::Form);
        }
        match text.strip_prefix("unix:") {
            Some(place) => unix(place),
            None => tcp(text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::UnixPath(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

fn unix(place: &str) -> Result<Address, AddressError> {
    if place.len() > MAX_UNIX_BYTES {
        return Err(AddressError::Unix);
    }
    match place.strip_prefix('@') {
        Some("") => Err(AddressError::Unix),
        Some(name) => Ok(Address::UnixAbstract(name.to_owned())),
        None if place.starts_with('/') => Ok(Address::UnixPath(PathBuf::from(place))),
        None => Err(AddressError::Unix),
    }
}

fn tcp(text: &str) -> Result<Address, AddressError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressError::Brackets);
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Form)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => bracketed(rest)?,
        None if host.contains(':') => return Err(AddressError::Brackets),
        None => host,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "[]/@".contains(c)) {
        return Err(AddressError::Form);
    }
    let port = match port.parse::<u16>() {
        Ok(number) if number > 0 && !port.starts_with('+') => number,
        _ => return Err(AddressError::Port(port.to_owned())),
    };
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(AddressError::Unspecified(ip)),
        _ => Ok(Address::Tcp { host: host.to_owned(), port }),
    }
}

/// What stands between the brackets: an IPv6 address, which may name its zone (`fe80::1%eth0`).
fn bracketed(rest: &str) -> Result<&str, AddressError> {
    let host = rest.strip_suffix(']').ok_or(AddressError::Form)?;
    let without_zone = host.split('%').next().unwrap_or(host);
    match SocketAddr::from_str(&format!("[{without_zone}]:1")) {
        Ok(_) => Ok(host),
        Err(_) => Err(AddressError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Address, AddressError>) {
        let parsed = text.parse::<Address>();
        if let Ok(address) = &parsed {
            assert_eq!(address.to_string(), text, "an address reads back what it writes");
        }
        assert_eq!(parsed, expected);
    }

    fn host(host: &str, port: u16) -> Result<Address, AddressError> {
        Ok(Address::Tcp { host: host.to_owned(), port })
    }

    #[test]
    fn every_form_of_the_manual_is_understood() {
        check("127.0.0.1:8889", host("127.0.0.1", 8889));
        check("[::1]:8889", host("::1", 8889));
        check("[fe80::1%eth0]:80", host("fe80::1%eth0", 80));
        check("localhost:65535", host("localhost", 65535));
        check("unix:/run/x.sock", Ok(Address::UnixPath(PathBuf::from("/run/x.sock"))));
        check("unix:@name", Ok(Address::UnixAbstract("name".to_owned())));
    }

    #[test]
    fn a_text_that_names_no_server_says_what_is_allowed() {
        for text in ["", "8889", "localhost", ":8889", "a b:1", "[::1:8889", "[x]:1", "a\n:1"] {
            check(text, Err(AddressError::Form));
        }
        check("::1", Err(AddressError::Brackets));
        check("fe80::1:zz", Err(AddressError::Brackets));
        for port in ["", "0", "65536", "+1", "http"] {
            check(&format!("localhost:{port}"), Err(AddressError::Port(port.to_owned())));
        }
    }

    #[test]
    fn an_address_only_a_server_can_have_is_refused() {
        check("0.0.0.0:8889", Err(AddressError::Unspecified(IpAddr::from([0, 0, 0, 0]))));
        check("[::]:8889", Err(AddressError::Unspecified(IpAddr::from(Ipv6Addr::UNSPECIFIED))));
    }

    #[test]
    fn a_unix_socket_has_a_path_or_a_name_that_fits() {
        for text in ["unix:", "unix:@", "unix:relative"] {
            check(text, Err(AddressError::Unix));
        }
        check(&format!("unix:/{}", "x".repeat(107)), Err(AddressError::Unix));
        let longest = format!("/{}", "x".repeat(106));
        check(&format!("unix:{longest}"), Ok(Address::UnixPath(PathBuf::from(longest))));
    }
}
