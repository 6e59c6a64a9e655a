//! Hostile company: slow drips, clients that never read, clients that send as fast as they can and
//! thousands that say nothing, all at once. Those who just talk do not notice.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::crowd::Crowd;
use crate::harness::{Client, PATIENCE, Server};
use crate::stuck::{Deaf, LINE};

const IDLE: usize = 10_000;
const DRIPS: usize = 300;
const DEAF: usize = 100;
const FLOODS: usize = 4;
const TALKERS: usize = 50;

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// An ordinary client waits no longer for its answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// A client that never finishes its line.
struct Drip {
    client: Client,
    /// Just before and just after its first byte was sent.
    began: [Instant; 2],
    /// From then to the server's end of the conversation.
    lasted: Option<[Duration; 2]>,
}

impl Drip {
    #[track_caller]
    fn connect(address: SocketAddr) -> Self {
        let mut client = Client::connect(address);
        let before = Instant::now();
        client.send("x");
        let began = [before, Instant::now()];
        client.stream.set_nonblocking(true).unwrap();
        Self { client, began, lasted: None }
    }

    /// The server says nothing but its end.
    #[track_caller]
    fn look(&mut self) {
        match self.client.stream.read(&mut [0; 8]) {
            Ok(0) => self.lasted = Some(self.began.map(|began| began.elapsed())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?} after {:?}", self.began[0].elapsed()),
        }
    }
}

/// Those that one thread drives, by the events of their sockets and a clock.
struct Hostile {
    poll: Poll,
    drips: Vec<Drip>,
    deaf: Vec<Option<Deaf>>,
}

impl Hostile {
    #[track_caller]
    fn connect(address: SocketAddr) -> Self {
        let poll = Poll::new().unwrap();
        let register = |client: &Client, token, interest| {
            let socket = client.stream.as_raw_fd();
            poll.registry().register(&mut SourceFd(&socket), Token(token), interest).unwrap();
        };
        let deaf: Vec<_> = (0..DEAF).map(|_| Some(Deaf::connect(address))).collect();
        for (token, deaf) in (DRIPS..).zip(deaf.iter().flatten()) {
            register(&deaf.client, token, Interest::READABLE | Interest::WRITABLE);
        }
        let drips: Vec<_> = (0..DRIPS).map(|_| Drip::connect(address)).collect();
        for (token, drip) in drips.iter().enumerate() {
            register(&drip.client, token, Interest::READABLE);
        }
        Self { poll, drips, deaf }
    }

    /// Goes on until the server has ended all of them; how long each drip lasted.
    #[track_caller]
    fn persist(mut self) -> Vec<[Duration; 2]> {
        let began = Instant::now();
        let mut next_drip = began + DRIP_EVERY;
        let mut events = Events::with_capacity(DRIPS + DEAF);
        while !self.is_over() {
            assert!(began.elapsed() < PATIENCE, "the server does not end them all");
            let wait = next_drip.saturating_duration_since(Instant::now());
            self.poll.poll(&mut events, Some(wait)).unwrap();
            for event in &events {
                match event.token().0.checked_sub(DRIPS) {
                    Some(index) => self.send_to_the_deaf(index),
                    None => self.drips[event.token().0].look(),
                }
            }
            if Instant::now() >= next_drip {
                next_drip += DRIP_EVERY;
                let dripping = self.drips.iter_mut().filter(|drip| drip.lasted.is_none());
                dripping.for_each(|drip| drip.client.send("x"));
            }
        }
        self.drips.iter().filter_map(|drip| drip.lasted).collect()
    }

    fn is_over(&self) -> bool {
        self.deaf.iter().all(Option::is_none) && self.drips.iter().all(|drip| drip.lasted.is_some())
    }

    #[track_caller]
    fn send_to_the_deaf(&mut self, index: usize) {
        let Some(deaf) = &mut self.deaf[index] else { return };
        match deaf.send() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.deaf[index] = None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends lines as fast as they are taken, and reads as fast as they come, until told to stop; how
/// many bytes came back, which must be as many as were sent.
#[track_caller]
fn flood(address: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut client = Client::connect(address);
    let mut out = client.stream.try_clone().unwrap();
    let mut received = 0;
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let block = LINE.repeat(4096);
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                out.write_all(block.as_bytes()).unwrap();
                sent += block.len() as u64;
            }
            out.shutdown(std::net::Shutdown::Write).unwrap();
            sent
        });
        let mut buffer = vec![0; 65_536];
        loop {
            match client.stream.read(&mut buffer).unwrap() {
                0 => break,
                length => received += length as u64,
            }
        }
        sender.join().unwrap()
    });
    assert_eq!(received, sent);
    received
}

/// Each talker says one line and waits for its answer, round after round, until `over` is closed;
/// how long each answer took.
#[track_caller]
fn talk(talkers: &mut [Client], over: &Receiver<()>) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut round = 0;
    while over.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
        round += 1;
        let line = |talker| format!("round {round} of talker {talker}\n");
        let began = [(); TALKERS].map(|()| Instant::now());
        for (talker, client) in talkers.iter_mut().enumerate() {
            client.send(line(talker));
        }
        for (talker, client) in talkers.iter_mut().enumerate() {
            client.expect(line(talker));
            took.push(began[talker].elapsed());
        }
        assert!(took.iter().max() <= Some(&ANSWERED_WITHIN), "round {round}: {:?}", took.last());
    }
    took
}

fn at(took: &[Duration], hundredth: usize) -> Duration {
    took[(took.len() * hundredth / 100).min(took.len() - 1)]
}

#[test]
fn ordinary_talkers_are_answered_within_a_second_in_hostile_company() {
    let mut crowd = Crowd::of_at_most(IDLE);
    let others = DRIPS + DEAF + FLOODS + TALKERS;
    let server = Server::start(&format!(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         {}message_timeout = \"{}s\"\nsend_timeout = \"4s\"\n\
         [log]\nformat = \"json\"\n",
        crowd.limits(others),
        MESSAGE_TIMEOUT.as_secs(),
    ));
    let address = server.address();
    crowd.connect(address);
    let mut talkers: Vec<_> = (0..TALKERS).map(|_| Client::connect(address)).collect();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (mut took, lasted, flooded) = thread::scope(|scope| {
        let floods: Vec<_> = (0..FLOODS).map(|_| scope.spawn(|| flood(address, &stop))).collect();
        let (is_over, over) = channel();
        let hostile = scope.spawn(move || {
            // Closed at the end, a panic's too.
            let _is_over = is_over;
            Hostile::connect(address).persist()
        });
        let took = talk(&mut talkers, &over);
        stop.store(true, Ordering::Relaxed);
        let flooded: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        (took, hostile.join().unwrap(), flooded)
    });
    let company_of = began.elapsed();
    took.sort_unstable();
    println!(
        "{} answers in {company_of:.1?}: p50 {:.1?}, p99 {:.1?}, longest {:.1?}; {} MB flooded",
        took.len(),
        at(&took, 50),
        at(&took, 99),
        at(&took, 100),
        flooded / 1_000_000,
    );
    assert!(company_of >= Duration::from_secs(5), "{company_of:?}");
    for [most, least] in &lasted {
        assert!(*most >= MESSAGE_TIMEOUT, "ended early, after {most:?}");
        assert!(*least <= MESSAGE_TIMEOUT + Duration::from_secs(1), "ended late, after {least:?}");
    }
    let idle = crowd.size() as u64;
    drop((talkers, crowd));
    server.eventually_closed(&[
        ("message_timeout", DRIPS as u64),
        ("peer_closed", (FLOODS + TALKERS) as u64),
        ("send_timeout", DEAF as u64),
        ("unused", idle),
    ]);
}
