//! The sidecar over loopback: pages, refusals, crowds, and what becomes of it when its parts die.

mod connections;

use super::*;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// A sidecar with what it was told to count.
struct Bench {
    sidecar: Option<Sidecar>,
    address: SocketAddr,
    scrapes: Arc<Mutex<HashMap<Scrape, usize>>>,
    rejections: Arc<Mutex<HashMap<Rejection, usize>>>,
    ready: Arc<AtomicBool>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Bounds::default(), || b"up 1\n".to_vec())
    }

    fn with(bounds: Bounds, metrics: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Bench {
        Bench::watching(bounds, Watch::of(metrics))
    }

    fn watching(bounds: Bounds, watch: Watch) -> Bench {
        let scrapes = Arc::new(Mutex::new(HashMap::new()));
        let rejections = Arc::new(Mutex::new(HashMap::new()));
        let ready = Arc::new(AtomicBool::new(true));
        let (answered, rejected) = (Arc::clone(&scrapes), Arc::clone(&rejections));
        let seen = Arc::clone(&ready);
        let watch = Watch {
            ready: Box::new(move || match seen.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err("draining".to_owned()),
            }),
            answered: Box::new(move |scrape| *answered.lock().entry(scrape).or_default() += 1),
            rejected: Box::new(move |reason| *rejected.lock().entry(reason).or_default() += 1),
            ..watch
        };
        let sidecar =
            Sidecar::start_within(SocketAddr::from(([127, 0, 0, 1], 0)), watch, bounds).unwrap();
        let address = sidecar.address();
        Bench { sidecar: Some(sidecar), address, scrapes, rejections, ready }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends the bytes and returns all that comes back until the end of the stream.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read_all(stream)
    }

    fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    fn rejected(&self, reason: Rejection) -> usize {
        self.rejections.lock().get(&reason).copied().unwrap_or_default()
    }

    /// Makes tiny_http lose its connection.
    fn kill(&self) {
        let sidecar = self.sidecar.as_ref().unwrap();
        sidecar.signals.kill.store(true, Ordering::Release);
        sidecar.waker.wake().unwrap();
    }

    /// Waits, without end but the test's own, for what must come.
    #[track_caller]
    fn eventually(&self, what: impl Fn(&Bench) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what(self) {
            assert!(Instant::now() < end, "did not come: {:?}", self.rejections.lock());
            thread::yield_now();
        }
    }
}

fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// For the one deadline that a test is about.
const SHORT: Duration = Duration::from_millis(50);

#[track_caller]
fn check(answer: &str, status: &str, fields: &[&str], body: &str) {
    let (head, got) = answer.split_once("\r\n\r\n").unwrap();
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines[0], format!("HTTP/1.1 {status}"));
    for field in fields.iter().chain(&["Connection: close", "Cache-Control: no-store"]) {
        assert!(lines.contains(field), "{field} is not in {lines:?}");
    }
    assert_eq!(got, body);
}

#[test]
fn every_page_is_served_to_get_and_head() {
    let bench = Bench::new();
    let text = "Content-Type: text/plain; charset=utf-8";
    for (path, kind, body) in [
        ("/metrics", "Content-Type: text/plain; version=0.0.4; charset=utf-8", "up 1\n"),
        ("/metrics?name=up", "Content-Type: text/plain; version=0.0.4; charset=utf-8", "up 1\n"),
        ("/healthz", text, "ok\n"),
        ("/readyz", text, "ready\n"),
    ] {
        let length = format!("Content-Length: {}", body.len());
        check(&bench.get(path), "200 OK", &[kind, &length], body);
        let head = bench.exchange(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        check(&head, "200 OK", &[kind, &length], "");
    }
    assert!(bench.get("/").contains("<title>talkback</title>"));
    check(&bench.get("/x"), "404 Not Found", &[text], "not found\n");
    check(&bench.exchange(b"GET /healthz HTTP/1.0\r\n\r\n"), "200 OK", &[text], "ok\n");
    let scrapes = bench.scrapes.lock();
    assert_eq!(scrapes[&Scrape::new(Page::Metrics, Code::Ok)], 4);
    assert_eq!(scrapes[&Scrape::new(Page::Index, Code::Ok)], 1, "the first probe is not counted");
}

#[test]
fn another_method_is_told_what_is_allowed_and_its_body_goes_nowhere() {
    let bench = Bench::new();
    let post = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let answer = bench.exchange(post);
    check(&answer, "405 Method Not Allowed", &["Allow: GET, HEAD"], "method not allowed\n");
}

#[test]
fn readyz_follows_the_drain_and_the_rest_goes_on() {
    let bench = Bench::new();
    bench.ready.store(false, Ordering::Relaxed);
    check(&bench.get("/readyz"), "503 Service Unavailable", &[], "draining\n");
    check(&bench.get("/healthz"), "200 OK", &[], "ok\n");
    check(&bench.get("/metrics"), "200 OK", &[], "up 1\n");
}

#[test]
fn a_long_page_comes_whole_and_unchunked() {
    let page = "x".repeat(1 << 20);
    let served = page.clone();
    let bench = Bench::with(Bounds::default(), move || served.clone().into_bytes());
    check(&bench.get("/metrics"), "200 OK", &["Content-Length: 1048576"], &page);
}

#[test]
fn one_connection_has_one_request() {
    let bench = Bench::new();
    let twice = b"GET /healthz HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n";
    check(&bench.exchange(twice), "200 OK", &[], "ok\n");
    assert_eq!(bench.scrapes.lock().len(), 1);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let bench = Bench::new();
    let mut stream = bench.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    check(&read_all(stream), "200 OK", &[], "ok\n");
}

#[test]
fn what_is_no_request_is_refused_and_counted() {
    let bench = Bench::new();
    for (request, status, reason) in [
        (&b"GET /\r\n"[..], "400 Bad Request", Rejection::Malformed),
        (b"\x16\x03\x01\x02\x00", "400 Bad Request", Rejection::Malformed),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "413 Content Too Large", Rejection::Body),
    ] {
        let before = bench.rejected(reason);
        let answer = bench.exchange(request);
        check(&answer, status, &[], &format!("{}\n", reason.label()));
        assert_eq!(bench.rejected(reason), before + 1);
    }
    let mut stream = bench.connect();
    stream.write_all(b"GET / HT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    check(&read_all(stream), "400 Bad Request", &[], "incomplete\n");
    assert!(bench.scrapes.lock().is_empty());
}

#[test]
fn a_head_without_end_is_refused_and_the_client_hears_it() {
    let bench = Bench::new();
    let mut request = b"GET / HTTP/1.1\r\nA: ".to_vec();
    request.resize(1 << 20, b'x');
    let answer = bench.exchange(&request);
    check(&answer, "431 Request Header Fields Too Large", &[], "head_too_large\n");
    assert_eq!(bench.rejected(Rejection::HeadTooLarge), 1);
}

#[test]
fn a_trickle_does_not_extend_the_deadline_of_the_head() {
    let bounds = Bounds { head: SHORT, head_bytes: 1 << 24, ..Bounds::default() };
    let bench = Bench::with(bounds, Vec::new);
    let mut stream = bench.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nA: ").unwrap();
    let mut drip = stream.try_clone().unwrap();
    // It ends when the door has closed the connection under it.
    let dripping = thread::spawn(move || while drip.write_all(b"x").is_ok() {});
    let started = Instant::now();
    check(&read_all(stream), "408 Request Timeout", &[], "head_timeout\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    dripping.join().unwrap();
    assert_eq!(bench.rejected(Rejection::HeadTimeout), 1);
}

#[test]
fn a_connection_that_says_nothing_is_ended_too() {
    let bench = Bench::with(Bounds { head: SHORT, ..Bounds::default() }, Vec::new);
    check(&read_all(bench.connect()), "408 Request Timeout", &[], "head_timeout\n");
}

#[test]
fn a_good_scrape_gets_through_a_crowd_of_half_sent_ones() {
    let bench = Bench::new();
    let mut crowd = Vec::new();
    for number in 0..200 {
        let mut stream = bench.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
        crowd.push(stream);
        if number % 20 == 0 {
            let started = Instant::now();
            check(&bench.get("/metrics"), "200 OK", &[], "up 1\n");
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        }
    }
    bench.eventually(|bench| bench.rejected(Rejection::OverCapacity) >= 200 - 32);
    // The oldest had to go, and were told; the newest are still welcome.
    check(&read_all(crowd.remove(0)), "503 Service Unavailable", &[], "over_capacity\n");
    let mut newest = crowd.pop().unwrap();
    newest.write_all(b" x\r\n\r\n").unwrap();
    check(&read_all(newest), "200 OK", &[], "up 1\n");
}

#[test]
fn a_client_that_takes_no_answer_is_cut_and_its_place_is_free() {
    let bench = Bench::with(
        Bounds { connections: 1, send: SHORT, stall: Duration::from_secs(60), ..Bounds::default() },
        || vec![b'x'; (4 << 20) - 1024],
    );
    // Small enough a window that the kernel cannot take the page off our hands.
    let slow = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    slow.set_recv_buffer_size(4096).unwrap();
    slow.connect(&bench.address.into()).unwrap();
    let mut slow = TcpStream::from(slow);
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    bench.eventually(|bench| bench.rejected(Rejection::SlowReader) == 1);
    check(&bench.get("/healthz"), "200 OK", &[], "ok\n");
}

#[test]
fn the_kernel_gives_up_on_an_answer_that_is_not_taken_but_not_before_the_door() {
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let patience = socket2::SockRef::from(&accepted).tcp_user_timeout().unwrap();
    assert_eq!(patience, Some(KERNEL_PATIENCE));
    assert!(KERNEL_PATIENCE > Bounds::default().send);
    drop(client);
}

#[test]
fn readers_that_stall_give_way_to_a_newcomer() {
    let bounds = Bounds { connections: 4, ..Bounds::default() };
    let bench = Bench::with(bounds, || vec![b'x'; (4 << 20) - 1024]);
    let stalled: Vec<TcpStream> = (0..8)
        .map(|_| {
            let slow = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            slow.set_recv_buffer_size(4096).unwrap();
            slow.connect(&bench.address.into()).unwrap();
            let mut slow = TcpStream::from(slow);
            slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            slow
        })
        .collect();
    bench.eventually(|bench| bench.rejected(Rejection::SlowReader) >= 4);
    let started = Instant::now();
    check(&bench.get("/healthz"), "200 OK", &[], "ok\n");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(stalled);
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let bench = Bench::with(Bounds { connections: 1, ..Bounds::default() }, Vec::new);
    for _ in 0..20 {
        let mut stream = bench.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        drop(stream);
        drop(bench.connect());
        check(&bench.get("/healthz"), "200 OK", &[], "ok\n");
    }
}

#[test]
fn tiny_http_is_started_again_when_it_dies() {
    let bench = Bench::new();
    for _ in 0..3 {
        check(&bench.get("/metrics"), "200 OK", &[], "up 1\n");
        bench.kill();
        let started = Instant::now();
        check(&bench.get("/metrics"), "200 OK", &[], "up 1\n");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[test]
fn a_page_that_panics_is_a_500_and_the_next_is_served() {
    let panics = AtomicBool::new(true);
    let bench = Bench::with(Bounds::default(), move || {
        if panics.swap(false, Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("no page"));
        }
        b"up 1\n".to_vec()
    });
    let failed = "this page could not be made\n";
    check(&bench.get("/metrics"), "500 Internal Server Error", &[], failed);
    check(&bench.get("/metrics"), "200 OK", &[], "up 1\n");
}

#[test]
fn a_page_that_hangs_is_refused_and_service_is_back_when_it_ends() {
    let gate = Arc::new(Mutex::new(()));
    let shut = gate.lock();
    let opened = Arc::clone(&gate);
    let bench = Bench::with(Bounds { answer: SHORT, ..Bounds::default() }, move || {
        drop(opened.lock());
        b"up 1\n".to_vec()
    });
    check(&bench.get("/metrics"), "503 Service Unavailable", &[], "unavailable\n");
    check(&bench.get("/healthz"), "503 Service Unavailable", &[], "unavailable\n");
    drop(shut);
    bench.eventually(|bench| bench.get("/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_stop_is_prompt_with_half_sent_requests_open() {
    let bounds = Bounds { stop: Duration::from_secs(60), ..Bounds::default() };
    let mut bench = Bench::with(bounds, Vec::new);
    let half: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = bench.connect();
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    check(&bench.get("/healthz"), "200 OK", &[], "ok\n");
    let started = Instant::now();
    bench.sidecar.take().unwrap().stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(TcpStream::connect(bench.address).is_err());
    drop(half);
}

#[test]
fn a_stop_is_bounded_with_a_page_that_hangs() {
    let gate = Arc::new(Mutex::new(()));
    let shut = gate.lock();
    let opened = Arc::clone(&gate);
    let mut bench = Bench::with(Bounds { stop: SHORT, ..Bounds::default() }, move || {
        drop(opened.lock());
        Vec::new()
    });
    let mut stream = bench.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let started = Instant::now();
    bench.sidecar.take().unwrap().stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(shut);
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let bench = Bench::new();
    let error = Sidecar::start(bench.address, Watch::of(Vec::new)).err().unwrap();
    assert!(matches!(error, SidecarError::Bind { .. }));
    assert!(error.to_string().contains(&bench.address.to_string()), "{error}");
}

#[test]
fn labels_are_told_apart() {
    let reasons: Vec<&str> = Rejection::ALL.iter().map(|reason| reason.label()).collect();
    let scrapes: Vec<(&str, &str)> =
        Scrape::ALL.iter().map(|scrape| (scrape.page.label(), scrape.code.label())).collect();
    let distinct = reasons.iter().collect::<std::collections::HashSet<_>>().len();
    assert_eq!(distinct, Rejection::ALL.len());
    let distinct = scrapes.iter().collect::<std::collections::HashSet<_>>().len();
    assert_eq!(distinct, Scrape::ALL.len());
}
