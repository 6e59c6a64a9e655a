//! When memory goes back to the system. What a connection held goes back to the allocator when it
//! is let go; that keeps it wherever something small lies behind it.

use std::time::{Duration, Instant};

use crate::sys;

/// Less than this is not worth a walk through the allocator.
const LEAST_BYTES: u64 = 1 << 20;

/// The walk takes milliseconds where much is free; who lets go again and again pays once.
const AFTER: Duration = Duration::from_secs(1);

/// What a worker's connections have let go since memory last went back.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    bytes: u64,
    due: Option<Instant>,
}

impl Reclaim {
    /// So many bytes of buffers were let go. Says whether that made it time for a walk.
    pub(super) fn note(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_much = self.bytes >= LEAST_BYTES && self.due.is_none();
        if is_much {
            self.due = Some(Instant::now() + AFTER);
        }
        is_much
    }

    /// What is pending of replies has changed by so many bytes.
    pub(super) fn note_pending(&mut self, change: i64) -> bool {
        self.note(change.min(0).unsigned_abs())
    }

    /// When it is time; `None` = nothing to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Gives back what is free, if it is time.
    pub(super) fn act(&mut self, now: Instant) {
        if self.take_due(now) {
            sys::give_memory_back();
        }
    }

    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            *self = Self::default();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_left_to_the_allocator() {
        let mut reclaim = Reclaim::default();
        assert!(!reclaim.note(LEAST_BYTES - 1));
        assert_eq!(reclaim.next(), None);
        assert!(reclaim.note(1));
        assert!(reclaim.next().is_some());
    }

    #[test]
    fn much_goes_back_once_and_not_at_once() {
        let before = Instant::now();
        let mut reclaim = Reclaim::default();
        assert!(reclaim.note(LEAST_BYTES));
        let due = reclaim.next().expect("it is much");
        assert!(!reclaim.note(LEAST_BYTES));
        assert_eq!(reclaim.next(), Some(due));
        assert!(due >= before + AFTER);
        assert!(!reclaim.take_due(due - Duration::from_nanos(1)));
        assert!(reclaim.take_due(due));
        assert!(!reclaim.take_due(due + AFTER));
    }
}
