//! A FIN that arrives while the server does not read: it is remembered, and everything in front of
//! it is answered before the end.

use super::{FULL, LINE, check_nothing_left, fill, start};

/// A client that does not read until the server does not read either; then it sends `behind` and
/// half-closes, and reads on. Returns what it got for `behind`.
#[track_caller]
fn half_close_behind(keys: &str, behind: &[u8], reason: &str) -> Vec<u8> {
    let server = start(keys, "max_pending_bytes = 1");
    let (mut client, sent) = fill(&server);
    client.send(behind);
    client.finish();
    // Its kernel has the FIN by the time that this is answered.
    assert!(server.metrics().closes().is_empty());
    let mut replies = client.read_to_end();
    let echoes = FULL.repeat(sent / FULL.len());
    assert!(replies.starts_with(echoes.as_bytes()), "{} of {sent} bytes", replies.len());
    drop(client);
    check_nothing_left(&server, &[(reason, 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_received_bytes_total"), (sent + behind.len()) as f64);
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 0.0);
    replies.split_off(sent)
}

#[test]
fn a_half_close_while_the_server_is_paused_is_served_to_the_end() {
    assert_eq!(half_close_behind(LINE, b"", "peer_closed"), b"");
    assert_eq!(half_close_behind("", b"", "peer_closed"), b"");
    assert_eq!(half_close_behind(LINE, b"a\nlast", "peer_closed"), b"a\nlast\n");
    assert_eq!(half_close_behind("", "你好".as_bytes(), "peer_closed"), "你好".as_bytes());
}

#[test]
fn what_stands_before_a_fin_in_a_pause_decides_the_end() {
    assert_eq!(half_close_behind(LINE, b"a\nexit", "exit"), b"a\n");
    assert_eq!(half_close_behind(LINE, b"a\nexit\nb\n", "exit"), b"a\n");
    assert_eq!(half_close_behind(LINE, b"a\n\xFF\nb\n", "invalid_utf8"), b"a\n");
    assert_eq!(half_close_behind("", b"a\xE4\xBD", "invalid_utf8"), b"a");
}

/// One message a turn, so that the FIN is told long before the last message is answered.
#[test]
fn a_half_close_while_messages_wait_for_their_turns_is_served_to_the_end() {
    let server = start(LINE, "messages_per_turn = 1");
    let mut client = server.connect();
    client.send("\n".repeat(20_000));
    client.finish();
    assert!(client.read_to_end() == [b'\n'; 20_000]);
    drop(client);
    check_nothing_left(&server, &[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 20_000.0);
}
