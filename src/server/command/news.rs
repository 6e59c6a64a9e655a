//! What the keeper tells a worker of its processes. It never blocks and never gets lost: not in the
//! worker's inboxes, which may be full, but through a channel of its own.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::conduit::Conduit;
use super::keeper::Keeper;
use super::order::{Order, ProcessId, SpawnError};
use super::pipes::{Ends, pipes};
use super::pool::Key;
use super::program::Program;

/// Something that happened to a process: of the shared program of the listener of that index, or of
/// one connection.
pub(super) enum News {
    Started(usize, Key, Result<Started, SpawnError>),
    Ended(usize, Key, ExitStatus),
    /// Before its connection has.
    RelayEnded(Arc<Conduit>),
}

/// A process that runs, and our ends of its pipes.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: ProcessId,
    pub(super) ends: Ends,
}

/// The keeper's end. Clones lead to the same worker.
#[derive(Clone)]
pub(in crate::server) struct Reporter {
    news: Sender<News>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

impl Reporter {
    /// With the worker's end; `ring` makes the worker look.
    pub(super) fn new(ring: impl Fn() + Send + Sync + 'static) -> (Self, Receiver<News>) {
        // No bound is needed: there are a few for each process, and those have one.
        let (news, worker) = unbounded();
        (Self { news, ring: Arc::new(ring) }, worker)
    }

    /// Makes the worker look.
    pub(in crate::server) fn ring(&self) {
        (self.ring)();
    }

    /// Has a process of a shared program started, and what happens to it told.
    pub(super) fn order(&self, keeper: &Keeper, listener: usize, key: Key, program: &Arc<Program>) {
        let (ours, theirs) = match pipes() {
            Ok(pipes) => pipes,
            Err(error) => {
                self.tell(News::Started(listener, key, Err(error.into())));
                return;
            }
        };
        let (first, last, orphaned) = (self.clone(), self.clone(), keeper.clone());
        keeper.spawn(Order {
            program: program.clone(),
            environment: Vec::new(),
            ends: Box::new(|| Some(theirs)),
            ordered: Instant::now(),
            connection: None,
            started: Box::new(move |result| {
                let process = result.as_ref().ok().copied();
                let started = result.map(|process| Started { process, ends: ours });
                if !first.tell(News::Started(listener, key, started))
                    && let Some(process) = process
                {
                    orphaned.end(process);
                }
            }),
            ended: Box::new(move |_, status| {
                // Where the worker has ended, nobody counts it any more.
                last.tell(News::Ended(listener, key, status));
            }),
        });
    }

    /// Says whether the worker is there to be told.
    pub(super) fn tell(&self, news: News) -> bool {
        let is_told = self.news.send(news).is_ok();
        self.ring();
        is_told
    }
}
