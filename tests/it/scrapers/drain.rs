//! A drain is watched until its end, by whoever scrapes and whatever else is there.

use std::net::TcpStream;
use std::time::Instant;

use rustix::process::Signal;

use super::crowds::half_sent;
use super::{AT_MOST, PLACES};
use crate::harness::{Metrics, Server, eventually, get};
use crate::quiet::alone;
use crate::stuck::stuck_client;

const LINES: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"";

#[test]
fn a_drain_is_shown_until_the_process_ends_whatever_crowd_there_is() {
    let _alone = alone();
    let mut server = Server::start(LINES);
    let sidecar = server.metrics_address();
    let get = |path| {
        let began = Instant::now();
        let (status, body) = get(sidecar, path).expect("the sidecar answers");
        assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
        (status, body)
    };
    assert_eq!(get("/readyz"), (200, "ready\n".to_owned()));
    let mut holding = stuck_client(&server, server.address());
    server.signal(Signal::TERM);
    eventually("the drain has begun", || server.logged("draining: not accepting").is_some());
    let mut crowd = Vec::new();
    for _ in 0..50 {
        crowd.extend((0..PLACES / 2).map(|_| half_sent(sidecar)));
        assert_eq!(get("/readyz"), (503, "draining\n".to_owned()));
        assert_eq!(get("/healthz"), (200, "ok\n".to_owned()));
        let metrics = Metrics::parse(&get("/metrics").1);
        assert_eq!(metrics.get("talkback_draining"), 1.0);
        assert_eq!(metrics.sum("talkback_connections"), 1.0);
    }
    // With this client, what held the drain up is gone.
    assert!(!holding.read_to_end().is_empty());
    drop(holding);
    assert_eq!(server.wait().code(), Some(0));
    assert!(TcpStream::connect(sidecar).is_err());
    drop(crowd);
}
