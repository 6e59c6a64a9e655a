//! `/connections`: who may see it, who shares an answer, and who waits for whom.

use super::*;

/// Refused by the door itself: when the answer is here, every request before it has been read.
fn await_the_door(bench: &Bench) {
    check(&bench.exchange(b"\0"), "400 Bad Request", &[], "malformed\n");
}

/// A sidecar whose pages stand still while somebody holds the gate.
struct Halted {
    bench: Bench,
    gate: Arc<Mutex<()>>,
    /// What it was asked for, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

fn halted() -> Halted {
    let (gate, asked) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
    let (opened, noted) = (Arc::clone(&gate), Arc::clone(&asked));
    let make = move |page: String| {
        noted.lock().push(page.clone());
        drop(opened.lock());
        page.into_bytes()
    };
    let again = make.clone();
    let watch = Watch {
        connections: Box::new(move |query| again(query.limit.to_string())),
        ..Watch::of(move || make("metrics".to_owned()))
    };
    Halted { bench: Bench::watching(Bounds::default(), watch), gate, asked }
}

fn ask(bench: &Bench, path: &str) -> TcpStream {
    let mut stream = bench.connect();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

#[test]
fn connections_are_shown_as_json_to_who_may_see_them() {
    let watch = Watch {
        connections: Box::new(|query| format!("{}", query.limit).into_bytes()),
        ..Watch::of(Vec::new)
    };
    let bench = Bench::watching(Bounds::default(), watch);
    let get = |target: &str, host: &str| {
        bench.exchange(format!("GET {target} HTTP/1.1\r\n{host}\r\n").as_bytes())
    };
    let policy = "Cross-Origin-Resource-Policy: same-origin";
    let fields = [policy, "Content-Type: application/json", "X-Content-Type-Options: nosniff"];
    for host in ["", "Host: 127.0.0.1:9889\r\n", "Host: [::1]\r\n", "Host: a.localhost:1\r\n"] {
        check(&get("/connections", host), "200 OK", &fields, "100");
    }
    check(&get("http://127.0.0.1/connections?limit=7", "Host: a\r\n"), "200 OK", &fields, "7");
    let text = [policy, "Content-Type: text/plain; charset=utf-8"];
    let foreign = get("/connections", "Host: evil.example\r\n");
    let body = foreign.split_once("\r\n\r\n").unwrap().1;
    check(&foreign, "403 Forbidden", &text, body);
    assert!(body.contains("metrics.allowed_hosts"), "{body}");
    assert!(get("http://evil.example/connections", "").starts_with("HTTP/1.1 403 "));
    assert!(get("/connections?a", "").starts_with("HTTP/1.1 400 "));
    check(&get("/connections", "Host: a\r\nHost: a\r\n"), "400 Bad Request", &[], "malformed\n");
    let scrapes = bench.scrapes.lock();
    for (code, count) in [(Code::Ok, 5), (Code::Forbidden, 2), (Code::BadRequest, 1)] {
        assert_eq!(scrapes[&Scrape::new(Page::Connections, code)], count, "{code:?}");
    }
}

#[test]
fn those_who_ask_differently_share_no_answer() {
    let Halted { bench, gate, asked } = halted();
    let shut = gate.lock();
    let first = ask(&bench, "/metrics");
    await_the_door(&bench);
    let targets = [("limit=1", "1"), ("limit=2", "2"), ("limit=1&sort=idle", "1"), ("", "100")];
    let waiting: Vec<_> = (0..3)
        .flat_map(|_| targets)
        .map(|(query, body)| (ask(&bench, &format!("/connections?{query}")), body))
        .collect();
    await_the_door(&bench);
    drop(shut);
    check(&read_all(first), "200 OK", &[], "metrics");
    for (stream, body) in waiting {
        check(&read_all(stream), "200 OK", &[], body);
    }
    // Those who ask for the same do.
    assert_eq!(*asked.lock(), ["metrics", "1", "2", "1", "100"]);
}

#[test]
fn other_pages_wait_for_no_more_than_one_slow_one() {
    let Halted { bench, gate, asked } = halted();
    let shut = gate.lock();
    let slow: Vec<_> = (1..=5)
        .map(|limit| {
            let stream = ask(&bench, &format!("/connections?limit={limit}"));
            await_the_door(&bench);
            stream
        })
        .collect();
    let quick = ask(&bench, "/metrics");
    await_the_door(&bench);
    drop(shut);
    check(&read_all(quick), "200 OK", &[], "metrics");
    for (stream, limit) in slow.into_iter().zip(1..) {
        check(&read_all(stream), "200 OK", &[], &format!("{limit}"));
    }
    assert_eq!(*asked.lock(), ["1", "metrics", "2", "3", "4", "5"]);
}
