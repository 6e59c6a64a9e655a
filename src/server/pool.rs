//! The fixed pool as its acceptors see it: a seat a worker, and the choice among them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Mutex, MutexGuard};

use crate::metrics::names::LateReplyRefusal;
use crate::metrics::{Instruments, WorkerReading};
use crate::responder::{LateReply, Mailbox, Push, SendError};

use super::admit::Slot;
use super::doorbell::Doorbell;
use super::mail::Mail;
use super::question::Question;

/// A worker whose turn has lasted longer is passed over.
const STALLED: Duration = Duration::from_millis(100);

/// A connection on its way to its worker.
pub(super) struct Arrival {
    pub(super) socket: OwnedFd,
    pub(super) peer: Option<SocketAddr>,
    pub(super) accepted: Instant,
    pub(super) listener: usize,
    pub(super) slot: Slot,
}

/// An arrival with its place at one worker.
pub(super) struct Seated {
    pub(super) arrival: Arrival,
    pub(super) place: Place,
}

/// Why nobody took an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Every inbox is full.
    Full,
    /// All workers have ended.
    Ended,
}

/// What a worker shares with those who hand it something.
#[derive(Debug)]
pub(super) struct Seat {
    arrivals: Sender<Seated>,
    mail: Sender<Mail>,
    /// The worker's end too: a question that it has not taken makes room for a newer one.
    questions: (Sender<Question>, Receiver<Question>),
    doorbell: Doorbell<mio::Waker>,
    origin: Instant,
    instruments: Arc<Instruments>,
    /// Connections in the inbox or with the worker, a listener each.
    open: Vec<AtomicUsize>,
    /// Nanoseconds after `origin` that the running turn began at; 0 while the worker waits.
    turn_began: AtomicU64,
    busy_nanoseconds: AtomicU64,
    yields: AtomicU64,
    /// The stop has given this worker up and accounted for its connections.
    is_abandoned: AtomicBool,
    /// Held by the worker from the count of a close to the end of its place, so that the two agree.
    closing: Mutex<()>,
}

/// The worker's ends of its inboxes.
pub(super) struct Inboxes {
    pub(super) arrivals: Receiver<Seated>,
    pub(super) mail: Receiver<Mail>,
    pub(super) questions: Receiver<Question>,
}

impl Seat {
    pub(super) fn new(
        waker: mio::Waker,
        inbox_connections: usize,
        origin: Instant,
        listeners: usize,
        instruments: Arc<Instruments>,
    ) -> (Arc<Self>, Inboxes) {
        let (arrivals, arrivals_end) = bounded(inbox_connections);
        let (mail, mail_end) = bounded(inbox_connections);
        let (questions, questions_end) = bounded(1);
        let seat = Self {
            arrivals,
            mail,
            questions: (questions, questions_end.clone()),
            doorbell: Doorbell::new(waker),
            origin,
            instruments,
            open: (0..listeners).map(|_| AtomicUsize::new(0)).collect(),
            turn_began: AtomicU64::new(0),
            busy_nanoseconds: AtomicU64::new(0),
            yields: AtomicU64::new(0),
            is_abandoned: AtomicBool::new(false),
            closing: Mutex::new(()),
        };
        let inboxes = Inboxes { arrivals: arrivals_end, mail: mail_end, questions: questions_end };
        (Arc::new(seat), inboxes)
    }

    pub(super) fn doorbell(&self) -> &Doorbell<mio::Waker> {
        &self.doorbell
    }

    /// The worker has something to do from `now` on.
    pub(super) fn begin_turn(&self, now: Instant) {
        self.turn_began.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
    }

    /// The worker waits from now on; its turn lasted `busy`.
    pub(super) fn end_turn(&self, busy: Duration) {
        self.turn_began.store(0, Ordering::Relaxed);
        // The worker alone writes it.
        let before = self.busy_nanoseconds.load(Ordering::Relaxed);
        self.busy_nanoseconds.store(before + nanoseconds(busy), Ordering::Relaxed);
    }

    /// A connection's turn ended with work left.
    pub(super) fn note_yield(&self) {
        // The worker alone writes it.
        self.yields.store(self.yields.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The worker takes no turn any more: newcomers go to the others while there are any.
    pub(super) fn pass_over(&self) {
        self.turn_began.store(1, Ordering::Relaxed);
    }

    pub(super) fn reading(&self, now: Instant) -> WorkerReading {
        let turn = self.turn(now);
        WorkerReading {
            // The running turn is work too, or a stalled worker would look idle.
            busy: Duration::from_nanos(self.busy_nanoseconds.load(Ordering::Relaxed)) + turn,
            turn,
            connections: self.load(),
            inbox_connections: self.arrivals.len(),
            yields: self.yields.load(Ordering::Relaxed),
        }
    }

    /// Gives the worker up, and tells what it had open, a listener each: that is the caller's to
    /// count now.
    pub(super) fn abandon(&self) -> Vec<usize> {
        // A worker that is stuck in a close, as in the write of its log line, does not hang the
        // stop.
        let _no_close_under_way = self.closing.try_lock_for(STALLED);
        self.is_abandoned.store(true, Ordering::SeqCst);
        self.open.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// The right to count a connection as closed, held until its place is given back; `None` once
    /// the worker was given up.
    pub(super) fn begin_close(&self) -> Option<MutexGuard<'_, ()>> {
        let closing = self.closing.lock();
        (!self.is_abandoned()).then_some(closing)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }

    /// Puts something into the worker's inbox.
    ///
    /// # Errors
    /// Gives it back when the inbox is full, which is counted, or its worker has ended.
    pub(super) fn post(&self, mail: Mail) -> Result<(), (SendError, Mail)> {
        let (error, mail) = match self.mail.try_send(mail) {
            Ok(()) => {
                self.doorbell.ring();
                return Ok(());
            }
            Err(TrySendError::Full(mail)) => (SendError::Full, mail),
            Err(TrySendError::Disconnected(mail)) => (SendError::Ended, mail),
        };
        self.instruments.count_late_reply_refused(LateReplyRefusal::InboxFull);
        Err((error, mail))
    }

    /// Asks the worker. Who asked before and has no answer yet gets none.
    pub(super) fn ask(&self, question: Question) {
        let (questions, untaken) = &self.questions;
        // Whether there is one is for the channel to say.
        let _ = untaken.try_recv();
        if questions.try_send(question).is_ok() {
            self.doorbell.ring();
        }
    }

    /// Connections in the inbox or with the worker.
    pub(super) fn load(&self) -> usize {
        self.open.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn turn(&self, now: Instant) -> Duration {
        match self.turn_began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_nanos(self.nanoseconds(now).saturating_sub(began)),
        }
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        nanoseconds(at.saturating_duration_since(self.origin))
    }
}

impl Mailbox for Seat {
    fn deliver(&self, reply: LateReply) -> Result<(), LateReply> {
        self.post(Mail::Late(reply)).map_err(|(_, mail)| match mail {
            Mail::Late(reply) => reply,
            Mail::Push(_) => unreachable!("what was posted comes back"),
        })
    }

    fn push(&self, push: Push) -> Result<(), SendError> {
        self.post(Mail::Push(push)).map_err(|(error, _)| error)
    }
}

/// A connection counted in its worker's load; dropped behind its socket.
pub(super) struct Place {
    seat: Arc<Seat>,
    listener: usize,
}

impl Place {
    fn take(seat: &Arc<Seat>, listener: usize) -> Self {
        seat.open[listener].fetch_add(1, Ordering::SeqCst);
        Self { seat: seat.clone(), listener }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.open[self.listener].fetch_sub(1, Ordering::SeqCst);
    }
}

/// All seats.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    seats: Arc<[Arc<Seat>]>,
}

impl Pool {
    pub(super) fn new(seats: Vec<Arc<Seat>>) -> Self {
        Self { seats: seats.into() }
    }

    pub(super) fn seats(&self) -> &[Arc<Seat>] {
        &self.seats
    }

    /// Hands the connection to the worker with the fewest, ties going round; a stalled one comes
    /// last, a full inbox sends on to the next best. `turn` is the acceptor's own.
    pub(super) fn dispatch(
        &self,
        arrival: Arrival,
        turn: &mut usize,
    ) -> Result<(), (Refusal, Arrival)> {
        *turn = turn.wrapping_add(1);
        let now = arrival.accepted;
        let mut order: Vec<(bool, usize, usize, usize)> = Vec::with_capacity(self.seats.len());
        for (index, seat) in self.seats.iter().enumerate() {
            let is_stalled = seat.turn(now) > STALLED;
            let distance = index.wrapping_sub(*turn) % self.seats.len();
            order.push((is_stalled, seat.load(), distance, index));
        }
        let mut arrival = arrival;
        let mut refusal = Refusal::Ended;
        while let Some(best) = (0..order.len()).min_by_key(|&at| order[at]) {
            let seat = &self.seats[order.swap_remove(best).3];
            // Counted before it is sent, so that a burst spreads.
            let place = Place::take(seat, arrival.listener);
            match seat.arrivals.try_send(Seated { arrival, place }) {
                Ok(()) => {
                    seat.doorbell.ring();
                    return Ok(());
                }
                Err(TrySendError::Full(seated)) => {
                    refusal = Refusal::Full;
                    arrival = seated.arrival;
                }
                Err(TrySendError::Disconnected(seated)) => arrival = seated.arrival,
            }
        }
        Err((refusal, arrival))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
