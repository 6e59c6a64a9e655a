//! Clients that are gone without a word, and clients that are alive but take nothing: told apart,
//! by clocks of the kernel that the configuration sets.

use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef, Socket};

use crate::harness::{Client, Server};

/// BPF's `ret #0`: the client's kernel drops whatever comes in for it, and so falls silent.
fn fall_silent(client: &Client) {
    let drop_everything = SockFilter::new(0x06, 0, 0, 0);
    let attached = SockRef::from(&client.stream).attach_filter(&[drop_everything]);
    attached.expect("SO_ATTACH_FILTER is open to everybody, but on some hardened hosts");
}

fn server(limits: &str) -> Server {
    Server::start(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\n{limits}\n"))
}

/// Never early, and late by what the kernel's timers are at this length.
#[track_caller]
fn check_time(began: Instant, least: Duration) {
    let took = began.elapsed();
    let most = least + Duration::from_secs(1) + least / 4;
    assert!((least..=most).contains(&took), "{took:?}, not {least:?} to {most:?}");
}

const KEEPALIVE: &str =
    "keepalive_idle = \"1s\"\nkeepalive_interval = \"1s\"\nkeepalive_probes = 1\n";

#[test]
fn a_silent_client_that_is_gone_is_dead_after_its_probes() {
    let server = server(&format!("{KEEPALIVE}user_timeout = \"0s\""));
    let mut gone = server.connect();
    let mut alive = server.connect();
    alive.echo("hello");
    gone.echo("hello");
    let began = Instant::now();
    fall_silent(&gone);
    server.eventually("one is gone", |metrics| {
        metrics.closes() == [("peer_dead".to_owned(), 1)].into()
    });
    check_time(began, Duration::from_secs(2));
    // Its kernel has answered every probe meanwhile.
    alive.echo("still here");
    drop((gone, alive));
    server.eventually_closed(&[("peer_dead", 1), ("peer_closed", 1)]);
}

#[test]
fn without_keepalive_nobody_is_asked() {
    let server = server("keepalive_idle = \"0s\"\nidle_timeout = \"2500ms\"");
    let mut gone = server.connect();
    gone.echo("hello");
    fall_silent(&gone);
    server.eventually_closed(&[("idle_timeout", 1)]);
}

/// Shorter is refused: `send_timeout` must be able to act first.
const USER_TIMEOUT: Duration = Duration::from_millis(10_100);

fn with_user_timeout() -> Server {
    server(&format!("{KEEPALIVE}send_timeout = \"100ms\"\nuser_timeout = \"10100ms\""))
}

#[test]
fn a_client_that_leaves_its_reply_unacknowledged_is_dead_after_the_user_timeout() {
    let server = with_user_timeout();
    let mut gone = server.connect();
    gone.echo("hello");
    fall_silent(&gone);
    gone.send("and gone");
    let began = Instant::now();
    server.eventually("it is gone", |metrics| !metrics.closes().is_empty());
    check_time(began, USER_TIMEOUT);
    let metrics = server.metrics();
    assert_eq!(metrics.closes(), [("peer_dead".to_owned(), 1)].into());
    metrics.assert_ledger();
}

/// The kernel took the whole reply, so that `send_timeout` itself has nothing to wait for.
#[test]
fn a_live_client_whose_window_stays_closed_is_no_dead_one() {
    let server = with_user_timeout();
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let mut client = Client { stream: socket.into() };
    client.send("x".repeat(60_000));
    let metrics = server.eventually("it is answered", |metrics| {
        metrics.sum("talkback_sent_bytes_total") == 60_000.0
    });
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    let began = Instant::now();
    server.eventually("it is ended", |metrics| !metrics.closes().is_empty());
    let took = began.elapsed();
    assert!(took >= USER_TIMEOUT - Duration::from_millis(500), "{took:?}");
    let metrics = server.metrics();
    assert_eq!(metrics.closes(), [("send_timeout".to_owned(), 1)].into());
    metrics.assert_ledger();
}

#[test]
fn clocks_that_contradict_each_other_are_refused() {
    use crate::refused::{as_it_is, check_refused_by};

    let refuse = |limits: &str, part: &str| {
        let config = format!("[limits]\n{limits}\n");
        check_refused_by(&config, as_it_is, 2, &["talkback.toml:2:", part]);
    };
    refuse("user_timeout = \"89s\"", "it would act before keepalive_idle 60s + 3 ×");
    refuse("user_timeout = \"95s\"\nsend_timeout = \"2m\"", "it would act before send_timeout 2m");
    refuse("keepalive_idle = \"1500ms\"", "allowed: a string of whole seconds");
}

#[test]
fn any_send_timeout_can_be_started_with() {
    for send_timeout in ["0s", "1ms", "597h", "8760h"] {
        let server = server(&format!("send_timeout = \"{send_timeout}\""));
        server.connect().echo("hello 你好");
    }
}
