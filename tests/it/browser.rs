//! A headless Chromium, asked through chromedriver's HTTP. All tests share one, each in its turn;
//! it ends with the process of the tests, however that ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, eventually};

/// Runs chromedriver in a process group of its own, and ends that group when its standard input
/// closes, which the kernel does for a process that is gone. What it says itself goes nowhere, so
/// that the end of what chromedriver says is seen.
const KEEPER: &str = "HOME=$1 setsid chromedriver --port=0 & exec >/dev/null; \
    read -r _; kill -s KILL -- -$!; wait; rm -rf -- \"$1\"";

const ARGUMENTS: &[&str] = &[
    "--headless=new",
    // Its sandbox and the usual shared memory are lacking in a container, and for root.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--lang=en-US",
];

/// For a browser that is read from a slow disk for the first time, beside all other tests.
const START: Duration = Duration::from_secs(60);

static BROWSER: Mutex<Option<Browser>> = Mutex::new(None);

struct Browser {
    driver: SocketAddr,
    session: String,
    /// Both are held as long as the browser is to live.
    _keeper: (Child, ChildStdin),
    _said: BufReader<ChildStdout>,
}

impl Browser {
    #[track_caller]
    fn start() -> Self {
        // It picks a port of IPv4 and ends if that of IPv6 is taken; then it has to pick another.
        let started = (0..10).find_map(|_| Self::start_driver());
        let (mut browser, home) = started.expect("chromedriver starts: tests/run installs it");
        let mut arguments: Vec<_> = ARGUMENTS.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", home.join("profile").display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = browser.ask_within(START, "POST", "/session", &wanted);
        let session = session.expect("Chromium starts");
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// A driver that listens, and where its browser may write; nothing if it ends instead.
    #[track_caller]
    fn start_driver() -> Option<(Self, PathBuf)> {
        // Removed by the keeper: a static value is never dropped.
        let home = tempfile::tempdir().unwrap().keep();
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&home).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().unwrap();
        let life = keeper.stdin.take().unwrap();
        let mut said = BufReader::new(keeper.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let port = port(&mut said);
            // Nobody hears it who was told too late.
            let _ = tell.send((port, said));
        });
        let (port, said) = told.recv_timeout(START).expect("chromedriver says something");
        let Some(port) = port else {
            drop(life);
            keeper.wait().unwrap();
            return None;
        };
        let browser = Self {
            driver: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _keeper: (keeper, life),
            _said: said,
        };
        Some((browser, home))
    }

    /// One command of WebDriver; an error comes with what the driver says.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        self.ask_within(PATIENCE, method, path, body)
    }

    fn ask_within(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, String> {
        let body = body.to_string();
        let said = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(self.driver).map_err(said)?;
        stream.set_read_timeout(Some(patience)).map_err(said)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).map_err(said)?;
        let mut answer: Value = serde_json::from_slice(&read_answer(stream).map_err(said)?)
            .map_err(|error| error.to_string())?;
        match answer["value"].get("error") {
            Some(_) => Err(answer["value"].to_string()),
            None => Ok(answer["value"].take()),
        }
    }
}

/// The port in the line that chromedriver prints when it is ready.
fn port(said: &mut impl BufRead) -> Option<u16> {
    said.lines().find_map(|line| {
        let line = line.ok()?;
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    })
}

/// The body of an answer: the driver keeps the connection open behind it.
fn read_answer(stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The browser, lent to one test, with an empty page in it before and after.
pub struct Tab {
    browser: MutexGuard<'static, Option<Browser>>,
}

impl Tab {
    /// Opens a page of a sidecar.
    #[track_caller]
    pub fn open(sidecar: SocketAddr) -> Self {
        // A test that is alone on the machine shares it with no browser that starts.
        crate::quiet::share();
        let mut browser = BROWSER.lock();
        browser.get_or_insert_with(Browser::start);
        let tab = Self { browser };
        tab.emulate("light", 1240, 900);
        tab.log();
        tab.go(&format!("http://{sidecar}/"));
        tab
    }

    fn try_command(&self, method: &str, command: &str, body: &Value) -> Result<Value, String> {
        let browser = self.browser.as_ref().expect("started when the tab was opened");
        browser.ask(method, &format!("/session/{}/{command}", browser.session), body)
    }

    #[track_caller]
    fn command(&self, command: &str, body: &Value) -> Value {
        self.try_command("POST", command, body).unwrap()
    }

    #[track_caller]
    fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.command("url", &json!({"url": url}));
    }

    /// The colour scheme and the size of the screen, in CSS pixels.
    #[track_caller]
    pub fn emulate(&self, scheme: &str, width: u32, height: u32) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.cdp("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.cdp("Emulation.setDeviceMetricsOverride", &screen);
    }

    /// What the body of a function returns when it runs in the page.
    #[track_caller]
    pub fn run(&self, body: &str) -> Value {
        self.command("execute/sync", &json!({"script": body, "args": []}))
    }

    /// The text of the element of that id, as it is shown.
    #[track_caller]
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until a text of the page is so; `meanwhile` is done before each look.
    #[track_caller]
    pub fn eventually(&self, id: &str, mut meanwhile: impl FnMut(), is_so: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let shown = std::cell::RefCell::new(String::new());
        let why = std::fmt::from_fn(|f| write!(f, "#{id} says {:?}", shown.borrow()));
        eventually(why, || {
            meanwhile();
            last.clone_from(&self.text(id));
            shown.replace(last.clone());
            is_so(&last)
        });
    }

    /// What the console was told since the last call.
    #[track_caller]
    pub fn log(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// A picture of the page from its top, as PNG.
    #[track_caller]
    pub fn picture(&self, width: u32, height: u32) -> Vec<u8> {
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let parameters = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.cdp("Page.captureScreenshot", &parameters);
        from_base64(picture["data"].as_str().unwrap())
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // Else the page would go on asking a server that is gone. A browser that does not answer
        // has failed the test already; the next one starts another.
        if self.try_command("POST", "url", &json!({"url": "about:blank"})).is_err() {
            *self.browser = None;
        }
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => u32::from(letter - b'A'),
        b'a'..=b'z' => u32::from(letter - b'a') + 26,
        b'0'..=b'9' => u32::from(letter - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{letter} is no letter of base64"),
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0, |bits, letter| bits << 6 | value(*letter));
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
