//! Who may see a page that shows peers: whether it is open at all, and by which host names. A
//! browser sends the name that it looked up, so that a page from elsewhere whose name was pointed
//! at this address (DNS rebinding) gives itself away.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Who may see `/connections`.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Why nobody may, told to whoever asks; `None`: it is open.
    pub closed: Option<String>,
    /// Names that the server goes by, besides its addresses and localhost.
    pub allowed_hosts: Vec<String>,
}

const FOREIGN: &str = "the Host of this request is neither an address nor localhost; \
                       metrics.allowed_hosts may name it\n";

impl Access {
    /// Why this client may not see it, if it may not. One that names no host is no browser.
    pub(super) fn refusal(&self, host: Option<&str>) -> Option<String> {
        if let Some(why) = &self.closed {
            return Some(format!("{why}\n"));
        }
        let host = host?;
        // The dot of the root changes nothing.
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_allowed = is_address(host)
            || is_localhost(name)
            || self.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        (!is_allowed).then(|| FOREIGN.to_owned())
    }
}

/// Nobody can point an address elsewhere.
fn is_address(host: &str) -> bool {
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// RFC 6761, section 6.3: these names never come from DNS.
fn is_localhost(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Access {
        let allowed_hosts = vec!["talkback.example".to_owned(), "Talkback-1".to_owned()];
        Access { closed: None, allowed_hosts }
    }

    #[test]
    fn addresses_and_localhost_and_what_is_allowed_are_let_in() {
        for host in [
            "127.0.0.1",
            "192.0.2.7",
            "[::1]",
            "[2001:db8::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "talkback.localhost",
            "talkback.example",
            "TALKBACK.example.",
            "talkback-1",
        ] {
            assert_eq!(open().refusal(Some(host)), None, "{host}");
        }
        assert_eq!(open().refusal(None), None);
    }

    #[test]
    fn a_name_that_somebody_else_may_own_is_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "x.talkback.example",
            "talkback.example.evil",
            "[evil]",
            "..",
            "",
        ] {
            let refusal = open().refusal(Some(host));
            assert!(refusal.is_some_and(|text| text.contains("allowed_hosts")), "{host}");
        }
    }

    #[test]
    fn what_is_closed_is_closed_to_everybody() {
        let closed = Access { closed: Some("closed".to_owned()), ..open() };
        for host in [None, Some("127.0.0.1"), Some("talkback.example")] {
            assert_eq!(closed.refusal(host).as_deref(), Some("closed\n"));
        }
    }
}
