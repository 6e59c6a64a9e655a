//! When the server gives up on itself. A panic of its own threads is survived; a row of them in a
//! short time is a state that only a new process gets out of.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// So many panics of our own threads …
const MOST: usize = 3;
/// … within this time.
const WITHIN: Duration = Duration::from_secs(10);

/// The server has given up on itself, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaveUp {
    /// The thread that panicked last.
    pub thread: String,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "gave up: {MOST} panics of the server's own threads within {} s, the last in {}",
            WITHIN.as_secs(),
            self.thread
        )
    }
}

impl std::error::Error for GaveUp {}

type Act = Box<dyn FnOnce(GaveUp) + Send>;

/// The panics of workers' and acceptors' own loops; those of responders concern one connection.
#[derive(Default)]
pub(super) struct Failures {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    /// At most [`MOST`].
    recent: VecDeque<Instant>,
    gave_up: Option<GaveUp>,
    act: Option<Act>,
}

impl Failures {
    /// Notes a panic of the calling thread's loop, and says whether the server has given up.
    pub(super) fn note(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.gave_up.is_some() {
            return true;
        }
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|&first| now.duration_since(first) > WITHIN) {
            state.recent.pop_front();
        }
        if state.recent.len() < MOST {
            return false;
        }
        let gave_up = GaveUp { thread: thread::current().name().unwrap_or("?").to_owned() };
        tracing::error!("{gave_up}");
        state.gave_up = Some(gave_up.clone());
        let act = state.act.take();
        drop(state);
        self.told.notify_all();
        if let Some(act) = act {
            // What the server's user does with it must not end the thread that panicked.
            let _ = catch_unwind(AssertUnwindSafe(|| act(gave_up))).map_err(std::mem::forget);
        }
        true
    }

    /// Waits for so long, or until the server gives up.
    pub(super) fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while state.gave_up.is_none() {
            if self.told.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    pub(super) fn on_give_up(&self, act: Act) {
        let mut state = self.state.lock();
        match state.gave_up.clone() {
            None => {
                state.act.get_or_insert(act);
            }
            Some(gave_up) => {
                drop(state);
                act(gave_up);
            }
        }
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Failures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn three_within_ten_seconds_and_not_one_less_or_later() {
        let failures = Failures::default();
        let (acts, acted) = unbounded();
        failures.on_give_up(Box::new(move |gave_up| acts.send(gave_up).unwrap()));
        let start = Instant::now();
        for seconds in [0, 6, 11, 17] {
            assert!(!failures.note(start + Duration::from_secs(seconds)), "{seconds}");
        }
        assert!(acted.is_empty());
        assert!(failures.note(start + Duration::from_secs(20)));
        assert_eq!(acted.try_recv().unwrap().thread, thread::current().name().unwrap());
        assert!(failures.note(start + Duration::from_secs(100)), "there is no way back");
        assert!(acted.try_recv().is_err(), "it acts once");
    }

    #[test]
    fn who_asks_too_late_is_told_at_once() {
        let failures = Failures::default();
        let now = Instant::now();
        assert_eq!([1, 2, 3].map(|_| failures.note(now)), [false, false, true]);
        let (acts, acted) = unbounded();
        failures.on_give_up(Box::new(move |gave_up| acts.send(gave_up).unwrap()));
        assert!(acted.try_recv().is_ok());
    }
}
