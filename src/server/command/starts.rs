//! How many processes of connections are at work at a time before another one starts. The start of
//! a large program is work for the processor from its first instruction to its last, and so is its
//! end: more of them than there are processors only take it and its caches from each other, and
//! from those who could already answer.

use std::collections::BTreeMap;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use super::order::{Progress, Watch};
use super::orphans::is_running;

/// A start that takes no longer is not worth waiting for: to be woken for the next one costs more
/// than that gains.
const SHORT: Duration = Duration::from_millis(3);

/// After a short one so many more of its program are taken for short.
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

/// Nobody waits for longer than that until others have done with their work.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Those that are at work, never more than there are processors.
pub(super) struct Starts {
    at_work: Vec<Start>,
    most: usize,
    /// By program, as whoever asks calls it.
    habits: BTreeMap<usize, Habit>,
}

/// How a program starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Habit {
    /// How long it works until it says its first, or waits.
    takes: Duration,
    /// How many may start beside those at work.
    free: u32,
}

struct Start {
    program: usize,
    pid: u32,
    began: Instant,
    watch: Watch,
    look_at: Instant,
    /// How old it was when it was last seen to work.
    worked: Duration,
}

/// What is seen of one that is at work.
enum Seen {
    AtWork,
    /// No longer; `Some` = it took about so long to its first word, or until it waited.
    Done(Option<Duration>),
}

impl Starts {
    /// One for each processor that this process may use.
    pub(super) fn new() -> Self {
        Self::with(available_parallelism().map_or(1, usize::from))
    }

    fn with(most: usize) -> Self {
        Self { at_work: Vec::new(), most, habits: BTreeMap::new() }
    }

    /// One of that program has started.
    pub(super) fn begin(&mut self, now: Instant, program: usize, pid: u32, watch: Watch) {
        let habit = self.habits.entry(program).or_default();
        if habit.free > 0 {
            habit.free -= 1;
        } else if self.at_work.len() < self.most {
            let look_at = now + within(habit.takes + TIME_TO_END);
            let worked = Duration::ZERO;
            self.at_work.push(Start { program, pid, began: now, watch, look_at, worked });
        }
    }

    /// Whether one more of that program may start now.
    pub(super) fn has_room(&mut self, now: Instant, program: usize) -> bool {
        let habits = &mut self.habits;
        self.at_work.retain_mut(|start| match start.look(now) {
            Seen::AtWork => true,
            Seen::Done(took) => {
                let habit = habits.entry(start.program).or_default();
                if let Some(took) = took {
                    habit.takes = took;
                    habit.free = if took <= SHORT { FREE } else { 0 };
                }
                false
            }
        });
        let is_free = self.habits.get(&program).is_some_and(|habit| habit.free > 0);
        is_free || self.at_work.len() < self.most
    }

    /// When there may be room, though nobody has ended.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.at_work.iter().map(|start| start.look_at).min()
    }
}

impl Start {
    fn look(&mut self, now: Instant) -> Seen {
        let Progress { spoke, has_ended } = (self.watch)();
        let spoke_after = spoke.map(|at| at.saturating_duration_since(self.began));
        if has_ended {
            return Seen::Done(spoke_after);
        }
        if now < self.look_at {
            return Seen::AtWork;
        }
        let until = spoke.map_or(self.began + LONGEST_START, |at| at + LONGEST_END);
        if now < until && is_running(self.pid) {
            self.worked = now.saturating_duration_since(self.began);
            self.look_at = now + within(self.worked / 4);
            return Seen::AtWork;
        }
        // Of one that was looked at late nobody knows when it had done, and a word may have waited
        // for its client's.
        let is_late = now >= self.look_at + PAUSE[0];
        let looked = self.look_at.saturating_duration_since(self.began);
        let took = self.worked.max(looked * 3 / 4);
        Seen::Done((!is_late).then(|| spoke_after.map_or(took, |spoke| spoke.min(took))))
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

    const PROGRAM: usize = 7;

    fn silent() -> Watch {
        Box::new(|| Progress { spoke: None, has_ended: false })
    }

    /// Room for one, of a program that takes so many milliseconds.
    fn with_habit(takes: u32) -> Starts {
        let mut starts = Starts::with(1);
        starts.habits.insert(PROGRAM, Habit { takes: takes * MS, free: 0 });
        starts
    }

    /// How many may start at once after one that took so long until it said its first, and ended.
    fn room_after(took: Duration) -> u32 {
        let busy = Process::busy();
        let progress = Arc::new(Mutex::new(Progress { spoke: None, has_ended: false }));
        let now = Instant::now();
        let begin = |starts: &mut Starts| {
            let seen = progress.clone();
            starts.begin(now, PROGRAM, busy.0.id(), Box::new(move || *seen.lock()));
        };
        let mut starts = Starts::with(1);
        assert!(starts.has_room(now, PROGRAM));
        begin(&mut starts);
        progress.lock().spoke = Some(now + took);
        assert!(!starts.has_room(now, PROGRAM), "it may end at once");
        progress.lock().has_ended = true;
        assert!(starts.has_room(now, PROGRAM));
        progress.lock().has_ended = false;
        let mut room = 0;
        while starts.has_room(now, PROGRAM) {
            begin(&mut starts);
            room += 1;
        }
        assert!(!starts.has_room(now, PROGRAM + 1), "another program is not to be known by it");
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
        let mut starts = with_habit(took);
        starts.begin(now, PROGRAM, busy.0.id(), silent());
        for pause in pauses {
            let at = starts.wake().expect("it is looked again");
            assert_eq!(at.duration_since(now).as_millis(), u128::from(pause));
            now = at;
            assert!(!starts.has_room(now, PROGRAM), "after {pause} ms");
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
            starts.begin(began, PROGRAM, busy.0.id(), watch);
            starts.has_room(began + age, PROGRAM)
        };
        assert!(!has_room_after(LONGEST_START - MS, None));
        assert!(has_room_after(LONGEST_START, None));
        let spoke = Some(began + 100 * MS);
        assert!(!has_room_after(100 * MS + LONGEST_END - MS, spoke));
        assert!(has_room_after(100 * MS + LONGEST_END, spoke));
    }

    /// What is known of a program that was said to take `took` ms, after a process of it was found
    /// waiting so long after its look was due; it said its first after `spoke` ms.
    #[track_caller]
    fn check_learns(took: u32, late: u32, spoke: Option<u32>, expected: Habit) {
        let (waiting, began) = (Process::of("echo; read line"), Instant::now());
        let mut starts = with_habit(took);
        let spoke = spoke.map(|after| began + after * MS);
        let watch = Box::new(move || Progress { spoke, has_ended: false });
        starts.begin(began, PROGRAM, waiting.0.id(), watch);
        let at = starts.wake().expect("it is looked") + late * MS;
        while is_running(waiting.0.id()) {
            std::thread::yield_now();
        }
        assert!(starts.has_room(at, PROGRAM));
        assert_eq!(starts.habits[&PROGRAM], expected);
    }

    #[test]
    fn what_was_expected_comes_down_to_what_is_seen() {
        let takes = |takes: u32, free| Habit { takes: takes * MS, free };
        check_learns(63, 0, None, takes(48, 0));
        check_learns(0, 0, None, takes(3, FREE));
        // The word of one whose client waits tells nothing of its start, an early one does.
        check_learns(63, 0, Some(60), takes(48, 0));
        check_learns(63, 0, Some(40), takes(40, 0));
        // Nor does a look long after it was due.
        check_learns(63, 4, None, takes(63, 0));
        check_learns(63, 10_000, None, takes(63, 0));
    }

    #[track_caller]
    fn check_is_not_waited_for(script: &str) {
        let (process, mut starts) = (Process::of(script), Starts::with(1));
        starts.begin(Instant::now(), PROGRAM, process.0.id(), silent());
        while !starts.has_room(starts.wake().expect("it is looked again"), PROGRAM) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_waits_for_something_or_is_gone_is_not() {
        check_is_not_waited_for("read line");
        check_is_not_waited_for(":");
    }
}
