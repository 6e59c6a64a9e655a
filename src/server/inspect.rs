//! `GET /connections`, from the question to the page. Every worker is asked and answers between two
//! turns from what it owns, a bounded number of connections at a time, so that nobody is held up;
//! one that does not answer in time is shown as stalled.

mod page;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::config::{Address, Metrics, ShowConnections};
use crate::connection::Snapshot;
use crate::sidecar::{Access, Query, Sort};

use super::lifecycle::Lifecycle;
use super::pool::{Pool, Seat};
use super::question::{Answer, Found, Question};
use page::{Report, Standing};

/// How long a worker has to answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// A question on its way through a worker's connections. It remembers where they are, not what they
/// were, so that what is shown in the end is of one moment.
pub(super) struct Survey {
    question: Question,
    /// The next slot to look at.
    pub(super) next: usize,
    connections: usize,
    /// The best so far, the least of them on top: rank, age among equals, slot.
    best: BinaryHeap<Reverse<(u64, Reverse<u64>, usize)>>,
}

impl Survey {
    pub(super) fn new(question: Question) -> Self {
        Self { question, next: 0, connections: 0, best: BinaryHeap::new() }
    }

    /// Whether nobody waits for it at `now`.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.question.until
    }

    /// Takes notice of the connection in that slot.
    pub(super) fn note(&mut self, slot: usize, found: &Found) {
        self.connections += 1;
        let Question { query, until, .. } = self.question;
        let ranked = (rank(query.sort, &found.snapshot, until), Reverse(found.generation), slot);
        if self.best.len() < query.limit {
            self.best.push(Reverse(ranked));
        } else if let Some(mut least) = self.best.peek_mut()
            && ranked > least.0
        {
            least.0 = ranked;
        }
    }

    /// Answers. `look` finds the connection in a slot, which may have another one by now.
    pub(super) fn conclude(self, look: impl Fn(usize) -> Option<Found>) {
        let there =
            |Reverse((_, Reverse(generation), slot)): Reverse<(u64, Reverse<u64>, usize)>| {
                look(slot).filter(|found| found.generation == generation)
            };
        let found = self.best.into_iter().filter_map(there).collect();
        let Question { worker, answers, .. } = self.question;
        // Who asked may have stopped waiting.
        let _ = answers.try_send(Answer { worker, connections: self.connections, found });
    }
}

/// The larger, the further in front. `until` is later than anything that has happened.
fn rank(sort: Sort, of: &Snapshot, until: Instant) -> u64 {
    let since = |at: Instant| {
        u64::try_from(until.saturating_duration_since(at).as_nanos()).unwrap_or(u64::MAX)
    };
    match sort {
        Sort::Age => since(of.accepted),
        Sort::Idle => since(of.last_byte),
        Sort::Messages => of.messages,
        Sort::Received => of.received_bytes,
        Sort::Sent => of.sent_bytes,
        Sort::Bytes => of.received_bytes + of.sent_bytes,
        Sort::Pending => of.pending_bytes,
    }
}

/// Who may see the page, as the operator chose.
pub(super) fn access(metrics: &Metrics) -> Access {
    let is_public = metrics.address.is_some_and(|address| Address::Ip(address).is_public());
    let closed = match metrics.connections {
        ShowConnections::Loopback if is_public => Some(
            "/connections shows who is connected, and only where metrics.address is a loopback \
             one; metrics.connections = \"always\" would show it here",
        ),
        ShowConnections::Never => Some("metrics.connections = \"never\" turns /connections off"),
        ShowConnections::Loopback | ShowConnections::Always => None,
    };
    Access { closed: closed.map(str::to_owned), allowed_hosts: metrics.allowed_hosts.clone() }
}

/// A host's name if it needs no escape anywhere, else nothing.
fn written_plainly(name: String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    if name.bytes().all(is_plain) { name } else { String::new() }
}

/// Asks the workers of a server.
pub(super) struct Inspector {
    pool: Pool,
    lifecycle: Arc<Lifecycle>,
    /// Their names, in the order of the config.
    listeners: Vec<String>,
    /// The machine's name, which tells pages of several servers apart.
    host: String,
}

impl Inspector {
    pub(super) fn new(pool: Pool, lifecycle: Arc<Lifecycle>, listeners: Vec<String>) -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { pool, lifecycle, listeners, host: written_plainly(name) }
    }

    /// The page as of now. Takes as long as the slowest worker that answers, and at most
    /// [`PATIENCE`].
    pub(super) fn page(&self, query: Query) -> Vec<u8> {
        let until = Instant::now() + PATIENCE;
        let answers = self.ask(query, until);
        let mut workers = Vec::with_capacity(answers.len());
        let mut found = Vec::new();
        for ((worker, answer), seat) in answers.into_iter().enumerate().zip(self.pool.seats()) {
            let standing = match answer {
                Some(answer) => {
                    found.extend(answer.found.into_iter().map(|found| (worker, found)));
                    Standing { connections: answer.connections, answered: true }
                }
                None => Standing { connections: seat.load(), answered: self.has_ended(seat) },
            };
            workers.push(standing);
        }
        found.sort_unstable_by_key(|(worker, found)| {
            let place = rank(query.sort, &found.snapshot, until);
            (Reverse(place), found.snapshot.accepted, *worker, found.generation)
        });
        found.truncate(query.limit);
        let draining = self.lifecycle.is_stopping();
        let report = Report {
            host: &self.host,
            pid: std::process::id(),
            query,
            draining,
            workers,
            found,
            listeners: &self.listeners,
        };
        page::write(&report, Instant::now())
    }

    /// A worker that a drain has ended does not answer, and is not stalled.
    fn has_ended(&self, seat: &Seat) -> bool {
        seat.load() == 0 && self.lifecycle.drain_until().is_some()
    }

    /// The answers that came in time, by worker.
    fn ask(&self, query: Query, until: Instant) -> Vec<Option<Answer>> {
        let seats = self.pool.seats();
        let (sender, receiver) = bounded(seats.len());
        for (worker, seat) in seats.iter().enumerate().filter(|(_, seat)| !self.has_ended(seat)) {
            seat.ask(Question { worker, query, until, answers: sender.clone() });
        }
        // From here on only the questions hold it: it ends when none is left.
        drop(sender);
        let mut answers: Vec<_> = seats.iter().map(|_| None).collect();
        while let Ok(answer) = receiver.recv_deadline(until) {
            let worker = answer.worker;
            answers[worker] = Some(answer);
        }
        answers
    }
}

#[cfg(test)]
mod tests;
