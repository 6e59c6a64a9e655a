//! The stop: not ready, not accepting, nothing lost, nothing left; in that order, within a
//! deadline.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::metrics::CloseReason;

use super::handshakes;
use super::start::Server;

/// A worker that has not ended so long after the deadline is stalled in a responder.
const GRACE: Duration = Duration::from_millis(500);

/// What a stop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Summary {
    /// Connections that were served and ended in any other way, since the start.
    pub served: u64,
    /// Connections cut at the deadline.
    pub cut: u64,
}

impl Server {
    /// Stops gracefully and returns when nothing is left: readiness ends, `drain_delay` passes,
    /// the kernel's queues are emptied and closed, every connection gets one last receive and its
    /// replies, and at `drain_timeout` what is left is cut. Blocks for as long as that takes.
    pub fn drain(mut self) -> Summary {
        self.stop()
    }

    pub(super) fn stop(&mut self) -> Summary {
        let delay = self.shutdown.drain_delay;
        info!(seconds = delay.as_secs_f64(), "stopping: not ready");
        self.view.lifecycle.stop();
        self.view.instruments.draining.set(1);
        // A load balancer needs this time to see it. A server that has given up has none to give:
        // whom it still accepts it cannot serve.
        self.failures.wait(delay);
        let ports: Vec<_> = self.gates.iter().filter_map(|gate| gate.turn_away()).collect();
        handshakes::finish(&ports);
        for gate in &self.gates {
            gate.close();
        }
        for thread in self.acceptors.drain(..) {
            // A panic there was reported by its hook; the stop goes on.
            let _ = thread.join();
        }
        let until = Instant::now() + self.shutdown.drain_timeout;
        info!(seconds = self.shutdown.drain_timeout.as_secs_f64(), "draining: not accepting");
        self.view.lifecycle.drain(until);
        for seat in self.view.pool.seats() {
            seat.doorbell().ring();
        }
        self.await_workers(until + GRACE);
        if let Some(keeper) = self.keeper.take() {
            keeper.stop();
        }
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.stop();
        }
        self.files.remove();
        let summary = self.summary();
        info!(served = summary.served, cut = summary.cut, "stopped");
        summary
    }

    /// A worker that does not end is left behind with its connections, which are accounted for
    /// here.
    fn await_workers(&mut self, until: Instant) {
        let threads = std::mem::take(&mut self.workers);
        for (index, worker) in threads.into_iter().enumerate() {
            // Nothing is ever sent: only the end of the thread ends the wait early.
            if worker.ended.recv_deadline(until).is_err_and(|error| error.is_disconnected()) {
                let _ = worker.thread.join();
                continue;
            }
            let seat = &self.view.pool.seats()[index];
            let mut left = 0;
            for (listener, open) in seat.abandon().into_iter().enumerate() {
                left += open;
                let counters = self.view.instruments.listener(listener);
                for _ in 0..open {
                    counters.connections.dec();
                    counters.count_closed(CloseReason::ShutdownForced);
                }
            }
            warn!(worker = index, connections = left, "a stalled worker is left behind");
        }
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary { served: 0, cut: 0 };
        for listener in 0..self.gates.len() {
            for &reason in CloseReason::ALL {
                let closed = self.view.instruments.listener(listener).closed(reason);
                match reason {
                    CloseReason::ShutdownForced => summary.cut += closed,
                    _ => summary.served += closed,
                }
            }
        }
        summary
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.view.lifecycle.is_stopping() {
            self.stop();
        }
    }
}
