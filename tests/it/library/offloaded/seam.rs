//! What a responder is told and given on another thread is what it is told and given on a worker's.

use std::fmt::Write;

use talkback::{Answer, Context, Late, Reply, Responder};

use super::{pool, start};
use crate::library::{config, connect, echo, eventually_closed, from_fn, metrics};

/// Tells the test everything, beside the thread on which it was told.
struct Told(std::sync::mpsc::Sender<(String, String)>);

impl Told {
    fn tell(&self, what: String) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.send((thread, what)).unwrap();
    }
}

impl Responder for Told {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.tell(format!("open {}", context.message()));
        reply.push("hello");
        Answer::Reply
    }

    fn respond(&mut self, text: &str, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.tell(format!("{text} {}", context.message()));
        echo(text, reply)
    }

    fn finish(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.tell(format!("finish {}", context.message()));
        reply.push("goodbye");
        Answer::Reply
    }

    fn end(&mut self, reason: &str) {
        self.tell(format!("end {reason}"));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell("dropped".to_owned());
    }
}

#[test]
fn a_responder_is_told_everything_on_the_pools_threads() {
    let (events, told) = std::sync::mpsc::channel();
    let server = start(&config(), &pool(1), move || {
        let told = Told(events.clone());
        told.tell("made".to_owned());
        told
    });
    let mut client = connect(&server);
    client.expect("hello\n");
    client.send("a\nb\n");
    client.finish();
    assert_eq!(client.read_to_end(), b"a\nb\ngoodbye\n");
    drop(client);
    eventually_closed(&server, &[("peer_closed", 1)]);
    server.drain();
    let told: Vec<_> = told.iter().collect();
    assert!(told.iter().all(|(thread, _)| thread == "offload-0"), "{told:?}");
    let told: Vec<_> = told.iter().map(|(_, what)| what.as_str()).collect();
    let expected = ["made", "open 0", "a 1", "b 2", "finish 3", "end peer_closed", "dropped"];
    assert_eq!(told, expected);
}

#[test]
fn the_pool_asks_with_the_peers_address() {
    let responder = pool(1).responder(|client| {
        let told = format!("{} {}", client.listener, client.peer.unwrap());
        from_fn(move |_, reply, _| echo(&told, reply))
    });
    let server = crate::library::start_with(&config(), responder);
    let mut client = connect(&server);
    client.send("?\n");
    client.expect(format!("main {}\n", client.stream.local_addr().unwrap()));
}

/// A responder that knows a word for each answer, on the pool.
#[track_caller]
fn check(input: &str, output: &[u8], reason: &str) {
    let server = start(&config(), &pool(2), || {
        from_fn(|text, reply, context| {
            reply.push(text);
            match text {
                "silence" => Answer::Silence,
                "last" => Answer::ReplyAndClose,
                "close" => Answer::Close,
                "fail" => Answer::Failed,
                "bare" => {
                    reply.without_terminator();
                    Answer::Reply
                }
                "bare last" => {
                    reply.without_terminator();
                    Answer::ReplyAndClose
                }
                "bytes" => {
                    reply.push_bytes(b"\xff");
                    Answer::Reply
                }
                "later" => {
                    context.ticket().resolve(Late::Reply("by a ticket".to_owned())).unwrap();
                    Answer::Later
                }
                "unused" => Answer::Later,
                "sender" => {
                    context.sender().send("unasked").unwrap();
                    Answer::Silence
                }
                "slow" => {
                    context.delay(std::time::Duration::from_millis(20));
                    Answer::Reply
                }
                _ => Answer::Reply,
            }
        })
    });
    let mut client = connect(&server);
    client.send(input);
    client.finish();
    assert_eq!(client.read_to_end(), output, "{:?}", String::from_utf8_lossy(output));
    drop(client);
    eventually_closed(&server, &[(reason, 1)]);
    assert_eq!(metrics(&server).sum("talkback_pending_bytes"), 0.0);
    assert_eq!(metrics(&server).sum("talkback_late_replies_refused_total"), 0.0);
}

#[test]
fn answers_do_what_they_do_on_a_worker() {
    check("a\nsilence\nb\n", b"a\nb\n", "peer_closed");
    check("a\nlast\nb\n", b"a\nlast\n", "responder_closed");
    check("a\nclose\nb\n", b"a\n", "responder_closed");
    check("a\nfail\nb\n", b"a\n", "responder_error");
}

#[test]
fn replies_are_terminated_as_on_a_worker() {
    check("bare\na\n", b"barea\n", "peer_closed");
    check("a\nbare last\nb\n", b"a\nbare last", "responder_closed");
    check("bytes\na\n", b"bytes\xff\na\n", "peer_closed");
    check("\n", b"\n", "peer_closed");
}

#[test]
fn a_ticket_a_sender_and_a_delay_work_there_too() {
    check("later\na\n", b"by a ticket\na\n", "peer_closed");
    check("sender\na\n", b"unasked\na\n", "peer_closed");
    check("slow\na\n", b"slow\na\n", "peer_closed");
}

#[test]
fn a_promise_not_kept_there_has_the_listeners_bound() {
    let mut config = config();
    config.listeners[0].reply_timeout = std::time::Duration::from_millis(100);
    let server = start(&config, &pool(1), || from_fn(|_, _, _| Answer::Later));
    let mut client = connect(&server);
    client.send("a\n");
    client.expect_end();
    drop(client);
    eventually_closed(&server, &[("responder_timeout", 1)]);
}

#[test]
fn a_reset_asked_for_there_is_one() {
    let server = start(&config(), &pool(1), || from_fn(|_, _, _| Answer::Reset));
    let mut client = connect(&server);
    client.send("a\n");
    client.expect_reset();
}

#[test]
fn a_responder_may_answer_before_it_returns() {
    const MESSAGES: usize = 50;
    let server = start(&config(), &pool(2), || {
        from_fn(|text, _, context| {
            context.ticket().answer(text.to_owned()).unwrap();
            std::thread::yield_now();
            Answer::Later
        })
    });
    let text: String = (0..MESSAGES).map(|at| format!("{at}\n")).collect();
    let mut client = connect(&server);
    client.send(&text);
    client.expect(&text);
}

#[test]
fn time_and_chance_are_there_too() {
    let server = start(&config(), &pool(1), || {
        from_fn(|_, reply, context| {
            let (seconds, random) = (context.unix_time().as_secs(), context.random());
            write!(reply, "{seconds} {random}").unwrap();
            Answer::Reply
        })
    });
    let mut client = connect(&server);
    client.send("a\nb\n");
    client.finish();
    let text = String::from_utf8(client.read_to_end()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert!(lines.iter().all(|(seconds, _)| seconds.parse::<u64>().unwrap() > 1_700_000_000));
    assert_ne!(lines[0].1, lines[1].1);
}
