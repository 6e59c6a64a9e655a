//! tiny_http, which makes every answer, and the one standing connection through which it is asked.
//!
//! tiny_http 0.12 accepts without a limit of connections, heads or time, and its accept thread ends
//! for good when descriptors run out. So it accepts exactly once: the door's own connection,
//! through a private Unix socket that is closed as soon as the first answer came back. From then on
//! there is nothing to connect to, nothing that could fail in accept, and a scrape costs no
//! descriptor but its own.

use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tiny_http::{Header, Response, Server};

use super::Watch;
use super::head::Request;
use super::pages::{self, ALLOWED};
use super::places::Asker;
use super::scrape::Code;

/// No answer is longer; a page of `/metrics` is some tens of KiB.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The longest head that tiny_http makes of our few fields.
const MAX_ANSWER_HEAD_BYTES: usize = 4 << 10;

/// Who asked, and the whole answer as they get it.
type Answered = (Vec<Asker>, Arc<[u8]>);

/// The running tiny_http and the connection to it. One exchange is under way at a time.
pub(super) struct Press {
    stream: UnixStream,
    /// A second handle of the private listener, to shut it down with; `None` once that is done.
    listener: Option<UnixListener>,
    token: String,
    printer: Printer,
    exchange: Option<Exchange>,
}

struct Exchange {
    /// Who waits for the answer; nobody does for the press' own first question.
    askers: Vec<Asker>,
    question: Vec<u8>,
    asked: usize,
    answer: Vec<u8>,
    /// The length of the whole answer, once its head has told.
    expected: Option<usize>,
    without_body: bool,
    deadline: Instant,
}

impl Press {
    /// Starts tiny_http and connects to it. The first exchange, which proves that it answers, is
    /// then under way.
    pub(super) fn open(watch: &Arc<Watch>, deadline: Instant) -> io::Result<Press> {
        let secrets = Secrets::draw()?;
        let address = SocketAddr::from_abstract_name(secrets.name.as_bytes())?;
        let theirs = UnixListener::bind_addr(&address)?;
        let listener = theirs.try_clone()?;
        let stream = UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        // tiny_http needs two more, and would panic or fail for good in its own thread without
        // them.
        let spare = [listener.try_clone()?, listener.try_clone()?, listener.try_clone()?];
        drop(spare);

        let printer = Printer::start(theirs, secrets.token.clone(), Arc::clone(watch))?;
        let mut press = Press {
            stream,
            listener: Some(listener),
            token: secrets.token,
            printer,
            exchange: None,
        };
        let probe = Request {
            method: "HEAD".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            host: None,
        };
        press.ask(Vec::new(), &probe, deadline);
        Ok(press)
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether it has answered once. It needs no further descriptor from then on.
    pub(super) fn is_proved(&self) -> bool {
        self.listener.is_none()
    }

    pub(super) fn is_free(&self) -> bool {
        self.exchange.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exchange.as_ref().map(|exchange| exchange.deadline)
    }

    /// Begins an exchange. The head is written anew: nothing of the client's bytes but what was
    /// checked gets here.
    pub(super) fn ask(&mut self, askers: Vec<Asker>, request: &Request, deadline: Instant) {
        let Request { method, path, query, host } = request;
        let (number, token) = (askers.len(), &self.token);
        // tiny_http does not mind a request without one.
        let host = host.as_ref().map_or_else(String::new, |host| format!("Host: {host}\r\n"));
        self.exchange = Some(Exchange {
            askers,
            question: format!(
                "{method} {path}?{query} HTTP/1.1\r\n{host}\
                 X-Token: {token}\r\nX-Askers: {number}\r\n\r\n"
            )
            .into_bytes(),
            asked: 0,
            answer: Vec::new(),
            expected: None,
            without_body: method == "HEAD",
            deadline,
        });
    }

    /// Goes on with the exchange as far as the socket allows, and returns the answer when it is
    /// whole. An error means that this tiny_http is of no use any more.
    pub(super) fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Option<Answered>> {
        if let Some(exchange) = &mut self.exchange {
            exchange.send(&mut self.stream)?;
        }
        loop {
            let length = match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(exchange) = &mut self.exchange else {
                return Err(io::Error::other("an answer that nobody asked for"));
            };
            if exchange.receive(&scratch[..length])? {
                self.withdraw_listener();
                return Ok(self.exchange.take().map(|done| (done.askers, closing(&done.answer))));
            }
        }
    }

    /// Ends tiny_http's accept thread. The connection that it has accepted goes on without it.
    fn withdraw_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            // An error would mean that it does not listen, which is what is wanted.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }

    /// Ends this tiny_http. What still holds a thread is returned, to be joined when it has let go.
    pub(super) fn retire(mut self) -> Printer {
        self.withdraw_listener();
        self.printer.close();
        self.printer
    }
}

impl Exchange {
    fn send(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        while self.asked < self.question.len() {
            match stream.write(&self.question[self.asked..]) {
                Ok(length) => self.asked += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the next bytes of the answer; true when it is whole.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.answer.extend_from_slice(bytes);
        if self.expected.is_none() {
            self.expected = expected_length(&self.answer, self.without_body)?;
            if self.expected.is_none() && self.answer.len() > MAX_ANSWER_HEAD_BYTES {
                return Err(io::Error::other("an answer without an end of its head"));
            }
        }
        match self.expected {
            Some(expected) if expected > MAX_ANSWER_BYTES || self.answer.len() > expected => {
                Err(io::Error::other(format!("an answer of {expected} bytes or more")))
            }
            expected => Ok(expected == Some(self.answer.len())),
        }
    }
}

/// How long the answer is, as its head says; `None` while the head is not whole.
fn expected_length(answer: &[u8], without_body: bool) -> io::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let length = str::from_utf8(&answer[..end])
        .ok()
        .and_then(|head| head.lines().find_map(|line| line.strip_prefix("Content-Length: ")))
        .and_then(|value| value.parse::<usize>().ok())
        .ok_or_else(|| io::Error::other("an answer that does not say its length"))?;
    Ok(Some(end + 4 + if without_body { 0 } else { length }))
}

/// The answer as the client gets it. `Connection` concerns one hop: towards the client the door
/// closes, while the standing connection stays, and `Response` would drop the field anyway.
fn closing(answer: &[u8]) -> Arc<[u8]> {
    let line = memchr::memchr(b'\n', answer).map_or(0, |at| at + 1);
    [&answer[..line], b"Connection: close\r\n", &answer[line..]].concat().into()
}

/// The thread that takes requests out of tiny_http and answers them.
pub(super) struct Printer {
    // `Server::drop` unwraps the *path* of its Unix socket, and an abstract one has none. What is
    // not dropped is a flag and an empty queue, once for each start of tiny_http.
    server: Arc<ManuallyDrop<Server>>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Printer {
    /// Starts tiny_http inside the new thread: a thread without a name has that of the one that
    /// made it, so that all of tiny_http's threads show under ours.
    fn start(listener: UnixListener, token: String, watch: Arc<Watch>) -> io::Result<Printer> {
        let closing = Arc::new(AtomicBool::new(false));
        let (started, server) = mpsc::sync_channel(1);
        let seen = Arc::clone(&closing);
        let thread = thread::Builder::new().name("metrics-pages".to_owned()).spawn(move || {
            let server = match Server::from_listener(listener, None) {
                Ok(server) => Arc::new(ManuallyDrop::new(server)),
                Err(error) => {
                    // Nobody listens only if the starter itself is gone.
                    let _ = started.send(Err(io::Error::other(error)));
                    return;
                }
            };
            let _ = started.send(Ok(Arc::clone(&server)));
            print_pages(&server, &seen, &token, &watch);
        })?;
        let server = server.recv().map_err(|_| io::Error::other("tiny_http did not start"))??;
        Ok(Printer { server, closing, thread })
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.server.unblock();
    }

    /// False while it is still at work on a page.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end, which comes at once unless a page hangs; then its thread is left behind.
    pub(super) fn join(self, patience: Duration) {
        let end = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < end {
            thread::park_timeout(Duration::from_millis(1));
        }
        if !self.thread.is_finished() {
            tracing::warn!("a page of the metrics endpoint hangs; its thread is left behind");
        } else if self.thread.join().is_err() {
            tracing::warn!("the thread that makes the pages of the metrics endpoint had panicked");
        }
    }
}

fn print_pages(server: &Server, closing: &AtomicBool, token: &str, watch: &Watch) {
    loop {
        // The one error is the end of the accept thread, which is wanted, or the call to look at
        // `closing`: each is taken out of the queue, so that this cannot spin.
        let request = server.recv();
        if closing.load(Ordering::Acquire) {
            return;
        }
        if let Ok(request) = request {
            print(request, token, watch);
        }
    }
}

fn print(request: tiny_http::Request, token: &str, watch: &Watch) {
    let field = |name: &'static str| {
        let header = request.headers().iter().find(|header| header.field.equiv(name));
        header.map(|header| header.value.as_str())
    };
    // While the private socket listened, any local process could have connected to it.
    if field("X-Token") != Some(token) {
        // The stranger may be gone.
        let _ = request.respond(Response::empty(403));
        return;
    }
    let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
    let asked = Request {
        method: request.method().as_str().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        host: field("Host").map(str::to_owned),
    };
    let answer = pages::answer(&asked, watch);
    let askers = field("X-Askers").and_then(|number| number.parse().ok()).unwrap_or(0);
    for _ in 0..askers {
        (watch.answered)(answer.scrape);
    }
    let code = answer.scrape.code;
    let mut response = Response::from_data(answer.body)
        .with_status_code(code.status())
        .with_header(header("Content-Type", answer.content_type))
        .with_header(header("X-Content-Type-Options", "nosniff"))
        .with_header(header("Cache-Control", "no-store"))
        .with_header(header("Server", "talkback"))
        .with_chunked_threshold(usize::MAX);
    for (name, value) in answer.headers {
        response.add_header(header(name, &value));
    }
    if code == Code::MethodNotAllowed {
        response.add_header(header("Allow", ALLOWED));
    }
    // The door sees an answer that does not come, and starts another tiny_http.
    let _ = request.respond(response);
}

fn header(name: &'static str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our own header fields are ASCII")
}

/// The name of the private socket and what proves that a request comes from the door.
struct Secrets {
    name: String,
    token: String,
}

impl Secrets {
    fn draw() -> io::Result<Secrets> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(Secrets { name: format!("talkback-{}", hex(&bytes[..16])), token: hex(&bytes[16..]) })
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn open() -> Press {
        let watch = Watch::of(|| b"up 1\n".to_vec());
        let press = Press::open(&Arc::new(watch), far()).unwrap();
        // The door waits by epoll; a test may simply block.
        press.stream.set_nonblocking(false).unwrap();
        press
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn answer(press: &mut Press) -> (Vec<Asker>, String) {
        let (askers, answer) = press.advance(&mut [0; 4096]).unwrap().unwrap();
        (askers, String::from_utf8(answer.to_vec()).unwrap())
    }

    #[test]
    fn after_the_first_answer_nobody_else_can_connect_and_the_standing_connection_goes_on() {
        let mut press = open();
        let address = press.stream.peer_addr().unwrap();
        assert!(!press.is_proved());
        assert!(answer(&mut press).1.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"));
        assert!(press.is_proved() && press.is_free());
        let refused = UnixStream::connect_addr(&address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        for place in 0..3 {
            let request = Request {
                method: "GET".to_owned(),
                path: "/metrics".to_owned(),
                query: String::new(),
                host: None,
            };
            let expected = [Asker { place, id: 7 }, Asker { place: 9, id: 8 }];
            press.ask(expected.to_vec(), &request, far());
            let (askers, text) = answer(&mut press);
            assert_eq!(askers, expected);
            assert!(text.ends_with("\r\n\r\nup 1\n"), "{text}");
        }
        press.retire().join(Duration::from_secs(10));
    }

    #[test]
    fn a_stranger_without_the_token_sees_no_page() {
        let press = open();
        let mut stranger = UnixStream::connect_addr(&press.stream.peer_addr().unwrap()).unwrap();
        stranger.write_all(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stranger.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
        press.retire().join(Duration::from_secs(10));
    }

    #[test]
    fn the_length_of_an_answer_is_what_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n";
        assert_eq!(expected_length(whole, false).unwrap(), Some(whole.len()));
        assert_eq!(expected_length(whole, true).unwrap(), Some(whole.len() - 5));
        assert_eq!(expected_length(&whole[..30], false).unwrap(), None);
        assert!(expected_length(b"HTTP/1.1 200 OK\r\n\r\n", false).is_err());
    }
}
