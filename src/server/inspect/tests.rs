//! The choice of the best, who counts as stalled, and the page itself.

use super::page::Report;
use super::*;
use crate::connection::State;
use crate::metrics::Instruments;
use crate::server::pool::{Inboxes, Seat};
use proptest::prelude::*;

fn snapshot(accepted: Instant) -> Snapshot {
    Snapshot {
        listener: 0,
        peer: None,
        accepted,
        last_byte: accepted,
        messages: 0,
        received_bytes: 0,
        sent_bytes: 0,
        pending_bytes: 0,
        state: State::Reading,
    }
}

/// A question, and where its answer comes out.
fn question(query: Query, until: Instant) -> (Question, crossbeam_channel::Receiver<Answer>) {
    let (answers, answered) = bounded(1);
    (Question { worker: 0, query, until, answers }, answered)
}

/// Connections of all kinds, many of them alike.
fn connections() -> impl Strategy<Value = Vec<[u64; 6]>> {
    prop::collection::vec([0..20u64, 0..20u64, 0..9u64, 0..9u64, 0..9u64, 0..9u64], 0..60)
}

#[test]
fn the_best_in_every_order_are_found_wherever_they_stand() {
    let origin = Instant::now();
    let until = origin + Duration::from_secs(60);
    proptest!(|(all in connections(), limit in 1..70usize)| {
        let all: Vec<Found> = all
            .iter()
            .zip(1..)
            .map(|(&[accepted, idle, messages, received_bytes, sent_bytes, pending_bytes], at)| {
                let accepted = origin + Duration::from_secs(accepted);
                let last_byte = accepted + Duration::from_secs(idle);
                let more = Snapshot { last_byte, messages, received_bytes, ..snapshot(accepted) };
                Found { generation: at, snapshot: Snapshot { sent_bytes, pending_bytes, ..more } }
            })
            .collect();
        for sort in Sort::ALL {
            let (question, answered) = question(Query { sort, limit }, until);
            let mut survey = Survey::new(question);
            for (slot, found) in all.iter().enumerate() {
                survey.note(slot, found);
            }
            survey.conclude(|slot| all.get(slot).copied());
            let answer = answered.try_recv().unwrap();
            prop_assert_eq!(answer.connections, all.len());
            let ranks = |of: &[Found]| {
                let mut ranks: Vec<u64> =
                    of.iter().map(|found| rank(sort, &found.snapshot, until)).collect();
                ranks.sort_unstable_by_key(|rank| Reverse(*rank));
                ranks.truncate(limit);
                ranks
            };
            prop_assert_eq!(answer.found.len(), limit.min(all.len()));
            prop_assert_eq!(ranks(&answer.found), ranks(&all));
        }
    });
}

#[test]
fn what_has_left_its_slot_meanwhile_is_not_shown() {
    let now = Instant::now();
    let found = |generation| Found { generation, snapshot: snapshot(now) };
    let (question, answered) = question(Query::default(), now + PATIENCE);
    let mut survey = Survey::new(question);
    for slot in 0..3 {
        survey.note(slot, &found(1 + slot as u64));
    }
    // One is still there, one has gone, and one has given its slot to another.
    survey.conclude(|slot| [Some(found(1)), None, Some(found(7))][slot]);
    let answer = answered.try_recv().unwrap();
    let generations: Vec<u64> = answer.found.iter().map(|found| found.generation).collect();
    assert_eq!((answer.connections, generations), (3, vec![1]));
}

#[test]
fn an_answer_that_nobody_waits_for_does_no_harm() {
    let now = Instant::now();
    let (question, answered) = question(Query::default(), now);
    drop(answered);
    let survey = Survey::new(question);
    assert!(survey.is_late(now) && !survey.is_late(now - Duration::from_nanos(1)));
    survey.conclude(|_| None);
}

/// Two workers that nobody runs.
struct Idle {
    inspector: Inspector,
    inboxes: Vec<Inboxes>,
}

impl Idle {
    fn new() -> Self {
        let origin = Instant::now();
        let instruments = Arc::new(Instruments::new([("main", true)], 2, &[], &[]).unwrap());
        let mut inboxes = Vec::new();
        let mut seats = Vec::new();
        for _ in 0..2 {
            let poll = mio::Poll::new().unwrap();
            let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
            let (seat, ends) = Seat::new(waker, 1, origin, 1, instruments.clone());
            seats.push(seat);
            inboxes.push(ends);
        }
        let lifecycle = Arc::new(Lifecycle::new(origin));
        let inspector = Inspector::new(Pool::new(seats), lifecycle, vec!["main".to_owned()]);
        Self { inspector, inboxes }
    }

    fn page(&self) -> serde_json::Value {
        serde_json::from_slice(&self.inspector.page(Query::default())).unwrap()
    }
}

#[test]
fn a_question_that_was_not_taken_makes_room_for_the_next() {
    let idle = Idle::new();
    let soon = Instant::now() + Duration::from_millis(10);
    assert!(idle.inspector.ask(Query::default(), soon).iter().all(Option::is_none));
    let later = soon + Duration::from_millis(10);
    assert!(idle.inspector.ask(Query::default(), later).iter().all(Option::is_none));
    for inboxes in &idle.inboxes {
        let newest = Survey::new(inboxes.questions.try_recv().unwrap());
        assert!(!newest.is_late(soon) && newest.is_late(later) && inboxes.questions.is_empty());
    }
}

#[test]
fn a_worker_that_does_not_answer_is_stalled_and_one_that_a_drain_has_ended_is_not() {
    let mut idle = Idle::new();
    let page = idle.page();
    assert_eq!(page["stalled"], serde_json::json!([0, 1]));
    assert_eq!(page["workers"][1]["answered"], false);
    idle.inboxes.clear();
    assert_eq!(idle.page()["stalled"], serde_json::json!([0, 1]));
    idle.inspector.lifecycle.stop();
    idle.inspector.lifecycle.drain(Instant::now());
    let page = idle.page();
    assert_eq!((&page["stalled"], &page["draining"]), (&serde_json::json!([]), &true.into()));
    assert_eq!(page["total"], 0);
}

#[test]
fn the_page_is_json_with_every_field() {
    let now = Instant::now();
    let accepted = now - Duration::from_micros(12_345_678);
    let found = Found {
        generation: 42,
        snapshot: Snapshot {
            peer: Some("[fe80::1%2]:9".parse().unwrap()),
            last_byte: now - Duration::from_millis(250),
            messages: 3,
            received_bytes: 300,
            sent_bytes: 200,
            pending_bytes: 100,
            state: State::AwaitingReply,
            ..snapshot(accepted)
        },
    };
    // Its worker read the clock after the one who asked.
    let newer = Found { generation: 1, snapshot: snapshot(now + Duration::from_secs(1)) };
    let report = Report {
        host: "web-3.example",
        pid: 4711,
        query: Query { sort: Sort::Sent, limit: 7 },
        draining: true,
        workers: vec![
            Standing { connections: 2, answered: true },
            Standing { connections: 5, answered: false },
        ],
        found: vec![(0, found), (0, newer)],
        listeners: &["main".to_owned()],
    };
    let written = page::write(&report, now);
    let page: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let expected = serde_json::json!({
        "host": "web-3.example", "pid": 4711,
        "sort": "sent", "limit": 7, "total": 2, "draining": true,
        "workers": [
            {"worker": 0, "connections": 2, "answered": true},
            {"worker": 1, "connections": 5, "answered": false},
        ],
        "stalled": [1],
        "connections": [
            {
                "id": "0-42", "listener": "main", "peer": "[fe80::1%2]:9", "worker": 0,
                "age_seconds": 12.345678, "idle_seconds": 0.25, "messages": 3,
                "received_bytes": 300, "sent_bytes": 200, "pending_bytes": 100,
                "state": "awaiting_reply",
            },
            {
                "id": "0-1", "listener": "main", "peer": "unix", "worker": 0,
                "age_seconds": 0.0, "idle_seconds": 0.0, "messages": 0,
                "received_bytes": 0, "sent_bytes": 0, "pending_bytes": 0, "state": "reading",
            },
        ],
    });
    assert_eq!(page, expected);
}

#[test]
fn a_hosts_name_that_would_need_an_escape_is_left_out() {
    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(written_plainly(name.to_owned()), expected);
    }
    check("Web-3.example", "Web-3.example");
    check("", "");
    for name in ["a\"b", "a b", "a\\", "(none)", "zürich", "a_b", "<b>"] {
        check(name, "");
    }
}

#[test]
fn the_page_is_open_where_the_operator_says_so() {
    #[track_caller]
    fn check(connections: ShowConnections, address: &str, expected: Option<&str>) {
        let address = Some(address.parse().unwrap());
        let access = access(&Metrics { address, connections, ..Metrics::default() });
        match expected {
            None => assert_eq!(access.closed, None),
            Some(content) => {
                let told = access.closed.unwrap();
                assert!(told.contains(content) && told.contains("/connections"), "{told}");
            }
        }
    }
    let always = Some("metrics.connections = \"always\"");
    for (address, expected) in [
        ("127.0.0.1:1", None),
        ("127.9.9.9:1", None),
        ("[::1]:1", None),
        ("[::ffff:127.0.0.1]:1", None),
        ("0.0.0.0:1", always),
        ("[::]:1", always),
        ("192.0.2.1:1", always),
    ] {
        check(ShowConnections::Loopback, address, expected);
        check(ShowConnections::Always, address, None);
        check(ShowConnections::Never, address, Some("\"never\""));
    }
}
