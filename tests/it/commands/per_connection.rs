//! A process for each client: its standard input and output are the conversation.

mod slow;
mod start;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::faults::Faults;
use crate::harness::Client;

/// Whoever runs it never ends by itself.
const FOR_EVER: &str = "exec tail -f /dev/null";

fn each(program: &str, listener: &str) -> Server {
    Server::start(&config(program, listener, "mode = \"per_connection\""))
}

/// What a client gets that says nothing, up to the server's end.
fn said(server: &Server) -> String {
    String::from_utf8(server.connect().read_to_end()).unwrap()
}

#[test]
fn a_process_knows_whom_it_serves_and_nothing_else_of_us() {
    let server = each("[\"env\"]", "");
    let mut client = server.connect();
    let (peer, local) = (client.stream.local_addr().unwrap(), server.address());
    let text = String::from_utf8(client.read_to_end()).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PATH=")).collect();
    lines.sort_unstable();
    let expected = format!(
        "PROTO=TCP\nREMOTE_ADDR=127.0.0.1\nREMOTE_PORT={0}\nTCPLOCALIP=127.0.0.1\n\
         TCPLOCALPORT={1}\nTCPREMOTEIP=127.0.0.1\nTCPREMOTEPORT={0}",
        peer.port(),
        local.port()
    );
    assert_eq!(lines.join("\n"), expected);
    drop(client);
    server.eventually_closed(&[("responder_closed", 1)]);
}

#[test]
fn on_a_unix_socket_there_is_no_address_to_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env.sock");
    let config = config("[\"env\"]", "", "mode = \"per_connection\"")
        .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let _server = Server::start(&config);
    let mut text = String::new();
    UnixStream::connect(&path).unwrap().read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PATH=")).collect();
    assert_eq!(lines, ["PROTO=UNIX"]);
}

#[test]
fn a_program_may_speak_first_and_answer_as_it_likes() {
    let server = each(&sh("echo hello; while read x; do echo 1 $x; echo 2 $x; done"), "");
    let mut client = server.connect();
    client.expect("hello\n");
    client.send("a\n");
    client.expect("1 a\n2 a\n");
    client.send("b\n");
    client.expect("1 b\n2 b\n");
    client.finish();
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    let metrics = server.eventually("it has ended", |metrics| ends(metrics, "exited") == 1.0);
    assert_eq!(metrics.sum("talkback_command_processes"), 0.0);
}

/// Everything that goes in comes out again, in both framings.
#[track_caller]
fn check_cat(listener: &str, text: &[u8]) {
    let server = each("[\"cat\"]", listener);
    assert!(server.connect().exchange(text) == text, "it is not the same");
    server.eventually_closed(&[("peer_closed", 1)]);
    server.eventually("it has ended", |metrics| ends(metrics, "exited") == 1.0);
}

#[test]
fn more_than_any_pipe_or_buffer_holds_goes_through_whole() {
    let line = "0123456789abcdef".repeat(64) + "\n";
    let text = line.repeat(4000);
    check_cat("framing = \"line\"", text.as_bytes());
    check_cat("framing = \"raw\"", text.as_bytes());
}

#[test]
fn the_clients_end_of_input_is_the_programs() {
    let server = each("[\"wc\", \"-c\"]", "");
    let mut client = server.connect();
    client.send("hello");
    client.finish();
    assert_eq!(String::from_utf8(client.read_to_end()).unwrap().trim(), "5");
}

#[test]
fn a_programs_end_ends_the_conversation_behind_all_that_it_said() {
    let server = each("[\"head\", \"-c\", \"3000000\", \"/dev/zero\"]", "");
    let mut client = server.connect();
    // Whoever is served meanwhile shows that nobody waits for the one that does not read.
    assert_eq!(said(&server).len(), 3_000_000);
    assert_eq!(client.read_to_end().len(), 3_000_000);
    drop(client);
    server.eventually_closed(&[("responder_closed", 2)]);
}

#[test]
fn a_program_that_ends_while_its_client_is_silent_ends_the_conversation() {
    let server = each(&sh("echo bye; exit 3"), "");
    assert_eq!(said(&server), "bye\n");
    server.eventually_closed(&[("responder_closed", 1)]);
    server.eventually("it has ended", |metrics| ends(metrics, "failed") == 1.0);
}

#[test]
fn what_a_program_leaves_behind_does_not_keep_the_conversation_open() {
    // The one in the background holds its standard output.
    let server = each(&sh("tail -f /dev/null & echo done"), "");
    assert_eq!(said(&server), "done\n");
    server.eventually_closed(&[("responder_closed", 1)]);
}

#[test]
fn a_program_that_closes_its_output_and_lives_on_is_ended() {
    let server = each(&sh(&format!("echo $$; exec >/dev/null; {FOR_EVER}")), "");
    let pid = said(&server).trim().parse().unwrap();
    eventually_gone(pid);
    server.eventually_closed(&[("responder_closed", 1)]);
    server.eventually("it is counted", |metrics| ends(metrics, "connection_closed") == 1.0);
}

#[test]
fn with_its_client_the_process_goes() {
    let server = each(&sh(&format!("echo $$; {FOR_EVER}")), "");
    let first_line = |client: &mut Client| -> u32 {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim().parse().unwrap()
    };
    let mut client = server.connect();
    let pid = first_line(&mut client);
    assert!(lives(pid));
    client.send("more");
    client.reset();
    eventually_gone(pid);
    let metrics = server.eventually("it is counted", |it| ends(it, "connection_closed") == 1.0);
    assert_eq!(processes(&metrics, "ending"), 0.0);
    server.eventually_closed(&[("peer_reset", 1)]);
}

#[test]
fn a_program_that_says_nothing_after_its_clients_end_is_not_waited_for_long() {
    let server = each(&sh(FOR_EVER), "reply_timeout = \"300ms\"");
    let mut client = server.connect();
    client.send("x");
    client.finish();
    client.expect_end();
    server.eventually_closed(&[("responder_timeout", 1)]);
    server.eventually("it was ended", |metrics| ends(metrics, "connection_closed") == 1.0);
}

#[test]
fn a_program_that_goes_on_talking_after_its_clients_end_is_heard_out() {
    let last = "for turn in range(7):\n    time.sleep(0.2); print(turn)";
    let server = each(&python_at_the_end("print(line)", last), "reply_timeout = \"1s\"");
    let mut client = server.connect();
    client.send("x\n");
    client.finish();
    assert_eq!(client.read_to_end(), b"x\n0\n1\n2\n3\n4\n5\n6\n");
}

/// A client says this, `reason` ends its conversation, and it stays: it still gets what the program
/// owes it and says at the end of its input, more than any buffer holds.
#[track_caller]
fn check_heard_out(sent: &[u8], reason: &str) {
    let listener = "framing = \"line\"\nexit_word = \"quit\"\nmax_message_bytes = 8";
    let program = python_at_the_end("time.sleep(0.1); print(line)", "print('bye' * 1000000)");
    let server = each(&program, listener);
    let mut client = server.connect();
    client.send(sent);
    let text = String::from_utf8(client.read_to_end()).unwrap();
    let expected = format!("one\ntwo\n{}\n", "bye".repeat(1_000_000));
    assert!(text == expected, "{} bytes: {:.40}", text.len(), text);
    drop(client);
    server.eventually_closed(&[(reason, 1)]);
    server.eventually("it has ended", |metrics| ends(metrics, "exited") == 1.0);
}

#[test]
fn what_ends_the_reading_leaves_the_program_its_last_words() {
    check_heard_out(b"one\ntwo\nquit\nthree\n", "exit");
    check_heard_out(b"one\ntwo\n\xff\nthree\n", "invalid_utf8");
    check_heard_out(b"one\ntwo\nand a half\nthree\n", "message_too_long");
}

#[test]
fn a_program_that_says_nothing_after_the_exit_word_is_not_waited_for_long() {
    let server = each(&sh(FOR_EVER), "reply_timeout = \"300ms\"\nexit_word = \"quit\"");
    let mut client = server.connect();
    client.send("quit");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("responder_timeout", 1)]);
    server.eventually("it was ended", |metrics| ends(metrics, "connection_closed") == 1.0);
}

/// A program's end is counted for what it was, whatever is noticed first.
#[track_caller]
fn check_end(script: &str, act: fn(Client), reason: &str) {
    let server = each(&sh(script), "");
    for _ in 0..10 {
        let mut client = server.connect();
        client.expect("up\n");
        act(client);
    }
    server.eventually("all are counted", |metrics| {
        metrics.sum("talkback_command_ends_total") == 10.0 && ends(metrics, reason) == 10.0
    });
    // A fault of the program is in the log: its client may have heard nothing of it.
    let expected = if ["failed", "signalled"].contains(&reason) { 10 } else { 0 };
    let is_told = |event: &serde_json::Value| event["message"] == "a process ended";
    eventually(format_args!("{expected} ends are logged"), || {
        server.log().iter().filter(|event| is_told(event)).count() == expected
    });
}

#[test]
fn an_end_with_a_status_of_failure_is_told_and_an_ordinary_one_is_not() {
    let heard = |mut client: Client| {
        client.send("x\n");
        client.expect_end();
    };
    check_end("echo up; read x; exit 3", heard, "failed");
    check_end("echo up; read x", heard, "exited");
}

#[test]
fn a_crash_is_counted_as_one_however_the_conversation_ended() {
    let crash = "echo up; read x; kill -SEGV $$";
    check_end(crash, |mut client| client.send("x\n"), "signalled");
    let heard = |mut client: Client| {
        client.send("x\n");
        client.expect_end();
    };
    check_end(crash, heard, "signalled");
    // Told to end, it falls.
    let falls = "trap 'kill -SEGV $$' TERM; echo up; while :; do read x; done";
    check_end(falls, Client::reset, "signalled");
}

#[test]
fn each_of_many_clients_has_its_own_process() {
    let server = each(&sh("while read x; do echo $$ $x; done"), "framing = \"line\"");
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("{number}\n"));
    }
    let mut pids = std::collections::BTreeSet::new();
    for (number, client) in clients.iter_mut().enumerate() {
        client.finish();
        let text = String::from_utf8(client.read_to_end()).unwrap();
        let (pid, said) = text.split_once(' ').unwrap();
        assert_eq!(said, format!("{number}\n"));
        pids.insert(pid.to_owned());
    }
    assert_eq!(pids.len(), 60);
    drop(clients);
    server.eventually_closed(&[("peer_closed", 60)]);
    let metrics = server
        .eventually("all have ended", |metrics| metrics.sum("talkback_command_processes") == 0.0);
    assert_eq!(of_main(&metrics, "starts_total"), 60.0);
    assert_eq!(metrics.sum("talkback_command_ends_total"), 60.0);
}

#[test]
fn a_burst_of_clients_is_served_to_the_last_and_leaves_nothing() {
    const CLIENTS: usize = 300;
    let server = each("[\"cat\"]", "framing = \"line\"");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let before = descriptors();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("{number}\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(format!("{number}\n"));
    }
    drop(clients);
    server.eventually_closed(&[("peer_closed", CLIENTS as u64)]);
    let metrics = server.eventually("all have ended", |metrics| {
        ends(metrics, "exited") + ends(metrics, "connection_closed") == CLIENTS as f64
    });
    assert_eq!(metrics.sum("talkback_command_processes"), 0.0);
    eventually("every descriptor is closed", || descriptors() <= before);
}

#[test]
fn a_process_that_cannot_be_started_costs_its_connection_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    script(&path, "#!/bin/sh\necho hello\n");
    let server = each(&format!("[\"{}\"]", path.display()), "");
    assert_eq!(said(&server), "hello\n");
    std::fs::remove_file(path).unwrap();
    server.connect().expect_end();
    server.eventually_closed(&[("responder_closed", 1), ("responder_error", 1)]);
    let metrics = server.metrics();
    assert_eq!(refused(&metrics, "start_failed"), 1.0);
    assert_eq!(of_main(&metrics, "start_failures_total"), 1.0);
}

#[test]
fn a_client_whose_process_does_not_start_in_time_is_refused_and_counted() {
    let server = each("[\"cat\"]", "");
    // The first start takes longer than the ten seconds that anybody waits for.
    let delay = ["epoll_wait:error=EINTR:when=1", "clone:delay_enter=10500000:when=1"];
    let _faults = Faults::inject(&server, "processes", &delay);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(Client::expect_end);
    drop(clients);
    server.eventually_closed(&[("responder_timeout", 3)]);
    server.eventually("they are counted", |metrics| refused(metrics, "start_failed") == 3.0);
    eventually("it is logged", || server.logged("a process was not started in time").is_some());
}

#[test]
fn a_stop_hears_the_programs_out() {
    let script =
        "while read x; do python3 -c 'import time; time.sleep(0.2)'; echo $x; done; echo bye";
    let mut server = each(&sh(script), "framing = \"line\"");
    let mut client = server.connect();
    client.send("one\ntwo\n");
    client.expect("one\n");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(client.read_to_end(), b"two\nbye\n");
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.close_lines()[0]["reason"], "shutdown");
}

#[test]
fn a_stop_does_not_wait_beyond_its_deadline_and_leaves_no_process() {
    let script = format!("trap '' TERM; echo $$; {FOR_EVER}");
    let config = config(&sh(&script), "", "mode = \"per_connection\"");
    let mut server = Server::start(&(config + "[shutdown]\ndrain_timeout = \"300ms\"\n"));
    let mut client = server.connect();
    let mut text = [0; 16];
    let length = client.stream.read(&mut text).unwrap();
    let pid: u32 = std::str::from_utf8(&text[..length]).unwrap().trim().parse().unwrap();
    assert_eq!(server.stop(), Some(0));
    assert!(!lives(pid));
    assert_eq!(server.close_lines()[0]["reason"], "shutdown_forced");
}

#[test]
fn a_program_for_each_client_is_tested_at_the_start_too() {
    let config = |script: &str| {
        let keys = "mode = \"per_connection\"\nself_test = \"ping\"\nself_test_timeout = \"1s\"";
        config(&sh(script), "", keys)
    };
    let server = Server::start(&config("while read x; do echo $x; done"));
    server.eventually("it has gone", |metrics| ends(metrics, "stopped") == 1.0);
    let mut client = server.connect();
    client.send("x\n");
    client.expect("x\n");
    // The program asks who is there, as it does for a client.
    let asks = "read x; us=127.0.0.1; port=49152
                [ $PROTO,$TCPREMOTEIP,$TCPREMOTEPORT,$TCPLOCALIP = TCP,$us,$port,$us ] || exit
                [ $REMOTE_ADDR,$REMOTE_PORT = $us,$port ] && : ${TCPLOCALPORT:?} && echo $x";
    drop(Server::start(&config(asks)));
    let mut server = Server::spawn(&config("read x; exit 1"), |command| command);
    assert_eq!(server.wait().code(), Some(1));
    assert!(server.log().last().unwrap().to_string().contains("exit status: 1"));
}
