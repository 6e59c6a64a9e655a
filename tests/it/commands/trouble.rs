//! What a shared program may do wrong, and what a listener does then.

use std::time::Instant;

use super::*;
use crate::harness::Client;

#[test]
fn a_queue_that_is_full_is_answered_at_once() {
    let keys = "max_processes = 1\nmax_queue = 2\noverload_reply = \"try later\"";
    let server = shared(&python("time.sleep(600)"), keys);
    let mut waiting: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send("x\n");
        server.eventually("it was taken", |metrics| {
            let taken = processes(metrics, "busy") + of_main(metrics, "queue_length");
            taken == number as f64 + 1.0
        });
    }
    let mut client = server.connect();
    client.send("x\ny\n");
    client.expect("try later\ntry later\n");
    assert_eq!(refused(&server.metrics(), "queue_full"), 2.0);
}

#[test]
fn where_inboxes_are_full_everybody_is_answered_all_the_same() {
    let config = config(&python("print(line)"), "framing = \"line\"", "pipeline = 8");
    let server = Server::start(&(config + "[limits]\ninbox_connections = 1\n"));
    // One after the other, as newcomers go through an inbox of the same size.
    let clients = (0..30).map(|number: usize| {
        let client = server.connect();
        server.eventually("it is taken", |metrics| {
            metrics.sum("talkback_connections") == number as f64 + 1.0
                && metrics.sum("talkback_worker_inbox_connections") == 0.0
        });
        client
    });
    let clients: Vec<_> = clients.collect();
    std::thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                let line = format!("{number}\n");
                let replies = client.exchange(line.repeat(20).as_bytes());
                let replies = String::from_utf8(replies).unwrap();
                assert_eq!(replies.lines().count(), 20);
                replies.lines().for_each(|reply| assert!([line.trim(), "busy"].contains(&reply)));
            });
        }
    });
    server.eventually_closed(&[("peer_closed", 30)]);
}

#[test]
fn without_an_overload_reply_the_connection_closes() {
    let keys = "max_processes = 1\nmax_queue = 1\noverload_reply = \"\"\nqueue_timeout = \"100ms\"";
    let server = shared(&python("time.sleep(600)"), keys);
    let mut busy = server.connect();
    busy.send("x\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    let mut client = server.connect();
    client.send("x\n");
    client.expect_end();
    assert_eq!(refused(&server.metrics(), "queue_timeout"), 1.0);
    drop(client);
    server
        .eventually("it is closed", |metrics| metrics.closes().get("responder_error") == Some(&1));
}

#[test]
fn who_waits_too_long_for_a_process_is_told() {
    let keys = "max_processes = 1\nqueue_timeout = \"300ms\"";
    let server = shared(&python("time.sleep(600)"), keys);
    let mut busy = server.connect();
    busy.send("x\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    let mut client = server.connect();
    let began = std::time::Instant::now();
    client.send("x\n");
    client.expect("busy\n");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(refused(&server.metrics(), "queue_timeout"), 1.0);
}

#[test]
fn a_process_that_takes_too_long_is_replaced_and_its_client_closed() {
    let program = sh("while read x; do [ $x = quick ] || exec tail -f /dev/null; echo $$; done");
    let listener = "framing = \"line\"\nreply_timeout = \"500ms\"";
    let server = Server::start(&config(&program, listener, "max_processes = 1"));
    let mut other = server.connect();
    let mut client = server.connect();
    client.send("quick\nslow\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    other.send("quick\n");
    let first = String::from_utf8(client.read_to_end()).unwrap();
    let pid: u32 = first.trim().parse().unwrap();
    eventually_gone(pid);
    let metrics = server.eventually("its end is counted", |it| ends(it, "timeout") == 1.0);
    assert_eq!(of_main(&metrics, "timeouts_total"), 1.0);
    let said = "a process is ended: no reply within reply_timeout";
    eventually("it is logged", || server.logged(said).is_some());
    assert_eq!(server.logged(said).unwrap()["pid"], pid);
    drop(client);
    // Who waited behind it is answered by the next one.
    let mut reply = [0; 1];
    std::io::Read::read_exact(&mut other.stream, &mut reply).unwrap();
    drop(other);
    server.eventually_closed(&[("responder_timeout", 1), ("peer_reset", 1)]);
}

#[test]
fn a_process_that_takes_too_long_is_told_of_when_it_is_given_up_and_when_it_ends() {
    // It stays for the two seconds until it is killed.
    let program = sh("trap '' TERM; read x; exec tail -f /dev/null");
    let server =
        Server::start(&config(&program, "framing = \"line\"\nreply_timeout = \"300ms\"", ""));
    let mut client = server.connect();
    client.send("x\n");
    client.expect_end();
    eventually("its end is logged", || server.logged("a process ended").is_some());
    let said: Vec<String> = server.log().iter().map(|event| event["message"].to_string()).collect();
    let of = |text: &str| -> Vec<usize> {
        let told = said.iter().enumerate().filter(|(_, said)| said.contains(text));
        told.map(|(at, _)| at).collect()
    };
    let told = [of("no reply within"), of("ignored SIGTERM"), of("a process ended")];
    let [[given_up], [killed], [ended]] = told.each_ref().map(Vec::as_slice) else {
        panic!("{said:#?}");
    };
    assert!(given_up < killed && killed < ended, "{said:#?}");
    assert_eq!(server.logged("a process ended").unwrap()["status"], "signal: 9 (SIGKILL)");
}

#[test]
fn a_process_that_never_answers_is_said_to_buffer_its_output() {
    // Without -u, and its output a pipe.
    let program = python("print(line)").replace("\"-u\", ", "");
    let listener = "framing = \"line\"\nreply_timeout = \"300ms\"";
    let server = Server::start(&config(&program, listener, ""));
    let mut client = server.connect();
    client.send("x\n");
    client.expect_end();
    let said = "a process is ended: no reply within reply_timeout, nor ever before: is each line \
                flushed (python3 -u, stdbuf -oL)?";
    eventually("it is logged", || server.logged(said).is_some());
}

#[test]
fn a_line_that_nobody_asked_for_reaches_nobody() {
    let program = python("print(line)\nif line == 'more': print('surprise')");
    let server = shared(&program, "max_processes = 1");
    let mut client = server.connect();
    client.send("one\n");
    client.expect("one\n");
    client.send("more\n");
    client.expect("more\n");
    server.eventually("it was ended", |metrics| ends(metrics, "protocol") == 1.0);
    client.send("two\n");
    client.expect("two\n");
    let event = server.logged("a process wrote a line that nobody asked for").unwrap();
    assert_eq!(event["text"], "surprise");
}

#[test]
fn what_is_left_of_a_reply_never_reaches_who_comes_next() {
    // The second line, or the beginning of one, leaves together with the reply.
    for surplus in ["\\nsurprise\\n", "\\nsurprise"] {
        let program = python(&format!("sys.stdout.write(line + '{surplus}'); time.sleep(0.01)"));
        let server = shared(&program, "max_processes = 1");
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("{number}\n"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.expect(format!("{number}\n"));
        }
    }
}

#[test]
fn a_reply_that_is_too_long_costs_its_own_request() {
    let program = python("print('x' * int(line))");
    let server = shared(&program, "max_reply_bytes = 1000\nmax_processes = 1");
    let mut client = server.connect();
    client.send("1000\n");
    client.expect("x".repeat(1000) + "\n");
    client.send("1001\n");
    client.expect_end();
    server.eventually("it was ended", |metrics| ends(metrics, "protocol") == 1.0);
    let mut other = server.connect();
    other.send("3\n");
    other.expect("xxx\n");
    drop((client, other));
    server.eventually_closed(&[("responder_error", 1), ("peer_closed", 1)]);
}

#[test]
fn a_reply_that_came_while_the_server_was_stopped_is_in_time() {
    let listener = "framing = \"line\"\nreply_timeout = \"3s\"";
    let program = python("time.sleep(0.3); print(line)");
    let server = Server::start(&config(&program, listener, ""));
    let mut client = server.connect();
    client.send("warm\n");
    client.expect("warm\n");
    client.send("a\n");
    server.eventually("it was asked", |metrics| processes(metrics, "busy") == 1.0);
    server.pause();
    let paused = Instant::now();
    eventually("its time is over", || paused.elapsed() > Duration::from_millis(3500));
    server.signal(rustix::process::Signal::CONT);
    client.expect("a\n");
    assert_eq!(server.metrics().sum("talkback_command_ends_total"), 0.0);
}

/// What `talkback serve` says when it does not start with this program.
#[track_caller]
fn check_start(program: &str, command: &str, expected: &[&str]) {
    let config = config(program, "framing = \"line\"", command);
    let mut server = Server::spawn(&config, |command| command);
    assert_eq!(server.wait().code(), Some(1));
    let log = server.log();
    let said = log.last().map(ToString::to_string).unwrap_or_default();
    for part in expected {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

#[test]
fn a_program_that_buffers_its_output_is_found_out_at_the_start() {
    // Without -u, and its output a pipe.
    let program = python("print(line)").replace("\"-u\", ", "");
    let keys = "self_test = \"ping\"\nself_test_timeout = \"500ms\"";
    check_start(
        &program,
        keys,
        &["self_test", "ping", "nothing came back", "python3 -u", "stdbuf -oL"],
    );
    let program = sh("read x; printf $x; cat");
    check_start(&program, keys, &["only", "ping", "came back, without an end of line"]);
}

#[test]
fn the_self_test_has_a_time_of_its_own() {
    let listener = "framing = \"line\"\nreply_timeout = \"1ms\"";
    let program = sh(&format!("{}; exec cat", pause(0.2)));
    let server = Server::start(&config(&program, listener, "self_test = \"ping\""));
    // For clients it is not.
    let slow = sh("read x; echo $x; exec tail -f /dev/null");
    drop(server);
    let server = Server::start(&config(&slow, listener, "self_test = \"ping\""));
    let mut client = server.connect();
    client.send("a\n");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("responder_timeout", 1)]);
}

#[test]
fn what_a_program_says_before_it_is_asked_is_no_answer_to_its_self_test() {
    let keys = "self_test = \"ping\"";
    let banner = "echo welcome; while read x; do echo $x; done";
    check_start(&sh(banner), keys, &["ping", "welcome", "none at its start"]);
    check_start(&sh("echo welcome; exec tail -f /dev/null"), keys, &["welcome", "before it had"]);
    let twice = sh("while read x; do echo one; echo two; done");
    check_start(&twice, keys, &["one", "and then", "two"]);
}

#[test]
fn a_program_for_each_client_may_greet_prompt_and_leave_at_its_self_test() {
    let keys = "mode = \"per_connection\"\nself_test = \"ping\"\nself_test_timeout = \"2s\"";
    for script in [
        "echo 220 welcome; while read x; do echo 250 $x; done",
        "read x; printf 'welcome\\n%s\\n' $x; cat",
        "printf '> '; while read x; do printf '%s> ' $x; done",
        "read x; printf 'bye\\n\\n'",
    ] {
        let server = Server::start(&config(&sh(script), "framing = \"line\"", keys));
        server
            .eventually("it has gone", |metrics| metrics.sum("talkback_command_ends_total") == 1.0);
        let is_warned = |it: &serde_json::Value| it["level"] == "WARN" && it["listener"] == "main";
        let warned: Vec<_> = server.log().into_iter().filter(is_warned).collect();
        assert!(warned.is_empty(), "{script}: {warned:?}");
        assert_eq!(server.metrics().sum("talkback_command_starts_total"), 1.0, "{script}");
    }
}

#[test]
fn a_program_that_ends_instead_of_answering_is_found_out_at_the_start() {
    let keys = "self_test = \"ping\"";
    check_start(&sh("read x; exit 7"), keys, &["ping", "exit status: 7"]);
    let keys = "self_test = \"ping\"\nrestart_delay = \"1ms\"";
    check_start(&sh("exit 7"), keys, &["ping", "exit status: 7", "whenever it was started"]);
    // And where its time is over before that is certain.
    let keys = "self_test = \"ping\"\nself_test_timeout = \"300ms\"\nrestart_delay = \"5s\"";
    check_start(&sh("exit 7"), keys, &["ping", "exit status: 7"]);
    check_start("[\"no-such-program\"]", "", &["no-such-program"]);
}

#[test]
fn a_script_without_a_first_line_that_counts_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app");
    let program = format!("[{path:?}]");
    script(&path, "echo hello\n");
    let said = format!(
        "cannot execute {} (a script begins with #! and its interpreter): Exec format error",
        path.display()
    );
    check_start(&program, "", &[&said]);
    // As an editor of another system leaves it.
    script(&path, "#!/bin/sh\r\necho hello\r\n");
    check_start(&program, "", &["/bin/sh", "which is not there"]);
}

#[test]
fn a_program_that_answers_its_self_test_is_served_with_and_counts_no_message() {
    let server = shared(&python("print(line)"), "self_test = \"ping\"");
    let mut client = server.connect();
    client.send("x\n");
    client.expect("x\n");
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 1.0);
    assert_eq!(of_main(&metrics, "reply_seconds_count"), 1.0);
}

#[test]
fn a_second_signal_leaves_no_process_that_ignores_the_first() {
    use rustix::process::Signal;
    let program = sh("trap '' TERM; while :; do read x && echo $$; done");
    let mut server = shared(&program, "");
    let child = |(_, list): (u32, String)| list.split_whitespace().next()?.parse().ok();
    let pid = server.threads("children").find_map(child).unwrap();
    server.signal(Signal::INT);
    // From the end of the drain on the process has 2 s, and is not waited for any more.
    eventually("it stops", || server.logged("stopping: not ready").is_some());
    assert!(lives(pid));
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(130));
    eventually_gone(pid);
}

#[test]
fn nothing_is_done_for_clients_that_have_gone_while_they_waited() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let body = format!(
        "while line == 'hold' and not os.path.exists({go:?}): time.sleep(0.01)\nprint(line)"
    );
    let server = shared(&python(&body), "max_processes = 1");
    let mut first = server.connect();
    first.send("hold\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    let mut gone: Vec<_> = (0..7).map(|_| server.connect()).collect();
    gone.iter_mut().for_each(|client| client.send("x\n"));
    server.eventually("they wait", |metrics| of_main(metrics, "queue_length") == 7.0);
    gone.into_iter().for_each(Client::reset);
    server.eventually("they are gone", |metrics| metrics.sum("talkback_connections") == 1.0);
    let mut last = server.connect();
    last.send("y\n");
    server.eventually("it waits", |metrics| of_main(metrics, "queue_length") == 8.0);
    std::fs::write(&go, "").unwrap();
    first.expect("hold\n");
    last.expect("y\n");
    let metrics = server.metrics();
    assert_eq!(of_main(&metrics, "reply_seconds_count"), 2.0);
    assert_eq!(of_main(&metrics, "queue_length"), 0.0);
    assert_eq!(metrics.sum("talkback_late_replies_refused_total"), 0.0);
}
