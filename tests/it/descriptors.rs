//! Descriptors that run out under a running server, and starts that count them first.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{Client, Server, eventually, get, run_by};
use crate::refused::check_refused_by;

/// Lowers the server's soft limit, or gives it back what it began with.
fn limit_descriptors(server: &Server, soft: Option<u64>) {
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: soft.or(hard), maximum: hard };
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

/// The server's open descriptors.
fn descriptors(server: &Server) -> BTreeSet<u64> {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// What the server has used of the CPU, in hundredths of a second.
fn cpu(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].map(|field| fields[field].parse::<u64>().unwrap()).iter().sum()
}

/// A core that burned would use 50 hundredths.
#[track_caller]
fn check_no_core_burns(server: &Server) {
    let (began, before) = (Instant::now(), cpu(server));
    eventually("half a second has passed", || began.elapsed() >= Duration::from_millis(500));
    let used = cpu(server) - before;
    assert!(used <= 10, "{used} hundredths in {:?}", began.elapsed());
}

/// A newcomer, if it is served; nothing if it is turned away.
fn newcomer(server: &Server) -> Option<Client> {
    let mut client = server.connect();
    // Either fails where the server's end is closed by then.
    client.stream.write_all(b"hello").ok()?;
    client.stream.read_exact(&mut [0; 5]).ok()?;
    Some(client)
}

#[track_caller]
fn check_back_within_a_second(began: Instant) {
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn without_descriptors_newcomers_are_turned_away_and_conversations_go_on() {
    let server = Server::with_listener("");
    // While tiny_http starts it has the sidecar's reserve; one page later that is back.
    server.metrics();
    let mut live: Vec<_> = (0..20).map(|_| newcomer(&server).unwrap()).collect();
    // The newest has the lowest number that was free, so that those below are all taken.
    let before = descriptors(&server);
    live.push(newcomer(&server).unwrap());
    let newest = *descriptors(&server).difference(&before).next().unwrap();
    limit_descriptors(&server, Some(newest + 1));
    let mut turned_away = 0;
    while turned_away < 5 {
        // accept(2) takes a number before it waits, so that the first may still be served.
        match newcomer(&server) {
            Some(client) => live.push(client),
            None => turned_away += 1,
        }
        assert!(live.len() < 30, "the limit does not bite");
    }
    for client in &mut live {
        client.echo("still served");
    }
    // Now is when an operator looks.
    assert_eq!(server.metrics().rejections(), [("fd_reserve".to_owned(), turned_away)].into());
    check_no_core_burns(&server);

    limit_descriptors(&server, None);
    let began = Instant::now();
    live.push(newcomer(&server).expect("service is back"));
    let metrics = server.metrics();
    check_back_within_a_second(began);
    assert!(metrics.get("talkback_accept_errors_total{error=\"emfile\",listener=\"main\"}") > 0.0);
    let served = live.len() as u64;
    drop(live);
    server.eventually_closed(&[("peer_closed", served)]);
}

#[test]
fn without_even_a_reserve_newcomers_wait_and_are_served_afterwards() {
    const SAID: &str = "accept fails; trying again ten times a second";
    let server = Server::with_listener("");
    let mut live = newcomer(&server).unwrap();
    limit_descriptors(&server, Some(3));
    let mut waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("waited");
    }
    let sidecar = server.metrics_address();
    let scrape = thread::spawn(move || get(sidecar, "/metrics"));
    eventually("accept fails", || server.logged(SAID).is_some());
    live.echo("still served");
    check_no_core_burns(&server);

    limit_descriptors(&server, None);
    let began = Instant::now();
    for client in &mut waiting {
        client.expect("waited");
    }
    // It waited too, or was turned away when the last descriptor was gone.
    drop(scrape.join().unwrap());
    let metrics = server.metrics();
    check_back_within_a_second(began);
    assert_eq!(metrics.rejections(), [].into());
    // Said once, not ten times a second.
    assert_eq!(server.log().iter().filter(|event| event["message"] == SAID).count(), 1);
    drop((live, waiting));
    server.eventually_closed(&[("peer_closed", 6)]);
}

/// Waits until both accept threads wait in accept(2), which then holds a descriptor for each.
#[track_caller]
fn await_acceptors(server: &Server) {
    eventually("the acceptors wait", || {
        let waits = |(_, stat): &(u32, String)| {
            stat.contains(" (accept-main) S ") || stat.contains(" (metrics-door) S ")
        };
        server.threads("stat").filter(waits).count() == 2
    });
}

#[test]
fn at_the_limit_newcomers_that_are_all_served_are_not_said_to_be_turned_away() {
    let mut server = Server::with_listener("");
    server.metrics();
    await_acceptors(&server);
    let before = descriptors(&server);
    let mut live: VecDeque<_> = (0..10).map(|_| newcomer(&server).unwrap()).collect();
    await_acceptors(&server);
    // Each has the lowest number that was free, so that those below the highest are all taken.
    let highest = *descriptors(&server).difference(&before).last().unwrap();
    limit_descriptors(&server, Some(highest + 1));
    // accept(2) holds a number beyond the limit, which nobody gets when it is free again.
    let beyond = newcomer(&server).expect("accept(2) has a descriptor for it");
    for _ in 0..20 {
        await_acceptors(&server);
        let before = descriptors(&server).len();
        drop(live.pop_front());
        eventually("one has gone", || descriptors(&server).len() < before);
        live.push_back(newcomer(&server).expect("there is room for it"));
    }
    let errors = "talkback_accept_errors_total{error=\"emfile\",listener=\"main\"}";
    assert!(server.metrics().get(errors) > 0.0, "the limit does not bite");
    drop((live, beyond));
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    let said = |event: &&serde_json::Value| {
        event["message"].as_str().is_some_and(|message| message.contains("turned away"))
    };
    assert_eq!(log.iter().find(said), None);
}

/// Starts the same program from a shell that sets a limit first.
fn from_shell<'c>(command: &'c mut Command, limit: &str) -> &'c mut Command {
    run_by(command, &["sh", "-c", &format!("{limit} && exec \"$@\""), "sh"])
}

fn with_400_descriptors(command: &mut Command) -> &mut Command {
    from_shell(command, "ulimit -n 400")
}

const LISTENER: &str = "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n";

/// 4 × 32 for scrapes, 3 × 2 for workers, 3 × 1 for listeners, 32 besides.
const NOT_FOR_CONNECTIONS: u64 = 128 + 6 + 3 + 32;

#[test]
fn max_connections_of_the_file_that_do_not_fit_are_refused_with_the_sum() {
    let config = format!("{LISTENER}[limits]\nmax_connections = 232");
    let sum = format!("= {}", NOT_FOR_CONNECTIONS + 232);
    check_refused_by(
        &config,
        with_400_descriptors,
        1,
        &["limits.max_connections", "232 connections + ", &sum, "400", "ulimit -n"],
    );
}

#[test]
fn max_connections_of_the_file_that_just_fit_are_accepted() {
    let config = format!("{LISTENER}[limits]\nmax_connections = 231");
    let server = Server::start_by(&config, with_400_descriptors);
    assert_eq!(server.metrics().get("talkback_connections_limit"), 231.0);
}

#[test]
fn max_connections_by_default_are_lowered_to_what_fits() {
    let server = Server::start_by(LISTENER, with_400_descriptors);
    let fits = 400 - NOT_FOR_CONNECTIONS;
    let warning = server.logged("max_connections lowered to what fits").unwrap();
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["max_connections"], fits);
    assert_eq!(server.metrics().get("talkback_connections_limit"), fits as f64);
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let server = Server::start_by(LISTENER, |command| {
        from_shell(command, "ulimit -Sn 99 && ulimit -Hn 500")
    });
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<_> = open_files.split_ascii_whitespace().skip(3).take(2).collect();
    assert_eq!(values, ["500", "500"]);
}
