//! The request head: bytes in, a request or the reason of its refusal out. No socket and no clock
//! here. It is strict where a lenient reading would be guesswork; tiny_http never sees what the
//! client wrote, only a head that the door writes anew from the values kept here.

use std::net::Ipv6Addr;

use memchr::{memchr, memchr_iter};

use super::scrape::Rejection;

/// What is left of a request head once it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The target without its query and, in the absolute form, without scheme and authority.
    pub(super) path: String,
    /// What stands behind the `?`; empty where nothing does.
    pub(super) query: String,
    /// The host that the client believes to talk to, without its port; `None` if it names none.
    pub(super) host: Option<String>,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Partial,
    Whole(Request),
    Refused(Rejection),
}

/// A request head that is still arriving. It holds at most `limit` bytes, and looks at each byte a
/// bounded number of times, however small the pieces are that it comes in.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    limit: usize,
    /// How many bytes of empty lines came before the request. They count towards the limit, or a
    /// client that sends nothing else would be read from for ever.
    blank: usize,
    /// How many bytes are known to hold no end of the head.
    searched: usize,
    /// Set as soon as the first line is whole and good, so that rubbish is refused without waiting
    /// for its end.
    request: Option<Request>,
}

impl Head {
    pub(super) fn new(limit: usize) -> Head {
        Head { bytes: Vec::new(), limit, blank: 0, searched: 0, request: None }
    }

    /// Whether anything of a request has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next bytes. What follows the head in them is dropped: one connection has one
    /// request.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Progress {
        let mut chunk = chunk;
        if self.bytes.is_empty() {
            // RFC 9112, section 2.2: an empty line before the request is to be ignored.
            let start = chunk.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
            let start = start.unwrap_or(chunk.len());
            self.blank = self.limit.min(self.blank + start);
            chunk = &chunk[start..];
        }
        let before = self.bytes.len();
        let room = self.limit - self.blank - before;
        self.bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);

        if self.request.is_none()
            && let Err(refusal) = self.read_first_line(before)
        {
            return Progress::Refused(refusal);
        }
        match self.find_end() {
            Some(end) => self.conclude(end),
            None if self.blank + self.bytes.len() == self.limit => {
                Progress::Refused(Rejection::HeadTooLarge)
            }
            None => Progress::Partial,
        }
    }

    /// Checks the first line as far as it is new, and reads it once it is whole.
    fn read_first_line(&mut self, before: usize) -> Result<(), Rejection> {
        let end = memchr(b'\n', &self.bytes[before..]).map(|at| before + at);
        let fresh = &self.bytes[before..end.unwrap_or(self.bytes.len())];
        if !fresh.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r')) {
            return Err(Rejection::Malformed);
        }
        if let Some(end) = end {
            self.request = Some(request_line(without_cr(&self.bytes[..end]))?);
        }
        Ok(())
    }

    /// Where the empty line begins that ends the head.
    fn find_end(&mut self) -> Option<usize> {
        // The last two bytes may be the first part of an end.
        let from = self.searched.saturating_sub(2);
        self.searched = self.bytes.len();
        memchr_iter(b'\n', &self.bytes[from..])
            .map(|at| from + at + 1)
            .find(|&next| matches!(&self.bytes[next..], [b'\n', ..] | [b'\r', b'\n', ..]))
    }

    fn conclude(&mut self, end: usize) -> Progress {
        let Some(mut request) = self.request.take() else {
            return Progress::Refused(Rejection::Malformed);
        };
        let mut lines = self.bytes[..end].split(|&byte| byte == b'\n').map(without_cr);
        // The first line has been read, and the last piece is what follows the last line end:
        // nothing.
        lines.next();
        let mut fields = Fields::default();
        for line in lines.filter(|line| !line.is_empty()) {
            if let Err(refusal) = fields.take(line) {
                return Progress::Refused(refusal);
            }
        }
        // RFC 9112, section 3.2.2: the host of an absolute target stands above the field.
        request.host = request.host.or(fields.host);
        // Another method gets its 405, which says more than that its body is not wanted.
        if fields.brings_body && matches!(request.method.as_str(), "GET" | "HEAD") {
            return Progress::Refused(Rejection::Body);
        }
        Progress::Whole(request)
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// RFC 9110, section 5.6.3: what may stand around a value is spaces and tabs, not a bare CR or a
/// form feed.
fn without_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn request_line(line: &[u8]) -> Result<Request, Rejection> {
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
struct Fields {
    brings_body: bool,
    has_host: bool,
    host: Option<String>,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Rejection> {
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

#[cfg(any(test, fuzzing))]
pub(crate) mod trial;

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome must be the same whole, byte by byte, and cut anywhere in two.
    #[track_caller]
    fn check(input: &[u8], expected: &Progress) {
        assert_eq!(&Head::new(256).feed(input), expected, "whole");
        for cut in 0..=input.len() {
            let mut head = Head::new(256);
            let mut last = head.feed(&input[..cut]);
            if last == Progress::Partial {
                last = head.feed(&input[cut..]);
            }
            assert_eq!(&last, expected, "cut at {cut}");
        }
        let mut head = Head::new(256);
        let mut last = Progress::Partial;
        for byte in input {
            last = head.feed(&[*byte]);
            if last != Progress::Partial {
                break;
            }
        }
        assert_eq!(&last, expected, "byte by byte");
    }

    fn whole(method: &str, path: &str) -> Progress {
        full(method, path, "", None)
    }

    fn full(method: &str, path: &str, query: &str, host: Option<&str>) -> Progress {
        Progress::Whole(Request {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            host: host.map(str::to_owned),
        })
    }

    #[test]
    fn a_request_is_read_whatever_its_cuts() {
        let scrape = full("GET", "/metrics", "", Some("x"));
        check(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", &scrape);
        check(b"HEAD / HTTP/1.0\n\n", &whole("HEAD", "/"));
        check(b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n", &whole("GET", "/a"));
        check(b"GET / HTTP/1.1\r\nA: b\n\r\n", &whole("GET", "/"));
    }

    #[test]
    fn query_and_authority_do_not_route() {
        let of = |query, host| full("GET", "/metrics", query, host);
        check(b"GET /metrics?a=/b HTTP/1.1\r\n\r\n", &of("a=/b", None));
        check(b"GET /metrics??a#b?c HTTP/1.1\r\n\r\n", &of("?a", None));
        check(b"GET /metrics#b?c HTTP/1.1\r\n\r\n", &of("", None));
        check(b"GET http://h:1/metrics?x HTTP/1.1\r\n\r\n", &of("x", Some("h")));
        check(b"GET http://h HTTP/1.1\r\n\r\n", &full("GET", "/", "", Some("h")));
        check(b"GET http://a:b@h:1 HTTP/1.1\r\n\r\n", &full("GET", "/", "", Some("h")));
        check(b"GET http://h?/a HTTP/1.1\r\n\r\n", &full("GET", "/", "/a", Some("h")));
    }

    #[test]
    fn a_host_is_read_without_its_port() {
        for (field, host) in [
            ("localhost", "localhost"),
            (" \tLocalHost:9889 ", "LocalHost"),
            ("127.0.0.1:", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::ffff:127.0.0.1]:65535", "[::ffff:127.0.0.1]"),
            ("talkback_1.my-net.", "talkback_1.my-net."),
        ] {
            let head = format!("GET / HTTP/1.1\r\nhOST:{field}\r\n\r\n");
            check(head.as_bytes(), &full("GET", "/", "", Some(host)));
        }
        for field in ["", " \t"] {
            let head = format!("GET / HTTP/1.1\r\nHost:{field}\r\n\r\n");
            check(head.as_bytes(), &full("GET", "/", "", None));
        }
        let both = b"GET http://h:1/ HTTP/1.1\r\nHost: x\r\n\r\n";
        check(both, &full("GET", "/", "", Some("h")));
    }

    #[test]
    fn a_host_that_is_none_or_two_is_refused() {
        for fields in [
            "Host: a b",
            "Host:\r\nHost: a",
            "Host: a\r\nHost: a",
            "Host: a:x",
            "Host: a:123456",
            "Host: a:1:2",
            "Host: :80",
            "Host: ::1",
            "Host: [::1",
            "Host: [::1]x",
            "Host: [::1]80",
            "Host: [::1%251]",
            "Host: [a]",
            "Host: a@b",
            "Host: a/b",
            "Host: é",
        ] {
            let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
            check(head.as_bytes(), &Progress::Refused(Rejection::Malformed));
        }
        for target in ["http://", "http:///", "http://a@/", "http://?", "http://[::1/"] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            check(head.as_bytes(), &Progress::Refused(Rejection::Malformed));
        }
    }

    #[test]
    fn what_follows_the_head_is_dropped() {
        let two = b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        assert_eq!(Head::new(256).feed(two), whole("GET", "/a"));
        let mut long = two.to_vec();
        long.resize(10_000, b'x');
        assert_eq!(Head::new(256).feed(&long), whole("GET", "/a"));
    }

    #[test]
    fn rubbish_is_refused() {
        let refused = Progress::Refused(Rejection::Malformed);
        for input in [
            &b"GET /\r\n"[..],
            b"GET / HTTP/0.9\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET  / HTTP/1.1\r\n",
            b"GET x HTTP/1.1\r\n",
            b"G(T / HTTP/1.1\r\n",
            b" / HTTP/1.1\r\n",
            b"GET /\r HTTP/1.1\r\n",
            b"hello\n",
            b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\na: \0\r\n\r\n",
            b"GET / HTTP/1.1\r\na: b\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: \x0C0\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        ] {
            check(input, &refused);
        }
    }

    #[test]
    fn binary_is_refused_before_its_first_line_ends() {
        let mut head = Head::new(256);
        assert_eq!(head.feed(&[0x16, 0x03, 0x01]), Progress::Refused(Rejection::Malformed));
    }

    #[test]
    fn a_body_is_refused_where_it_would_matter() {
        let refused = Progress::Refused(Rejection::Body);
        check(b"GET / HTTP/1.1\r\ncontent-length: 5\r\n\r\n", &refused);
        check(b"HEAD / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &refused);
        check(b"GET / HTTP/1.1\r\nContent-Length: 00\r\n\r\n", &whole("GET", "/"));
        check(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", &whole("POST", "/"));
    }

    #[test]
    fn a_head_may_fill_its_limit_and_no_more() {
        let head = |size: usize| {
            let start = b"GET / HTTP/1.1\r\na: ".to_vec();
            let filler = vec![b'x'; size - start.len() - 4];
            [start, filler, b"\r\n\r\n".to_vec()].concat()
        };
        check(&head(256), &whole("GET", "/"));
        check(&head(257), &Progress::Refused(Rejection::HeadTooLarge));
    }

    #[test]
    fn empty_lines_before_the_request_count_as_part_of_it() {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let after = |blank: usize| [&b"\r\n".repeat(blank / 2)[..], request].concat();
        check(&after(256 - request.len()), &whole("GET", "/"));
        check(&after(256 - request.len() + 2), &Progress::Refused(Rejection::HeadTooLarge));
        check(&after(256), &Progress::Refused(Rejection::HeadTooLarge));
        check(&b"\n".repeat(1000), &Progress::Refused(Rejection::HeadTooLarge));
    }

    #[test]
    fn any_bytes_in_any_cuts_give_one_outcome() {
        use proptest::prelude::*;
        let pieces = prop::collection::vec(
            prop_oneof![
                Just(b"GET /metrics HTTP/1.1".to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"\n".to_vec()),
                Just(b"Content-Length: 0".to_vec()),
                Just(b"Host: a:1".to_vec()),
                prop::collection::vec(any::<u8>(), 0..8),
            ],
            0..8,
        );
        proptest!(|(input in pieces, cuts in prop::collection::vec(0usize..80, 0..4))| {
            let input = input.concat();
            let whole = Head::new(64).feed(&input);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let mut head = Head::new(64);
            let mut last = Progress::Partial;
            for pair in cuts.windows(2) {
                if last == Progress::Partial {
                    last = head.feed(&input[pair[0]..pair[1]]);
                }
            }
            prop_assert_eq!(last, whole);
        });
    }
}
