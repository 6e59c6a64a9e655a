//! The timeouts: never early, at most a second late, and each only in its own state.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::harness::{Client, Server, eventually};
use crate::quiet::alone;
use crate::stuck::{Deaf, LINE, stuck_client};

/// One listener with line framing, and these limits.
#[track_caller]
fn start(limits: &str) -> Server {
    Server::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n[limits]\n{limits}"
    ))
}

/// What began at `began` ends now.
#[track_caller]
fn check_time(began: Instant, timeout: Duration) {
    let took = began.elapsed();
    assert!(took >= timeout, "{took:?} is earlier than {timeout:?}");
    assert!(took <= timeout + Duration::from_secs(1), "{took:?} is later than {timeout:?}");
}

/// Whether the server's FIN is here.
#[track_caller]
fn has_ended(client: &mut Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let read = client.stream.read(&mut [0; 16]);
    client.stream.set_nonblocking(false).unwrap();
    match read {
        Ok(0) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_says_nothing_is_closed_in_an_orderly_way() {
    let server = start("idle_timeout = \"200ms\"");
    let began = Instant::now();
    let mut client = server.connect();
    client.expect_end();
    check_time(began, Duration::from_millis(200));
    drop(client);
    server.eventually_closed(&[("idle_timeout", 1)]);
}

#[test]
fn a_client_that_falls_silent_is_closed_in_an_orderly_way() {
    let server = start("idle_timeout = \"200ms\"");
    let mut client = server.connect();
    client.echo("hello\n");
    let began = Instant::now();
    client.echo("hello again\n");
    client.expect_end();
    check_time(began, Duration::from_millis(200));
    drop(client);
    server.eventually_closed(&[("idle_timeout", 1)]);
}

#[test]
fn every_byte_begins_the_idle_timeout_anew() {
    let server = start("idle_timeout = \"400ms\"");
    let mut talking = server.connect();
    let mut silent = server.connect();
    while !has_ended(&mut silent) {
        talking.echo("still here\n");
    }
    talking.echo("even now\n");
}

#[test]
fn more_bytes_do_not_extend_the_time_of_a_line() {
    let server = start("message_timeout = \"300ms\"\nidle_timeout = \"100ms\"");
    let mut client = server.connect();
    let began = Instant::now();
    client.send("a");
    eventually("the server ends it", || {
        client.send("b");
        has_ended(&mut client)
    });
    check_time(began, Duration::from_millis(300));
    drop(client);
    server.eventually_closed(&[("message_timeout", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 0.0);
}

#[test]
fn more_bytes_do_not_extend_the_time_of_a_cut_character() {
    let server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nmessage_timeout = \"800ms\"",
    );
    let (mut first, mut second) = (server.connect(), server.connect());
    let smile = "😀".as_bytes();
    let began = Instant::now();
    first.send(&smile[..1]);
    eventually("half of the time has passed", || began.elapsed() >= Duration::from_millis(400));
    first.send(&smile[1..2]);
    second.send(&smile[..1]);
    first.expect_end();
    check_time(began, Duration::from_millis(800));
    // Had the second byte begun the time anew, both would have ended together.
    second.send(&smile[1..]);
    second.expect(smile);
    drop((first, second));
    server.eventually_closed(&[("message_timeout", 1), ("peer_closed", 1)]);
}

#[test]
fn the_time_of_a_line_begins_with_its_own_first_byte() {
    let server = start("message_timeout = \"400ms\"");
    let (mut talking, mut unfinished) = (server.connect(), server.connect());
    unfinished.send("u");
    talking.send("a");
    // Each send ends one line and begins the next.
    while !has_ended(&mut unfinished) {
        talking.send("b\na");
        talking.expect("ab\n");
    }
    talking.send("b\n");
    talking.expect("ab\n");
}

/// Everything that the client said in time is answered, though the server was stopped meanwhile
/// and goes on when the time is over.
#[track_caller]
fn check_spoken_in_a_pause(limits: &str, first: &str, rest: &str, reply: &str) {
    let timeout = Duration::from_millis(500);
    let server = start(limits);
    let mut client = server.connect();
    client.send(first);
    server.eventually("it is received", |metrics| {
        metrics.sum("talkback_received_bytes_total") == first.len() as f64
    });
    let began = Instant::now();
    server.pause();
    client.send(rest);
    eventually("its time is over", || began.elapsed() > timeout);
    server.signal(rustix::process::Signal::CONT);
    client.expect(reply);
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn a_client_that_spoke_while_the_server_was_stopped_is_not_idle() {
    check_spoken_in_a_pause("idle_timeout = \"500ms\"", "a\n", "b\n", "a\nb\n");
}

#[test]
fn a_line_completed_while_the_server_was_stopped_is_answered() {
    check_spoken_in_a_pause("message_timeout = \"500ms\"", "a\nhal", "lo\n", "a\nhallo\n");
}

#[test]
fn an_unfinished_line_is_not_idle() {
    let server = start("idle_timeout = \"200ms\"\nmessage_timeout = \"0s\"");
    let (mut unfinished, mut silent) = (server.connect(), server.connect());
    unfinished.send("hel");
    silent.expect_end();
    unfinished.send("lo\n");
    unfinished.expect("hello\n");
    // And now it is.
    unfinished.expect_end();
}

#[test]
fn a_client_that_does_not_read_is_reset_and_its_replies_counted_as_discarded() {
    // It fills the socket's buffers until nothing more goes, which neighbours make long.
    let _alone = alone();
    let server = start("send_timeout = \"400ms\"");
    let began = Instant::now();
    let mut deaf = Deaf::connect(server.address());
    let mut last_taken = began;
    let mut end = None;
    eventually("the server ends it", || {
        match deaf.send() {
            Ok(true) => last_taken = Instant::now(),
            Ok(false) => {}
            Err(error) => end = Some(error.kind()),
        }
        end.is_some()
    });
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(last_taken.elapsed() <= Duration::from_millis(1400), "{:?}", last_taken.elapsed());
    server.eventually_closed(&[("send_timeout", 1)]);
    let metrics = server.metrics();
    let discarded = metrics.sum("talkback_discarded_bytes_total");
    assert!(discarded > 65_536.0, "{discarded}");
    let replies = metrics.sum("talkback_replies_total") * LINE.len() as f64;
    assert_eq!(replies, metrics.sum("talkback_sent_bytes_total") + discarded);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    assert_eq!(server.await_close_lines(1)[0]["discarded_bytes"], discarded as u64);
}

/// The kernel does not say so, for it has little room, and is asked only now and then.
#[test]
fn what_the_kernel_takes_without_a_word_does_not_double_the_send_timeout() {
    // As long as it is late by more than a second if it is doubled.
    let timeout = Duration::from_millis(1500);
    let _alone = alone();
    let server = start("send_timeout = \"1500ms\"");
    let mut client = stuck_client(&server, server.address());
    let sent = server.metrics().sum("talkback_sent_bytes_total");
    client.stream.read_exact(&mut [0; 4096]).unwrap();
    let began = Instant::now();
    server.await_close_lines(1);
    let took = began.elapsed();
    assert!(took <= timeout + Duration::from_secs(1), "{took:?}");
    server.eventually_closed(&[("send_timeout", 1)]);
    let more = server.metrics().sum("talkback_sent_bytes_total") - sent;
    assert!(more > 0.0, "it took nothing");
}

#[test]
fn a_slow_client_that_goes_on_reading_is_not_taken_for_stuck() {
    let server = start("send_timeout = \"800ms\"");
    let mut slow = stuck_client(&server, server.address());
    slow.stream.set_nonblocking(true).unwrap();
    let _stuck = stuck_client(&server, server.address());
    server.eventually("the other one is cut", |metrics| {
        // What there is, but no more than a buffer at a time.
        match (&slow.stream).read(&mut [0; 16_384]) {
            Ok(read) => assert_ne!(read, 0, "the slow client was ended"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        // More to answer, so that replies stay pending.
        match (&slow.stream).write(LINE.as_bytes()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        !metrics.closes().is_empty()
    });
    assert_eq!(server.metrics().closes(), [("send_timeout".to_owned(), 1)].into());
    slow.stream.set_nonblocking(false).unwrap();
    slow.finish();
    slow.read_to_end();
    drop(slow);
    server.eventually_closed(&[("peer_closed", 1), ("send_timeout", 1)]);
}

#[test]
fn a_client_that_is_owed_replies_is_not_idle() {
    let server = start("idle_timeout = \"400ms\"\nsend_timeout = \"0s\"");
    let mut owed = stuck_client(&server, server.address());
    server.connect().expect_end();
    owed.finish();
    let replies = owed.read_to_end();
    assert!(replies.len() > 65_536);
    drop(owed);
    server.eventually_closed(&[("idle_timeout", 1), ("peer_closed", 1)]);
}

#[test]
fn a_client_that_does_not_close_is_waited_for_until_the_linger_timeout() {
    let server = start("linger_timeout = \"300ms\"\nidle_timeout = \"100ms\"");
    let mut client = server.connect();
    let began = Instant::now();
    client.send("last\nexit\n");
    assert_eq!(client.read_to_end(), b"last\n");
    server.eventually_closed(&[("exit", 1)]);
    check_time(began, Duration::from_millis(300));
}

#[test]
fn a_client_that_stops_reading_and_sends_on_is_closed_after_the_linger_timeout() {
    let server = start("linger_timeout = \"200ms\"");
    let mut client = Deaf::connect(server.address()).client;
    // More than the client's window and less than the server's kernel takes.
    let lines = LINE.repeat(2048);
    let began = Instant::now();
    client.send(format!("{lines}exit\n"));
    client.stream.set_nonblocking(true).unwrap();
    eventually("the server closes it", || {
        // It fails when the server has closed; what nobody takes is said again.
        let _ = client.stream.write(LINE.as_bytes());
        !server.close_lines().is_empty()
    });
    check_time(began, Duration::from_millis(200));
    server.eventually_closed(&[("exit", 1)]);
    let line = &server.close_lines()[0];
    assert_eq!((&line["messages"], &line["discarded_bytes"]), (&2048.into(), &0.into()));
}

#[test]
fn what_is_sent_while_the_server_lingers_disturbs_nothing() {
    let server = start("linger_timeout = \"0s\"");
    let mut client = server.connect();
    client.send("last\nexit\n");
    assert_eq!(client.read_to_end(), b"last\n");
    client.send("more\n");
    let everything = "last\nexit\nmore\n".len() as f64;
    server.eventually("it is discarded", |metrics| {
        metrics.sum("talkback_received_bytes_total") == everything
    });
    assert_eq!(server.metrics().sum("talkback_connections"), 1.0);
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 1.0);
}

#[test]
fn a_timeout_of_zero_never_passes() {
    let server = start(
        "idle_timeout = \"0s\"\nmessage_timeout = \"0s\"\nsend_timeout = \"0s\"\n\
         linger_timeout = \"0s\"",
    );
    let (mut silent, mut unfinished, mut lingering) =
        (server.connect(), server.connect(), server.connect());
    unfinished.send("hel");
    lingering.send("exit\n");
    lingering.expect_end();
    let mut stuck = stuck_client(&server, server.address());
    // Another server tells the time.
    start("idle_timeout = \"200ms\"").connect().expect_end();
    assert_eq!(server.metrics().sum("talkback_connections"), 4.0);
    silent.echo("still here\n");
    unfinished.send("lo\n");
    unfinished.expect("hello\n");
    stuck.finish();
    assert!(stuck.read_to_end().len() > 65_536);
    drop((silent, unfinished, lingering, stuck));
    server.eventually_closed(&[("exit", 1), ("peer_closed", 3)]);
}
