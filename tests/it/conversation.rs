//! What is said on the wire: messages, lines, the exit word and the limit of a line, over sockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::harness::{PATIENCE, Server};

const LINE: &str = "framing = \"line\"";

/// Clients of one server, one after the other: what each sends before it half-closes, all that it
/// gets back, and why the server says that it ended.
#[track_caller]
fn check(keys: &str, cases: &[(&str, &str, &str)]) {
    let server = Server::with_listener(keys);
    for (sent, replies, _) in cases {
        let mut client = server.connect();
        client.send(sent);
        client.finish();
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), *replies, "after {sent:?}");
    }
    let of = |reason| cases.iter().filter(|case| case.2 == reason).count() as u64;
    let reasons = ["peer_closed", "exit", "message_too_long"];
    let closes: Vec<_> = reasons.iter().map(|reason| (*reason, of(*reason))).collect();
    server.eventually_closed(&closes.into_iter().filter(|close| close.1 > 0).collect::<Vec<_>>());
}

/// The server ends this conversation by itself, while the client would say more.
#[track_caller]
fn check_ended(keys: &str, sent: &str, replies: &str, reason: &str) {
    let server = Server::with_listener(keys);
    let mut client = server.connect();
    client.send(sent);
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), replies);
    drop(client);
    server.eventually_closed(&[(reason, 1)]);
}

#[test]
fn a_raw_message_comes_back_as_it_was_sent() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    let messages = ["hello", "你好，世界", "🙂👩‍👩‍👧", "\u{FEFF}", "\0", "\n", " a\r\n\n", "a"];
    for message in messages {
        client.echo(message);
    }
    client.send("exit");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    let metrics = server.metrics();
    let bytes = messages.concat().len() as f64;
    assert_eq!(metrics.sum("talkback_messages_total"), messages.len() as f64);
    assert_eq!(metrics.sum("talkback_replies_total"), messages.len() as f64);
    assert_eq!(metrics.sum("talkback_received_bytes_total"), bytes + 4.0);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), bytes);
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 0.0);
}

#[test]
fn a_raw_character_is_answered_when_its_last_byte_has_come() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    let mut received = 0.0;
    for byte in "é你🙂".as_bytes() {
        client.send([*byte]);
        received += 1.0;
        server.eventually("the byte is received", |metrics| {
            metrics.sum("talkback_received_bytes_total") == received
        });
    }
    client.expect("é你🙂");
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 3.0);
}

#[test]
fn the_raw_exit_word_may_have_one_line_ending() {
    check("", &[("exit", "", "exit"), ("exit\n", "", "exit"), ("exit\r\n", "", "exit")]);
}

#[test]
fn what_resembles_the_raw_exit_word_is_a_message() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    for message in [" exit ", "EXIT", "exitexit", "exit\n\n", "exit\r", "\nexit", "exit\0"] {
        client.echo(message);
    }
    client.send(b"exit\xE4");
    client.expect("exit");
    client.send(b"\xBD\xA0");
    client.expect("你");
    client.send("exit");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
}

#[test]
fn the_line_exit_word_is_a_line_and_ends_what_follows_it() {
    check(
        LINE,
        &[
            ("exit\n", "", "exit"),
            ("a\nb\nexit\nc\n", "a\nb\n", "exit"),
            ("a\r\nexit\r\nc\r\n", "a\n", "exit"),
            ("a\nexit", "a\n", "exit"),
            (" exit \nEXIT\nexitexit\n", " exit \nEXIT\nexitexit\n", "peer_closed"),
            ("exit\r\r\nexit\0\n", "exit\r\nexit\0\n", "peer_closed"),
            ("exit\r", "exit\r\n", "peer_closed"),
        ],
    );
}

#[test]
fn the_exit_word_can_be_another_or_none() {
    let another = format!("{LINE}\nexit_word = \"再见\"");
    check(&another, &[("exit\n再见\nc\n", "exit\n", "exit"), ("再见", "", "exit")]);
    check("exit_word = \"再见\"", &[("exit", "exit", "peer_closed"), ("再见\r\n", "", "exit")]);
    let none = format!("{LINE}\nexit_word = \"\"");
    check(&none, &[("exit\n\nexit", "exit\n\nexit\n", "peer_closed")]);
    check("exit_word = \"\"", &[("exit", "exit", "peer_closed"), ("\n", "\n", "peer_closed")]);
}

#[test]
fn lf_alone_ends_a_line_and_takes_one_cr_with_it() {
    let one_line = "a\rb\u{85}c\u{2028}d\u{2029}e\u{B}f\u{C}g\n";
    check(
        LINE,
        &[
            ("hello\n你好\n🙂\n", "hello\n你好\n🙂\n", "peer_closed"),
            ("a\r\n\r\n\n\r\r\n", "a\n\n\n\r\n", "peer_closed"),
            (one_line, one_line, "peer_closed"),
        ],
    );
}

#[test]
fn an_unfinished_last_line_is_answered_and_keeps_its_cr() {
    check(
        LINE,
        &[
            ("a\nlast", "a\nlast\n", "peer_closed"),
            ("a\r\nlast\r", "a\nlast\r\n", "peer_closed"),
            ("\r", "\r\n", "peer_closed"),
        ],
    );
}

#[test]
fn a_line_sent_byte_by_byte_is_one_line() {
    let server = Server::with_listener(LINE);
    let mut client = server.connect();
    for byte in "你好 🙂\r\n\n".as_bytes() {
        client.send([*byte]);
    }
    client.expect("你好 🙂\n\n");
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 2.0);
}

#[test]
fn a_line_may_have_as_many_bytes_as_the_limit_and_a_cr() {
    let keys = format!("{LINE}\nmax_message_bytes = 6");
    check(
        &keys,
        &[
            ("123456\n", "123456\n", "peer_closed"),
            ("123456\r\n", "123456\n", "peer_closed"),
            ("你好\r\n123456", "你好\n123456\n", "peer_closed"),
            ("a\n1234567\nb\n", "a\n", "message_too_long"),
            ("a\n123456\r\r\n", "a\n", "message_too_long"),
            ("123456\r", "", "message_too_long"),
            ("你好!\n", "", "message_too_long"),
        ],
    );
}

#[test]
fn a_line_over_the_limit_is_closed_before_its_newline() {
    let keys = format!("{LINE}\nmax_message_bytes = 6");
    check_ended(&keys, "a\nb\n1234567", "a\nb\n", "message_too_long");
    check_ended(&keys, "123456\rx", "", "message_too_long");
}

#[test]
fn discard_counts_messages_and_says_nothing() {
    let server = Server::with_listener(&format!("{LINE}\nresponder = \"discard\""));
    let mut client = server.connect();
    client.send("a\nb\n\nexit\n");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 3.0);
    assert_eq!(metrics.sum("talkback_replies_total"), 0.0);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), 0.0);
    assert_eq!(metrics.sum("talkback_received_bytes_total"), 10.0);
}

#[test]
fn a_unix_socket_is_a_listener_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("talk.sock");
    check_unix(&format!("unix:{}", path.display()), |_| UnixStream::connect(&path).unwrap());
    let name = format!("talkback-test-{}", std::process::id());
    check_unix(&format!("unix:@{name}"), |address| {
        assert_eq!(address, format!("unix:@{name}"));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        UnixStream::connect_addr(&address).unwrap()
    });
}

#[track_caller]
fn check_unix(address: &str, connect: impl Fn(&str) -> UnixStream) {
    let server = Server::start(&format!("[[listener]]\naddress = \"{address}\"\n{LINE}\n"));
    let event = server.logged("listening").expect("a listener");
    let bound = event["address"].as_str().unwrap();
    let mut ends = Vec::new();
    for last in ["last", "exit\nmore\n"] {
        let mut stream = connect(bound);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("你好\n\r\n{last}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).unwrap();
        ends.push(replies);
    }
    assert_eq!(ends, ["你好\n\nlast\n", "你好\n\n"]);
    drop(connect(bound));
    server.eventually_closed(&[("exit", 1), ("peer_closed", 1), ("unused", 1)]);
}
