//! The request head: bytes in, a request or the reason of its refusal out. No socket and no clock
//! here. It is strict where a lenient reading would be guesswork; tiny_http never sees what the
//! client wrote, only a head that the door writes anew from the values kept here.

mod lines;

use memchr::{memchr, memchr_iter};

use super::scrape::Rejection;

use lines::{Fields, request_line};

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
