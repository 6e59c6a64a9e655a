//! Who may ask for `/connections`, how, and that asking changes nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Page, page};
use crate::harness::{PATIENCE, Server};

/// The answer to these bytes: status, head and body.
#[track_caller]
fn ask(server: &Server, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(server.metrics_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// A client that names that host gets that status, and a refusal says `content`.
#[track_caller]
fn check_host(server: &Server, host: &str, status: u16, content: &str) {
    let (found, _, body) =
        ask(server, &format!("GET /connections HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(found, status, "{host}: {body}");
    assert!(body.contains(content), "{host}: {body}");
}

fn with_metrics(keys: &str) -> Server {
    Server::start(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[metrics]\n{keys}\n"))
}

#[track_caller]
fn answered(server: &Server, code: u16) -> f64 {
    let series = format!("talkback_scrapes_total{{code=\"{code}\",path=\"/connections\"}}");
    server.metrics().get(&series)
}

#[test]
fn a_query_that_is_not_known_is_refused_with_what_is() {
    let server = Server::with_listener("");
    let refused = [
        ("?limit=0", "the limit is out of range"),
        ("?limit=1001", "the limit is out of range"),
        ("?limit=", "the limit is out of range"),
        ("?limit=1e3", "the limit is out of range"),
        ("?sort=peer", "an unknown value of sort"),
        ("?sort=AGE", "an unknown value of sort"),
        ("?sort=age,idle", "an unknown value of sort"),
        ("?order=age", "an unknown key"),
        ("?sort=age&", "an unknown key"),
        ("?<script>", "an unknown key"),
        ("?sort=age&sort=age", "a key stands there twice"),
    ];
    for (query, wrong) in refused {
        let (status, body) = server.get(&format!("/connections{query}"));
        assert_eq!(status, 400, "{query}: {body}");
        let allowed = "; allowed: sort (one of age, idle, messages, received, sent, bytes, \
                       pending) and limit (an integer from 1 to 1000)\n";
        assert_eq!(body, format!("{wrong}{allowed}"), "{query}");
    }
    for query in ["", "?", "?limit=1", "?limit=1000", "?sort=pending&limit=7", "?sort=idle#x"] {
        assert_eq!(server.get(&format!("/connections{query}")).0, 200, "{query}");
    }
    assert_eq!(answered(&server, 400), refused.len() as f64);
    assert_eq!(answered(&server, 200), 6.0);
}

#[test]
fn a_page_from_elsewhere_whose_name_was_pointed_here_sees_nothing() {
    let server =
        with_metrics("address = \"127.0.0.1:0\"\nallowed_hosts = [\"Tb.example\", \"n-1\"]");
    let port = server.metrics_address().port();
    for host in ["127.0.0.1", "[::1]", "192.0.2.1", "localhost", "LocalHost.", "a.localhost"] {
        check_host(&server, host, 200, "\"total\":0");
        check_host(&server, &format!("{host}:{port}"), 200, "\"total\":0");
    }
    check_host(&server, &format!("tb.EXAMPLE:{port}"), 200, "\"total\":0");
    check_host(&server, "n-1", 200, "\"total\":0");
    for host in ["rebind.example", "127.0.0.1.rebind.example", "localhost.example", "x.n-1"] {
        check_host(&server, &format!("{host}:{port}"), 403, "metrics.allowed_hosts");
    }
    assert_eq!(answered(&server, 403), 4.0);
    // Nor by two names, of which one is right, nor by what is none. No name is no browser.
    for (host, status) in
        [("localhost\r\nHost: rebind.example", 400), ("a b", 400), ("", 200), ("localhost:", 200)]
    {
        check_host(&server, host, status, "");
    }
    assert_eq!(ask(&server, "GET /connections HTTP/1.0\r\n\r\n").0, 200);
    // What names nobody is shown to every name.
    let scrape = "GET /metrics HTTP/1.1\r\nHost: rebind.example\r\n\r\n";
    assert_eq!(ask(&server, scrape).0, 200);
    let malformed = "talkback_scrapes_rejected_total{reason=\"malformed\"}";
    assert_eq!(server.metrics().get(malformed), 2.0);
}

#[test]
fn on_an_address_for_everybody_it_is_shown_only_if_always() {
    let server = with_metrics("address = \"0.0.0.0:0\"");
    check_host(&server, "127.0.0.1", 403, "metrics.connections = \"always\"");
    assert_eq!(server.get("/metrics").0, 200);
    let server = with_metrics("address = \"0.0.0.0:0\"\nconnections = \"always\"");
    check_host(&server, "127.0.0.1", 200, "\"total\":0");
    check_host(&server, "rebind.example", 403, "metrics.allowed_hosts");
}

#[test]
fn never_is_nowhere() {
    let server = with_metrics("address = \"127.0.0.1:0\"\nconnections = \"never\"");
    check_host(&server, "127.0.0.1", 403, "metrics.connections = \"never\"");
    assert_eq!(server.get("/connections?limit=0").0, 403);
    assert_eq!(server.get("/metrics").0, 200);
}

#[test]
fn a_head_has_the_length_and_no_body_and_no_page_of_another_origin_may_embed_it() {
    let server = Server::with_listener("");
    let (status, head, body) =
        ask(&server, "HEAD /connections HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    let length = server.get("/connections").1.len();
    for field in [
        &format!("Content-Length: {length}"),
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
        "Cross-Origin-Resource-Policy: same-origin",
        "Cache-Control: no-store",
    ] {
        assert!(head.lines().any(|line| line == field), "{field} is not in {head}");
    }
    assert!(!head.to_lowercase().contains("access-control"), "{head}");
}

#[test]
fn nothing_that_is_asked_changes_anything() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("hello");
    let id = page(&server, "").of(&client)["id"].clone();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CLOSE", "get"] {
        for query in ["", "?id=0-1", "?close=0-1"] {
            let target = format!("/connections{query}");
            let (status, head, _) = ask(
                &server,
                &format!(
                    "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
                ),
            );
            assert_eq!(status, 405, "{method}");
            assert!(head.contains("\r\nAllow: GET, HEAD"), "{head}");
        }
    }
    for path in ["/connections/", "/connections/0-1", "/connections/0-1/close"] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    assert_eq!(answered(&server, 405), 21.0);
    let after = page(&server, "");
    let row = after.of(&client);
    assert_eq!((&row["id"], &row["received_bytes"]), (&id, &5.into()));
    assert!(server.metrics().closes().is_empty());
    client.echo("still here");
}

#[test]
fn many_who_ask_differently_at_once_are_all_answered_while_clients_talk() {
    let server = Server::start("workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n");
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let sidecar = server.metrics_address();
    std::thread::scope(|scope| {
        for asker in 1..=8 {
            scope.spawn(move || {
                for sort in ["age", "idle", "messages", "received", "sent", "bytes", "pending"] {
                    let page = Page::get(sidecar, &format!("?sort={sort}&limit={asker}"));
                    assert!(page.total() <= 20);
                }
            });
        }
        for _ in 0..50 {
            clients.iter_mut().for_each(|client| client.echo("hello"));
        }
    });
    assert_eq!(page(&server, "").total(), 20);
    let metrics = server.metrics();
    metrics.assert_ledger();
    assert_eq!(metrics.sum("talkback_worker_panics_total"), 0.0);
}
