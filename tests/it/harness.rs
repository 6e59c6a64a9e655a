//! A running talkback, with what its tests talk to it by. Everything ends with its value: no
//! process, file or port outlives its test.

mod client;
mod metrics;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use client::Client;
pub use metrics::{Metrics, get};

/// Nothing here takes that long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The lines that a program logs, as JSON where they are.
pub type Log = Arc<Mutex<Vec<Value>>>;

/// A `talkback serve` with a config of its own, JSON logs, and ports that the kernel picked.
pub struct Server {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    /// One listener on 127.0.0.1 with the given keys of `[[listener]]`.
    #[track_caller]
    pub fn with_listener(keys: &str) -> Self {
        Self::start(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{keys}\n"))
    }

    /// One listener that a program answers on, so that every family of metrics is there; `keys` are
    /// those of `[listener.command]`, of whom one may be left to name the program.
    #[track_caller]
    pub fn with_program(keys: &str) -> Self {
        let keys = if keys.is_empty() { "program = [\"cat\"]" } else { keys };
        Self::with_listener(&format!(
            "framing = \"line\"\nresponder = \"command\"\n[listener.command]\n{keys}"
        ))
    }

    /// The whole config; `[metrics]` and `[log]` are added where it has none.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_by(config, |command| command)
    }

    /// Like [`Server::start`], with a say in how the process is started.
    #[track_caller]
    pub fn start_by(config: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let server = Self::spawn(config, prepare);
        eventually("the server is ready", || server.logged("ready").is_some());
        server
    }

    /// Started, and perhaps never ready.
    pub fn spawn(config: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        crate::quiet::share();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talkback.toml");
        let mut config = config.to_owned();
        for (section, keys) in [
            ("[metrics]", "address = \"127.0.0.1:0\""),
            ("[log]", "level = \"debug\"\nformat = \"json\"\nmax_lines_per_second = 0"),
        ] {
            if !config.contains(section) {
                config += &format!("\n{section}\n{keys}\n");
            }
        }
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
        command.args(["serve", "--config"]).arg(&path).current_dir(dir.path());
        for name in ["CONFIG", "LISTEN", "WORKERS", "LOG"] {
            command.env_remove(format!("TALKBACK_{name}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = prepare(&mut command).spawn().unwrap();
        let (log, reader) = read_log(&mut child);
        Self { child, log, reader: Some(reader), _dir: dir }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every log line so far: objects, or strings where a line is no JSON.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// The first event with that message.
    pub fn logged(&self, message: &str) -> Option<Value> {
        self.log().into_iter().find(|event| event["message"] == message)
    }

    /// The line of each close so far.
    pub fn close_lines(&self) -> Vec<Value> {
        let is_close = |event: &Value| event["message"] == "connection closed";
        self.log().into_iter().filter(is_close).collect()
    }

    /// The lines of so many closes, once they are there; metrics are counted before.
    #[track_caller]
    pub fn await_close_lines(&self, count: usize) -> Vec<Value> {
        eventually(format_args!("{count} closes are logged"), || self.close_lines().len() >= count);
        self.close_lines()
    }

    /// Where the listener of that index is bound.
    #[track_caller]
    pub fn address_of(&self, index: usize) -> SocketAddr {
        let events = self.log();
        let mut bound = events.iter().filter(|event| event["message"] == "listening");
        bound
            .nth(index)
            .expect("a listener")
            .get("address")
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address_of(0)
    }

    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        let event = self.logged("metrics on /metrics").expect("a sidecar");
        event["address"].as_str().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// The answer of the sidecar to `GET path`: status and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).expect("the sidecar answers")
    }

    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        get(self.metrics_address(), path)
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// Waits until `is_so` of the metrics; the panic shows the last ones.
    #[track_caller]
    pub fn eventually(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        let last = RefCell::new(self.metrics());
        let why = std::fmt::from_fn(|f| write!(f, "{what}\n{}", last.borrow()));
        eventually(why, || {
            last.replace(self.metrics());
            is_so(&last.borrow())
        });
        last.into_inner()
    }

    /// Waits until exactly these closes, by reason, stand beside no open connection; the ledger
    /// must add up.
    #[track_caller]
    pub fn eventually_closed(&self, expected: &[(&str, u64)]) {
        let metrics = self.eventually(&format!("closes are {expected:?}"), |metrics| {
            let expected: BTreeMap<_, _> =
                expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
            metrics.closes() == expected && metrics.sum("talkback_connections") == 0.0
        });
        metrics.assert_ledger();
    }

    /// Sends the process a signal by its number.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGSTOP; returns when none of the process's threads runs any more. SIGCONT ends it.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        eventually("every thread is stopped", || {
            let mut threads = self.threads("stat");
            threads.all(|(_, stat)| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
        });
    }

    /// Each thread of the process with a file that the kernel keeps of it. Any thread may end
    /// meanwhile, and is left out then.
    pub fn threads(&self, file: &str) -> impl Iterator<Item = (u32, String)> + use<> {
        let file = file.to_owned();
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads.filter_map(move |thread| {
            let thread = thread.ok()?;
            let number = thread.file_name().to_str()?.parse().ok()?;
            Some((number, std::fs::read_to_string(thread.path().join(&file)).ok()?))
        })
    }

    /// Waits for the end of the process, which someone must have asked for.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    /// SIGTERM, and the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait().code()
    }
}

/// Has these words run the server, behind them its own.
pub fn run_by<'c>(command: &'c mut Command, words: &[&str]) -> &'c mut Command {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let dir = command.get_current_dir().unwrap().to_owned();
    *command = Command::new(words[0]);
    command.args(&words[1..]).arg(program).args(arguments).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails where the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            for event in log.iter().rev().take(20).rev() {
                eprintln!("server: {event}");
            }
        }
    }
}

/// Reads what a child says on standard error until that closes, in a thread of its own.
pub fn read_log(child: &mut Child) -> (Log, JoinHandle<()>) {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let log = Log::default();
    let sink = log.clone();
    let reader = std::thread::spawn(move || {
        for line in lines {
            let line = line.unwrap();
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            sink.lock().unwrap().push(value);
        }
    });
    (log, reader)
}

/// Waits until `is_so`, looking again and again; `what` is shown where it never is.
#[track_caller]
pub fn eventually(what: impl std::fmt::Display, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
