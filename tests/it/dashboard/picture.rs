//! `dashboards/picture` over a Prometheus that has an answer to everything.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::linter::{expr, panels, queries, title};
use super::{dashboard, file, succeed};

/// Every label that a legend may name; `le` as well, for the heat map.
fn labels(bound: &str) -> Value {
    json!({
        "instance": "a:1", "listener": "main", "worker": "0", "reason": "exit", "error": "emfile",
        "path": "/metrics", "code": "200", "version": "1", "rustc": "2", "le": bound,
        "alertname": "TalkbackDrops",
    })
}

/// The parameter of that name, as it is written in the path.
fn parameter<'a>(path: &'a str, name: &str) -> &'a str {
    let (_, query) = path.split_once('?').unwrap();
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs.find(|(key, _)| *key == name).expect("the parameter is there").1
}

fn answer(path: &str) -> Value {
    let number = |name| parameter(path, name).parse::<u64>().unwrap();
    let series = |values: &dyn Fn(&str) -> Value| {
        [("0.1", "1.5"), ("+Inf", "2.5")].map(|(bound, value)| {
            let mut series = values(value);
            series["metric"] = labels(bound);
            series
        })
    };
    let result = if path.starts_with("/api/v1/targets?") {
        return json!({"data": {"activeTargets": [{"scrapeInterval": "15s"}]}});
    } else if path.starts_with("/api/v1/query_range?") {
        let (start, end, step) = (number("start"), number("end"), number("step"));
        let times = || (start..=end).step_by(usize::try_from(step).unwrap());
        series(&|value| json!({"values": times().map(|at| json!([at, value])).collect::<Vec<_>>()}))
    } else {
        assert!(path.starts_with("/api/v1/query?"), "{path}");
        series(&|value| json!({"value": [number("time"), value]}))
    };
    json!({"data": {"result": result}})
}

/// Answers one request and returns its path.
fn serve(mut stream: TcpStream) -> String {
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    lines.find(|line| line.is_empty()).expect("a whole head");
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let body = answer(&path).to_string();
    let length = body.len();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    path
}

/// Runs the script against such a Prometheus: the page that it makes, and the paths it asked for.
#[track_caller]
fn draw() -> (String, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let is_done = AtomicBool::new(false);
    let serve_all = || {
        let mut asked = Vec::new();
        for stream in listener.incoming() {
            if is_done.load(Ordering::SeqCst) {
                break;
            }
            asked.push(serve(stream.unwrap()));
        }
        asked
    };
    let (output, asked) = std::thread::scope(|scope| {
        let server = scope.spawn(serve_all);
        let mut command = Command::new("python3");
        command.arg(file("dashboards/picture")).args(["--range", "5m", "--end", "1000000"]);
        command.args(["--prometheus", &format!("http://{address}"), "--output"]).arg(&page);
        // Whatever comes of it, the server has to be told.
        let output = command.env("no_proxy", "*").output();
        is_done.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(address));
        (output.unwrap(), server.join().unwrap())
    });
    succeed(&output);
    (std::fs::read_to_string(page).unwrap(), asked)
}

#[test]
fn the_picture_has_every_panel_with_its_data() {
    let (page, asked) = draw();
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let title = title(panel).replace('\'', "&#x27;");
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
        let nothing = panel["fieldConfig"]["defaults"]["noValue"].as_str().unwrap();
        assert!(!page.contains(&format!("\">{nothing}</div>")), "{title}: {nothing}");
    }
    assert!(page.contains("not a screenshot of Grafana"));
    // 5 min before second 1,000,000, to the step of 15 s.
    assert!(page.contains("Alerts: TalkbackDrops a:1 main 13:41:30"), "the marks are named");
    assert!(page.contains("Restarts: a:1 started anew 13:41:30"));
    assert!(!page.contains("{{"), "a legend was not filled in");
    let asked_for_data = asked.iter().filter(|path| path.contains("query="));
    assert_eq!(asked_for_data.count(), queries(&dashboard).len());
    // `%24` is a dollar sign.
    let open = asked.iter().find(|path| path.contains("%24"));
    assert_eq!(open, None, "a variable was not filled in");
    assert!(queries(&dashboard).iter().any(|(_, query)| expr(query).contains("$__rate_interval")));
    // 4 × 15 s, as Grafana would.
    assert!(asked.iter().any(|path| path.contains("%5B60s%5D")), "{asked:?}");
}
