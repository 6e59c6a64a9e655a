//! The middle of the chain, from accept to a worker's turn: who waits in an inbox, for how long,
//! and whose turns end with work left.

use std::time::{Duration, Instant};

use super::stalls::Stalling;
use super::{config, connect};
use crate::harness::eventually;

const INBOX: &str = "talkback_worker_inbox_connections";
const WAIT: &str = "talkback_inbox_wait_seconds";

#[test]
fn who_waits_for_a_stalled_worker_is_in_its_inbox_and_so_is_the_time() {
    const LONG: Duration = Duration::from_millis(300);
    let mut stalling = Stalling::start(&config());
    let _stalled = stalling.stall();
    let mut waiting = [(); 3].map(|()| connect(&stalling.server));
    eventually("three are in the inbox", || stalling.metrics().sum(INBOX) == 3.0);
    let began = Instant::now();
    eventually("time passes", || began.elapsed() >= LONG);
    let metrics = stalling.metrics();
    assert_eq!(metrics.get(&format!("{INBOX}{{worker=\"0\"}}")), 3.0);
    assert_eq!(metrics.sum("talkback_worker_connections"), 4.0);
    // The stalled one was taken at once.
    assert_eq!(metrics.sum(&format!("{WAIT}_count")), 1.0);
    assert!(metrics.sum("talkback_worker_turn_seconds") >= LONG.as_secs_f64(), "{metrics}");
    stalling.release();
    waiting.iter_mut().for_each(|client| client.echo("hello\n"));
    let metrics = stalling.metrics();
    assert_eq!(metrics.sum(INBOX), 0.0);
    assert_eq!(metrics.sum(&format!("{WAIT}_count")), 4.0);
    assert!(metrics.sum(&format!("{WAIT}_bucket{{le=\"0.2\"}}")) <= 1.0, "{metrics}");
    assert!(metrics.sum(&format!("{WAIT}_sum")) >= 3.0 * LONG.as_secs_f64(), "{metrics}");
}

#[test]
fn who_waits_behind_a_stalled_neighbour_is_timed_so_and_the_worker_is_not_idle() {
    const LONG: Duration = Duration::from_millis(300);
    let mut stalling = Stalling::start(&config());
    let mut neighbour = connect(&stalling.server);
    neighbour.echo("hello\n");
    let _stalled = stalling.stall();
    neighbour.send("hello\n");
    let began = Instant::now();
    eventually("time passes", || began.elapsed() >= LONG);
    let busy = stalling.metrics().sum("talkback_worker_busy_seconds_total");
    assert!(busy >= LONG.as_secs_f64(), "{busy}");
    stalling.release();
    neighbour.expect("hello\n");
    // The one that stalled, and the one behind it.
    eventually("two took long", || {
        let metrics = stalling.metrics();
        let timed = |suffix: &str| metrics.sum(&format!("talkback_respond_seconds_{suffix}"));
        timed("count") == 3.0
            && timed("count") - timed("bucket{listener=\"main\",le=\"0.2\"}") == 2.0
    });
}

/// How many turns end with work left, where so many messages are there at once and ten are a turn.
#[track_caller]
fn check_yields(messages: usize, least: f64, most: f64) {
    let mut config = config();
    config.limits.messages_per_turn = 10;
    let mut stalling = Stalling::start(&config);
    let mut client = connect(&stalling.server);
    client.echo("hello\n");
    let _stalled = stalling.stall();
    let lines = "hello\n".repeat(messages);
    client.send(&lines);
    stalling.release();
    client.expect(&lines);
    // The turn that the last reply was part of may end behind it.
    let yields = || stalling.metrics().get("talkback_worker_yields_total{worker=\"0\"}");
    eventually(format!("{messages} messages yield"), || yields() >= least);
    assert!(yields() <= most, "{} for {messages}", yields());
}

#[test]
fn each_turn_that_leaves_work_counts_as_a_yield_and_no_other() {
    check_yields(9, 0.0, 0.0);
    check_yields(100, 9.0, 10.0);
    check_yields(305, 30.0, 30.0);
}
