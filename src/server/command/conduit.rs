//! Where the responder of a connection that has a process of its own and the worker's end of that
//! process meet.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::responder::{Address, Ticket};

use super::order::ProcessId;
use super::pipes::Input;

/// What the responder and the worker have in common. Both are on the worker's thread; the lock is
/// never waited for.
pub(super) struct Conduit {
    /// The connection, as the worker knows it.
    pub(super) address: Address,
    /// The listener's place in the config.
    pub(super) listener: usize,
    pub(super) state: Mutex<State>,
    /// The connection has ended: for the keeper, which takes no lock of a worker's.
    pub(super) is_gone: AtomicBool,
}

#[derive(Default)]
pub(super) struct State {
    /// The relay's place with the worker.
    pub(super) place: Option<usize>,
    pub(super) process: Option<ProcessId>,
    /// `None` before the start, and after the client's end of input.
    pub(super) input: Option<Input>,
    /// Answered when the process runs.
    pub(super) opening: Option<Ticket>,
    /// Answered when the process has taken all that it was written.
    pub(super) blocked: Option<Ticket>,
    /// Answered when the process has said its last.
    pub(super) finishing: Option<Ticket>,
    /// The process has closed its output, and is about to end by itself.
    pub(super) has_said_all: bool,
    /// Its turn to be started did not come in time.
    pub(super) is_late: bool,
    /// It was told to end.
    pub(super) is_told: bool,
    /// The connection has ended.
    pub(super) is_over: bool,
}

impl Conduit {
    /// Whose connection it is: slot and generation.
    pub(super) fn connection(&self) -> (usize, u64) {
        (self.address.slot, self.address.generation)
    }

    pub(super) fn place(&self) -> Option<usize> {
        self.state.lock().place
    }
}
