//! Answers that come at once: what each of them sends, and how it ends the connection.

use std::sync::{Arc, Mutex};

use talkback::{Answer, Responders, Server};

use super::{config, connect, echo, eventually_closed, from_fn, metrics, start, start_function};

/// Sends `input` in one piece to a responder that knows a word for each answer.
#[track_caller]
fn check(input: &str, output: &str, reason: &str, messages: f64, replies: f64) {
    let server = start_function(&config(), |text, reply, _| {
        reply.push(text);
        match text {
            "silence" => Answer::Silence,
            "close" => Answer::ReplyAndClose,
            "fail" => Answer::Failed,
            _ => Answer::Reply,
        }
    });
    let mut client = connect(&server);
    client.send(input);
    client.finish();
    assert_eq!(String::from_utf8(client.read_to_end()).unwrap(), output);
    eventually_closed(&server, &[(reason, 1)]);
    let metrics = metrics(&server);
    assert_eq!(metrics.sum("talkback_messages_total"), messages);
    assert_eq!(metrics.sum("talkback_replies_total"), replies);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), output.len() as f64);
    assert_eq!(metrics.sum("talkback_discarded_bytes_total"), 0.0);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
}

#[test]
fn replies_are_sent_with_the_framings_terminator() {
    check("a\nb\n", "a\nb\n", "peer_closed", 2.0, 2.0);
}

#[test]
fn an_empty_reply_is_an_empty_line() {
    check("\na\n", "\na\n", "peer_closed", 2.0, 2.0);
}

#[test]
fn what_was_written_before_silence_is_dropped() {
    check("a\nsilence\nb\n", "a\nb\n", "peer_closed", 3.0, 2.0);
}

#[test]
fn the_last_reply_is_sent_and_nothing_behind_it_is_answered() {
    check("a\nclose\nb\n", "a\nclose\n", "responder_closed", 2.0, 2.0);
}

#[test]
fn a_failed_responder_costs_its_own_reply_and_none_before() {
    check("a\nfail\nb\n", "a\n", "responder_error", 2.0, 1.0);
}

#[test]
fn the_exit_word_never_reaches_a_responder() {
    check("a\nexit\nb\n", "a\n", "exit", 1.0, 1.0);
}

#[test]
fn a_server_that_closes_does_not_wait_for_the_clients_end_to_be_said() {
    let server = start_function(&config(), |_, _, _| Answer::Failed);
    let mut client = connect(&server);
    client.send("a\n");
    client.expect_end();
    drop(client);
    eventually_closed(&server, &[("responder_error", 1)]);
    // A reply that was never given took no time.
    assert_eq!(metrics(&server).sum("talkback_respond_seconds_count"), 0.0);
}

#[test]
fn each_connection_has_a_responder_of_its_own() {
    let server = start(&config(), || {
        let mut count = 0;
        from_fn(move |_, reply, _| {
            count += 1;
            reply.push(&count.to_string());
            Answer::Reply
        })
    });
    let mut one = connect(&server);
    let mut other = connect(&server);
    one.send("a\n");
    one.expect("1\n");
    other.send("a\n");
    other.expect("1\n");
    one.send("a\n");
    one.expect("2\n");
}

#[test]
fn a_responder_is_told_its_listener_and_its_peer() {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let told = peers.clone();
    let responders = Responders::default().with("ours", move |client| {
        told.lock().unwrap().push((client.listener.to_owned(), client.peer));
        from_fn(|text, reply, _| echo(text, reply))
    });
    let server = Server::start_with(&config(), &responders).unwrap();
    let mut client = connect(&server);
    client.echo("a\n");
    let expected = ("main".to_owned(), client.stream.local_addr().ok());
    assert_eq!(*peers.lock().unwrap(), [expected]);
}

#[test]
fn a_reply_is_written_like_any_text() {
    let server = start_function(&config(), |text, reply, _| {
        use std::fmt::Write;
        match write!(reply, "{text} has {} characters", text.chars().count()) {
            Ok(()) => Answer::Reply,
            Err(_) => Answer::Failed,
        }
    });
    let mut client = connect(&server);
    client.send("你好\n");
    client.expect("你好 has 2 characters\n");
}

#[test]
fn a_responder_may_take_the_place_of_a_built_in_one() {
    let mut config = config();
    config.listeners[0].responder = "echo".to_owned();
    let responders = Responders::default().with("echo", |_| {
        from_fn(|text, reply, _| {
            reply.push(&text.to_uppercase());
            Answer::Reply
        })
    });
    let server = Server::start_with(&config, &responders).unwrap();
    let mut client = connect(&server);
    client.send("a\n");
    client.expect("A\n");
}

#[test]
fn a_responder_of_ones_own_has_no_exit_word_by_default() {
    let mut config = config();
    config.listeners[0].exit_word = talkback::config::Listener::default().exit_word;
    let server = start_function(&config, |text, reply, _| echo(text, reply));
    connect(&server).echo("hello\nexit\nstill here\n");
}
