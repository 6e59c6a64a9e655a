//! Where a server stands between start and stop. Every thread may look; only the stop moves it on.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Running, then not ready, then draining until a deadline. There is no way back.
#[derive(Debug)]
pub(super) struct Lifecycle {
    origin: Instant,
    is_stopping: AtomicBool,
    /// Nanoseconds after `origin`; 0 while no drain is under way.
    drain_until: AtomicU64,
}

impl Lifecycle {
    pub(super) fn new(origin: Instant) -> Self {
        let (is_stopping, drain_until) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { origin, is_stopping, drain_until }
    }

    /// Not ready from now on; connections are still accepted.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether a stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Nothing is accepted any more; workers end what they have, until then. Who sees it also sees
    /// everything that was put into an inbox before. A worker that may be asleep has to be woken.
    pub(super) fn drain(&self, until: Instant) {
        let until = until.saturating_duration_since(self.origin).as_nanos();
        let until = u64::try_from(until).unwrap_or(u64::MAX).max(1);
        // A second stop does not move the first one's deadline.
        let _ = self.drain_until.compare_exchange(0, until, Ordering::Release, Ordering::Relaxed);
    }

    /// When what is left is cut; `None` while no drain is under way.
    pub(super) fn drain_until(&self) -> Option<Instant> {
        match self.drain_until.load(Ordering::Acquire) {
            0 => None,
            until => Some(self.origin + Duration::from_nanos(until)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_deadline_stands() {
        let origin = Instant::now();
        let lifecycle = Lifecycle::new(origin);
        assert_eq!((lifecycle.is_stopping(), lifecycle.drain_until()), (false, None));
        lifecycle.stop();
        assert_eq!((lifecycle.is_stopping(), lifecycle.drain_until()), (true, None));
        let first = origin + Duration::from_secs(1);
        lifecycle.drain(first);
        lifecycle.drain(first + Duration::from_secs(1));
        assert_eq!(lifecycle.drain_until(), Some(first));
    }

    #[test]
    fn a_deadline_at_the_start_itself_is_one() {
        let origin = Instant::now();
        let lifecycle = Lifecycle::new(origin);
        lifecycle.drain(origin);
        assert!(lifecycle.drain_until().is_some());
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use crate::server::doorbell::Doorbell;
    use crate::server::doorbell::interleavings::Event;
    use loom::sync::Arc;
    use loom::thread;

    /// An acceptor hands something over and ends; then the drain begins. The worker must neither
    /// sleep through it nor take it for done while something lies in the inbox.
    #[test]
    fn a_drain_wakes_the_sleeper_and_shows_it_all_that_came_before() {
        loom::model(|| {
            let event = Arc::new(Event::default());
            let doorbell = Arc::new(Doorbell::new(event.clone()));
            let lifecycle = Arc::new(Lifecycle::new(Instant::now()));
            let inbox = Arc::new(AtomicBool::new(false));
            let stop = {
                let (doorbell, lifecycle) = (doorbell.clone(), lifecycle.clone());
                let inbox = inbox.clone();
                thread::spawn(move || {
                    inbox.store(true, Ordering::Relaxed);
                    lifecycle.stop();
                    lifecycle.drain(Instant::now());
                    doorbell.ring();
                })
            };
            while lifecycle.drain_until().is_none() {
                doorbell.lie_down();
                if lifecycle.drain_until().is_none() {
                    // A lost wake would be a wait without end, which loom reports as a deadlock.
                    event.wait();
                }
                doorbell.get_up();
            }
            assert!(lifecycle.is_stopping());
            assert!(inbox.load(Ordering::Relaxed), "done, and something lies in the inbox");
            stop.join().unwrap();
        });
    }

    #[test]
    fn of_two_stops_at_once_one_deadline_stands_for_everybody() {
        loom::model(|| {
            let origin = Instant::now();
            let lifecycle = Arc::new(Lifecycle::new(origin));
            let stop = |seconds| {
                let lifecycle = lifecycle.clone();
                thread::spawn(move || lifecycle.drain(origin + Duration::from_secs(seconds)))
            };
            let stops = [stop(1), stop(2)];
            let seen = lifecycle.drain_until();
            for stop in stops {
                stop.join().unwrap();
            }
            let last = lifecycle.drain_until();
            assert!(last.is_some());
            assert!(seen.is_none() || seen == last);
        });
    }
}
