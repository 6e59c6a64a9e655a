//! Addresses as the operator writes them: `FromStr` and `Display` are each other's inverse.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use super::Address;
use super::validate::shortened;

/// The forms of an address, for messages and for the reference.
pub(super) const FORMS: &str =
    r#""0.0.0.0:8889", "[::]:8889", "unix:/run/x.sock" or "unix:@name" (abstract)"#;

/// `sun_path` of unix(7) has 108 bytes; one of them is the NUL before or behind the name.
const MAX_UNIX_BYTES: usize = 107;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not an address: {why}; allowed: {FORMS}", shortened(&format!("{written:?}")))]
pub struct AddressError {
    written: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(written: &str) -> Result<Self, AddressError> {
        let address = match written.strip_prefix("unix:") {
            Some(name) => match name.strip_prefix('@') {
                Some(name) => Self::UnixAbstract(name.to_owned()),
                None => Self::UnixPath(name.into()),
            },
            None => match written.parse() {
                Ok(address) => Self::Ip(address),
                Err(_) => return Err(refused(written, why_no_socket_address(written))),
            },
        };
        match address.flaw() {
            Some(why) => Err(refused(written, why)),
            None => Ok(address),
        }
    }
}

fn refused(written: &str, why: &'static str) -> AddressError {
    AddressError { written: written.to_owned(), why }
}

/// The sidecar's address; `Some(None)` for `""`, which turns it off.
pub(super) fn of_the_sidecar(written: &str) -> Option<Option<SocketAddr>> {
    match written {
        "" => Some(None),
        written => written.parse().ok().map(Some),
    }
}

/// What is wrong with a text that is none.
pub(super) const NOT_OF_THE_SIDECAR: &str = "is no address of the sidecar";

/// The likeliest slip, so that the operator need not guess.
fn why_no_socket_address(written: &str) -> &'static str {
    let port = written.strip_prefix(':').unwrap_or(written);
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        "the IP address before the port is missing"
    } else if written.parse::<IpAddr>().is_ok() {
        "the port is missing, or the brackets around an IPv6 address"
    } else {
        "no IP address with a port (names are not looked up) and no unix: address"
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(out, "{address}"),
            Self::UnixPath(path) => write!(out, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(out, "unix:@{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl Address {
    /// Whether `v6only` means anything here.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        matches!(self, Self::Ip(SocketAddr::V6(_)))
    }

    /// Whether `unix_mode` and `unix_group` mean anything here.
    #[must_use]
    pub fn is_unix_path(&self) -> bool {
        matches!(self, Self::UnixPath(_))
    }

    /// Whether other hosts may reach it: an IP address that is not a loopback one.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Ip(address) if !address.ip().to_canonical().is_loopback())
    }

    /// Whether two listeners may hold it at once: port 0 is another port each time.
    pub(super) fn may_repeat(&self) -> bool {
        matches!(self, Self::Ip(address) if address.port() == 0)
    }

    /// What is wrong with an address that code built without parsing.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        match self {
            Self::Ip(_) => None,
            Self::UnixPath(path) => path_flaw(path),
            Self::UnixAbstract(name) if name.is_empty() => Some("the name behind @ is missing"),
            Self::UnixAbstract(name) => text_flaw(name),
        }
    }
}

fn path_flaw(path: &Path) -> Option<&'static str> {
    if !path.is_absolute() {
        return Some("a Unix socket needs an absolute path");
    }
    if path.as_os_str().len() > MAX_UNIX_BYTES {
        return Some(TOO_LONG);
    }
    text_flaw(&path.to_string_lossy())
}

const TOO_LONG: &str = "the kernel takes at most 107 bytes as the name of a Unix socket";

/// Addresses are logged, so that control characters would reach terminals; NUL would end a path
/// early.
fn text_flaw(text: &str) -> Option<&'static str> {
    if text.chars().any(char::is_control) {
        Some("it holds a control character")
    } else if text.len() > MAX_UNIX_BYTES {
        Some(TOO_LONG)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_gives_back_what_was_written() {
        for written in [
            "0.0.0.0:8889",
            "127.0.0.1:0",
            "[::]:8889",
            "[::1]:1",
            "unix:/run/x.sock",
            "unix:@name",
        ] {
            let address: Address = written.parse().unwrap();
            assert_eq!(address.to_string(), written);
        }
    }

    #[track_caller]
    fn check_refused(written: &str, why: &str) {
        let message = written.parse::<Address>().unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
        assert!(message.contains(FORMS), "{message}");
    }

    #[test]
    fn a_refusal_names_the_slip_and_the_forms() {
        check_refused("", "no IP address");
        check_refused("8889", "the IP address before the port");
        check_refused(":8889", "the IP address before the port");
        check_refused("127.0.0.1", "the port is missing");
        check_refused("::1", "brackets");
        check_refused("127.0.0.1:65536", "no IP address");
        check_refused("localhost:8889", "names are not looked up");
        check_refused("unix:", "absolute");
        check_refused("unix:run/x.sock", "absolute");
        check_refused("unix:@", "behind @");
        check_refused("unix:@a\nb", "control character");
        check_refused(&format!("unix:@{}", "n".repeat(108)), "107 bytes");
        check_refused(&format!("unix:/{}", "n".repeat(107)), "107 bytes");
    }

    #[test]
    fn the_longest_unix_names_are_taken() {
        assert!(format!("unix:@{}", "n".repeat(107)).parse::<Address>().is_ok());
        assert!(format!("unix:/{}", "n".repeat(106)).parse::<Address>().is_ok());
    }

    #[test]
    fn loopback_and_unix_are_not_public() {
        for (written, public) in [
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
            ("127.0.0.2:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("unix:/run/x.sock", false),
            ("unix:@x", false),
        ] {
            assert_eq!(written.parse::<Address>().unwrap().is_public(), public, "{written}");
        }
    }
}
