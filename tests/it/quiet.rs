//! Tests that measure how long something takes have the machine to themselves; all others share it.

use std::cell::OnceCell;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

enum Share {
    /// Until the thread ends, which is when its test does.
    One {
        _guard: RwLockReadGuard<'static, ()>,
    },
    All,
}

thread_local! {
    static SHARE: OnceCell<Share> = const { OnceCell::new() };
}

/// Waits until no other test runs a server, and keeps them from it. The first thing in a test; its
/// own servers all start in its own thread.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    let is_first = SHARE.with(|share| share.set(Share::All).is_ok());
    assert!(is_first, "a test is alone from its beginning or not at all");
    MACHINE.write()
}

/// Called by whoever starts a server.
pub fn share() {
    SHARE.with(|share| {
        // Also while somebody waits to be alone: this test's other threads may have a share.
        share.get_or_init(|| Share::One { _guard: MACHINE.read_recursive() });
    });
}
