//! The accept thread: blocks in accept(2), admits or rejects, hands over. It never touches the
//! conversation, and no error of accept(2) ends it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tracing::{debug, warn};

use crate::accepting::{Cause, Reserve};
use crate::connection::peer_name;
use crate::metrics::{
    AcceptError, Instruments, ListenReading, ListenerInstruments, MEASURED, Recorder, Rejection,
};
use crate::sys;

use super::admit::Admission;
use super::failures::Failures;
use super::pace::Pace;
use super::pool::{Arrival, Pool, Refusal};

/// After an error of the host, if the reserve does not help.
const PAUSE: Duration = Duration::from_millis(100);

/// A longer row of errors that each concern one peer is the host's doing after all.
const PEER_ERRORS_IN_A_ROW: u32 = 1024;

/// At a stop what is queued is given up after so many errors of the host in a row.
const LAST_TRIES: u32 = 10;

/// No interface has this index, so that no newcomer comes through it.
const NO_INTERFACE: i32 = i32::MAX;

/// So long after the last trouble a connection means that it is over.
const RECOVERED: Duration = Duration::from_secs(1);

/// The listener as others may reach it: to stop its acceptor, to ask the kernel. The acceptor takes
/// the socket out before it closes it, for a second owner would keep it listening.
pub(super) struct Gate {
    is_closing: AtomicBool,
    socket: Mutex<Option<Arc<OwnedFd>>>,
    thread: Mutex<Option<Thread>>,
    name: String,
    is_tcp: bool,
}

/// One listener's acceptor; [`Acceptor::run`] is its thread.
pub(super) struct Acceptor {
    pub(super) gate: Arc<Gate>,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) listener: usize,
    pub(super) backlog: u32,
    pub(super) full_message: Arc<str>,
    pub(super) admission: Arc<Admission>,
    pub(super) pool: Pool,
    pub(super) instruments: Arc<Instruments>,
    /// `None` on a Unix socket, of whose queue the kernel tells nothing.
    pub(super) accept_wait: Option<Recorder>,
    /// Short while its descriptor serves to accept one that cannot be served.
    pub(super) reserve: Reserve,
    /// `max_accept_rate`.
    pub(super) pace: Option<Pace>,
    pub(super) failures: Arc<Failures>,
    pub(super) trouble: Trouble,
}

/// What accept(2) has complained of lately.
#[derive(Default)]
pub(super) struct Trouble {
    /// Errors that concern one peer, since the last connection.
    peer_errors: u32,
    /// What the reserve was given up for last.
    lacking: Option<Errno>,
    /// When the host last could not give us a connection, and what was said of it then: once, not
    /// at each of them.
    starved: Option<(Instant, &'static str)>,
}

impl Gate {
    pub(super) fn new(name: &str, socket: Arc<OwnedFd>, is_tcp: bool) -> Self {
        Self {
            is_closing: AtomicBool::new(false),
            socket: Mutex::new(Some(socket)),
            thread: Mutex::new(None),
            name: name.to_owned(),
            is_tcp,
        }
    }

    /// From now on a newcomer is refused as on a closed port; handshakes that have begun go on, and
    /// what is queued stays. Without this the queue might never be empty. Returns the port whose
    /// handshakes come to an end.
    pub(super) fn turn_away(&self) -> Option<u16> {
        let socket = self.socket.lock();
        let socket = socket.as_ref().filter(|_| self.is_tcp)?;
        if let Err(error) = sys::bind_to_interface(socket.as_fd(), NO_INTERFACE) {
            debug!(%error, "newcomers cannot be refused; the listener closes after a backlog more");
            return None;
        }
        Some(SockRef::from(&**socket).local_addr().ok()?.as_socket()?.port())
    }

    /// Makes the acceptor empty the kernel's queue and close, without a reset for anyone in it.
    pub(super) fn close(&self) {
        let socket = self.socket.lock();
        let Some(socket) = socket.as_ref() else { return };
        self.is_closing.store(true, Ordering::SeqCst);
        // shutdown(2) wakes a blocked accept(2), but resets what is queued on a TCP listener. With
        // something queued, accept(2) is about to return by itself.
        let is_empty =
            !self.is_tcp || sys::tcp_info(socket.as_fd()).is_ok_and(|info| info.unacked == 0);
        if is_empty {
            // An error says that it is shut down already.
            let _ = rustix::net::shutdown(&**socket, Shutdown::Read);
        }
        if let Some(thread) = self.thread.lock().as_ref() {
            thread.unpark();
        }
    }

    /// What the kernel knows of the accept queue now; nothing once the listener has closed, nor of
    /// a Unix socket.
    pub(super) fn reading(&self) -> Option<ListenReading> {
        let socket = self.socket.lock();
        let socket = socket.as_ref().filter(|_| self.is_tcp)?;
        // A stop has shut it down, and its acceptor is about to close it.
        let info = sys::tcp_info(socket.as_fd()).ok().filter(|info| info.is_listening)?;
        let drops = sys::drops(socket.as_fd()).ok()?;
        Some(ListenReading { queue_length: info.unacked, queue_limit: info.sacked, drops })
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }
}

impl Acceptor {
    /// Accepts until the gate closes.
    pub(super) fn run(mut self) {
        *self.gate.thread.lock() = Some(thread::current());
        if let Err(error) = sys::schedule_as_batch() {
            debug!(%error, "the accept thread stays under the default scheduling policy");
        }
        let mut round = self.listener;
        while catch_unwind(AssertUnwindSafe(|| self.accept_until_closing(&mut round))).is_err() {
            self.instruments.worker_panics.inc();
            if self.failures.note(Instant::now()) {
                // A stop follows, and a thread that panics at every try would only burn until then.
                while !self.gate.is_closing() {
                    thread::park();
                }
            }
        }
        // Another panic here resets what is still queued, but no more than that.
        let _ = catch_unwind(AssertUnwindSafe(|| self.empty_queue(&mut round)));
        self.gate.socket.lock().take();
        if let Ok(drops) = sys::drops(self.socket.as_fd()) {
            self.instruments.count_drops(self.listener, drops);
        }
    }

    fn accept_until_closing(&mut self, round: &mut usize) {
        while !self.gate.is_closing() {
            self.hold_back();
            match accept(self.socket.as_fd()) {
                Ok((socket, peer)) => self.welcome(socket, peer, round),
                Err(_) if self.gate.is_closing() => break,
                Err(error) => self.recover(error),
            }
        }
    }

    /// Waits until the rate allows another connection. Nobody is held back while nobody comes.
    fn hold_back(&self) {
        let Some(pace) = &self.pace else { return };
        if pace.held_until(Instant::now()).is_none() {
            return;
        }
        // Ended by a newcomer, and by the shutdown(2) of a stop. What else may end it is told by
        // the accept(2) that follows.
        let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], None);
        let since = Instant::now();
        let mut now = since;
        while !self.gate.is_closing()
            && let Some(until) = pace.held_until(now)
        {
            thread::park_timeout(until.saturating_duration_since(now));
            now = Instant::now();
        }
        self.counters().count_accept_held(now.saturating_duration_since(since));
    }

    /// Takes what accept(2) returned, if it found a descriptor of its own. If it took the
    /// reserve's, and there is no other, the reserve takes its place over.
    fn welcome(&mut self, socket: OwnedFd, peer: Option<SocketAddr>, round: &mut usize) {
        self.trouble.peer_errors = 0;
        self.observe_wait(&socket);
        if let Some(pace) = &mut self.pace {
            pace.take(Instant::now());
        }
        self.reserve.fill();
        if self.reserve.is_short() {
            self.starve(self.trouble.lacking, "out of descriptors; newcomers are turned away");
            self.counters().accepted.inc();
            self.counters().count_rejected(Rejection::FdReserve);
            self.reserve.close(socket);
            self.log_rejected(peer, Rejection::FdReserve);
        } else {
            self.recovered();
            self.take(socket, peer, round);
        }
    }

    /// How long the connection lay in the accept queue: nothing was sent on it yet, so that the
    /// kernel counts from the handshake.
    fn observe_wait(&mut self, socket: &OwnedFd) {
        if let Some(accept_wait) = &mut self.accept_wait
            && MEASURED
            && let Ok(info) = sys::tcp_info(socket.as_fd())
        {
            accept_wait.observe_time(info.last_data_sent);
        }
    }

    fn counters(&self) -> &ListenerInstruments {
        self.instruments.listener(self.listener)
    }

    /// Admits and hands over, or rejects.
    fn take(&self, socket: OwnedFd, peer: Option<SocketAddr>, round: &mut usize) {
        let accepted = Instant::now();
        self.counters().accepted.inc();
        let slot = match self.admission.admit(self.listener, peer) {
            Ok(slot) => slot,
            Err(reason) => return self.reject(socket, peer, reason),
        };
        let arrival = Arrival { socket, peer, accepted, listener: self.listener, slot };
        if let Err((refusal, arrival)) = self.pool.dispatch(arrival, round) {
            let reason = match refusal {
                Refusal::Full => Rejection::InboxFull,
                Refusal::Ended => Rejection::Draining,
            };
            let Arrival { socket, slot, .. } = arrival;
            self.reject(socket, peer, reason);
            drop(slot);
        }
    }

    /// Best effort and without waiting: the message, our FIN, one discard, close.
    fn reject(&self, socket: OwnedFd, peer: Option<SocketAddr>, reason: Rejection) {
        if !self.full_message.is_empty() {
            // A client whose window is closed does not get it.
            let _ = rustix::net::send(&socket, self.full_message.as_bytes(), SendFlags::NOSIGNAL);
        }
        // Either fails where the peer is gone, which is fine.
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        let _ = rustix::net::recv(&socket, &mut [0_u8; 4096][..], RecvFlags::empty());
        drop(socket);
        self.counters().count_rejected(reason);
        self.log_rejected(peer, reason);
    }

    fn log_rejected(&self, peer: Option<SocketAddr>, reason: Rejection) {
        debug!(
            listener = self.gate.name,
            peer = peer_name(peer),
            reason = reason.label(),
            "connection rejected"
        );
    }

    fn recover(&mut self, error: Errno) {
        self.counters().count_accept_error(label(error));
        match Cause::of(error) {
            Cause::Peer if self.trouble.peer_errors < PEER_ERRORS_IN_A_ROW => {
                self.trouble.peer_errors += 1;
                debug!(%error, "a connection was gone before it was accepted");
            }
            // On the reserve's descriptor the next try succeeds, if this is all that was missing.
            Cause::Descriptors if self.reserve.spend() => {
                self.trouble.lacking = Some(error);
            }
            Cause::Descriptors | Cause::Host | Cause::Peer => self.pause(error),
        }
    }

    fn pause(&mut self, error: Errno) {
        self.starve(Some(error), "accept fails; trying again ten times a second");
        let until = Instant::now() + PAUSE;
        // A connection that ends elsewhere may wake this thread for reasons of its own.
        while !self.gate.is_closing()
            && let Some(left) = until.checked_duration_since(Instant::now())
            && !left.is_zero()
        {
            thread::park_timeout(left);
        }
    }

    fn starve(&mut self, error: Option<Errno>, text: &'static str) {
        let before = self.trouble.starved.replace((Instant::now(), text));
        if before.is_none_or(|(_, said)| said != text) {
            let error = error.map(tracing::field::display);
            warn!(listener = self.gate.name, error, "{text}");
        }
    }

    fn recovered(&mut self) {
        // At the limit one is turned away and the next is not; that is no recovery.
        if self.trouble.starved.take_if(|(since, _)| since.elapsed() >= RECOVERED).is_some() {
            warn!(listener = self.gate.name, "accepting again");
        }
    }

    /// What the kernel has queued is served, not reset. Bounded for where newcomers go on coming.
    fn empty_queue(&mut self, round: &mut usize) {
        if let Err(error) = rustix::io::ioctl_fionbio(&*self.socket, true) {
            warn!(%error, "what is queued on the listener is lost");
            return;
        }
        let mut errors = 0;
        let mut left = self.backlog.saturating_add(1);
        while left > 0 {
            match accept(self.socket.as_fd()) {
                Ok((socket, peer)) => {
                    errors = 0;
                    left -= 1;
                    self.welcome(socket, peer, round);
                }
                // The queue is empty; the second where shutdown(2) woke us.
                Err(Errno::AGAIN | Errno::INVAL) => return,
                Err(error) => {
                    self.counters().count_accept_error(label(error));
                    match Cause::of(error) {
                        Cause::Peer => left -= 1,
                        Cause::Descriptors if self.reserve.spend() => {}
                        Cause::Descriptors | Cause::Host if errors < LAST_TRIES => {
                            errors += 1;
                            thread::sleep(PAUSE);
                        }
                        Cause::Descriptors | Cause::Host => {
                            warn!(%error, "what is queued on the listener is lost");
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    Ok((socket, peer.and_then(canonical)))
}

/// An IPv4 client of an IPv6 listener is an IPv4 client: before limit, log and metric.
fn canonical(peer: SocketAddrAny) -> Option<SocketAddr> {
    let peer = SocketAddr::try_from(peer).ok()?;
    Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

fn label(error: Errno) -> AcceptError {
    match error {
        Errno::MFILE => AcceptError::Emfile,
        Errno::NFILE => AcceptError::Enfile,
        Errno::NOBUFS => AcceptError::Enobufs,
        Errno::NOMEM => AcceptError::Enomem,
        Errno::CONNABORTED => AcceptError::Econnaborted,
        _ => AcceptError::Other,
    }
}
