//! Where the responder of a connection that has a process of its own and the worker's end of that
//! process meet.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::responder::{Address, Ticket};

use super::life::Life;
use super::pipes::{Ends, Input};

/// What the responder and the worker have in common. Both are on the worker's thread; the lock is
/// never waited for.
pub(super) struct Conduit {
    /// The connection, as the worker knows it.
    pub(super) address: Address,
    /// The listener's place in the config.
    pub(super) listener: usize,
    pub(super) state: Mutex<State>,
    /// What the keeper knows too, which takes no lock of a worker's.
    pub(super) life: Life,
    /// The process's ends of its pipes, until it is started or nobody wants it any more.
    theirs: Mutex<Option<Ends>>,
}

#[derive(Default)]
pub(super) struct State {
    /// The relay's place with the worker.
    pub(super) place: Option<usize>,
    /// `None` after the client's end of input.
    pub(super) input: Option<Input>,
    /// Answered when the process has taken all that it was written.
    pub(super) blocked: Option<Ticket>,
    /// Answered when the process has said its last.
    pub(super) finishing: Option<Ticket>,
    /// The process has closed its output, and is about to end by itself.
    pub(super) has_said_all: bool,
}

/// What a responder tells its worker, and nobody needs to be woken for.
pub(super) enum Note {
    /// A process was ordered, whose output comes here.
    Ordered(Arc<Conduit>, OwnedFd),
    /// It takes less than it is written.
    Blocked(Arc<Conduit>),
    /// Its client says no more.
    Finishes(Arc<Conduit>),
    /// Its connection has ended.
    Over(Arc<Conduit>),
}

/// The notes that the worker has not read.
#[derive(Clone, Default)]
pub(in crate::server) struct Notes(Arc<Mutex<VecDeque<Note>>>);

impl Notes {
    pub(super) fn leave(&self, note: Note) {
        self.0.lock().push_back(note);
    }

    pub(super) fn next(&self) -> Option<Note> {
        self.0.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl Conduit {
    pub(super) fn new(
        address: Address,
        listener: usize,
        life: Life,
        pipes: (Ends, Ends),
    ) -> (Self, OwnedFd) {
        let (ours, theirs) = pipes;
        let state = State { input: Some(Input::new(ours.input)), ..State::default() };
        let conduit = Self {
            address,
            listener,
            state: Mutex::new(state),
            life,
            theirs: Mutex::new(Some(theirs)),
        };
        (conduit, ours.output)
    }

    /// For the keeper, who starts the process now.
    pub(super) fn take_ends(&self) -> Option<Ends> {
        self.theirs.lock().take()
    }

    /// Nobody wants the process any more. An order may wait for long, and so many may that their
    /// ends would be more than there are descriptors.
    pub(super) fn close_ends(&self) {
        // Where the lock is held, the keeper takes them.
        let ends = self.theirs.try_lock().and_then(|mut ends| ends.take());
        drop(ends);
    }

    /// Whose connection it is: slot and generation.
    pub(super) fn connection(&self) -> (usize, u64) {
        (self.address.slot, self.address.generation)
    }

    pub(super) fn place(&self) -> Option<usize> {
        self.state.lock().place
    }
}
