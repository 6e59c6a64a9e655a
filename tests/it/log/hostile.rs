//! Clients whose texts would do harm in a log: what of them gets there, and in which form.

use super::{config, lines, start};
use crate::harness::{Client, Server, eventually};

/// The `text` that a server shows of a client that it refuses, in both forms.
#[track_caller]
fn check_refused(listener: &str, said: &[u8], reason: &str, expected: &str) {
    let log = "[log]\nlevel = \"debug\"\nformat = \"json\"\nmax_lines_per_second = 0";
    let listener = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n{listener}\n");
    let server = Server::start(&(listener.clone() + log));
    let mut client = server.connect();
    client.send(said);
    client.read_to_end();
    drop(client);
    let closed = &server.await_close_lines(1)[0];
    let refused = server.logged("message refused").expect("a line");
    assert_eq!(refused["reason"], reason);
    assert_eq!(refused["text"], expected);
    for field in ["listener", "peer", "reason", "level"] {
        assert_eq!(refused[field], closed[field], "{field}");
    }

    let (server, address) = start(&(listener + &log.replace("json", "text")));
    let mut client = Client::connect(address);
    client.send(said);
    client.read_to_end();
    drop(client);
    let is_closed = |line: &String| line.contains(" connection closed ");
    eventually("the close is logged", || lines(&server).iter().any(is_closed));
    let lines = lines(&server);
    let refused: Vec<_> = lines.iter().filter(|line| line.contains(" refused ")).collect();
    let [refused] = refused[..] else { panic!("{lines:?}") };
    let text = match expected.contains([' ', '"', '=', '\\']) {
        true => format!(" text=\"{}\"", expected.replace('"', "\\\"")),
        false => format!(" text={expected}"),
    };
    assert!(refused.ends_with(&text), "{refused} should end with{text}");
}

const LINES: &str = "framing = \"line\"\nmax_message_bytes = 20000";

#[test]
fn a_client_that_is_refused_is_shown_by_the_beginning_of_what_it_said() {
    // Bad bytes stand last: what is shown does not depend on how the network cut the rest.
    check_refused("", b"\xff", "invalid_utf8", r"\xff");
    check_refused(LINES, b"one\n\x16\x03\xff\ntwo\n", "invalid_utf8", r"\u{16}\u{3}\xff");
    check_refused(LINES, b"one\ntwo words\xff", "invalid_utf8", r"two words\xff");
    let long = "GET / HTTP/1.1 ".repeat(2000);
    let shown = format!("{}…", &long[..64]);
    check_refused(LINES, long.as_bytes(), "message_too_long", &shown);
    check_refused(LINES, format!("one\n{long}\ntwo\n").as_bytes(), "message_too_long", &shown);
}

#[test]
fn what_a_client_said_acts_neither_on_the_log_nor_on_a_terminal() {
    let said = "\u{1b}[2J\r\0\u{9b}2J\u{7f}\u{202e}\u{2066}\u{2028}";
    let shown = r"\u{1b}[2J\r\u{0}\u{9b}2J\u{7f}\u{202e}\u{2066}\u{2028}\xff";
    check_refused(LINES, [said.as_bytes(), b"\xff\n"].concat().as_slice(), "invalid_utf8", shown);
    let forged = b"x\" level=\"ERROR\\\" forged=\"1\xff\n";
    let shown = r#"x" level="ERROR\\" forged="1\xff"#;
    check_refused(LINES, forged, "invalid_utf8", shown);
    let shown = r"\u{202e}".repeat(64) + "…";
    check_refused(LINES, "\u{202e}".repeat(10_000).as_bytes(), "message_too_long", &shown);
}

/// Clients say what would do harm in every way that ends a conversation.
#[track_caller]
fn check_nothing_harmful(format: &str) {
    let log = format!(
        "format = \"{format}\"\nlevel = \"trace\"\nconnections = \"trace\"\n\
         max_lines_per_second = 0"
    );
    let (mut server, address) = start(&config(&log));
    let text = "HARMFUL\u{1b}[2J\r\u{202e}\u{85} ERROR forged=1";
    let say = |bytes: &[u8]| {
        let mut client = Client::connect(address);
        client.send(bytes);
        client.finish();
        client.read_to_end();
    };
    for end in ["", "\nexit\n", "\n\u{0}\n"] {
        say(format!("{text}{end}").as_bytes());
    }
    say(format!("{text}\n").as_bytes());
    say([text.as_bytes(), b"\xff\n"].concat().as_slice());
    say(text.repeat(10_000).as_bytes());
    assert_eq!(server.stop(), Some(0));
    let lines = lines(&server);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("connection closed"), 6, "{lines:?}");
    assert_eq!(count("message refused"), 2, "{lines:?}");
    assert_eq!(count("HARMFUL"), 2, "{lines:?}");
    for line in &lines {
        let harmful = |c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!line.contains(harmful), "{line:?}");
        // Where a line begins, and how often it names a client, is ours to say.
        assert!(line.starts_with("202") || line.starts_with("{\""), "{line:?}");
        assert!(line.matches("HARMFUL").count() <= 3, "{line:?}");
    }
}

#[test]
fn nothing_harmful_reaches_the_log() {
    check_nothing_harmful("text");
    check_nothing_harmful("json");
}
