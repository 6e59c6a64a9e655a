//! Coarse deadlines, one a connection: a number in a plain array, read through now and then. A
//! message costs them nothing, for a deadline that moves away is looked at only when the old one
//! has passed.

use std::time::{Duration, Instant};

/// No two looks are closer than this, so that ten thousand different deadlines cost few looks.
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(50);

const NEVER: u64 = u64::MAX;

/// The deadlines of a worker's connections, by slot.
#[derive(Debug)]
pub(super) struct Timers {
    origin: Instant,
    /// Milliseconds after `origin`, not later than the slot's true deadline.
    due: Vec<u64>,
    /// Not later than the earliest of `due`.
    next: u64,
    last_look: u64,
}

impl Timers {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, due: Vec::new(), next: NEVER, last_look: 0 }
    }

    /// The slot's deadline is `deadline` now. A later one than before is noticed when that has
    /// passed.
    pub(super) fn arm(&mut self, slot: usize, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let due = self.milliseconds(deadline) + 1;
        if slot >= self.due.len() {
            self.due.resize(slot + 1, NEVER);
        }
        if due < self.due[slot] {
            self.due[slot] = due;
            self.next = self.next.min(due);
        }
    }

    /// The slot is free.
    pub(super) fn disarm(&mut self, slot: usize) {
        if let Some(due) = self.due.get_mut(slot) {
            *due = NEVER;
        }
    }

    /// How long a wait may last; `None` = for ever.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.next == NEVER {
            return None;
        }
        let next = self.next.max(self.last_look + milliseconds(LEAST_BETWEEN_LOOKS));
        Some(Duration::from_millis(next.saturating_sub(self.milliseconds(now))))
    }

    /// Adds to `slots` those whose deadline may have passed, and disarms them.
    pub(super) fn take_due(&mut self, now: Instant, slots: &mut Vec<usize>) {
        let now = self.milliseconds(now);
        let next = self.next.max(self.last_look + milliseconds(LEAST_BETWEEN_LOOKS));
        if self.next == NEVER || now < next {
            return;
        }
        self.last_look = now;
        self.next = NEVER;
        for (slot, due) in self.due.iter_mut().enumerate() {
            if *due <= now {
                *due = NEVER;
                slots.push(slot);
            } else {
                self.next = self.next.min(*due);
            }
        }
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        milliseconds(at.saturating_duration_since(self.origin))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[track_caller]
    fn check(timers: &mut Timers, now: Instant, expected: &[usize]) {
        let mut slots = Vec::new();
        timers.take_due(now, &mut slots);
        assert_eq!(slots, expected);
    }

    #[test]
    fn a_deadline_is_taken_once_and_never_early() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(3, Some(start + seconds(2)));
        check(&mut timers, start + seconds(2), &[]);
        check(&mut timers, start + seconds(2) + LEAST_BETWEEN_LOOKS, &[3]);
        check(&mut timers, start + seconds(9), &[]);
        assert_eq!(timers.wait(start), None);
    }

    #[test]
    fn a_sooner_deadline_replaces_a_later_one() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(0, Some(start + seconds(300)));
        timers.arm(0, Some(start + seconds(30)));
        assert_eq!(timers.wait(start), Some(Duration::from_millis(30_001)));
        check(&mut timers, start + seconds(31), &[0]);
    }

    #[test]
    fn a_later_deadline_is_asked_for_when_the_sooner_one_has_passed() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(0, Some(start + seconds(30)));
        timers.arm(0, Some(start + seconds(300)));
        check(&mut timers, start + seconds(31), &[0]);
        timers.arm(0, Some(start + seconds(300)));
        check(&mut timers, start + seconds(299), &[]);
        check(&mut timers, start + seconds(301), &[0]);
    }

    #[test]
    fn a_freed_slot_is_not_due() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(1, Some(start + seconds(1)));
        timers.disarm(1);
        check(&mut timers, start + seconds(5), &[]);
    }

    #[test]
    fn looks_are_never_closer_than_their_least_distance() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(0, Some(start + seconds(1)));
        check(&mut timers, start + seconds(2), &[0]);
        timers.arm(1, Some(start + seconds(2)));
        check(&mut timers, start + seconds(2) + Duration::from_millis(5), &[]);
        assert_eq!(timers.wait(start + seconds(2)), Some(LEAST_BETWEEN_LOOKS));
        check(&mut timers, start + seconds(2) + LEAST_BETWEEN_LOOKS, &[1]);
    }
}
