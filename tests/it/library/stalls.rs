//! A responder that blocks its worker: who is passed over, who is refused, and what a stop makes
//! of it. The stall ends when the test lets it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use talkback::{Answer, Config, Late, Server};

use super::{
    check_drain, config, connect, echo, eventually_closed, from_fn, metrics, start, with_workers,
};
use crate::harness::{Client, Metrics, PATIENCE, eventually};
use crate::quiet::alone;

/// A server whose workers stall at the message `stall` until `release` is dropped: here before the
/// server, which would wait for them.
pub(super) struct Stalling {
    pub(super) release: Option<Sender<()>>,
    began: Receiver<()>,
    pub(super) server: Server,
}

impl Stalling {
    #[track_caller]
    pub(super) fn start(config: &Config) -> Self {
        Self::start_with(config, |_| ())
    }

    /// Each message is shown to `see` before it is answered.
    #[track_caller]
    pub(super) fn start_with(
        config: &Config,
        see: impl Fn(&str) + Copy + Send + Sync + 'static,
    ) -> Self {
        let (begin, began) = channel();
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let server = start(config, move || {
            let (begin, released) = (begin.clone(), released.clone());
            from_fn(move |text, reply, _| {
                see(text);
                if text == "stall" {
                    // Nobody listens any more where the test is over.
                    let _ = begin.send(());
                    let _ = released.lock().unwrap().recv();
                }
                echo(text, reply)
            })
        });
        Self { release: Some(release), began, server }
    }

    /// A client whose worker is now stalled.
    #[track_caller]
    pub(super) fn stall(&self) -> Client {
        let mut client = connect(&self.server);
        client.send("stall\n");
        self.began.recv_timeout(PATIENCE).unwrap();
        client
    }

    /// Lets every stalled worker go on, now and later.
    pub(super) fn release(&mut self) {
        self.release = None;
    }

    #[track_caller]
    pub(super) fn metrics(&self) -> Metrics {
        metrics(&self.server)
    }

    /// The metrics when one connection found every inbox full; it is counted behind its close.
    #[track_caller]
    fn metrics_once_refused(&self) -> Metrics {
        let refused = [("inbox_full".to_owned(), 1)].into();
        eventually("one is refused", || self.metrics().rejections() == refused);
        self.metrics()
    }
}

fn turn(worker: usize) -> String {
    format!("talkback_worker_turn_seconds{{worker=\"{worker}\"}}")
}

fn open(worker: usize) -> String {
    format!("talkback_worker_connections{{worker=\"{worker}\"}}")
}

#[test]
fn newcomers_pass_a_stalled_worker_over() {
    let mut stalling = Stalling::start(&with_workers(2));
    let mut stalled = stalling.stall();
    let is_stalled = |worker: &usize| stalling.metrics().get(&turn(*worker)) > 0.1;
    eventually("the stall shows", || (0..2).any(|worker| is_stalled(&worker)));
    let other = usize::from(is_stalled(&0));
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..5 {
        // On a loaded host a turn may last as long as a stall.
        eventually("the other one waits", || stalling.metrics().get(&turn(other)) == 0.0);
        clients.push(connect(&stalling.server));
        clients.iter_mut().for_each(|client| client.echo("a\n"));
    }
    assert_eq!(stalling.metrics().get(&open(other)), 5.0);
    stalling.release();
    stalled.expect("stall\n");
    eventually("both wait again", || {
        let metrics = stalling.metrics();
        metrics.get(&turn(0)) == 0.0 && metrics.get(&turn(1)) == 0.0
    });
}

/// Two workers, and clients of both; one of them stalls.
struct HalfStalled {
    stalling: Stalling,
    culprit: Client,
    worker: usize,
    /// Those of the stalled worker and of the other one.
    stalled: Vec<Client>,
    others: Vec<Client>,
}

impl HalfStalled {
    #[track_caller]
    fn start(clients: usize) -> Self {
        /// Which worker answered a text.
        type Answered = Mutex<BTreeMap<String, usize>>;
        let answered: &Answered = Box::leak(Box::default());
        let stalling = Stalling::start_with(&with_workers(2), |text| {
            let thread = thread::current();
            let worker = thread.name().unwrap().strip_prefix("worker-").unwrap();
            answered.lock().unwrap().insert(text.to_owned(), worker.parse().unwrap());
        });
        let clients: Vec<_> = (0..clients)
            .map(|number| {
                let mut client = connect(&stalling.server);
                client.echo(&format!("{number}\n"));
                client
            })
            .collect();
        let culprit = stalling.stall();
        let answered = answered.lock().unwrap();
        let worker = answered["stall"];
        let (mut stalled, mut others) = (Vec::new(), Vec::new());
        for (number, client) in clients.into_iter().enumerate() {
            let is_stalled = answered[&number.to_string()] == worker;
            if is_stalled { &mut stalled } else { &mut others }.push(client);
        }
        Self { stalling, culprit, worker, stalled, others }
    }

    /// A newcomer during the stall, and how long its first answer took. It comes when the other
    /// worker waits: on a loaded host any turn may last as long as a stall.
    #[track_caller]
    fn newcomer(&self) -> (Client, Duration) {
        let other = turn(1 - self.worker);
        eventually("the other one waits", || self.stalling.metrics().get(&other) == 0.0);
        let began = Instant::now();
        let mut client = connect(&self.stalling.server);
        client.echo("new\n");
        (client, began.elapsed())
    }
}

#[test]
fn a_stall_of_two_seconds_shows_and_clients_of_the_other_worker_do_not_notice() {
    let _alone = alone();
    const STALL: Duration = Duration::from_secs(2);
    let mut company = HalfStalled::start(60);
    let began = Instant::now();
    let (stalls, had) = (turn(company.worker), open(company.worker));
    let had_before = company.stalling.metrics().get(&had);
    for client in &mut company.stalled {
        client.send("a\n");
    }
    eventually("the stall shows", || company.stalling.metrics().get(&stalls) > 0.1);
    let mut first_answers = Vec::new();
    for _ in 0..100 {
        let (client, took) = company.newcomer();
        company.others.push(client);
        first_answers.push(took);
    }
    let mut took = Vec::new();
    while began.elapsed() < STALL || took.len() < 2_000 {
        for client in &mut company.others {
            let began = Instant::now();
            client.echo("a\n");
            took.push(began.elapsed());
        }
    }
    took.sort_unstable();
    first_answers.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{} exchanges: p50 {:?}, p99 {p99:?}, longest {:?}; 100 newcomers: p50 {:?}, longest {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1],
        first_answers[50],
        first_answers[99],
    );
    assert!(p99 < Duration::from_millis(50), "{p99:?}");
    assert!(first_answers[99] < Duration::from_secs(1), "{:?}", first_answers[99]);
    let metrics = company.stalling.metrics();
    assert!(metrics.get(&stalls) > 1.9, "{metrics}");
    assert_eq!(metrics.get(&had), had_before, "{metrics}");
    company.stalling.release();
    company.culprit.expect("stall\n");
    company.stalled.iter_mut().for_each(|client| client.expect("a\n"));
}

#[test]
fn a_stalled_worker_serves_everyone_in_the_end_if_it_is_the_only_one() {
    let mut stalling = Stalling::start(&config());
    let mut stalled = stalling.stall();
    let mut clients: Vec<Client> = (0..5).map(|_| connect(&stalling.server)).collect();
    clients.iter_mut().for_each(|client| client.send("a\n"));
    eventually("all are accepted", || stalling.metrics().sum("talkback_connections") == 6.0);
    stalling.release();
    stalled.expect("stall\n");
    clients.iter_mut().for_each(|client| client.expect("a\n"));
}

#[test]
fn a_full_inbox_refuses_with_the_message_and_only_then() {
    let mut config = config();
    config.limits.inbox_connections = 1;
    config.limits.full_message = "come back later\n".to_owned();
    let mut stalling = Stalling::start(&config);
    let mut stalled = stalling.stall();
    let mut waits = connect(&stalling.server);
    eventually("one waits", || stalling.metrics().sum("talkback_connections") == 2.0);
    let mut refused = connect(&stalling.server);
    assert_eq!(refused.read_to_end(), b"come back later\n");
    let metrics = stalling.metrics_once_refused();
    assert_eq!(metrics.sum("talkback_connections"), 2.0);
    assert_eq!(metrics.sum("talkback_worker_connections"), 2.0);
    metrics.assert_ledger();
    stalling.release();
    stalled.expect("stall\n");
    waits.echo("a\n");
    connect(&stalling.server).echo("a\n");
    drop((stalled, waits));
    eventually_closed(&stalling.server, &[("peer_closed", 3)]);
}

#[test]
fn a_full_inbox_sends_on_to_the_next_worker() {
    let mut config = with_workers(2);
    config.limits.inbox_connections = 1;
    let mut stalling = Stalling::start(&config);
    let one = stalling.stall();
    let other = stalling.stall();
    let both = "both are stalled";
    eventually(both, || [0, 1].iter().all(|&w| stalling.metrics().get(&turn(w)) > 0.1));
    let mut waiting = [connect(&stalling.server), connect(&stalling.server)];
    connect(&stalling.server).expect_end();
    let metrics = stalling.metrics_once_refused();
    for worker in 0..2 {
        assert_eq!(metrics.get(&open(worker)), 2.0);
    }
    stalling.release();
    waiting.iter_mut().for_each(|client| client.echo("a\n"));
    drop((one, other));
}

#[test]
fn a_stop_leaves_a_stalled_worker_behind_at_the_deadline() {
    let mut config = config();
    config.shutdown.drain_timeout = Duration::from_millis(100);
    let stalling = Stalling::start(&config);
    let mut stalled = stalling.stall();
    let mut waits = connect(&stalling.server);
    eventually("one waits", || stalling.metrics().sum("talkback_connections") == 2.0);
    let Stalling { release, server, .. } = stalling;
    let began = Instant::now();
    let summary = server.drain();
    let took = began.elapsed();
    assert_eq!((summary.served, summary.cut), (0, 2));
    check_drain(took, config.shutdown.drain_timeout);
    // Let go, the worker ends what it has: in order or by a reset, there is no promise any more.
    drop(release);
    let has_ended = |client: &mut Client| match client.stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(has_ended(&mut stalled) && has_ended(&mut waits));
}

#[test]
fn a_stall_that_ends_during_the_drain_costs_nobody_anything() {
    let stalling = Stalling::start(&config());
    let mut stalled = stalling.stall();
    let mut waits = connect(&stalling.server);
    waits.send("a\n");
    eventually("one waits", || stalling.metrics().sum("talkback_connections") == 2.0);
    let address = stalling.server.addresses()[0].ip().unwrap();
    let Stalling { release, server, .. } = stalling;
    let stop = std::thread::spawn(move || server.drain());
    eventually("nothing is accepted", || TcpStream::connect(address).is_err());
    drop(release);
    assert_eq!(stalled.read_to_end(), b"stall\n");
    assert_eq!(waits.read_to_end(), b"a\n");
    drop((stalled, waits));
    assert_eq!(stop.join().unwrap().cut, 0);
}

#[test]
fn a_ticket_comes_back_from_a_full_inbox() {
    let mut config = config();
    config.limits.inbox_connections = 1;
    let (sender, tickets) = channel();
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let server = start(&config, move || {
        let (sender, released) = (sender.clone(), released.clone());
        from_fn(move |text, reply, context| {
            sender.send(context.ticket()).unwrap();
            if text == "stall" {
                let _ = released.lock().unwrap().recv();
                return echo(text, reply);
            }
            Answer::LaterWithin(PATIENCE)
        })
    });
    let ticket = || tickets.recv_timeout(PATIENCE).unwrap();
    // One after the other, for the inbox of connections has room for one as well.
    let ask = |text| {
        let mut client = connect(&server);
        client.send(text);
        (client, ticket())
    };
    let (mut first, one) = ask("a\n");
    let (mut second, other) = ask("b\n");
    let (mut third, _unused) = ask("stall\n");
    one.answer("one".to_owned()).unwrap();
    let refused = other.answer("other".to_owned()).unwrap_err();
    assert_eq!(refused.late, Late::Reply("other".to_owned()));
    let full = "talkback_late_replies_refused_total{reason=\"inbox_full\"}";
    assert_eq!(metrics(&server).get(full), 1.0);
    drop(release);
    first.expect("one\n");
    third.expect("stall\n");
    refused.ticket.resolve(refused.late).unwrap();
    second.expect("other\n");
}
