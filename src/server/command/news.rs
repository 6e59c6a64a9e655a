//! What the keeper tells a worker of its processes. It never blocks and never gets lost: not in the
//! worker's inbox, which may be full, but through a channel of its own with its own bell.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use super::conduit::Conduit;
use super::keeper::Keeper;
use super::order::{IsThere, Order, ProcessId, SpawnError, Started};
use super::pool::Key;
use super::program::Program;

/// Something that happened to a process: of the shared program of the listener of that index, or of
/// one connection.
pub(super) enum News {
    Started(usize, Key, Result<Started, SpawnError>),
    Ended(usize, Key, ExitStatus),
    RelayOrdered(Arc<Conduit>),
    RelayStarted(Arc<Conduit>, Result<Started, SpawnError>),
    /// It takes less than it is written.
    RelayBlocked(Arc<Conduit>),
    /// Its client says no more.
    RelayFinishes(Arc<Conduit>),
    /// Its connection has ended.
    RelayOver(Arc<Conduit>),
    RelayEnded(Arc<Conduit>, ExitStatus),
}

/// The worker's end.
pub(super) struct Newsroom {
    pub(super) news: Receiver<News>,
    /// Readable when there may be some.
    pub(super) bell: Arc<OwnedFd>,
}

/// The keeper's end. Clones lead to the same worker.
#[derive(Clone)]
pub(in crate::server) struct Reporter {
    news: Sender<News>,
    bell: Arc<OwnedFd>,
}

/// A newsroom and a way to it.
pub(super) fn newsroom() -> io::Result<(Newsroom, Reporter)> {
    // No bound is needed: there are a few for each process, and those have one.
    let (sender, news) = unbounded();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((Newsroom { news, bell: bell.clone() }, Reporter { news: sender, bell }))
}

impl Newsroom {
    /// To be called before the news are taken, so that none is overlooked.
    pub(super) fn silence(&self) {
        // It fails where the bell has not rung.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}

impl Reporter {
    /// Makes the worker look.
    pub(in crate::server) fn ring(&self) {
        // It fails where the bell has rung 2^64 - 2 times, unheard.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Has a process of a shared program started, and what happens to it told.
    pub(super) fn order(&self, keeper: &Keeper, listener: usize, key: Key, program: &Arc<Program>) {
        let started = move |result| News::Started(listener, key, result);
        let ended = move |status| News::Ended(listener, key, status);
        self.spawn(keeper, program, (Vec::new(), None), started, ended);
    }

    /// The same for one connection.
    pub(super) fn order_relay(
        &self,
        keeper: &Keeper,
        conduit: Arc<Conduit>,
        program: &Arc<Program>,
        environment: Vec<(String, String)>,
    ) {
        let until_its_end = conduit.clone();
        let waits = conduit.clone();
        let is_there: IsThere = Box::new(move || !waits.is_gone.load(Ordering::Relaxed));
        let started = move |result| News::RelayStarted(conduit, result);
        let ended = move |status| News::RelayEnded(until_its_end, status);
        self.spawn(keeper, program, (environment, Some(is_there)), started, ended);
    }

    fn spawn(
        &self,
        keeper: &Keeper,
        program: &Arc<Program>,
        (environment, connection): (Vec<(String, String)>, Option<IsThere>),
        started: impl FnOnce(Result<Started, SpawnError>) -> News + Send + 'static,
        ended: impl FnOnce(ExitStatus) -> News + Send + 'static,
    ) {
        let (first, last, orphaned) = (self.clone(), self.clone(), keeper.clone());
        keeper.spawn(Order {
            program: program.clone(),
            environment,
            connection,
            started: Box::new(move |result| {
                let process = result.as_ref().ok().map(|started| started.process);
                if !first.tell(started(result))
                    && let Some(process) = process
                {
                    orphaned.end(process);
                }
            }),
            ended: Box::new(move |_: ProcessId, status| {
                // Where the worker has ended, nobody counts it any more.
                let _ = last.tell(ended(status));
            }),
        });
    }

    /// Whether the worker is there to be told.
    pub(super) fn tell(&self, news: News) -> bool {
        let is_told = self.news.send(news).is_ok();
        self.ring();
        is_told
    }
}
