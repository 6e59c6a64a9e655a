//! What a worker is asked for `/connections`, and what it answers.

use std::time::Instant;

use crossbeam_channel::Sender;

use crate::connection::Snapshot;
use crate::sidecar::Query;

/// What one worker is asked.
pub(super) struct Question {
    pub(super) worker: usize,
    pub(super) query: Query,
    /// Nobody waits for the answer any more from then on.
    pub(super) until: Instant,
    pub(super) answers: Sender<Answer>,
}

/// What one worker has to say.
pub(super) struct Answer {
    pub(super) worker: usize,
    pub(super) connections: usize,
    /// Those of its connections that stand first in the order asked for, in no order.
    pub(super) found: Vec<Found>,
}

/// One connection, told apart from every other of its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) generation: u64,
    pub(super) snapshot: Snapshot,
}
