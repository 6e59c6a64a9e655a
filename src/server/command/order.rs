//! What is wanted of the keeper, and what it tells of the processes it started.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crossbeam_channel::Sender;
use mio::{Token, Waker};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use super::pipes::Ends;
use super::program::Program;

/// What the doorbell of the keeper rings. Processes have two tokens each, from 0 on.
pub(super) const WAKER: Token = Token(usize::MAX);

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
    /// Asked for when its turn has come.
    pub(in crate::server) ends: TheirEnds,
    /// When it was given.
    pub(in crate::server) ordered: Instant,
    /// `None`: of a pool, which has a bound of its own and comes first.
    pub(in crate::server) connection: Option<Watch>,
    pub(in crate::server) started: Begun,
    pub(in crate::server) ended: Ended,
}

/// The process's own ends of its standard input and output, which close after `started` was told;
/// `None`: nobody wants it any more.
pub(in crate::server) type TheirEnds = Box<dyn FnOnce() -> Option<Ends> + Send>;

/// How far the process of a connection is.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Progress {
    /// When it said its first.
    pub(in crate::server) spoke: Option<Instant>,
    pub(in crate::server) has_ended: bool,
}

pub(in crate::server) type Watch = Box<dyn Fn() -> Progress + Send>;

pub(in crate::server) type Begun = Box<dyn FnOnce(Result<ProcessId, SpawnError>) + Send>;

pub(in crate::server) type Ended = Box<dyn FnOnce(ProcessId, ExitStatus) + Send>;

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum SpawnError {
    /// Too many orders wait already.
    #[error("too many processes are being started")]
    Busy,
    /// The connection that it was for has ended meanwhile.
    #[error("its connection has ended")]
    Unwanted,
    /// The server stops.
    #[error("the server stops")]
    Stopped,
    /// The system said no, as where a limit on processes, descriptors or memory is reached.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The same, once it was under way.
    #[error("{what}: {source}")]
    Step {
        /// What failed.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What the way to the keeper and its thread have in common.
pub(super) struct Shared {
    /// Of pools. The pools bound how many there are.
    pub(super) orders: Sender<Order>,
    /// Of connections: up to `max_waiting`, and a few more where threads order at once.
    pub(super) waiting: Sender<Order>,
    pub(super) max_waiting: usize,
    /// As many processes are at work as may be; the keeper need not be woken for one more.
    pub(super) is_full: AtomicBool,
    /// Of whom the end is wanted. Never more than there are processes, so that it needs no bound.
    pub(super) ends: Mutex<BTreeSet<ProcessId>>,
    pub(super) is_stopping: AtomicBool,
    pub(super) groups: ProgramGroups,
    pub(super) waker: Waker,
}

/// The process groups of all programs that run, for a process that must end at once: nobody would
/// follow the SIGTERM that they get then.
#[derive(Debug, Clone, Default)]
pub struct ProgramGroups {
    /// Each is here until all of it are seen to be gone. No other group can have its number before,
    /// nor right afterwards, as the kernel gives all others first.
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

    /// Before its leader is reaped, or when nobody is left.
    pub(super) fn remove(&self, leader: Pid) {
        self.leaders.lock().remove(&leader.as_raw_pid());
    }
}
