//! Debian's Prometheus over the repository's own configuration and rules, on a port that the
//! kernel picked. It ends with its value, and its storage with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::harness::{Log, PATIENCE, eventually, read_log};

const CONFIG: &str = "config/prometheus/prometheus.yml";
const TARGETS: &str = "config/prometheus/targets/talkback.yml";
/// The one target of the repository's file.
const TARGET: &str = "    - 127.0.0.1:9889\n";
/// The repository's pace, and that of a test: it scrapes and evaluates once a second.
const PACES: [(&str, &str); 3] = [
    ("scrape_interval: 15s\n", "scrape_interval: 1s\n"),
    ("scrape_timeout: 5s\n", "scrape_timeout: 1s\n"),
    ("evaluation_interval: 15s\n", "evaluation_interval: 1s\n"),
];

/// A running Prometheus.
pub struct Prometheus {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

/// One series of an answer; a scalar is one without labels.
#[derive(Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<f64>,
}

impl Prometheus {
    /// Watches these sidecars as `config/prometheus/` and the rules of `dashboards/` say.
    #[track_caller]
    pub fn watch(sidecars: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        lay_out(directory.path(), sidecars);
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", directory.path().join(CONFIG).display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("prometheus: {error}"));
        let (log, reader) = read_log(&mut child);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut prometheus = Self { child, log, reader: Some(reader), address, directory };
        eventually("prometheus is ready", || {
            assert_eq!(prometheus.child.try_wait().unwrap(), None, "prometheus has ended");
            prometheus.logged("Server is ready to receive web requests.").is_some()
        });
        // Told by another thread of it, before or after.
        eventually("prometheus tells where it listens", || {
            let listening = prometheus.logged("Listening on");
            let address = listening.as_ref().and_then(|event| event["address"].as_str());
            prometheus.address = address.map_or(prometheus.address, |it| it.parse().unwrap());
            address.is_some()
        });
        prometheus
    }

    fn logged(&self, message: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        log.iter().find(|event| event["msg"] == message).cloned()
    }

    /// What it said that is more than information.
    pub fn complaints(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|event| event["level"] != "info").cloned().collect()
    }

    /// The copy of the repository's files that it runs on.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The `data` of an answer of its HTTP API, or its error.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let pairs = parameters.iter().map(|(key, value)| format!("{key}={}", escaped(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Version 1.0 has an answer end with its connection, and come in one piece.
        write!(stream, "GET /api/v1/{path}?{query} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").expect("a head and a body").1;
        let mut answer: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let warnings = &answer["warnings"];
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().unwrap_or(body).to_owned());
        }
        if !warnings.is_null() {
            return Err(format!("warnings: {warnings}"));
        }
        Ok(answer["data"].take())
    }

    /// What a query finds now, or found at that time, in seconds.
    pub fn query(&self, query: &str, at: Option<f64>) -> Result<Vec<Series>, String> {
        let time = at.map(|at| at.to_string());
        let mut parameters = vec![("query", query)];
        parameters.extend(time.as_ref().map(|time| ("time", time.as_str())));
        self.ask("query", &parameters).map(|data| series(&data))
    }

    /// What a query finds in a span of time, once a second.
    pub fn query_range(&self, query: &str, span: (f64, f64)) -> Result<Vec<Series>, String> {
        let (from, to) = (span.0.to_string(), span.1.to_string());
        let parameters = [("query", query), ("start", &from), ("end", &to), ("step", "1")];
        self.ask("query_range", &parameters).map(|data| series(&data))
    }

    /// The one number that a query finds, if it finds anything.
    #[track_caller]
    pub fn number(&self, query: &str) -> Option<f64> {
        let found = self.query(query, None).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert!(found.len() < 2, "{query} finds {found:?}");
        found.first().map(|series| series.values[0])
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Either fails where the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            // It ends with the process; what it may have panicked of was shown.
            let _ = reader.join();
        }
        if std::thread::panicking() {
            for event in self.log.lock().unwrap().iter().rev().take(10).rev() {
                eprintln!("prometheus: {event}");
            }
        }
    }
}

/// Copies what Prometheus reads, as it lies in the repository: only the targets are others, and
/// the pace is.
#[track_caller]
fn lay_out(directory: &Path, sidecars: &[SocketAddr]) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [CONFIG, TARGETS, "dashboards/any"] {
        let parent = Path::new(name).parent().expect("a file in a directory");
        fs::create_dir_all(directory.join(parent)).unwrap();
        for entry in fs::read_dir(repository.join(parent)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), directory.join(parent).join(entry.file_name())).unwrap();
            }
        }
    }
    let targets: String = sidecars.iter().map(|sidecar| format!("    - {sidecar}\n")).collect();
    substitute(&directory.join(TARGETS), TARGET, &targets);
    for (from, to) in PACES {
        substitute(&directory.join(CONFIG), from, to);
    }
}

/// What is replaced must be there exactly once.
#[track_caller]
fn substitute(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Percent-encoded for a URL.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[track_caller]
fn series(data: &Value) -> Vec<Series> {
    let value = |pair: &Value| pair[1].as_str().unwrap().parse().unwrap();
    let of = |series: &Value| {
        let labels = series["metric"].as_object().unwrap().iter();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let values = series["values"].as_array();
        let values = values.map_or_else(
            || vec![value(&series["value"])],
            |values| values.iter().map(value).collect(),
        );
        Series { labels: labels.collect(), values }
    };
    match data["resultType"].as_str() {
        Some("vector" | "matrix") => data["result"].as_array().unwrap().iter().map(of).collect(),
        Some("scalar") => {
            vec![Series { labels: BTreeMap::new(), values: vec![value(&data["result"])] }]
        }
        other => panic!("a result of type {other:?}"),
    }
}
