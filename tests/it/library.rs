//! The library with responders of the tests' own. Servers run in the process of the tests, and a
//! responder that blocks waits for a test's word, never for time.

mod acceptor;
mod answers;
mod api;
mod inspected;
mod late_look;
mod later;
mod odd_tcp;
mod offloaded;
mod panics;
mod seam;
mod stalled_page;
mod stalls;
mod start;
mod turns;
mod waits;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use talkback::wire::Framing;
use talkback::{Answer, Config, Context, Reply, Responder, Responders, Server, from_fn};

use crate::harness::{Client, Metrics, eventually};

fn echo(text: &str, reply: &mut Reply<'_>) -> Answer {
    reply.push(text);
    Answer::Reply
}

/// One listener on 127.0.0.1 that speaks lines and is answered by `ours`; one worker, no sidecar.
fn config() -> Config {
    let mut config = Config::default();
    config.workers = Some(1);
    let listener = &mut config.listeners[0];
    listener.address = talkback::config::Address::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
    listener.framing = Framing::Line;
    listener.responder = "ours".to_owned();
    listener.exit_word = Some("exit".to_owned());
    config.metrics.address = None;
    // For clients that a test keeps to its end.
    config.limits.linger_timeout = Duration::from_millis(100);
    config
}

/// The same with so many workers.
fn with_workers(workers: usize) -> Config {
    let mut config = config();
    config.workers = Some(workers);
    config
}

/// A server whose clients are each answered by a responder that `make` makes.
#[track_caller]
fn start<R>(config: &Config, make: impl Fn() -> R + Send + Sync + 'static) -> Server
where
    R: Responder + 'static,
{
    start_with(config, move |_| make())
}

/// A server whose clients are each answered by what `factory` makes for them.
#[track_caller]
fn start_with<R>(
    config: &Config,
    factory: impl Fn(&talkback::Client<'_>) -> R + Send + Sync + 'static,
) -> Server
where
    R: Responder + 'static,
{
    crate::quiet::share();
    let responders = Responders::default().with("ours", factory);
    Server::start_with(config, &responders).unwrap()
}

/// A server answered by a function that keeps nothing from one message to the next.
#[track_caller]
fn start_function<F>(config: &Config, respond: F) -> Server
where
    F: Fn(&str, &mut Reply<'_>, &mut Context<'_>) -> Answer + Copy + Send + Sync + 'static,
{
    start(config, move || from_fn(respond))
}

#[track_caller]
fn connect(server: &Server) -> Client {
    Client::connect(server.addresses()[0].ip().unwrap())
}

#[track_caller]
fn metrics(server: &Server) -> Metrics {
    Metrics::parse(std::str::from_utf8(&server.metrics()).unwrap())
}

/// Waits until exactly these closes, by reason, stand beside no open connection; the ledger must
/// add up.
#[track_caller]
fn eventually_closed(server: &Server, expected: &[(&str, u64)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    eventually(format!("closes are {expected:?}"), || {
        let metrics = metrics(server);
        metrics.closes() == expected && metrics.sum("talkback_connections") == 0.0
    });
    metrics(server).assert_ledger();
}

/// A drain that had to cut ends after its timeout, and not much after: before it the listeners
/// close, which waits for handshakes that are under way, and behind it stalled workers get a grace.
#[track_caller]
fn check_drain(took: Duration, timeout: Duration) {
    let closing = Duration::from_millis(1500);
    let latest = closing + timeout + Duration::from_secs(1);
    assert!(took >= timeout && took < latest, "{took:?}");
}
