//! Every error of accept(2): none ends the service, each is counted, and none makes it spin.

use std::thread;

use crate::faults::Faults;
use crate::harness::{Client, Server};

const ACCEPTOR: &str = "accept-main";

/// What accept(2) passes on of one connection, and what is nobody's fault in particular.
const OF_ONE_PEER: &[(&str, &str)] = &[
    ("ECONNABORTED", "econnaborted"),
    ("EPROTO", "other"),
    ("ENOPROTOOPT", "other"),
    ("EHOSTDOWN", "other"),
    ("ENONET", "other"),
    ("EHOSTUNREACH", "other"),
    ("EOPNOTSUPP", "other"),
    ("ENETUNREACH", "other"),
    ("ENETDOWN", "other"),
    ("EPERM", "other"),
    ("EINTR", "other"),
];

/// What the host cannot give, and what should never be.
const OF_THE_HOST: &[(&str, &str)] = &[
    ("EMFILE", "emfile"),
    ("ENFILE", "enfile"),
    ("ENOBUFS", "enobufs"),
    ("ENOMEM", "enomem"),
    ("EAGAIN", "other"),
    ("EBADF", "other"),
    ("EFAULT", "other"),
    ("EINVAL", "other"),
    ("ENOSR", "other"),
    ("ENOTSOCK", "other"),
    ("ESOCKTNOSUPPORT", "other"),
    ("EPROTONOSUPPORT", "other"),
    ("ETIMEDOUT", "other"),
    ("EIO", "other"),
];

#[track_caller]
fn check_counted(server: &Server, label: &str, expected: usize) {
    let series = format!("talkback_accept_errors_total{{error=\"{label}\",listener=\"main\"}}");
    let metrics = server.eventually(&format!("{expected} errors"), |metrics| {
        metrics.get(&series) == expected as f64
    });
    assert_eq!(metrics.sum("talkback_accept_errors_total"), expected as f64);
}

/// So many in a row, with a client before, meanwhile and after.
fn check(error: &str, label: &str, times: usize) -> Vec<f64> {
    let mut server = Server::with_listener("");
    let mut live = server.connect();
    live.echo("before");
    let fault = format!("accept4:error={error}:when=1..{times}");
    let faults = Faults::inject(&server, ACCEPTOR, &[&fault]);
    let mut waiting = server.connect();
    waiting.send("meanwhile");
    live.echo("meanwhile");
    waiting.expect("meanwhile");
    check_counted(&server, label, times);
    let at = faults.times();
    assert_eq!(at.len(), times, "{error}");
    drop(faults);
    server.connect().echo("after");
    drop((live, waiting));
    server.eventually_closed(&[("peer_closed", 3)]);
    assert_eq!(server.stop(), Some(0), "{error}");
    at
}

#[test]
fn a_thousand_errors_of_one_peer_in_a_row_are_counted_and_cost_nobody_else_anything() {
    thread::scope(|scope| {
        for (error, label) in OF_ONE_PEER {
            scope.spawn(|| check(error, label, 1000));
        }
    });
}

#[test]
fn while_the_host_is_the_cause_there_are_at_most_eleven_attempts_a_second() {
    thread::scope(|scope| {
        for (error, label) in OF_THE_HOST {
            scope.spawn(move || {
                let at = check(error, label, 20);
                let in_the_second_from =
                    |from: f64| at.iter().filter(|at| (from..from + 1.0).contains(*at)).count();
                let most = at.iter().map(|from| in_the_second_from(*from)).max().unwrap();
                assert!(most <= 11, "{error}: {most} attempts in a second");
            });
        }
    });
}

#[test]
fn an_endless_row_of_one_peers_errors_does_not_spin() {
    let server = Server::with_listener("");
    server.connect().echo("before");
    let faults = Faults::inject(&server, ACCEPTOR, &["accept4:error=EPERM"]);
    let said = "accept fails; trying again ten times a second";
    crate::harness::eventually("it is told", || server.logged(said).is_some());
    let row = faults.times().len();
    assert!(row >= 1024, "{row} in a row may be those of peers");
    crate::harness::eventually("it goes on", || faults.times().len() >= row + 15);
    let at = faults.times();
    let took = at.last().unwrap() - at[row];
    assert!(took >= 1.3, "14 attempts in {took} s");
    drop(faults);
    server.connect().echo("after");
}

/// The host's table of files is full: what a process holds, it may go on with.
#[test]
fn with_the_hosts_files_used_up_newcomers_are_turned_away_at_once() {
    const TURNED_AWAY: u64 = 20;
    let server = Server::with_listener("");
    let mut live = server.connect();
    live.echo("before");
    // Each try succeeds only on the descriptor that the reserve gave up for it.
    let faults = ["accept4:error=ENFILE:when=1+2", "fcntl:error=ENFILE"];
    let faults = Faults::inject(&server, ACCEPTOR, &faults);
    for _ in 0..TURNED_AWAY {
        server.connect().expect_end();
        live.echo("meanwhile");
    }
    drop(faults);
    let metrics = server.eventually("they are counted", |metrics| {
        metrics.rejections() == [("fd_reserve".to_owned(), TURNED_AWAY)].into()
    });
    metrics.assert_ledger();
    let mut after: Client = server.connect();
    after.echo("after");
}
