//! Timeouts and what comes late: a worker that was held up looks at what has arrived before it lets
//! a timeout pass, for client and ticket were in time; and late replies do not put one off.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use talkback::{Answer, Config, Server, Ticket};

use super::{config, connect, echo, from_fn, metrics, start};
use crate::harness::{Client, PATIENCE, eventually};
use crate::stuck::Deaf;

/// More than a worker takes from one wait.
const CLIENTS: usize = 1300;

/// What the clients are granted, and a stall exceeds.
const GRANTED: Duration = Duration::from_millis(400);

/// A server whose one worker stalls at each `stall` until it is told to go on, hands the test a
/// ticket for each `later`, and echoes all else.
struct Late {
    go_on: Sender<()>,
    stalled: Receiver<()>,
    tickets: Receiver<Ticket>,
    server: Server,
}

impl Late {
    #[track_caller]
    fn start(config: &Config) -> Self {
        let (stall, stalled) = channel();
        let (go_on, told) = channel();
        let (hand_over, tickets) = channel();
        let told = Arc::new(Mutex::new(told));
        let server = start(config, move || {
            let (stall, told, hand_over) = (stall.clone(), told.clone(), hand_over.clone());
            from_fn(move |text, reply, context| {
                if text == "later" {
                    hand_over.send(context.ticket()).unwrap();
                    return Answer::LaterWithin(GRANTED);
                }
                if text == "stall" {
                    // Nobody is there any more where the test is over.
                    let _ = stall.send(());
                    let _ = told.lock().unwrap().recv();
                }
                echo(text, reply)
            })
        });
        Self { go_on, stalled, tickets, server }
    }

    /// Connects so many clients, and returns when the worker has each of them.
    #[track_caller]
    fn connect(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<_> = (0..count).map(|_| connect(&self.server)).collect();
        // The inbox keeps their order.
        clients.last_mut().unwrap().echo("all are there\n");
        clients
    }

    #[track_caller]
    fn await_stall(&self) {
        self.stalled.recv_timeout(PATIENCE).unwrap();
    }

    fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }

    /// Everyone says `first`, which the worker sees at once and just before it stalls; `meanwhile`
    /// happens in the stall, which then lasts longer than anyone is granted.
    #[track_caller]
    fn stall_behind(
        &self,
        clients: &mut [Client],
        first: &str,
        meanwhile: impl FnOnce(&mut [Client]),
    ) -> Vec<Client> {
        let mut stalling = self.connect(2);
        stalling[0].send("stall\n");
        self.await_stall();
        clients.iter_mut().for_each(|client| client.send(first));
        stalling[1].send("stall\n");
        self.go_on();
        self.await_stall();
        let began = Instant::now();
        meanwhile(clients);
        assert!(began.elapsed() < GRANTED, "too slow a host: {:?}", began.elapsed());
        eventually("the stall exceeds it", || began.elapsed() > GRANTED);
        self.go_on();
        stalling.iter_mut().for_each(|client| client.expect("stall\n"));
        stalling
    }
}

fn roomy() -> Config {
    let mut config = config();
    config.listeners[0].backlog = 4096;
    config.limits.inbox_connections = 4096;
    config
}

/// Both ends of every connection are this process's.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

#[test]
fn a_line_completed_while_the_worker_stalls_is_answered_however_many_there_are() {
    raise_descriptor_limit();
    let mut config = roomy();
    config.limits.message_timeout = GRANTED;
    let late = Late::start(&config);
    let mut clients = late.connect(CLIENTS);
    let _stalling = late.stall_behind(&mut clients, "hal", |clients| {
        clients.iter_mut().for_each(|client| client.send("f\n"));
    });
    clients.iter_mut().for_each(|client| client.expect("half\n"));
    assert_eq!(metrics(&late.server).closes(), [].into());
}

#[test]
fn late_replies_handed_over_while_the_worker_stalls_are_delivered_however_many_there_are() {
    let late = Late::start(&roomy());
    let mut clients = late.connect(300);
    let _stalling = late.stall_behind(&mut clients, "later\n", |clients| {
        for _ in clients {
            let ticket = late.tickets.recv_timeout(PATIENCE).unwrap();
            ticket.answer("in time".to_owned()).unwrap();
        }
    });
    clients.iter_mut().for_each(|client| client.expect("in time\n"));
    assert_eq!(metrics(&late.server).closes(), [].into());
}

#[test]
fn late_replies_behind_those_that_are_stuck_do_not_extend_the_send_timeout() {
    const BIG: usize = 8 << 20;
    let send_timeout = Duration::from_millis(300);
    let mut config = config();
    config.limits.send_timeout = send_timeout;
    config.limits.max_pending_bytes = 2 * BIG;
    let (sender, tickets) = channel();
    let server = start(&config, move || {
        let sender = sender.clone();
        from_fn(move |text, reply, context| {
            if text == "big" {
                reply.push(&"x".repeat(BIG));
                return Answer::Reply;
            }
            sender.send(context.ticket()).unwrap();
            Answer::LaterWithin(PATIENCE)
        })
    });
    let mut deaf = Deaf::connect(server.addresses()[0].ip().unwrap()).client;
    deaf.send(format!("big\n{}", "later\n".repeat(1000)));
    let (mut sent, mut last_taken, mut answered) = (0.0, Instant::now(), 0);
    eventually("the server closes it", || {
        if let Ok(ticket) = tickets.try_recv() {
            ticket.answer("late".to_owned()).unwrap();
            answered += 1;
        }
        let now = metrics(&server);
        if now.sum("talkback_sent_bytes_total") != sent {
            sent = now.sum("talkback_sent_bytes_total");
            last_taken = Instant::now();
        }
        now.closes() == [("send_timeout".to_owned(), 1)].into()
    });
    let took = last_taken.elapsed();
    assert!(answered > 1, "{answered} late replies");
    assert!(took <= send_timeout + Duration::from_secs(1), "{took:?} after {answered} replies");
}
