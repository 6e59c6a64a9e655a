//! Bytes that are not UTF-8, over sockets: what is answered, and how the connection ends.

use crate::harness::Server;

/// One client that half-closes behind its bytes, without a pause between them: the outcome must not
/// depend on how they were cut.
#[track_caller]
fn check(keys: &str, sent: &[u8], joined_replies: &str, reason: &str) {
    let server = Server::with_listener(keys);
    let mut client = server.connect();
    let replies = client.exchange(sent);
    assert!(replies == joined_replies.as_bytes(), "{}", shown(&replies, joined_replies));
    drop(client);
    server.eventually_closed(&[(reason, 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), joined_replies.len() as f64);
    assert_eq!(metrics.sum("talkback_received_bytes_total"), sent.len() as f64);
}

/// The first difference, for replies may be long.
fn shown(replies: &[u8], expected: &str) -> String {
    let same = replies.iter().zip(expected.as_bytes()).take_while(|(one, other)| one == other);
    let at = same.count();
    let after = String::from_utf8_lossy(&replies[at..replies.len().min(at + 40)]);
    format!("{} replied, {} expected, alike up to {at}: {after:?}", replies.len(), expected.len())
}

/// The server ends the connection by itself, at the bad byte.
#[track_caller]
fn check_ended(keys: &str, sent: &[u8], replies: &str) {
    let server = Server::with_listener(keys);
    let mut client = server.connect();
    client.send(sent);
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), replies);
    drop(client);
    server.eventually_closed(&[("invalid_utf8", 1)]);
}

const LINE: &str = "framing = \"line\"";
const REPLACE: &str = "invalid_utf8 = \"replace\"";
const LINE_REPLACE: &str = "framing = \"line\"\ninvalid_utf8 = \"replace\"";

/// Some bytes more than a receive takes, with characters of every length across each boundary.
fn long_text(bytes: usize) -> String {
    "aé你🙂\u{10FFFF}"
        .chars()
        .cycle()
        .scan(0, |length, character| {
            *length += character.len_utf8();
            (*length <= bytes).then_some(character)
        })
        .collect()
}

#[test]
fn raw_text_before_a_bad_byte_is_answered_and_the_connection_ends() {
    check_ended("", b"ab\xFFcd", "ab");
    check_ended("", b"\xC0\xAF", "");
    check_ended("", b"\xE4\xBD\xA0\xEF\xBF\xBD\xED\xA0", "你\u{FFFD}");
}

#[test]
fn an_unfinished_character_at_the_end_of_raw_input_is_bad() {
    check("", b"a\xE4\xBD", "a", "invalid_utf8");
    check("", b"\xF0", "", "invalid_utf8");
}

#[test]
fn joined_raw_replies_are_the_longest_valid_prefix() {
    let text = long_text(300_000);
    check("", text.as_bytes(), &text, "peer_closed");
    for bad in [&b"\xFF"[..], b"\xE4\xBDa", b"\xF4\x90\x80\x80", b"\x80"] {
        let sent = [text.as_bytes(), bad, text.as_bytes()].concat();
        check("", &sent, &text, "invalid_utf8");
    }
}

#[test]
fn held_bytes_before_the_exit_word_are_bad() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    client.send(b"\xE4");
    server.eventually("the byte is received", |metrics| {
        metrics.sum("talkback_received_bytes_total") == 1.0
    });
    client.send("exit");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("invalid_utf8", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 0.0);
}

#[test]
fn a_bad_line_is_not_answered_and_earlier_ones_are() {
    check_ended(LINE, b"a\nb\xFF\nc\n", "a\n");
    check_ended(LINE, b"a\n\xE4\xBD\nc\n", "a\n");
    check_ended(LINE, b"a\nexit\xE4\n", "a\n");
    // No newline is waited for.
    check_ended(LINE, b"a\nb\xFF", "a\n");
    check(LINE, b"a\nb\xE4\xBD", "a\n", "invalid_utf8");
}

#[test]
fn a_bad_line_ends_one_connection_alone() {
    let server = Server::with_listener(LINE);
    let mut neighbour = server.connect();
    neighbour.echo("before\n");
    let mut client = server.connect();
    client.send(b"\xFF\n");
    client.expect_end();
    drop(client);
    neighbour.echo("after\n");
    drop(neighbour);
    server.eventually_closed(&[("invalid_utf8", 1), ("peer_closed", 1)]);
}

#[test]
fn a_line_both_bad_and_too_long_ends_by_what_came_first() {
    let keys = format!("{LINE}\nmax_message_bytes = 4");
    check(&keys, b"abc\xFFefg\n", "", "invalid_utf8");
    check(&keys, b"abcdefg\xFF\n", "", "message_too_long");
}

#[test]
fn joined_raw_replies_are_what_std_makes_of_the_joined_input() {
    let text = long_text(100_000);
    let sent = [
        &b"\xFFa\xE4\xBD"[..],
        text.as_bytes(),
        b"\xF0\x9F\x99b\xC0\xAF",
        text.as_bytes(),
        b"\xE4\xBD",
    ]
    .concat();
    check(REPLACE, &sent, &String::from_utf8_lossy(&sent), "peer_closed");
    let noise: Vec<u8> =
        (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 19) as u8).collect();
    check(REPLACE, &noise, &String::from_utf8_lossy(&noise), "peer_closed");
}

#[test]
fn a_cut_raw_character_is_held_not_replaced() {
    let server = Server::with_listener(REPLACE);
    let mut client = server.connect();
    client.send(b"a\xE4\xBD");
    client.expect("a");
    client.send(b"\xA0");
    client.expect("你");
    client.send(b"\xF0\x9F");
    client.finish();
    client.expect("\u{FFFD}");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 3.0);
}

#[test]
fn bad_bytes_of_a_line_are_replaced_within_it() {
    let sent = b"a\xFFb\n\xE4\xBD\n\xE4\xBD\xA0\r\nexit\xE4\n\xF0\x9F";
    let replies = "a\u{FFFD}b\n\u{FFFD}\n你\nexit\u{FFFD}\n\u{FFFD}\n";
    check(LINE_REPLACE, sent, replies, "peer_closed");
}
