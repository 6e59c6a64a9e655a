//! The way to the one thread that owns every process. Nobody else forks, and nobody waits for it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{SendError, unbounded};
use mio::{Poll, Waker};
use parking_lot::Mutex;

use super::order::{Order, ProcessId, ProgramGroups, Shared, SpawnError, WAKER};
use super::processes::Processes;
use super::spawn::Berths;

/// The way to the keeper. Nothing here blocks.
#[derive(Clone)]
pub(in crate::server) struct Keeper {
    shared: Arc<Shared>,
}

/// The keeper's thread. Dropping it ends every process.
pub(in crate::server) struct KeeperThread {
    keeper: Keeper,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. Of `max_waiting` connections the orders may wait.
    ///
    /// `panicked` is told of each panic in it, and says whether to give up; the
    /// processes are ended then.
    ///
    /// # Errors
    /// If the system gives no epoll set, no descriptors or no thread.
    pub(in crate::server) fn start(
        max_waiting: usize,
        panicked: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<(Self, KeeperThread)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let ((orders, ordered), (waiting, behind)) = (unbounded(), unbounded());
        let shared = Arc::new(Shared {
            orders,
            waiting,
            max_waiting,
            is_full: AtomicBool::new(false),
            ends: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            groups: ProgramGroups::default(),
            waker,
        });
        let keeper = Self { shared: shared.clone() };
        let mut processes = Processes::new(poll, shared, [ordered, behind], Berths::new()?);
        let thread = thread::Builder::new()
            .name("processes".to_owned())
            .spawn(move || processes.run(panicked))?;
        Ok((keeper.clone(), KeeperThread { keeper, thread: Some(thread) }))
    }

    /// Has a process started; the order is told of the outcome, at once where it is refused.
    pub(in crate::server) fn spawn(&self, order: Order) {
        let Shared { orders, waiting, max_waiting, .. } = &*self.shared;
        let is_connections = order.connection.is_some();
        if is_connections && waiting.len() >= *max_waiting {
            return (order.started)(Err(SpawnError::Busy));
        }
        let lane = if is_connections { waiting } else { orders };
        match lane.send(order) {
            Ok(()) if is_connections && self.is_full() => {}
            Ok(()) => self.wake(),
            Err(SendError(order)) => (order.started)(Err(SpawnError::Stopped)),
        }
    }

    /// Whether somebody waits until others have done with their work. The keeper looks for orders
    /// once more after it has denied it.
    fn is_full(&self) -> bool {
        fence(Ordering::SeqCst);
        self.shared.is_full.load(Ordering::Relaxed)
    }

    /// Has a process ended: SIGTERM to its group, SIGKILL after 2 s to what is left of it. One that
    /// has ended already is no error.
    pub(in crate::server) fn end(&self, process: ProcessId) {
        if self.shared.ends.lock().insert(process) {
            self.wake();
        }
    }

    fn wake(&self) {
        // It fails only where the counter of the eventfd is full, and then the thread is awake.
        let _ = self.shared.waker.wake();
    }
}

impl KeeperThread {
    /// What a forced end kills.
    pub(in crate::server) fn groups(&self) -> ProgramGroups {
        self.keeper.shared.groups.clone()
    }

    /// Ends every process and returns when none is left: at once, or after the 2 s that SIGTERM
    /// gives.
    pub(in crate::server) fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.keeper.shared.is_stopping.store(true, Ordering::SeqCst);
        self.keeper.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its hook; the stop goes on.
            let _ = thread.join();
        }
    }
}

impl Drop for KeeperThread {
    fn drop(&mut self) {
        self.join();
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keeper").finish_non_exhaustive()
    }
}
