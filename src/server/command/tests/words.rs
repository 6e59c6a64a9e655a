//! What programs say on standard error, in the log.

use std::io::Write;
use std::sync::OnceLock;

use parking_lot::Mutex;
use serde_json::Value;

use super::*;

/// What this process has logged; tests that ask for it are alone in theirs.
static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.get_or_init(Arc::default).lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn listen() {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| Sink).init();
}

/// The events with that message.
fn events(message: &str) -> Vec<Value> {
    let log = LOG.get_or_init(Arc::default).lock();
    let events = log.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let events = events.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    events.filter(|event| event["message"] == message).collect()
}

fn texts() -> Vec<String> {
    let text = |event: &Value| event["text"].as_str().unwrap().to_owned();
    events("standard error").iter().map(text).collect()
}

#[test]
fn what_it_says_is_logged_by_line_and_escaped() {
    if !is_alone("words::what_it_says_is_logged_by_line_and_escaped", &[]) {
        return;
    }
    listen();
    let stage = Stage::new();
    let script = r"printf 'plain\n\033[2Jred\n\377\n' >&2; printf 'unfinished' >&2";
    let running = stage.spawn(&shell(script));
    running.status();
    eventually("all is logged", || texts().len() == 4);
    assert_eq!(texts(), ["plain", r"\u{1b}[2Jred", r"\xff", "unfinished"]);
    let event = &events("standard error")[0];
    assert_eq!(event["listener"], "main");
    assert_eq!(event["pid"], running.process.pid());
    assert_eq!(event["level"], "INFO");
    assert_eq!(event.get("left_out_bytes"), None);
    assert_eq!(stage.lines.load(Ordering::Relaxed), 4);
}

#[test]
fn a_long_line_is_cut_and_says_so() {
    if !is_alone("words::a_long_line_is_cut_and_says_so", &[]) {
        return;
    }
    listen();
    let stage = Stage::new();
    stage.spawn(&shell("head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; echo next >&2"));
    eventually("both are logged", || texts().len() == 2);
    assert_eq!(texts(), ["x".repeat(4096), "next".to_owned()]);
    assert_eq!(events("standard error")[0]["left_out_bytes"], 200_000 - 4096);
}

#[test]
fn what_somebody_says_who_outlives_it_is_logged_for_a_while() {
    if !is_alone("words::what_somebody_says_who_outlives_it_is_logged_for_a_while", &[]) {
        return;
    }
    listen();
    let stage = Stage::new();
    // It leaves the group, so that it is not killed with it, and speaks when its parent is reaped.
    let late = "echo $$; while kill -0 $0 2>/dev/null; do sleep 0.01; done; echo late >&2";
    let mut running = stage.spawn(&shell(&format!("setsid sh -c '{late}' $$ & read line")));
    running.line();
    drop(running.input.take());
    running.status();
    eventually("it is logged", || texts() == ["late"]);
}

#[test]
fn a_stop_hears_out_what_was_said_before() {
    if !is_alone("words::a_stop_hears_out_what_was_said_before", &[]) {
        return;
    }
    listen();
    let stage = Stage::new();
    let script = "trap 'echo bye >&2; exit' TERM; echo ready; while :; do sleep 0.1; done";
    let mut running = stage.spawn(&shell(script));
    assert_eq!(running.line(), "ready");
    stage.thread.stop();
    // A shell may tell of a part of itself that was terminated, too.
    assert_eq!(texts().last().unwrap(), "bye");
}

#[test]
fn a_flood_is_bounded_and_counted_and_keeps_nobody_waiting() {
    if !is_alone("words::a_flood_is_bounded_and_counted_and_keeps_nobody_waiting", &[]) {
        return;
    }
    listen();
    // In large writes that fill the pipe, and in many small ones that would each wake the keeper.
    assert!(left_out_of("yes >&2") > 10_000);
    left_out_of("while :; do echo flood >&2; done");
}

/// Lets it run for half a second, and returns how many lines were not shown.
#[track_caller]
fn left_out_of(flood: &str) -> u64 {
    LOG.get_or_init(Arc::default).lock().clear();
    let stage = Stage::new();
    let flood = stage.spawn(&shell(flood));
    let began = Instant::now();
    let mut spawned = 0;
    while began.elapsed() < Duration::from_millis(500) {
        assert!(stage.spawn(&program(&["true"])).status().success());
        spawned += 1;
    }
    flood.end();
    flood.status();
    let took = began.elapsed();
    stage.thread.stop();
    let shares = 3 + usize::try_from(took.as_millis()).unwrap() / 20;
    let (shown, said) = (texts().len(), stage.lines.load(Ordering::Relaxed));
    assert!(shown <= shares * 64, "{shown} lines of {shares} shares");
    let summaries = events("lines on standard error left out");
    let left_out = summaries.iter().map(|event| event["left_out"].as_u64().unwrap()).sum();
    assert_eq!(said, left_out + u64::try_from(shown).unwrap());
    assert!(spawned > 3, "{spawned} processes meanwhile");
    left_out
}
