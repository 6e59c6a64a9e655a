//! Programs and clients that are slow to read or to write, or never do: who waits for whom, and for
//! how long.

use std::io::{Read, Write};
use std::time::Instant;

use super::*;

#[test]
fn what_a_program_does_not_read_any_more_is_not_kept() {
    const BYTES: usize = 32_000_000;
    let server = each(&sh(&format!("exec </dev/null; echo deaf; {FOR_EVER}")), "");
    let mut client = server.connect();
    client.expect("deaf\n");
    let resident = server.metrics().get("process_resident_memory_bytes");
    client.send("x".repeat(BYTES));
    let metrics = server.eventually("all is taken", |metrics| {
        metrics.sum("talkback_received_bytes_total") >= BYTES as f64
    });
    let grown = metrics.get("process_resident_memory_bytes") - resident;
    assert!(grown < BYTES as f64 / 4.0, "{grown} bytes more");
}

#[test]
fn a_program_that_does_not_read_holds_up_its_own_client_alone() {
    let server = each(
        &sh(&format!("read x; [ $x = deaf ] && {FOR_EVER}; echo $x; cat")),
        "framing = \"line\"\nreply_timeout = \"500ms\"",
    );
    let mut other = server.connect();
    other.send("hearing\n");
    other.expect("hearing\n");
    let mut client = server.connect();
    client.send("deaf\n");
    let text = ("x".repeat(1000) + "\n").repeat(10_000);
    // It is not read either, so that not all of it can be sent.
    let mut out = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || out.write_all(text.as_bytes()));
    other.send("still\n");
    other.expect("still\n");
    // Its end may be a reset, as it has sent what nobody has read.
    let _ = client.stream.read(&mut [0]);
    drop(client);
    let _ = sender.join().unwrap();
    drop(other);
    server.eventually_closed(&[("responder_timeout", 1), ("peer_closed", 1)]);
}

/// A program that does this with a line, and then takes its input in pieces until it has `LINES`.
fn slowly(body: &str, seconds: f64) -> String {
    let program = format!(
        "import os, time\nos.write(1, b'up\\n')\nos.read(0, 6)\n{body}\nleft = {}\n\
         while left > 0:\n    left -= len(os.read(0, 4096))\n    time.sleep({seconds})\n\
         os.write(1, b'all\\n')\nos.read(0, 1)",
        LINES.0 * LINES.1
    );
    format!("[\"python3\", \"-c\", {program:?}]")
}

/// So many lines of so many bytes: the second one does not fit into a pipe behind the first.
const LINES: (usize, usize) = (2, 65_000);

/// A client says `begin` and these lines, reads nothing for a while, and gets `expected`. The
/// program may be idle for a second.
#[track_caller]
fn check_waits(program: &str, reads_after: Duration, expected: &str, reason: &str) {
    let server = each(program, "framing = \"line\"\nreply_timeout = \"1s\"");
    let mut client = server.connect();
    client.expect("up\n");
    let line = "x".repeat(LINES.1 - 1) + "\n";
    client.send(format!("begin\n{}", line.repeat(LINES.0)));
    let began = Instant::now();
    eventually("a while", || began.elapsed() >= reads_after);
    let mut got = Vec::new();
    let mut rest = (&client.stream).take(expected.len() as u64);
    rest.read_to_end(&mut got).unwrap();
    assert!(got == expected.as_bytes(), "{} bytes of {}", got.len(), expected.len());
    drop(client);
    server.eventually_closed(&[(reason, 1)]);
}

#[test]
fn a_program_that_takes_its_time_is_waited_for_while_it_reads() {
    check_waits(&slowly("", 0.08), Duration::ZERO, "all\n", "peer_closed");
}

#[test]
fn a_program_that_does_not_read_is_waited_for_while_it_writes() {
    let says = "for turn in range(13):\n    time.sleep(0.1); os.write(1, b'busy\\n')";
    let expected = "busy\n".repeat(13) + "all\n";
    check_waits(&slowly(says, 0.0), Duration::ZERO, &expected, "peer_closed");
}

#[test]
fn a_program_that_is_stuck_in_its_input_is_not_waited_for_long() {
    let gets_stuck = "for turn in range(5):\n    os.read(0, 4096); time.sleep(0.05)\n\
                      os.execvp('tail', ['tail', '-f', '/dev/null'])";
    check_waits(&slowly(gets_stuck, 0.0), Duration::ZERO, "", "responder_timeout");
}

#[test]
fn a_program_is_not_blamed_for_a_client_that_takes_its_time() {
    const BYTES: usize = 30_000_000;
    let says = format!(
        "left = {BYTES}\nwhile left > 0:\n    left -= os.write(1, b'y' * min(left, 65536))"
    );
    // Longer than the program's time, in which it can neither read nor write.
    let reads_after = Duration::from_millis(2500);
    check_waits(&slowly(&says, 0.0), reads_after, &("y".repeat(BYTES) + "all\n"), "peer_closed");
}

#[test]
fn a_client_that_does_not_read_holds_up_its_own_program_alone() {
    let config = config("[\"yes\"]", "", "mode = \"per_connection\"");
    let server = Server::start(&(config + "[limits]\nsend_timeout = \"500ms\"\n"));
    let client = server.connect();
    server.eventually("it is cut", |metrics| metrics.closes().get("send_timeout") == Some(&1));
    let metrics = server.eventually("it was ended", |it| ends(it, "connection_closed") == 1.0);
    assert_eq!(metrics.sum("talkback_pending_bytes"), 0.0);
    assert!(metrics.sum("talkback_discarded_bytes_total") <= 200_000.0, "{metrics}");
    drop(client);
}
