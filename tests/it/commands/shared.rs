//! A pool of processes for all clients of a listener.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::harness::Client;

/// A client that reads lines.
struct Lines {
    client: Client,
    reader: BufReader<std::net::TcpStream>,
}

impl Lines {
    #[track_caller]
    fn new(server: &Server) -> Self {
        let client = server.connect();
        let reader = BufReader::new(client.stream.try_clone().unwrap());
        Self { client, reader }
    }

    #[track_caller]
    fn read(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    fn ask(&mut self, text: &str) -> String {
        self.client.send(format!("{text}\n"));
        self.read()
    }

    /// Who answers, by its process number.
    #[track_caller]
    fn ask_who(&mut self, text: &str) -> u32 {
        let reply = self.ask(text);
        let (said, pid) = reply.rsplit_once(' ').unwrap();
        assert_eq!(said, text);
        pid.parse().unwrap()
    }
}

#[test]
fn each_of_two_hundred_clients_gets_its_own_replies() {
    let server = shared(&echo(), "max_processes = 4\npipeline = 3");
    let processes: BTreeSet<u32> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let mut client = Lines::new(&server);
            (0..10).map(move |turn| client.ask_who(&format!("{number}.{turn}"))).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..200).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!((1..=4).contains(&processes.len()), "{processes:?}");
    let metrics = server
        .eventually("all are closed", |metrics| metrics.closes().get("peer_closed") == Some(&200));
    metrics.assert_ledger();
    assert_eq!(metrics.sum("talkback_replies_total"), 2000.0);
    assert_eq!(of_main(&metrics, "reply_seconds_count"), 2000.0);
    assert_eq!(of_main(&metrics, "queue_wait_seconds_count"), 2000.0);
    assert_eq!(of_main(&metrics, "queue_length"), 0.0);
    assert_eq!(self::processes(&metrics, "idle"), processes.len() as f64);
}

#[test]
fn pipelined_lines_are_answered_in_their_order() {
    let server = shared(&python("print(line)"), "max_processes = 3");
    let mut client = server.connect();
    let text: String = (0..500).map(|number| format!("{number}\n")).collect();
    assert_eq!(client.exchange(text.as_bytes()), text.as_bytes());
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn a_reply_is_passed_on_as_it_stands_but_for_its_line_ending() {
    let program = python("sys.stdout.buffer.write(b'\\xff \\xe4\\xbd\\xa0\\r\\n')");
    let server = shared(&program, "");
    let mut client = server.connect();
    client.send("x\ny\n");
    client.expect(b"\xff \xe4\xbd\xa0\n\xff \xe4\xbd\xa0\n");
}

#[test]
fn a_message_longer_than_a_pipe_and_its_reply_arrive_whole() {
    let server = shared(&python("print(line)"), "max_reply_bytes = 1000000");
    let server_limit = "x".repeat(65_536) + "\n";
    let text = server_limit.repeat(8);
    assert_eq!(server.connect().exchange(text.as_bytes()), text.as_bytes());
}

#[test]
fn a_process_killed_by_hand_costs_its_own_request_alone() {
    let server = shared(&python("time.sleep(float(line)); print(os.getpid())"), "");
    let mut victim = Lines::new(&server);
    let pid: u32 = victim.ask("0").parse().unwrap();
    victim.client.send("60\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    let mut other = Lines::new(&server);
    let others: u32 = other.ask("0").parse().unwrap();
    assert_ne!(pid, others);
    kill(pid);
    victim.client.expect_end();
    assert_eq!(other.ask("0"), others.to_string());
    drop(victim);
    let metrics = server.eventually("its end is counted", |metrics| {
        ends(metrics, "signalled") == 1.0 && metrics.sum("talkback_connections") == 1.0
    });
    assert_eq!(metrics.closes().into_iter().collect::<Vec<_>>(), [("responder_error".into(), 1)]);
    metrics.assert_ledger();
    // An idle one costs nobody anything.
    kill(others);
    eventually_gone(others);
    assert_ne!(other.ask("0"), others.to_string());
}

/// Says that it is over when it is dropped.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until it is told to stop; a connection that the server closes is followed by the next one.
/// Returns how many it lost.
fn ask_on(server: &Server, number: usize, pids: &Mutex<Vec<u32>>, is_over: &AtomicBool) -> usize {
    let mut lost = 0;
    let mut client = Lines::new(server);
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{number}.{turn}");
        let reply = client.ask(&text);
        if reply.is_empty() {
            lost += 1;
            client = Lines::new(server);
            continue;
        }
        let (said, pid) = reply.rsplit_once(' ').unwrap();
        assert_eq!(said, text);
        pids.lock().unwrap().push(pid.parse().unwrap());
    }
    lost
}

#[test]
fn while_processes_are_killed_no_reply_goes_astray_and_each_kill_costs_one_request() {
    const KILLS: usize = 12;
    let server = shared(&echo(), "max_processes = 3");
    let (pids, is_over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let lost: usize = std::thread::scope(|scope| {
        let (server, pids, is_over) = (&server, &pids, &is_over);
        let clients: Vec<_> = (0..30)
            .map(|number| scope.spawn(move || ask_on(server, number, pids, is_over)))
            .collect();
        let mut killed = BTreeSet::new();
        // Whatever fails here, the clients end.
        let over = Over(is_over);
        while killed.len() < KILLS && clients.iter().any(|client| !client.is_finished()) {
            let pid = pids.lock().unwrap().pop();
            if let Some(pid) = pid.filter(|pid| !killed.contains(pid) && lives(*pid)) {
                kill(pid);
                killed.insert(pid);
                server.eventually("it is counted", |metrics| {
                    ends(metrics, "signalled") == killed.len() as f64
                });
            }
        }
        drop(over);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(lost <= KILLS, "{lost}");
    let metrics =
        server.eventually("all are closed", |metrics| metrics.sum("talkback_connections") == 0.0);
    assert_eq!(metrics.closes().get("responder_error").copied().unwrap_or(0), lost as u64);
    metrics.assert_ledger();
    assert_eq!(metrics.sum("talkback_command_refused_total"), 0.0);
}

#[test]
fn nobody_notices_that_processes_are_replaced_after_their_share() {
    let server = shared(&echo(), "max_processes = 1\nmax_requests = 10");
    let mut client = Lines::new(&server);
    let pids: BTreeSet<u32> =
        (0..100).map(|turn| client.ask_who(&format!("turn {turn}"))).collect();
    assert_eq!(pids.len(), 10);
    server.eventually("nine have gone", |metrics| ends(metrics, "max_requests") >= 9.0);
    assert_eq!(server.metrics().sum("talkback_connections_closed_total"), 0.0);
}

#[test]
fn more_processes_run_while_they_are_needed() {
    let keys = "min_processes = 1\nmax_processes = 3\nprocess_idle_timeout = \"200ms\"";
    let server = shared(&python("time.sleep(0.2); print(line)"), keys);
    assert_eq!(processes(&server.metrics(), "idle"), 1.0);
    let mut clients: Vec<_> = (0..6).map(|_| Lines::new(&server)).collect();
    clients.iter_mut().for_each(|client| client.client.send("x\n"));
    server.eventually("all three work", |metrics| processes(metrics, "busy") == 3.0);
    clients.iter_mut().for_each(|client| assert_eq!(client.read(), "x"));
    server.eventually("one is left", |metrics| {
        ends(metrics, "idle") == 2.0 && processes(metrics, "idle") == 1.0
    });
}

#[test]
fn a_drain_answers_what_it_owes_and_leaves_no_process() {
    let mut server = shared(&python("time.sleep(0.3); print(line, os.getpid())"), "");
    let mut clients: Vec<_> = (0..8).map(|_| Lines::new(&server)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.client.send(format!("{number}\n"));
    }
    server.eventually("some work", |metrics| {
        processes(metrics, "busy") > 0.0 && metrics.sum("talkback_messages_total") == 8.0
    });
    server.signal(rustix::process::Signal::TERM);
    let mut pids = BTreeSet::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.read();
        let (said, pid) = reply.split_once(' ').unwrap();
        assert_eq!(said, number.to_string());
        pids.insert(pid.parse().unwrap());
        assert_eq!(client.read(), "");
    }
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.close_lines().iter().all(|line| line["reason"] == "shutdown"));
    pids.into_iter().for_each(|pid: u32| assert!(!lives(pid), "{pid}"));
}

#[test]
fn a_stop_does_not_wait_for_a_program_beyond_its_deadline() {
    let program = python("time.sleep(600)");
    let config = config(&program, "framing = \"line\"", "");
    let mut server = Server::start(&(config + "[shutdown]\ndrain_timeout = \"300ms\"\n"));
    let mut client = server.connect();
    client.send("x\n");
    server.eventually("it works", |metrics| processes(metrics, "busy") == 1.0);
    assert_eq!(server.stop(), Some(0));
    assert_eq!(server.close_lines()[0]["reason"], "shutdown_forced");
}

#[test]
fn listeners_have_programs_of_their_own() {
    let listener = |name: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
             responder = \"command\"\n[listener.command]\nprogram = {}\n",
            python(&format!("print('{name}', line)"))
        )
    };
    let names = ["one", "two", "three"];
    let server = Server::start(&("workers = 2\n".to_owned() + &names.map(listener).concat()));
    for (index, name) in names.into_iter().enumerate() {
        let mut client = Client::connect(server.address_of(index));
        client.stream.write_all(b"hello\n").unwrap();
        client.expect(format!("{name} hello\n"));
    }
}
