//! Floods from one address: it is capped, and its neighbours do not notice.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{Client, PATIENCE, Server, eventually};
use crate::quiet::alone;

const MAX_PER_IP: usize = 20;

/// The address of the flood; all of 127.0.0.0/8 is this host.
const FLOODING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What one thread of the flood makes at most.
const MOST: usize = 30_000;

/// After so many a thread waits until its last one was accepted. The kernel's queue has no share
/// for each address: a flood that fills it keeps others out before the server knows of them.
const AT_ONCE: usize = 100;

/// Clients from one address, as fast as they come, until the value is dropped.
pub struct Flood<'a> {
    is_over: &'a AtomicBool,
    /// Connects that succeeded.
    made: &'a AtomicUsize,
}

impl Drop for Flood<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// What becomes of a connection of the flood.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Kept, with so many others.
    Kept(usize),
    Reset,
    /// Says something and leaves.
    Spoken,
}

impl<'a> Flood<'a> {
    pub fn start<'s>(
        scope: &'s std::thread::Scope<'s, 'a>,
        (is_over, made): (&'a AtomicBool, &'a AtomicUsize),
        server: SocketAddr,
        manners: &[Manner],
    ) -> Self {
        for &manner in manners {
            scope.spawn(move || {
                let mut kept = VecDeque::new();
                for number in 0..MOST {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    // The kernel may be short of ports for a moment.
                    let Ok(stream) = connect_from(FLOODING, server) else { continue };
                    made.fetch_add(1, Ordering::SeqCst);
                    if number % AT_ONCE == 0 {
                        await_end(stream);
                    } else {
                        end(stream, manner, &mut kept);
                    }
                }
            });
        }
        Self { is_over, made }
    }

    #[track_caller]
    pub fn await_more(&self, count: usize) {
        let before = self.made.load(Ordering::SeqCst);
        eventually("the flood goes on", || self.made.load(Ordering::SeqCst) >= before + count);
    }
}

fn end(mut stream: TcpStream, manner: Manner, kept: &mut VecDeque<TcpStream>) {
    match manner {
        Manner::Kept(most) => {
            kept.push_back(stream);
            if kept.len() > most {
                kept.pop_front();
            }
        }
        Manner::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        // It may have been turned away already.
        Manner::Spoken => drop(stream.write_all(b"hello")),
    }
}

/// Asks for the end, and waits for it; one that was turned away has it already.
fn await_end(mut stream: TcpStream) {
    // Both fail where the server's end is closed by then.
    let _ = stream.write_all(b"exit\n");
    let _ = stream.read_to_end(&mut Vec::new());
}

fn connect_from(source: Ipv4Addr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Sixty newcomers from ten other addresses, one after the other; the longest that one took from
/// its connect to its reply.
#[track_caller]
fn longest_visit(server: SocketAddr) -> Duration {
    let visit = |number: u8| {
        let began = Instant::now();
        let source = Ipv4Addr::new(127, 0, 0, 3 + number % 10);
        let mut client = Client { stream: connect_from(source, server).unwrap() };
        client.echo("hello");
        began.elapsed()
    };
    (0..60).map(visit).max().unwrap()
}

#[track_caller]
fn start(limits: &str) -> Server {
    Server::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nmax_connections_per_ip = {MAX_PER_IP}\n{limits}\n\
         [log]\nlevel = \"info\"\nformat = \"json\""
    ))
}

#[track_caller]
fn check_flood(limits: &str, manners: &[Manner]) {
    let _alone = alone();
    let server = start(limits);
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    // On a host where a visit takes long without a flood, it may take as long with one.
    let latest = (4 * longest_visit(server.address())).max(Duration::from_secs(1));
    std::thread::scope(|scope| {
        let flood = Flood::start(scope, (&is_over, &made), server.address(), manners);
        for _ in 0..5 {
            flood.await_more(200);
            let longest = longest_visit(server.address());
            assert!(longest <= latest, "{longest:?}\n{}", server.metrics());
            // The visitors have left; what the flood has open stays.
            server.eventually("only the cap is open", |metrics| {
                metrics.sum("talkback_connections") <= MAX_PER_IP as f64
            });
        }
    });
    let metrics = server.eventually("all are gone", |metrics| {
        metrics.sum("talkback_connections") == 0.0 && metrics.adds_up()
    });
    let rejections = metrics.rejections();
    assert_eq!(rejections.keys().collect::<Vec<_>>(), ["max_connections_per_ip"], "{metrics}");
    eprintln!("{} connects, {rejections:?}", made.into_inner());
}

#[test]
fn a_flood_of_connections_that_are_kept_is_capped_and_others_do_not_notice() {
    check_flood("", &[Manner::Kept(300), Manner::Kept(300)]);
}

#[test]
fn a_flood_of_connections_that_are_dropped_is_capped_and_others_do_not_notice() {
    check_flood("", &[Manner::Kept(50), Manner::Reset, Manner::Spoken]);
}

/// The address of the flood takes its own share of all places, and not those of others.
#[test]
fn a_flood_leaves_the_places_of_others_free() {
    check_flood("max_connections = 60", &[Manner::Kept(300), Manner::Reset]);
}

#[test]
fn the_words_for_a_rejection_reach_the_clients_of_a_flood() {
    let server = start("full_message = \"too many of you\\n\"");
    let (is_over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let held: Vec<_> =
        (0..MAX_PER_IP).map(|_| connect_from(FLOODING, server.address()).unwrap()).collect();
    std::thread::scope(|scope| {
        let manners = [Manner::Kept(100)];
        let flood = Flood::start(scope, (&is_over, &made), server.address(), &manners);
        for _ in 0..50 {
            flood.await_more(10);
            let mut refused = connect_from(FLOODING, server.address()).unwrap();
            let mut words = String::new();
            refused.read_to_string(&mut words).unwrap();
            assert_eq!(words, "too many of you\n");
        }
    });
    drop(held);
    server.eventually("all are gone", |metrics| {
        metrics.sum("talkback_connections") == 0.0 && metrics.adds_up()
    });
}
