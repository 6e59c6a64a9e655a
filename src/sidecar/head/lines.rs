//! What one line of a request head says, without its ending: the first one, or a field.

use std::net::Ipv6Addr;

use memchr::memchr;

use super::Request;
use crate::sidecar::scrape::Rejection;

/// The first line.
pub(super) fn request_line(line: &[u8]) -> Result<Request, Rejection> {
    let line = str::from_utf8(line).map_err(|_| Rejection::Malformed)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Rejection::Malformed);
    };
    if method.is_empty() || method.len() > 32 || !method.bytes().all(is_token) {
        return Err(Rejection::Malformed);
    }
    let (host, path, query) = split_target(target).ok_or(Rejection::Malformed)?;
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: host.map(str::to_owned),
    })
}

/// Host, path and query of a target; a fragment, which no client should send, is dropped.
fn split_target(target: &str) -> Option<(Option<&str>, &str, &str)> {
    if target.contains('\r') {
        return None;
    }
    let target = target.split('#').next().unwrap_or(target);
    let (host, target) = match target.strip_prefix("http://") {
        Some(rest) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // RFC 9110, section 4.2.4: who it is meant for counts, not whom it claims to be from.
            let host = authority.rsplit('@').next().unwrap_or(authority);
            (Some(host_of(host)?), rest)
        }
        None => (None, target),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // RFC 9112, section 3.2.1: where an absolute target has no path, it is this one.
    let path = if host.is_some() && path.is_empty() { "/" } else { path };
    (path.starts_with('/') || path == "*").then_some((host, path, query))
}

/// The host of `host:port`, where the port may be left out (RFC 9110, section 7.2).
fn host_of(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            address.len() + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let is_host = host.starts_with('[') || (!host.is_empty() && host.bytes().all(is_of_name));
    let digits = port.strip_prefix(':').unwrap_or_default();
    let is_port = port.is_empty() || (port.starts_with(':') && digits.len() <= 5);
    (is_host && is_port && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

/// What the header fields say, as far as it matters.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) brings_body: bool,
    has_host: bool,
    pub(super) host: Option<String>,
}

impl Fields {
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), Rejection> {
        let colon = memchr(b':', line).ok_or(Rejection::Malformed)?;
        let (name, value) = (&line[..colon], without_blanks(&line[colon + 1..]));
        // A name with a space in it covers the folded lines of old, which RFC 9112 lets a server
        // refuse.
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Rejection::Malformed);
        }
        if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err(Rejection::Malformed);
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.brings_body = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(Rejection::Malformed);
            }
            self.brings_body |= value.iter().any(|&digit| digit != b'0');
        } else if name.eq_ignore_ascii_case(b"host") {
            // Of two, nobody could say which one a browser or a proxy went by.
            if std::mem::replace(&mut self.has_host, true) {
                return Err(Rejection::Malformed);
            }
            // An empty one names none, which RFC 9112, section 3.2, allows.
            if !value.is_empty() {
                let host = str::from_utf8(value).ok().and_then(host_of);
                self.host = Some(host.ok_or(Rejection::Malformed)?.to_owned());
            }
        }
        Ok(())
    }
}

/// A character that RFC 9110 allows in a token.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character that RFC 3986 allows in a registered name, which an address of IPv4 is too.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

/// RFC 9110, section 5.6.3: what may stand around a value is spaces and tabs, not a bare CR or a
/// form feed.
fn without_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
