//! Coarse deadlines, one a connection: a number in a plain array, read through now and then. A
//! message costs them nothing, for a deadline that moves away is looked at only when the old one
//! has passed.

use std::time::{Duration, Instant};

/// No two looks are closer than this, so that ten thousand different deadlines cost few looks.
const LEAST_BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The deadlines of a worker's connections, by slot.
#[derive(Debug)]
pub(super) struct Timers {
    /// Not later than the slot's true deadline; `None` = it has none.
    due: Vec<Option<Instant>>,
    /// Not later than the earliest of `due`.
    next: Option<Instant>,
    next_look: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: Vec::new(), next: None, next_look: now }
    }

    /// The slot's deadline is `deadline` now. A later one than before is noticed when that has
    /// passed.
    #[inline]
    pub(super) fn arm(&mut self, slot: usize, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if slot >= self.due.len() {
            self.due.resize(slot + 1, None);
        }
        if self.due[slot].is_some_and(|due| due <= deadline) {
            return;
        }
        self.due[slot] = Some(deadline);
        if self.next.is_none_or(|next| deadline < next) {
            self.next = Some(deadline);
        }
    }

    /// The slot is free.
    pub(super) fn disarm(&mut self, slot: usize) {
        if let Some(due) = self.due.get_mut(slot) {
            *due = None;
        }
    }

    /// When to look; `None` = never.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next.map(|next| next.max(self.next_look))
    }

    /// Adds to `slots` those whose deadline may have passed, and disarms them.
    pub(super) fn take_due(&mut self, now: Instant, slots: &mut Vec<usize>) {
        if self.next().is_none_or(|next| now < next) {
            return;
        }
        self.next_look = now + LEAST_BETWEEN_LOOKS;
        self.next = None;
        for (slot, entry) in self.due.iter_mut().enumerate() {
            let Some(due) = *entry else { continue };
            if due <= now {
                *entry = None;
                slots.push(slot);
            } else if self.next.is_none_or(|next| due < next) {
                self.next = Some(due);
            }
        }
    }
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
        check(&mut timers, start + seconds(2) - Duration::from_nanos(1), &[]);
        check(&mut timers, start + seconds(2), &[3]);
        check(&mut timers, start + seconds(9), &[]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_sooner_deadline_replaces_a_later_one() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        timers.arm(0, Some(start + seconds(300)));
        timers.arm(0, Some(start + seconds(30)));
        assert_eq!(timers.next(), Some(start + seconds(30)));
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
        assert_eq!(timers.next(), Some(start + seconds(2) + LEAST_BETWEEN_LOOKS));
        check(&mut timers, start + seconds(2) + LEAST_BETWEEN_LOOKS, &[1]);
    }
}
