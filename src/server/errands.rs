//! What a worker does at a time of its own, beside the coarse timeouts: delayed answers take
//! effect, programs are looked after, and memory goes back to the system. One instant stands for
//! all of it, so that a wait costs no more for what is rare.

use std::collections::BTreeSet;
use std::time::Instant;

use super::reclaim::Reclaim;

/// A delayed answer: when, and whose. No two connections of a worker have the same generation.
type Delayed = (Instant, u64, usize);

/// What is to be done, and when next.
#[derive(Debug, Default)]
pub(super) struct Errands {
    reclaim: Reclaim,
    delayed: BTreeSet<Delayed>,
    programs: Option<Instant>,
    next: Option<Instant>,
}

impl Errands {
    /// When something is due; `None` = nothing is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether something is due at `now`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// So many bytes of buffers were let go.
    pub(super) fn note_freed(&mut self, bytes: u64) {
        if self.reclaim.note(bytes) {
            self.reckon();
        }
    }

    /// What is pending of replies has changed by so many bytes.
    pub(super) fn note_pending(&mut self, change: i64) {
        if self.reclaim.note_pending(change) {
            self.reckon();
        }
    }

    /// An answer of that connection takes effect at `until`.
    pub(super) fn delay(&mut self, until: Instant, generation: u64, slot: usize) {
        self.delayed.insert((until, generation, slot));
        self.reckon();
    }

    /// The connection has ended before that.
    pub(super) fn forget(&mut self, until: Instant, generation: u64, slot: usize) {
        self.delayed.remove(&(until, generation, slot));
        self.reckon();
    }

    /// The next delayed answer that is due: its connection's slot and generation.
    pub(super) fn take_delayed(&mut self, now: Instant) -> Option<(usize, u64)> {
        let first = self.delayed.first().filter(|(until, ..)| *until <= now).copied();
        if let Some(first) = first {
            self.delayed.remove(&first);
            self.reckon();
        }
        first.map(|(_, generation, slot)| (slot, generation))
    }

    /// The programs that live with this worker have something to do then.
    pub(super) fn wake_programs(&mut self, at: Option<Instant>) {
        if self.programs != at {
            self.programs = at;
            self.reckon();
        }
    }

    /// Whether those have something to do at `now`.
    pub(super) fn are_programs_due(&self, now: Instant) -> bool {
        self.programs.is_some_and(|at| at <= now)
    }

    /// Gives memory back, if it is time.
    pub(super) fn reclaim(&mut self, now: Instant) {
        self.reclaim.act(now);
        self.reckon();
    }

    fn reckon(&mut self) {
        let delayed = self.delayed.first().map(|(until, ..)| *until);
        self.next = [self.reclaim.next(), delayed, self.programs].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn delayed_answers_come_in_the_order_of_their_times_and_not_before() {
        let now = Instant::now();
        let at = |milliseconds| now + Duration::from_millis(milliseconds);
        let mut errands = Errands::default();
        errands.delay(at(20), 7, 0);
        errands.delay(at(10), 8, 1);
        errands.delay(at(20), 9, 2);
        assert_eq!(errands.next(), Some(at(10)));
        assert!(!errands.is_due(at(9)));
        assert_eq!(errands.take_delayed(at(9)), None);
        assert!(errands.is_due(at(10)));
        assert_eq!(errands.take_delayed(at(10)), Some((1, 8)));
        assert_eq!(errands.take_delayed(at(10)), None);
        errands.forget(at(20), 7, 0);
        assert_eq!(errands.take_delayed(at(30)), Some((2, 9)));
        assert_eq!(errands.next(), None);
    }

    #[test]
    fn memory_that_is_to_go_back_is_an_errand() {
        let mut errands = Errands::default();
        errands.note_freed(1 << 30);
        let next = errands.next().expect("it is much");
        errands.delay(next + Duration::from_secs(1), 1, 1);
        assert_eq!(errands.next(), Some(next));
        errands.reclaim(next);
        assert_eq!(errands.next(), Some(next + Duration::from_secs(1)));
    }
}
