//! The fixed pool of threads: what waits for one, and their end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::{Condvar, Mutex};
use tracing::warn;

use super::desk::Desk;

/// How long the last user of a pool waits for its threads. One that is stuck in a call is left
/// behind: it must not hang a stop.
const GRACE: Duration = Duration::from_secs(1);

/// Threads that go from desk to desk. Dropped, they do what is queued, and end.
pub(super) struct Pool {
    queue: Arc<Queue>,
    threads: Vec<PoolThread>,
    refused: AtomicU64,
}

struct PoolThread {
    thread: JoinHandle<()>,
    /// Nothing is ever sent; disconnected by the thread's end.
    ended: Receiver<Infallible>,
}

impl Pool {
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        if threads == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pool of 0 threads"));
        }
        let mut pool = Self {
            queue: Arc::default(),
            threads: Vec::with_capacity(threads),
            refused: AtomicU64::new(0),
        };
        for index in 0..threads {
            // On a failure the pool's drop ends those before.
            pool.threads.push(spawn(index, pool.queue.clone())?);
        }
        Ok(pool)
    }

    /// Queues a desk with a question on it, unless so many wait.
    pub(super) fn submit(&self, desk: &Arc<Desk>, max_waiting: usize) -> bool {
        let is_submitted = self.queue.submit(desk, max_waiting);
        self.refused.fetch_add(u64::from(!is_submitted), Ordering::Relaxed);
        is_submitted
    }

    /// Queues a desk whose connection has ended. There is always room: each has one end.
    pub(super) fn submit_end(&self, desk: &Arc<Desk>) {
        self.queue.push(desk.clone());
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.state.lock().questions
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        let until = Instant::now() + GRACE;
        let mut stuck = 0;
        for PoolThread { thread, ended } in self.threads.drain(..) {
            // What a responder owned may have been the last user.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            if ended.recv_deadline(until).is_err_and(|error| error.is_disconnected()) {
                // A panic there was reported by its hook.
                let _ = thread.join();
            } else {
                stuck += 1;
            }
        }
        if stuck > 0 {
            warn!(threads = stuck, "offloaded responders that block are left behind");
        }
    }
}

fn spawn(index: usize, queue: Arc<Queue>) -> io::Result<PoolThread> {
    let (alive, ended) = bounded(0);
    let thread = thread::Builder::new().name(format!("offload-{index}")).spawn(move || {
        let _until_the_end = alive;
        while let Some(desk) = queue.next() {
            if desk.serve() {
                queue.push(desk);
            }
        }
    })?;
    Ok(PoolThread { thread, ended })
}

/// Desks with something on them, each at most once. A lock and not a channel: its bound concerns
/// questions alone, and those who take from it put back. It is held for a push or a pop.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    desks: VecDeque<(Arc<Desk>, Kind)>,
    /// How many of them are bounded ones.
    questions: usize,
    is_closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bounded,
    Unbounded,
}

impl Queue {
    fn submit(&self, desk: &Arc<Desk>, max_waiting: usize) -> bool {
        let mut state = self.state.lock();
        if state.questions >= max_waiting {
            return false;
        }
        state.questions += 1;
        state.desks.push_back((desk.clone(), Kind::Bounded));
        drop(state);
        self.news.notify_one();
        true
    }

    fn push(&self, desk: Arc<Desk>) {
        self.state.lock().desks.push_back((desk, Kind::Unbounded));
        self.news.notify_one();
    }

    /// Waits for a desk; `None`: there will be none.
    fn next(&self) -> Option<Arc<Desk>> {
        let mut state = self.state.lock();
        loop {
            if let Some((desk, kind)) = state.desks.pop_front() {
                state.questions -= usize::from(kind == Kind::Bounded);
                return Some(desk);
            }
            if state.is_closed {
                return None;
            }
            self.news.wait(&mut state);
        }
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
        self.news.notify_all();
    }
}
