//! How many processes of connections are at work at a time before another one starts. The start of
//! a large program is work for the processor from its first instruction to its last, and so is its
//! end: more of them than there are processors only take it and its caches from each other, and
//! from those who could already answer.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::order::{Progress, Watch};
use super::orphans::is_running;

/// A start that takes no longer is not worth waiting for: to be woken for the next one costs more
/// than that gains.
const SHORT: Duration = Duration::from_millis(3);

/// After a short one so many more are taken for short.
const FREE: u32 = 256;

/// It is looked whether a process still works once it should have said its first, and had time to
/// be told to end; then whenever a quarter of its age has passed: within these bounds. A look
/// costs some 15 µs, and takes the processor from who is at work.
const PAUSE: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(100)];
const TIME_TO_END: Duration = Duration::from_millis(1);

/// One that still works so long after its first word does what its client wants,
const LONGEST_END: Duration = Duration::from_millis(20);

/// and so does one that has not said any by then.
const LONGEST_START: Duration = Duration::from_secs(1);

/// Nobody waits for longer than that until others have done with their work: they may never have.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Those that are at work.
pub(super) struct Starts {
    at_work: Vec<Start>,
    most: usize,
    /// How many may start beside them.
    free: u32,
    /// How long the last one took until it said its first.
    took: Duration,
}

struct Start {
    pid: u32,
    began: Instant,
    watch: Watch,
    look_at: Instant,
    /// How old it was when it was last seen to work.
    worked: Duration,
}

impl Starts {
    /// One for each processor that this process may use.
    pub(super) fn new() -> Self {
        Self::with(available_parallelism().map_or(1, usize::from))
    }

    fn with(most: usize) -> Self {
        Self { at_work: Vec::new(), most, free: 0, took: Duration::ZERO }
    }

    /// One has started, for which there was room.
    pub(super) fn begin(&mut self, now: Instant, pid: u32, watch: Watch) {
        if self.free > 0 {
            self.free -= 1;
            return;
        }
        let look_at = now + within(self.took + TIME_TO_END);
        self.at_work.push(Start { pid, began: now, watch, look_at, worked: Duration::ZERO });
    }

    /// Whether one more may start now.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let (free, last) = (&mut self.free, &mut self.took);
        self.at_work.retain_mut(|start| {
            let Some(took) = start.done(now) else { return true };
            *last = took;
            if took <= SHORT {
                *free = FREE;
            }
            false
        });
        self.free > 0 || self.at_work.len() < self.most
    }

    /// When there may be room, though nobody has ended.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.at_work.iter().map(|start| start.look_at).min()
    }
}

impl Start {
    /// How long it took to its first word, once it has ended, waits for something or works on.
    fn done(&mut self, now: Instant) -> Option<Duration> {
        let Progress { spoke, has_ended } = (self.watch)();
        if !has_ended {
            if now < self.look_at {
                return None;
            }
            let until = spoke.map_or(self.began + LONGEST_START, |at| at + LONGEST_END);
            if now < until && is_running(self.pid) {
                self.worked = now.saturating_duration_since(self.began);
                self.look_at = now + within(self.worked / 4);
                return None;
            }
        }
        // One that never spoke took no longer than until the look before.
        Some(spoke.map_or(self.worked, |at| at.saturating_duration_since(self.began)))
    }
}

fn within(pause: Duration) -> Duration {
    let [least, most] = PAUSE;
    pause.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;

    use parking_lot::Mutex;

    const MS: Duration = Duration::from_millis(1);

    struct Process(Child);

    impl Process {
        fn of(script: &str) -> Self {
            let mut shell = Command::new("sh");
            let pipes = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            Self(pipes.spawn().unwrap())
        }

        /// Returns when it is at work.
        fn busy() -> Self {
            let mut busy = Self::of("echo; while :; do :; done");
            busy.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            busy
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn silent() -> Watch {
        Box::new(|| Progress { spoke: None, has_ended: false })
    }

    /// How many may start at once after one that took so long until it said its first, and ended.
    fn room_after(took: Duration) -> u32 {
        let busy = Process::busy();
        let progress = Arc::new(Mutex::new(Progress { spoke: None, has_ended: false }));
        let now = Instant::now();
        let begin = |starts: &mut Starts| {
            let seen = progress.clone();
            starts.begin(now, busy.0.id(), Box::new(move || *seen.lock()));
        };
        let mut starts = Starts::with(1);
        assert!(starts.has_room(now));
        begin(&mut starts);
        progress.lock().spoke = Some(now + took);
        assert!(!starts.has_room(now), "it may end at once");
        progress.lock().has_ended = true;
        assert!(starts.has_room(now));
        progress.lock().has_ended = false;
        let mut room = 0;
        while starts.has_room(now) {
            begin(&mut starts);
            room += 1;
        }
        room
    }

    #[test]
    fn after_a_long_start_one_more_has_room_and_after_a_short_one_many() {
        assert_eq!(room_after(SHORT + MS), 1);
        assert_eq!(room_after(SHORT), FREE + 1);
    }

    /// Looks for who is at work come after such pauses where the one before took so long.
    #[track_caller]
    fn check_looks(took: u32, pauses: [u32; 4]) {
        let (busy, mut now) = (Process::busy(), Instant::now());
        let mut starts = Starts { took: took * MS, ..Starts::with(1) };
        starts.begin(now, busy.0.id(), silent());
        for pause in pauses {
            let at = starts.wake().expect("it is looked again");
            assert_eq!(at.duration_since(now).as_millis(), u128::from(pause));
            now = at;
            assert!(!starts.has_room(now), "after {pause} ms");
        }
    }

    #[test]
    fn who_works_is_waited_for() {
        check_looks(0, [4, 4, 4, 4]);
        check_looks(63, [64, 16, 20, 25]);
        check_looks(1000, [100, 25, 31, 39]);
    }

    #[test]
    fn who_works_on_and_on_is_not() {
        let (busy, began) = (Process::busy(), Instant::now());
        let has_room_after = |age: Duration, spoke: Option<Instant>| {
            let mut starts = Starts::with(1);
            let watch = Box::new(move || Progress { spoke, has_ended: false });
            starts.begin(began, busy.0.id(), watch);
            starts.has_room(began + age)
        };
        assert!(!has_room_after(LONGEST_START - MS, None));
        assert!(has_room_after(LONGEST_START, None));
        let spoke = Some(began + 100 * MS);
        assert!(!has_room_after(100 * MS + LONGEST_END - MS, spoke));
        assert!(has_room_after(100 * MS + LONGEST_END, spoke));
    }

    #[track_caller]
    fn check_is_not_waited_for(script: &str) {
        let (process, mut starts) = (Process::of(script), Starts::with(1));
        starts.begin(Instant::now(), process.0.id(), silent());
        while !starts.has_room(starts.wake().expect("it is looked again")) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_waits_for_something_or_is_gone_is_not() {
        check_is_not_waited_for("read line");
        check_is_not_waited_for(":");
    }
}
