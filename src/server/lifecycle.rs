//! Where a server stands between start and stop. Every thread may look; only the stop moves it on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Running, then not ready, then draining until a deadline. There is no way back.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    is_stopping: AtomicBool,
    drain_until: OnceLock<Instant>,
}

impl Lifecycle {
    /// Not ready from now on; connections are still accepted.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Whether a stop has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Nothing is accepted any more; workers end what they have, until then.
    pub(super) fn drain(&self, until: Instant) {
        // A second stop does not move the first one's deadline.
        let _ = self.drain_until.set(until);
    }

    /// When what is left is cut; `None` while no drain is under way.
    pub(super) fn drain_until(&self) -> Option<Instant> {
        self.drain_until.get().copied()
    }
}
