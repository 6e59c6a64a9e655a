//! The pool by example; what holds for every sequence of events stands in `generated`.

mod circuit;
mod generated;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The client of this request is gone.
const GONE: u32 = 9999;

fn limits() -> Limits {
    Limits {
        min_processes: 1,
        max_processes: 3,
        pipeline: 1,
        max_queue: 4,
        queue_timeout: Some(5 * SECOND),
        reply_timeout: Some(30 * SECOND),
        idle_timeout: Some(60 * SECOND),
        max_requests: None,
        restart_delay: 100 * MS,
        max_restart_delay: SECOND,
    }
}

/// A pool with a clock that stands still, and what it has asked for since it was last looked at.
struct Stage {
    pool: Pool<u32>,
    now: Instant,
    said: Vec<String>,
}

impl Stage {
    fn new(limits: Limits) -> Self {
        Self {
            pool: Pool::new(limits, 0, |&number| number == GONE),
            now: Instant::now(),
            said: Vec::new(),
        }
    }

    /// With so many processes that wait for their first request.
    fn with_idle(limits: Limits) -> Self {
        let count = limits.min_processes as u64;
        let mut stage = Self::new(limits);
        stage.pool.begin(stage.now);
        (0..count).for_each(|key| stage.pool.started(stage.now, Key(key)));
        stage.forget();
        stage
    }

    fn request(&mut self, number: u32) {
        self.pool.request(self.now, number, format!("{number:04}\n").into_bytes());
        self.listen();
    }

    fn reply(&mut self, key: u64) -> Option<u32> {
        self.listen();
        let line = self.pool.line(self.now, Key(key));
        self.pool.settle(self.now);
        self.listen();
        match line {
            Line::Reply(number, _) => Some(number),
            Line::Unasked | Line::Unheard => None,
        }
    }

    /// Time passes; the pool is called when it wants to be.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.pool.wake().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.pool.tick(self.now);
            self.listen();
            assert!(self.pool.wake().is_none_or(|next| next > self.now), "it spins");
        }
        self.now = until;
    }

    /// Takes note of what the pool has asked for.
    fn listen(&mut self) {
        while let Some(action) = self.pool.next_action() {
            self.said.push(match action {
                Action::Start(key) => format!("start {}", key.0),
                Action::Write { process, .. } => {
                    let line = self.pool.unwritten(process).unwrap();
                    format!("{} to {}", String::from_utf8_lossy(line).trim_end(), process.0)
                }
                Action::Fail(number, failure) => format!("{number} {failure:?}"),
                Action::End(key) => format!("end {}", key.0),
                Action::CircuitOpened(delay) => format!("opened for {} ms", delay.as_millis()),
                Action::CircuitClosed => "closed".to_owned(),
            });
        }
    }

    fn forget(&mut self) {
        self.listen();
        self.said.clear();
    }

    /// What the pool has asked for since the last look.
    #[track_caller]
    fn check(&mut self, expected: &str) {
        self.listen();
        assert_eq!(std::mem::take(&mut self.said).join(", "), expected);
    }

    /// The process of that number, just ordered, starts and dies at once.
    fn die_at_once(&mut self, key: u64) {
        self.pool.started(self.now, Key(key));
        self.listen();
        self.pool.ended(self.now, Key(key), 0);
        self.listen();
    }
}

#[test]
fn a_line_left_over_is_no_reply_to_who_comes_next() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    stage.request(1);
    stage.request(2);
    stage.check("0001 to 0");
    // It wrote two lines for one.
    assert!(matches!(stage.pool.line(stage.now, Key(0)), Line::Reply(1, _)));
    assert!(matches!(stage.pool.line(stage.now, Key(0)), Line::Unasked));
    stage.pool.settle(stage.now);
    stage.check("end 0, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.check("0002 to 1");
}

#[test]
fn the_least_number_is_there_from_the_start() {
    let mut stage = Stage::new(Limits { min_processes: 2, ..limits() });
    stage.pool.begin(stage.now);
    stage.check("start 0, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.request(7);
    stage.check("0007 to 1");
    assert_eq!(stage.reply(1), Some(7));
    stage.check("");
}

#[test]
fn more_are_started_on_demand_up_to_the_most_and_end_when_idle() {
    let mut stage = Stage::with_idle(limits());
    (1..=5).for_each(|number| stage.request(number));
    stage.check("0001 to 0, start 1, start 2");
    stage.pool.started(stage.now, Key(1));
    stage.pool.started(stage.now, Key(2));
    stage.check("0002 to 1, 0003 to 2");
    assert_eq!(stage.reply(1), Some(2));
    assert_eq!(stage.reply(0), Some(1));
    stage.check("0004 to 1, 0005 to 0");
    assert_eq!((stage.reply(2), stage.reply(0), stage.reply(1)), (Some(3), Some(5), Some(4)));
    assert_eq!(stage.pool.counts(), Counts { idle: 3, ..Counts::default() });
    stage.pass(59 * SECOND);
    // The one that was asked last is asked again, so that the others can go.
    stage.request(6);
    assert_eq!(stage.reply(1), Some(6));
    stage.check("0006 to 1");
    stage.pass(SECOND);
    stage.check("end 2, end 0");
    assert_eq!(stage.pool.counts(), Counts { idle: 1, ending: 2, ..Counts::default() });
    assert_eq!(stage.pool.ended(stage.now, Key(2), 0), Some(Why::Idle));
    stage.pass(600 * SECOND);
    stage.check("");
}

#[test]
fn a_full_queue_refuses_and_a_long_wait_ends() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    (1..=6).for_each(|number| stage.request(number));
    stage.check("0001 to 0, 6 QueueFull");
    stage.pass(5 * SECOND - MS);
    stage.check("");
    stage.pass(MS);
    stage.check("2 QueueTimeout, 3 QueueTimeout, 4 QueueTimeout, 5 QueueTimeout");
}

#[test]
fn nobody_is_asked_for_a_client_that_is_gone() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    [1, GONE, GONE, 2].into_iter().for_each(|number| stage.request(number));
    stage.check("0001 to 0");
    assert_eq!(stage.reply(0), Some(1));
    stage.check("9999 ClientGone, 9999 ClientGone, 0002 to 0");
}

#[test]
fn a_full_queue_has_room_again_once_clients_in_it_are_gone() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    [1, 2, GONE, 3, GONE, 4].into_iter().for_each(|number| stage.request(number));
    stage.check("0001 to 0, 9999 ClientGone, 9999 ClientGone");
    assert_eq!(stage.pool.queue_length(), 3);
    [5, 6].into_iter().for_each(|number| stage.request(number));
    stage.check("6 QueueFull");
    assert_eq!(stage.reply(0), Some(1));
    stage.check("0002 to 0");
    // Gone through again, but not for each one that is refused.
    stage.request(GONE);
    stage.request(7);
    stage.check("7 QueueFull");
    stage.pass(SWEEP);
    stage.request(8);
    stage.check("9999 ClientGone");
}

#[test]
fn a_process_that_takes_too_long_is_replaced_and_costs_one_request() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, queue_timeout: None, ..limits() });
    stage.request(1);
    stage.pass(SECOND);
    stage.request(2);
    stage.check("0001 to 0");
    stage.pass(29 * SECOND);
    stage.check("end 0, 1 ReplyTimeout, start 1");
    // What it says now concerns nobody.
    assert_eq!(stage.reply(0), None);
    stage.pool.started(stage.now, Key(1));
    stage.check("0002 to 1");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), Some(Why::Timeout));
    assert_eq!(stage.reply(1), Some(2));
    stage.check("");
}

#[test]
fn a_pipeline_fills_while_more_are_started_and_is_answered_in_order() {
    let mut stage = Stage::with_idle(Limits { pipeline: 2, max_processes: 2, ..limits() });
    (1..=5).for_each(|number| stage.request(number));
    stage.check("0001 to 0, 0002 to 0, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.check("0003 to 1, 0004 to 1");
    assert_eq!((stage.reply(0), stage.reply(1)), (Some(1), Some(3)));
    stage.check("0005 to 0");
    assert_eq!((stage.reply(0), stage.reply(0), stage.reply(1)), (Some(2), Some(5), Some(4)));
}

#[test]
fn only_what_a_dead_process_did_not_read_is_asked_again() {
    let mut stage = Stage::with_idle(Limits { pipeline: 4, max_processes: 1, ..limits() });
    stage.request(0);
    assert_eq!(stage.reply(0), Some(0));
    (1..=4).for_each(|number| stage.request(number));
    stage.check("0000 to 0, 0001 to 0, 0002 to 0, 0003 to 0, 0004 to 0");
    // Of the last 14 bytes it read nothing: two lines of five, and most of a third.
    assert_eq!(stage.pool.ended(stage.now, Key(0), 14), None);
    stage.check("1 ProcessEnded, 2 ProcessEnded, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.check("0003 to 1, 0004 to 1");
}

#[test]
fn what_waits_behind_a_timeout_is_decided_when_the_process_has_ended() {
    let mut stage = Stage::with_idle(Limits { pipeline: 3, max_processes: 1, ..limits() });
    (1..=3).for_each(|number| stage.request(number));
    stage.pass(30 * SECOND);
    stage.check("0001 to 0, 0002 to 0, 0003 to 0, end 0, 1 ReplyTimeout, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.check("");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 5), Some(Why::Timeout));
    stage.check("2 ProcessEnded, 0003 to 1");
}

#[test]
fn a_process_that_has_served_its_share_is_replaced_without_a_gap() {
    let most = Some(2);
    let mut stage = Stage::with_idle(Limits { max_processes: 1, max_requests: most, ..limits() });
    stage.request(1);
    assert_eq!(stage.reply(0), Some(1));
    stage.request(2);
    stage.request(3);
    stage.check("0001 to 0, 0002 to 0, start 1");
    stage.pool.started(stage.now, Key(1));
    stage.check("0003 to 1");
    assert_eq!(stage.reply(0), Some(2));
    stage.check("end 0");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), Some(Why::MaxRequests));
}

#[test]
fn a_line_that_nobody_asked_for_ends_the_process() {
    let mut stage = Stage::with_idle(limits());
    stage.request(1);
    assert_eq!(stage.reply(0), Some(1));
    stage.check("0001 to 0");
    assert_eq!(stage.reply(0), None);
    stage.check("end 0, start 1");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), Some(Why::Protocol));
}

#[test]
fn what_can_be_no_reply_costs_one_request_and_the_process() {
    let mut stage = Stage::with_idle(limits());
    stage.request(1);
    stage.pool.violated(stage.now, Key(0));
    stage.check("0001 to 0, end 0, 1 ProcessEnded, start 1");
}

#[test]
fn a_process_that_closes_its_output_and_lives_on_is_ended() {
    let mut stage = Stage::with_idle(limits());
    stage.request(1);
    stage.check("0001 to 0");
    stage.pool.hung_up(stage.now, Key(0));
    stage.check("start 1");
    stage.pass(LAST_BREATH - MS);
    stage.check("");
    stage.pass(MS);
    stage.check("end 0");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), Some(Why::LivedOn));
    stage.check("1 ProcessEnded");
    // One that ends as well has ended by itself.
    stage.pool.started(stage.now, Key(1));
    stage.pool.hung_up(stage.now, Key(1));
    assert_eq!(stage.pool.ended(stage.now, Key(1), 0), None);
}

#[test]
fn nobody_waits_for_a_process_that_cannot_be_started() {
    let mut stage = Stage::new(Limits { min_processes: 0, ..limits() });
    stage.request(1);
    stage.check("start 0");
    stage.pool.start_failed(stage.now, Key(0));
    stage.check("1 StartFailed");
}

#[test]
fn one_that_the_pool_before_had_ordered_is_ended_when_it_is_there() {
    let mut stage =
        Stage { pool: Pool::new(limits(), 7, |_| false), now: Instant::now(), said: Vec::new() };
    stage.pool.begin(stage.now);
    stage.pool.started(stage.now, Key(6));
    stage.check("start 7, end 6");
    assert_eq!(stage.pool.ended(stage.now, Key(6), 0), None);
    stage.check("");
}

#[test]
fn a_stop_ends_every_process_and_fails_what_was_asked() {
    let mut stage = Stage::with_idle(limits());
    stage.request(1);
    stage.request(2);
    stage.check("0001 to 0, start 1");
    stage.pool.stop();
    stage.check("2 ProcessEnded, 1 ProcessEnded, end 0");
    // One on its way is ended when it is there.
    stage.pool.started(stage.now, Key(1));
    stage.check("end 1");
    stage.request(3);
    stage.check("3 ProcessEnded");
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), Some(Why::Stopped));
    assert_eq!(stage.pool.ended(stage.now, Key(1), 0), Some(Why::Stopped));
    stage.pass(600 * SECOND);
    stage.check("");
}
