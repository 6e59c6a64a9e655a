//! How connections come to a worker: out of its inbox, into its slab and its epoll set, and at once
//! to a first turn.

use std::os::fd::AsRawFd;

use mio::Token;
use mio::unix::SourceFd;
use tracing::error;

use crate::connection::{Connection, Ending};
use crate::metrics::CloseReason;
use crate::server::pool::Seated;

use super::{Entry, INBOX_ITEMS_A_TURN, READ, Worker};

impl Worker {
    pub(super) fn take_arrivals(&mut self) {
        for _ in 0..INBOX_ITEMS_A_TURN {
            let Ok(seated) = self.inboxes.arrivals.try_recv() else { return };
            self.adopt(seated);
        }
        self.seat.doorbell().keep_ringing();
    }

    /// Makes the connection this worker's own, and reads at once what may be there already.
    pub(super) fn adopt(&mut self, seated: Seated) {
        let slot = self.seat(seated);
        let connection = &mut self.connections[slot].connection;
        if self.is_draining {
            connection.begin_drain();
        }
        let socket = connection.socket().as_raw_fd();
        let registered = self.poll.registry().register(&mut SourceFd(&socket), Token(slot), READ);
        match registered {
            Ok(()) => self.turn(slot),
            Err(error) => {
                error!(%error, "epoll_ctl failed");
                let ending = Ending { reason: CloseReason::IoError, is_reset: false };
                self.close(slot, ending);
            }
        }
    }

    /// From here on the connection is one of this worker's, and can end only in [`Worker::close`].
    pub(super) fn seat(&mut self, seated: Seated) -> usize {
        let Seated { arrival, place } = seated;
        self.recorders.inbox_wait.observe_time(arrival.accepted.elapsed());
        let conversation = self.conversations[arrival.listener].clone();
        let connection =
            Connection::new(arrival.socket, arrival.peer, arrival.accepted, conversation);
        self.next_generation += 1;
        self.connections.insert(Entry {
            connection,
            generation: self.next_generation,
            is_write_registered: false,
            is_queued: false,
            _place: place,
            _slot: arrival.slot,
        })
    }
}
