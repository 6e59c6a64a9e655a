//! The way to the one thread that owns every process. Nobody else forks, and nobody waits for it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, TrySendError, bounded};
use mio::{Poll, Waker};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use super::processes::{Processes, WAKER};
use super::program::Program;

/// Orders that may wait; one more is refused.
pub(super) const MAX_ORDERS: usize = 1024;

/// A process, for as long as the server runs: no number is given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::server) struct ProcessId {
    pub(super) number: usize,
    pub(super) pid: u32,
}

impl ProcessId {
    /// The kernel's number of it, which it may give to another process after the end of this one.
    pub(in crate::server) fn pid(self) -> u32 {
        self.pid
    }
}

/// What is wanted of the keeper. Both functions run on its thread and must not block. Each is
/// called at most once: `started` always, unless the server stops meanwhile, and `ended` always if
/// `started` was told of a process, unless that outlives even SIGKILL at the stop.
pub(in crate::server) struct Order {
    pub(in crate::server) program: Arc<Program>,
    /// Added to the program's own.
    pub(in crate::server) environment: Vec<(String, String)>,
    pub(in crate::server) started: Box<dyn FnOnce(Result<Started, SpawnError>) + Send>,
    pub(in crate::server) ended: Ended,
}

pub(in crate::server) type Ended = Box<dyn FnOnce(ProcessId, ExitStatus) + Send>;

/// A process that runs, and our ends of its pipes: non-blocking, close-on-exec.
#[derive(Debug)]
pub(in crate::server) struct Started {
    pub(in crate::server) process: ProcessId,
    /// Its standard input.
    pub(in crate::server) input: OwnedFd,
    /// Its standard output.
    pub(in crate::server) output: OwnedFd,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum SpawnError {
    /// Too many orders wait already.
    #[error("too many processes are being started")]
    Busy,
    /// The server stops.
    #[error("the server stops")]
    Stopped,
    /// The system said no, as where a limit on processes, descriptors or memory is reached.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The way to the keeper. Nothing here blocks.
#[derive(Clone)]
pub(in crate::server) struct Keeper {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    orders: Sender<Order>,
    /// Of whom the end is wanted. Never more than there are processes, so that it needs no bound.
    pub(super) ends: Mutex<BTreeSet<ProcessId>>,
    pub(super) is_stopping: AtomicBool,
    pub(super) groups: ProgramGroups,
    waker: Waker,
}

/// The process groups of all programs that run, for a process that must end at once: nobody would
/// follow the SIGTERM that they get then.
#[derive(Debug, Clone, Default)]
pub struct ProgramGroups {
    /// Each is here until it is reaped: no other group can have its number.
    leaders: Arc<Mutex<BTreeSet<i32>>>,
}

impl ProgramGroups {
    /// Kills them with SIGKILL.
    pub fn kill(&self) {
        for leader in self.leaders.lock().iter().filter_map(|number| Pid::from_raw(*number)) {
            // One that is gone already needs nothing.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    pub(super) fn insert(&self, leader: Pid) {
        self.leaders.lock().insert(leader.as_raw_pid());
    }

    /// Before it is reaped.
    pub(super) fn remove(&self, leader: Pid) {
        self.leaders.lock().remove(&leader.as_raw_pid());
    }
}

/// The keeper's thread. Dropping it ends every process.
pub(in crate::server) struct KeeperThread {
    keeper: Keeper,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread. `panicked` is told of each panic in it, and says whether to give up; the
    /// processes are ended then.
    ///
    /// # Errors
    /// If the system gives no epoll set or no thread.
    pub(in crate::server) fn start(
        panicked: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<(Self, KeeperThread)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (orders, ordered) = bounded(MAX_ORDERS);
        let shared = Arc::new(Shared {
            orders,
            ends: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            groups: ProgramGroups::default(),
            waker,
        });
        let keeper = Self { shared: shared.clone() };
        let mut processes = Processes::new(poll, shared, ordered);
        let thread = thread::Builder::new()
            .name("processes".to_owned())
            .spawn(move || processes.run(panicked))?;
        Ok((keeper.clone(), KeeperThread { keeper, thread: Some(thread) }))
    }

    /// Has a process started; the order is told of the outcome, at once where it is refused.
    pub(in crate::server) fn spawn(&self, order: Order) {
        match self.shared.orders.try_send(order) {
            Ok(()) => self.wake(),
            Err(TrySendError::Full(order)) => (order.started)(Err(SpawnError::Busy)),
            Err(TrySendError::Disconnected(order)) => (order.started)(Err(SpawnError::Stopped)),
        }
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
