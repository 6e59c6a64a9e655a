//! What arrives as a request, and how it ends: rubbish, heads without end, several at once, a FIN
//! or a reset at any point.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use super::{MEMORY, Rest, answered, read_all, refusals, reset, scrape, stranger};
use crate::harness::Server;
use crate::quiet::alone;

pub(super) const GOOD: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
/// The head's limit.
const LIMIT: usize = 8192;

/// Sends it all, and expects an orderly answer whose head begins and whose body is like that.
#[track_caller]
fn check(server: &Server, request: impl AsRef<[u8]>, status: &str, body: &str) {
    let mut stream = stranger(server.metrics_address());
    stream.write_all(request.as_ref()).unwrap();
    let (answer, orderly) = read_all(&mut stream);
    let (head, got) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && orderly, "{head}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    assert_eq!(got, body);
}

#[test]
fn what_is_no_good_request_is_told_why_and_counted() {
    let server = Server::with_listener("");
    let malformed = [
        // HTTP/0.9, as it was and as it is written by those who imitate it.
        &b"GET /metrics\r\n"[..],
        b"GET /metrics HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0",
        b"\xff\xf4\xff\xfd\x06",
        b"GET /met\0rics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: \0\r\n\r\n",
        b"GET /metrics HTTP/1.1\rHost: x\r\r\n\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET https://x/metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ];
    for request in malformed {
        check(&server, request, "400", "malformed\n");
    }
    let bodies = [
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity, chunked\r\nContent-Length: 0\r\n\r\n",
    ];
    for rest in bodies {
        check(&server, format!("GET /metrics HTTP/1.1\r\n{rest}"), "413", "body\n");
    }
    let long = "x".repeat(LIMIT);
    let too_large = [
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET http://{long}/metrics HTTP/1.1\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\nCookie: {long}\r\n\r\n"),
        format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(LIMIT / 6)),
        "\r\n".repeat(LIMIT / 2),
        "\n".repeat(3 * LIMIT),
    ];
    for request in &too_large {
        check(&server, request, "431", "head_too_large\n");
    }
    let counts = [("malformed", malformed.len()), ("body", bodies.len()), ("head_too_large", 6)];
    let counts = counts.map(|(reason, count)| (reason, count as u64));
    assert_eq!(refusals(&scrape(server.metrics_address()).0), counts.into());
}

#[test]
fn what_is_strange_but_right_is_answered() {
    let server = Server::with_listener("");
    let fill = |head: &str, after: &str| {
        format!("{head}{}{after}", "x".repeat(LIMIT - head.len() - after.len()))
    };
    for request in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\n\n",
        "\r\n\n\r\nGET /healthz HTTP/1.1\r\n\r\n",
        "GET http://user@elsewhere:1/healthz?a#b HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n",
        &fill("GET /healthz HTTP/1.1\r\nCookie: ", "\r\n\r\n"),
        &fill("GET /healthz?", " HTTP/1.1\r\n\r\n"),
    ] {
        check(&server, request, "200", "ok\n");
    }
    check(&server, "HEAD /healthz HTTP/1.1\r\n\r\n", "200", "");
    check(&server, "HEAD /nowhere HTTP/1.1\r\n\r\n", "404", "");
    for request in [
        &fill("GET /", " HTTP/1.1\r\n\r\n")[..],
        "CONNECT /healthz:443 HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
    ] {
        check(&server, request, "404", "not found\n");
    }
    for rest in [
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        for method in ["POST", "head", "CONNECT", "#"] {
            let request = format!("{method} /healthz HTTP/1.1\r\n{rest}");
            check(&server, request, "405", "method not allowed\n");
        }
    }
    let (metrics, _) = scrape(server.metrics_address());
    assert_eq!(refusals(&metrics), [].into());
    assert_eq!(answered(&metrics, "/healthz", 200), 9);
    assert_eq!(answered(&metrics, "/healthz", 405), 12);
    assert_eq!(answered(&metrics, "other", 404), 4);
}

#[test]
fn an_end_within_a_head_is_told_and_counted_wherever_it_comes() {
    let server = Server::with_listener("");
    for length in 0..GOOD.len() {
        let mut stream = stranger(server.metrics_address());
        stream.write_all(&GOOD[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let (answer, orderly) = read_all(&mut stream);
        assert!(orderly, "after {length} bytes");
        // One that has said nothing is told nothing.
        let expected = if length == 0 { "" } else { "HTTP/1.1 400 Bad Request\r\n" };
        let first = &answer[..expected.len()];
        assert!(first == expected && answer.is_empty() == (length == 0), "{length}: {answer}");
    }
    let expected = [("incomplete", GOOD.len() as u64 - 1)];
    assert_eq!(refusals(&scrape(server.metrics_address()).0), expected.into());
}

#[test]
fn a_reset_in_any_state_leaves_nothing_behind() {
    let _alone = alone();
    const ROUNDS: u64 = 30;
    let states: [(&[u8], usize); 6] = [
        (b"", 0),
        (&GOOD[..20], 0),
        // Before or while it is answered, in the middle of the answer, and after it.
        (GOOD, 0),
        (GOOD, 1),
        (GOOD, usize::MAX),
        (b"rubbish\n", usize::MAX),
    ];
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let seen = rest.scrape_during(&server, || {
        for _ in 0..ROUNDS {
            for (request, read) in states {
                let mut stream = stranger(sidecar);
                stream.write_all(request).unwrap();
                if read == usize::MAX {
                    assert!(read_all(&mut stream).1);
                } else {
                    stream.read_exact(&mut vec![0; read]).unwrap();
                }
                reset(stream);
            }
        }
    });
    rest.check_again(&server, MEMORY);
    let (metrics, _) = scrape(sidecar);
    assert_eq!(refusals(&metrics), [("malformed", ROUNDS)].into());
    // Of those that did not wait for their answer some were gone before it was asked for.
    let theirs = answered(&metrics, "/metrics", 200) - seen.scrapes - 1;
    assert!((2 * ROUNDS..=3 * ROUNDS).contains(&theirs), "{theirs}");
}

/// Repeats a piece until that many bytes are sent, or nobody takes them any more.
pub(super) fn send_long(stream: &mut TcpStream, piece: &[u8], length: usize) {
    let block = piece.repeat(65_536 / piece.len());
    let mut sent = 0;
    while sent < length && stream.write_all(&block).is_ok() {
        sent += block.len();
    }
}

/// Sends a beginning and 64 MiB behind it, and expects to be refused. Who goes on sending after
/// the door has said so may be reset instead.
#[track_caller]
fn check_long(sidecar: SocketAddr, beginning: &str, piece: &[u8]) {
    let mut stream = stranger(sidecar);
    stream.write_all(beginning.as_bytes()).unwrap();
    send_long(&mut stream, piece, 64 << 20);
    let (answer, orderly) = read_all(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 431 ") || (answer.is_empty() && !orderly), "{answer}");
}

#[test]
fn sixty_four_mebibytes_of_head_cost_no_memory() {
    let _alone = alone();
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    rest.scrape_during(&server, || {
        thread::scope(|scope| {
            scope.spawn(|| check_long(sidecar, "GET /", b"x"));
            scope.spawn(|| check_long(sidecar, "GET / HTTP/1.1\r\nCookie: ", b"x"));
            scope.spawn(|| check_long(sidecar, "GET / HTTP/1.1\r\n", b"a: b\r\n"));
            scope.spawn(|| check_long(sidecar, "", b"\r\n"));
        });
    });
    rest.check_again(&server, MEMORY);
    assert_eq!(refusals(&scrape(sidecar).0), [("head_too_large", 4)].into());
}

#[test]
fn of_ten_thousand_pipelined_requests_one_is_answered() {
    let _alone = alone();
    const CLIENTS: u64 = 20;
    let server = Server::with_listener("");
    let sidecar = server.metrics_address();
    let rest = Rest::of(&server);
    let seen = rest.scrape_during(&server, || {
        for _ in 0..CLIENTS {
            let mut stream = stranger(sidecar);
            send_long(&mut stream, GOOD, 10_000 * GOOD.len());
            let (answer, orderly) = read_all(&mut stream);
            // Who goes on sending for a second after its answer is reset, and may lose it.
            let answers = answer.matches("HTTP/1.1 200 OK").count();
            assert!(answers == 1 || (answers == 0 && !orderly), "{answers}");
        }
    });
    rest.check_again(&server, MEMORY);
    let (metrics, _) = scrape(sidecar);
    assert_eq!(answered(&metrics, "/metrics", 200), 1 + seen.scrapes + CLIENTS);
    assert_eq!(refusals(&metrics), [].into());
}
