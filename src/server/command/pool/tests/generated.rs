//! Any sequence of events: whatever programs and clients do, every request is answered once, and no
//! bound is passed.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use crate::server::command::pool::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Request,
    /// By the index of one that it could happen to.
    Started(usize),
    StartFailed(usize),
    Reply(usize),
    Violated(usize),
    HungUp(usize),
    /// It dies, and has not read so much of what it was written.
    Ended(usize, usize),
    /// So many milliseconds pass.
    Pass(u64),
    Stop,
}

/// The processes as the pool's actions have them, and where each request is.
struct Model {
    pool: Pool<u32>,
    limits: Limits,
    now: Instant,
    requests: u32,
    /// When it arrived, of those that are not answered.
    open: BTreeMap<u32, Instant>,
    ordered: Vec<Key>,
    running: BTreeMap<Key, Running>,
    is_stopped: bool,
}

#[derive(Default)]
struct Running {
    owed: VecDeque<(u32, Instant)>,
    is_to_end: bool,
    has_hung_up: bool,
}

impl Model {
    fn new(limits: Limits) -> Self {
        let pool = Pool::new(limits.clone(), 0, |_| false);
        let (open, running) = (BTreeMap::new(), BTreeMap::new());
        let now = Instant::now();
        Self {
            pool,
            limits,
            now,
            requests: 0,
            open,
            ordered: Vec::new(),
            running,
            is_stopped: false,
        }
    }

    fn act(&mut self, event: Event) {
        let pick = |keys: Vec<Key>, at: usize| (!keys.is_empty()).then(|| keys[at % keys.len()]);
        let running = |model: &Self| model.running.keys().copied().collect::<Vec<_>>();
        match event {
            Event::Request => {
                self.requests += 1;
                self.open.insert(self.requests, self.now);
                let line = format!("{:04}\n", self.requests).into_bytes();
                self.pool.request(self.now, self.requests, line);
            }
            Event::Started(at) => {
                let Some(key) = pick(self.ordered.clone(), at) else { return };
                self.ordered.retain(|ordered| *ordered != key);
                self.running.insert(key, Running::default());
                self.pool.started(self.now, key);
            }
            Event::StartFailed(at) => {
                let Some(key) = pick(self.ordered.clone(), at) else { return };
                self.ordered.retain(|ordered| *ordered != key);
                self.pool.start_failed(self.now, key);
            }
            Event::Reply(at) => {
                if let Some(key) = pick(running(self), at) {
                    self.reply(key);
                }
            }
            Event::Violated(at) => {
                let Some(key) = pick(running(self), at) else { return };
                self.pool.violated(self.now, key);
            }
            Event::HungUp(at) => {
                let Some(key) = pick(running(self), at) else { return };
                self.running.get_mut(&key).unwrap().has_hung_up = true;
                self.pool.hung_up(self.now, key);
            }
            Event::Ended(at, unread) => {
                if let Some(key) = pick(running(self), at) {
                    self.end(key, unread);
                }
            }
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Event::Stop => {
                self.is_stopped = true;
                self.pool.stop();
            }
        }
        self.take_actions();
        self.pass(Duration::ZERO);
        self.check_bounds();
    }

    fn reply(&mut self, key: Key) {
        let process = self.running.get_mut(&key).unwrap();
        let is_deaf = process.is_to_end || process.has_hung_up;
        let expected = if is_deaf { None } else { process.owed.pop_front() };
        let got = match self.pool.line(self.now, key) {
            Line::Reply(number, _) => Some(number),
            Line::Unasked | Line::Unheard => None,
        };
        self.pool.settle(self.now);
        assert_eq!(got, expected.map(|(number, _)| number));
        if let Some(number) = got {
            assert!(self.open.remove(&number).is_some(), "{number} is answered twice");
        }
    }

    fn end(&mut self, key: Key, unread: usize) {
        let process = self.running.remove(&key).unwrap();
        let written = 5 * process.owed.len();
        let unread = unread.min(written);
        self.pool.ended(self.now, key, unread);
        // Those it has read fail, and are not seen again.
        for (at, (number, _)) in process.owed.iter().enumerate() {
            if 5 * at < written - unread && self.open.contains_key(number) {
                assert!(self.fails().contains(number), "{number} may have been carried out");
            }
        }
    }

    /// Which requests the pool is about to fail.
    fn fails(&self) -> Vec<u32> {
        let of = |action: &Action<u32>| match action {
            Action::Fail(number, _) => Some(*number),
            _ => None,
        };
        self.pool.actions.iter().filter_map(of).collect()
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.pool.wake().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.pool.tick(self.now);
            self.take_actions();
            assert!(self.pool.wake().is_none_or(|next| next > self.now), "it spins");
        }
        self.now = until;
        self.check_times();
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.pool.next_action() {
            match action {
                Action::Start(key) => self.ordered.push(key),
                Action::Write { process, .. } => {
                    let line = self.pool.unwritten(process).expect("something is to be written");
                    let number = String::from_utf8_lossy(line).trim().parse().unwrap();
                    let process = self.running.get_mut(&process).expect("it runs");
                    assert!(!process.is_to_end && !process.has_hung_up, "{number} goes astray");
                    process.owed.push_back((number, self.now));
                    assert!(self.open.contains_key(&number), "{number} is asked after its answer");
                }
                Action::Fail(number, _) => {
                    assert!(self.open.remove(&number).is_some(), "{number} is answered twice");
                    let others = self.running.values_mut();
                    others.for_each(|process| process.owed.retain(|(owed, _)| *owed != number));
                }
                Action::End(key) => {
                    let process = self.running.get_mut(&key).expect("it runs");
                    assert!(!process.is_to_end, "it is ended twice");
                    process.is_to_end = true;
                }
                Action::CircuitOpened(_) | Action::CircuitClosed => {}
            }
        }
    }

    fn check_bounds(&self) {
        let limits = &self.limits;
        let counts = self.pool.counts();
        let all = counts.starting + counts.idle + counts.busy + counts.ending;
        assert_eq!(all, self.running.len() + self.ordered.len());
        assert!(all <= 2 * limits.max_processes, "{counts:?}");
        assert!(counts.starting + counts.idle <= limits.max_processes, "{counts:?}");
        let most = 2 * limits.max_processes * limits.pipeline;
        assert!(self.pool.queue_length() <= limits.max_queue + most);
        for process in self.running.values() {
            assert!(process.owed.len() <= limits.pipeline);
        }
        if self.pool.queue_length() > 0 {
            assert_eq!(counts.idle, 0, "requests wait beside an idle process");
        }
        let at_processes: usize = self.running.values().map(|process| process.owed.len()).sum();
        assert_eq!(self.open.len(), self.pool.queue_length() + at_processes);
        let is_short = counts.starting + counts.idle + counts.busy < limits.min_processes;
        let is_held = self.is_stopped || self.pool.is_circuit_open() || self.pool.wake().is_some();
        assert!(!is_short || is_held || all == 2 * limits.max_processes, "{counts:?}");
    }

    /// Nothing has been overlooked.
    fn check_times(&self) {
        let is_over = |since: Instant, bound: Option<Duration>| {
            bound.is_some_and(|bound| self.now >= since + bound)
        };
        for process in self.running.values().filter(|it| !it.is_to_end && !it.has_hung_up) {
            if let Some((number, written)) = process.owed.front() {
                assert!(!is_over(*written, self.limits.reply_timeout), "{number} takes too long");
            }
        }
        let owed = |number: &u32| {
            let mut all = self.running.values().flat_map(|process| &process.owed);
            all.any(|(owed, _)| owed == number)
        };
        for (number, arrived) in &self.open {
            let is_late = !owed(number) && is_over(*arrived, self.limits.queue_timeout);
            assert!(!is_late, "{number} waits too long");
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let timeout = |most: u64| proptest::option::of((1..most).prop_map(Duration::from_millis));
    let numbers = (0_usize..3, 1_usize..4, 1_usize..4, 0_usize..5);
    let times = (timeout(2000), timeout(2000), timeout(3000));
    (numbers, times, proptest::option::of(1_u64..4), 1_u64..300).prop_map(
        |((min, max, pipeline, max_queue), times, max_requests, delay)| Limits {
            min_processes: min.min(max),
            max_processes: max,
            pipeline,
            max_queue,
            queue_timeout: times.0,
            reply_timeout: times.1,
            idle_timeout: times.2,
            max_requests,
            restart_delay: Duration::from_millis(delay),
            max_restart_delay: Duration::from_millis(10 * delay),
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::Request),
        6 => (0_usize..9).prop_map(Event::Started),
        1 => (0_usize..9).prop_map(Event::StartFailed),
        8 => (0_usize..9).prop_map(Event::Reply),
        1 => (0_usize..9).prop_map(Event::Violated),
        1 => (0_usize..9).prop_map(Event::HungUp),
        3 => ((0_usize..9), (0_usize..20)).prop_map(|(at, unread)| Event::Ended(at, unread)),
        4 => (0_u64..1500).prop_map(Event::Pass),
    ];
    proptest::collection::vec(event, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_once_and_no_bound_is_passed(limits in limits(), events in events())
    {
        let mut model = Model::new(limits);
        model.pool.begin(model.now);
        model.take_actions();
        for event in events {
            model.act(event);
        }
        model.act(Event::Stop);
        prop_assert!(model.open.is_empty(), "nobody answers {:?}", model.open);
        while !model.ordered.is_empty() {
            model.act(Event::Started(0));
        }
        let ends = |process: &Running| process.is_to_end || process.has_hung_up;
        prop_assert!(model.running.values().all(ends), "a process outlives the pool");
    }
}
