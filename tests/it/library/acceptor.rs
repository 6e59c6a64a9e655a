//! An acceptor whose own loop panics: what makes it is a log that panics, for a listener of one
//! name, where a rejection is told.

use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::{config, connect, eventually_closed, from_fn, metrics, start};
use crate::harness::{PATIENCE, eventually};

/// The listener whose rejections cannot be told.
const UNSPEAKABLE: &str = "unspeakable";

/// Takes what acceptors say, and nothing else.
struct Fragile;

struct IsUnspeakable(bool);

impl Visit for IsUnspeakable {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 |= field.name() == "listener" && format!("{value:?}").contains(UNSPEAKABLE);
    }
}

impl Subscriber for Fragile {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::DEBUG && metadata.target() == "talkback::server::accept"
    }

    fn event(&self, event: &Event<'_>) {
        let mut found = IsUnspeakable(false);
        event.record(&mut found);
        if found.0 {
            // Not by panic!, whose hook would print it.
            std::panic::resume_unwind(Box::new("the log is full"));
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// One that lets one client in and panics over each other one.
fn fragile() -> talkback::Server {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Fragile).unwrap());
    let mut config = config();
    config.listeners[0].name = UNSPEAKABLE.to_owned();
    config.limits.max_connections = Some(1);
    start(&config, || from_fn(|text, reply, _| super::echo(text, reply)))
}

#[test]
fn an_acceptor_that_panics_goes_on_accepting() {
    let server = fragile();
    let mut first = connect(&server);
    first.echo("here\n");
    for panics in 1..=2 {
        connect(&server).expect_end();
        first.echo("still here\n");
        eventually("it is counted", || {
            let counted = metrics(&server);
            counted.sum("talkback_worker_panics_total") == f64::from(panics) && counted.adds_up()
        });
    }
    drop(first);
    eventually_closed(&server, &[("peer_closed", 1)]);
    connect(&server).echo("served again\n");
    eventually_closed(&server, &[("peer_closed", 2)]);
    assert_eq!(server.drain().served, 2);
}

#[test]
fn an_acceptor_that_panics_again_and_again_gives_the_server_up() {
    let server = fragile();
    let (tell, told) = crossbeam_channel::bounded(1);
    server.on_give_up(move |why| tell.send(why).unwrap());
    let mut first = connect(&server);
    first.echo("here\n");
    for _ in 0..3 {
        connect(&server).expect_end();
    }
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().thread, format!("accept-{UNSPEAKABLE}"));
    first.echo("still served\n");
    drop(first);
    // Who comes now is served by the stop, for the kernel has it.
    let mut last = connect(&server);
    last.send("late\n");
    let summary = server.drain();
    assert_eq!((summary.served, summary.cut), (2, 0));
    assert_eq!(last.read_to_end(), b"late\n");
}
