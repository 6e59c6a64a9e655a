//! The sidecar as other programs see it: promtool, curl and nc.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::Server;

/// Runs a program with that input; its absence is a failure, for `tests/run` installs it.
#[track_caller]
fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // One that does not read its input has ended its side.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What curl says of a request: status, content type, length of the body, and the body.
#[track_caller]
fn check(server: &Server, arguments: &[&str], path: &str, expected: &str) -> String {
    let url = format!("http://{}{path}", server.metrics_address());
    let mut all = vec!["-sS", "--max-time", "20", "--noproxy", "*"];
    all.extend(["-w", "%{stderr}%{http_code} %{content_type} %{size_download}"]);
    all.extend(arguments);
    all.push(&url);
    let output = run("curl", &all, "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.starts_with(expected), "{said}\nshould start with {expected}");
    text(&output.stdout)
}

#[test]
fn promtool_finds_nothing_to_object_to_in_the_metrics() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    client.echo("hello");
    let output = run("promtool", &["check", "metrics"], &server.get("/metrics").1);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
}

#[test]
fn curl_gets_every_page_with_its_type() {
    let server = Server::with_listener("");
    let exposition = "200 text/plain; version=0.0.4; charset=utf-8 ";
    let metrics = check(&server, &[], "/metrics", exposition);
    assert!(metrics.ends_with('\n') && metrics.contains("\ntalkback_workers "), "{metrics}");
    check(&server, &[], "/metrics?name[]=up", exposition);
    let plain = "200 text/plain; charset=utf-8 ";
    assert_eq!(check(&server, &[], "/healthz", plain), "ok\n");
    assert_eq!(check(&server, &[], "/readyz", plain), "ready\n");
    let page = check(&server, &["-i"], "/", "200 text/html; charset=utf-8 ").to_lowercase();
    for said in ["\nx-frame-options: deny\r", "default-src 'none'; ", "<h1>talkback "] {
        assert!(page.contains(said), "{page}");
    }
    for allowed in ["unsafe-", "*", "data: 'self'", "http:"] {
        let policy = page.lines().find(|line| line.starts_with("content-security-policy: "));
        assert!(!policy.unwrap().contains(allowed), "{policy:?}");
    }
}

#[test]
fn head_has_the_length_and_no_body() {
    let server = Server::with_listener("");
    let head = check(&server, &["-I"], "/healthz", "200 text/plain; charset=utf-8 0");
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    assert_eq!(header("Content-Length").as_deref(), Some("3"), "{head}");
    assert_eq!(header("Connection").as_deref(), Some("close"), "{head}");
}

#[test]
fn other_paths_are_not_found_and_other_methods_not_allowed() {
    let server = Server::with_listener("");
    check(&server, &[], "/favicon.ico", "404 ");
    check(&server, &[], "/metrics/", "404 ");
    let head = check(&server, &["-X", "POST", "-i"], "/metrics", "405 ");
    assert!(head.to_lowercase().contains("\nallow: get, head\r\n"), "{head}");
    check(&server, &["-X", "DELETE"], "/healthz", "405 ");
    check(&server, &["-X", "POST"], "/nowhere", "404 ");
    let metrics = server.metrics();
    for (series, count) in [
        ("code=\"404\",path=\"other\"", 3.0),
        ("code=\"405\",path=\"/metrics\"", 1.0),
        ("code=\"405\",path=\"/healthz\"", 1.0),
    ] {
        assert_eq!(metrics.get(&format!("talkback_scrapes_total{{{series}}}")), count, "{series}");
    }
}

#[test]
fn nc_is_answered_as_it_types() {
    let server = Server::with_listener("");
    let address = server.metrics_address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    for version in ["1.0", "1.1"] {
        // Bare line feeds, and no Host in 1.0: what people type.
        let request = format!("GET /healthz HTTP/{version}\nHost: x\n\n");
        let output = run("nc", &[&ip, &port], &request);
        let answer = text(&output.stdout);
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
}

#[test]
fn an_empty_address_turns_the_sidecar_off() {
    let server =
        Server::start("[[listener]]\naddress = \"127.0.0.1:0\"\n[metrics]\naddress = \"\"\n");
    assert!(server.log().iter().all(|event| event.get("message").is_some()));
    assert!(server.logged("metrics on /metrics").is_none());
    server.connect().echo("hello");
}
