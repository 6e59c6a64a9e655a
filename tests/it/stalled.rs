//! Stops of a library's server while replies are awaited, in vain.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use talkback::{Answer, Config, Context, Reply, Responder, Responders, Server, Ticket};

use crate::harness::{Client, Metrics, eventually, get};

/// Answers `stall` when it is told to, and anything else never.
struct Never {
    stalled: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
    tickets: Vec<Ticket>,
}

impl Responder for Never {
    fn respond(&mut self, text: &str, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        if text == "stall" {
            self.stalled.send(()).unwrap();
            // An error says that the test is over.
            let _ = self.go_on.lock().unwrap().recv();
            return Answer::Reply;
        }
        self.tickets.push(context.ticket());
        Answer::LaterWithin(Duration::from_secs(3600))
    }
}

/// Two workers whose responder is [`Never`], which tells when it stalls.
fn start() -> (Server, Receiver<()>, Sender<()>) {
    let mut config = Config::default();
    config.workers = Some(2);
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.listeners[0].responder = "never".to_owned();
    config.metrics.address = Some("127.0.0.1:0".parse().unwrap());
    config.shutdown.drain_timeout = Duration::from_millis(200);
    let (stalled, is_stalled) = mpsc::channel();
    let (release, go_on) = mpsc::channel();
    let go_on = Arc::new(Mutex::new(go_on));
    let responders = Responders::default().with("never", move |_| {
        Box::new(Never { stalled: stalled.clone(), go_on: go_on.clone(), tickets: Vec::new() })
    });
    (Server::start_with(&config, &responders).unwrap(), is_stalled, release)
}

#[test]
fn a_stalled_worker_does_not_hold_up_the_stop_and_its_connections_are_accounted_for() {
    let (server, is_stalled, release) = start();
    let address = server.addresses()[0].ip().unwrap();
    let sidecar = server.metrics_address().unwrap();
    let mut stalling = Client::connect(address);
    stalling.send("stall");
    is_stalled.recv().unwrap();
    // The other worker is free to take it.
    let mut waiting = Client::connect(address);
    waiting.send("later");
    let scrape = || Metrics::parse(&get(sidecar, "/metrics").expect("the sidecar answers").1);
    eventually("it waits", || scrape().sum("talkback_messages_total") == 1.0);

    let began = Instant::now();
    let stop = thread::spawn(move || server.drain());
    // The sidecar outlives what is cut at the deadline, and tells of it.
    eventually("the other one is cut", || {
        scrape().closes() == [("shutdown_forced".to_owned(), 1)].into()
    });
    let summary = stop.join().unwrap();
    let took = began.elapsed();
    assert_eq!((summary.served, summary.cut), (0, 2));
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(took <= Duration::from_secs(5), "{took:?}");
    waiting.expect_reset();
    drop(release);
}
