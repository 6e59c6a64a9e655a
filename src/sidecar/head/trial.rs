//! The head's reader on trial: against a model that is slow and reads like the rules. For the tests
//! here and for those in `fuzz`.

use std::net::Ipv6Addr;

use super::{Head, Progress, Request};
use crate::sidecar::Bounds;
use crate::sidecar::scrape::Rejection;

/// The limit that the sidecar has.
pub(crate) fn real_limit() -> usize {
    Bounds::default().head_bytes
}

/// Everything that must hold for what a scraper sends, cut in each of these ways.
#[track_caller]
pub(crate) fn check(limit: usize, input: &[u8], ways: &[Vec<&[u8]>]) {
    let expected = expected(limit, input);
    for chunks in ways {
        let found = read(limit, chunks);
        assert_eq!(found, expected, "limit {limit}, chunks {chunks:x?}");
    }
    if let Progress::Whole(Request { method, path, query, host }) = expected {
        // The door writes these into a head of its own.
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(plain(&method) && !method.is_empty() && method.len() <= 32, "{method:?}");
        assert!(plain(&path) && (path.starts_with('/') || path == "*"), "{path:?}");
        assert!(!path.contains(['?', '#']), "{path:?}");
        assert!(plain(&query) && !query.contains('#'), "{query:?}");
        if let Some(host) = host {
            assert!(plain(&host) && !host.is_empty() && !host.contains(['/', '@']), "{host:?}");
        }
    }
}

/// What the door does with a head: it stops at the first verdict.
fn read(limit: usize, chunks: &[&[u8]]) -> Progress {
    let mut head = Head::new(limit);
    for chunk in chunks {
        let progress = head.feed(chunk);
        assert!(head.bytes.len() <= limit, "{} bytes of {limit}", head.bytes.len());
        // A vector doubles, from 8 bytes on.
        assert!(head.bytes.capacity() <= (2 * limit).max(8), "room for {}", head.bytes.capacity());
        if progress != Progress::Partial {
            return progress;
        }
    }
    Progress::Partial
}

/// The verdict, byte by byte. Shares no code with the reader.
fn expected(limit: usize, input: &[u8]) -> Progress {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    // The empty lines before the request count, too.
    let blank = input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let mut taken = blank.min(limit);
    for byte in &input[blank..] {
        if taken == limit {
            break;
        }
        taken += 1;
        if *byte != b'\n' {
            if lines.is_empty() && *byte != b'\r' && (*byte < 0x20 || *byte > 0x7E) {
                return Progress::Refused(Rejection::Malformed);
            }
            // Each byte is one character here.
            line.push(char::from(*byte));
            continue;
        }
        if line.ends_with('\r') {
            line.pop();
        }
        if lines.is_empty() && request(&line).is_none() {
            return Progress::Refused(Rejection::Malformed);
        }
        if line.is_empty() {
            return conclusion(&lines);
        }
        lines.push(std::mem::take(&mut line));
    }
    if taken == limit { Progress::Refused(Rejection::HeadTooLarge) } else { Progress::Partial }
}

fn conclusion(lines: &[String]) -> Progress {
    let mut request = request(&lines[0]).expect("it was looked at when its line was whole");
    let mut body = false;
    let mut hosts = Vec::new();
    for field in &lines[1..] {
        let Some((name, value)) = field.split_once(':') else {
            return Progress::Refused(Rejection::Malformed);
        };
        let value = value.trim_matches([' ', '\t']);
        let bad = |c: char| c < ' ' && c != '\t' || c == '\x7F';
        let counts = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
        match name.to_ascii_lowercase().as_str() {
            _ if !is_token(name) || value.contains(bad) => {
                return Progress::Refused(Rejection::Malformed);
            }
            "transfer-encoding" => body = true,
            "content-length" if !counts => return Progress::Refused(Rejection::Malformed),
            "content-length" => body |= value.contains(|c| c != '0'),
            "host" if value.is_empty() => hosts.push(Some(None)),
            "host" => hosts.push(host(value).map(Some)),
            _ => {}
        }
    }
    match hosts.as_slice() {
        [] => {}
        [Some(host)] => request.host = request.host.or(host.clone()),
        _ => return Progress::Refused(Rejection::Malformed),
    }
    match request.method.as_str() {
        "GET" | "HEAD" if body => Progress::Refused(Rejection::Body),
        _ => Progress::Whole(request),
    }
}

/// A method, a target and a version with one space between each.
fn request(line: &str) -> Option<Request> {
    let (method, rest) = line.split_once(' ')?;
    let target = rest.strip_suffix(" HTTP/1.1").or(rest.strip_suffix(" HTTP/1.0"))?;
    if !is_token(method) || method.len() > 32 || target.contains([' ', '\r']) {
        return None;
    }
    let target: String = target.chars().take_while(|c| *c != '#').collect();
    let mut named = None;
    let mut path: String = target.chars().take_while(|c| *c != '?').collect();
    let query = target[path.len()..].chars().skip(1).collect();
    if let Some(rest) = path.strip_prefix("http://") {
        let authority: String = rest.chars().take_while(|c| *c != '/').collect();
        let user = authority.rfind('@').map_or(0, |at| at + 1);
        named = Some(host(&authority[user..])?);
        path = rest.chars().skip(authority.len()).collect();
        if path.is_empty() {
            path.push('/');
        }
    }
    let is_path = path.starts_with('/') || path == "*";
    is_path.then(|| Request { method: method.to_owned(), path, query, host: named })
}

/// What stands before the port: an address of IPv6 in brackets, or anything that may be a name.
fn host(authority: &str) -> Option<String> {
    let in_brackets = authority.starts_with('[');
    let colon = match in_brackets {
        true => authority.find("]:").map(|at| at + 1),
        false => authority.find(':'),
    };
    let (host, port) = match colon {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (authority, ""),
    };
    if port.len() > 5 || port.contains(|c: char| !c.is_ascii_digit()) {
        return None;
    }
    let is_host = match in_brackets {
        true => host.ends_with(']') && host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok(),
        false => {
            let is_visible =
                |c: char| ('!'..='~').contains(&c) && !"\"#/:<>?@[\\]^`{|}".contains(c);
            !host.is_empty() && host.chars().all(is_visible)
        }
    };
    is_host.then(|| host.to_owned())
}

/// RFC 9110, section 5.6.2: visible characters but the delimiters.
fn is_token(text: &str) -> bool {
    let is_visible = |c: char| ('!'..='~').contains(&c) && !"\"(),/:;<=>?@[\\]{}".contains(c);
    !text.is_empty() && text.chars().all(is_visible)
}
