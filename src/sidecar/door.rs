//! The door: one thread that bounds who reaches tiny_http. It holds a fixed number of clients,
//! reads their request heads, asks tiny_http for one page after the other, and hands the answers
//! out.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::io::Errno;

use crate::accepting::{Cause, Reserve};

use super::client::{Client, Standing, Turn};
use super::pages;
use super::places::{Asker, Places};
use super::press::{Press, Printer};
use super::{Bounds, Watch};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const PRESS: Token = Token(usize::MAX - 2);

/// How many connections are accepted before those already there have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Descriptors kept for scrapes. One is enough for a scrape; more make it unlikely that other
/// threads, which take any descriptor that is let go, leave none.
const RESERVED: usize = 4;

/// What other threads may tell the door; they ring the waker afterwards.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) stop: AtomicBool,
    /// Makes tiny_http lose its connection, as if it had died.
    #[cfg(test)]
    pub(super) kill: AtomicBool,
}

pub(super) struct Door {
    poll: Poll,
    signals: Arc<Signals>,
    watch: Arc<Watch>,
    bounds: Bounds,
    /// `None` once a stop has begun.
    listener: Option<TcpListener>,
    /// When to try to accept without being told of a newcomer.
    accept_at: Option<Instant>,
    /// Whether that is after an error of the host.
    pausing: bool,
    places: Places,
    reserve: Reserve,
    press: Option<Press>,
    /// Whether the last page was one that may take long.
    is_after_slow: bool,
    /// The last one, while its thread is still at work on a page. The next is not started before it
    /// has let go, or pages that hang would cost a thread each.
    retired: Option<Printer>,
    /// When to start tiny_http, if there is none.
    press_at: Instant,
    scratch: Vec<u8>,
}

impl Door {
    pub(super) fn new(
        listener: TcpListener,
        watch: Arc<Watch>,
        bounds: Bounds,
        signals: Arc<Signals>,
    ) -> io::Result<(Door, Arc<Waker>)> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        register(&poll, &listener, LISTENER)?;
        let now = Instant::now();
        let press = Press::open(&watch, now + bounds.probe)?;
        register(&poll, press.stream(), PRESS)?;
        let door = Door {
            poll,
            signals,
            watch,
            bounds,
            listener: Some(listener),
            accept_at: Some(now),
            pausing: false,
            places: Places::new(bounds.connections),
            reserve: Reserve::new(RESERVED)?,
            press: Some(press),
            is_after_slow: false,
            retired: None,
            press_at: now,
            scratch: vec![0; 16 << 10],
        };
        Ok((door, waker))
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut stop_at = None;
        while !self.is_done(stop_at) {
            let timeout = self.timeout(stop_at, Instant::now());
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the metrics endpoint cannot wait for its sockets");
                    std::thread::sleep(self.bounds.pause);
                }
            }
            let now = Instant::now();
            if stop_at.is_none() && self.signals.stop.load(Ordering::Acquire) {
                stop_at = Some(now + self.bounds.stop);
                self.close_entrance();
            }
            self.turn(&events, now);
        }
        self.end();
    }

    fn is_done(&self, stop_at: Option<Instant>) -> bool {
        stop_at.is_some_and(|end| !self.places.any_owed() || Instant::now() >= end)
    }

    /// Until when nothing has to be done unasked.
    fn timeout(&self, stop_at: Option<Instant>, now: Instant) -> Option<Duration> {
        if self.places.any_again() {
            return Some(Duration::ZERO);
        }
        let refill = self.reserve.is_short().then(|| now + self.bounds.pause);
        let press = match &self.press {
            Some(press) => press.deadline(),
            None => Some(self.press_at.max(now + Duration::from_millis(1))),
        };
        [stop_at, self.accept_at, refill, press, self.places.next_deadline()]
            .into_iter()
            .flatten()
            .min()
            // mio rounds up to whole milliseconds, so that a deadline has passed when the wait
            // ends.
            .map(|at| at.saturating_duration_since(now))
    }

    /// One round: what the events tell, what is due, then newcomers and the next page.
    fn turn(&mut self, events: &Events, now: Instant) {
        for event in events {
            match event.token() {
                // Or each newcomer would cost one more try that must fail.
                LISTENER if self.pausing => {}
                LISTENER => self.accept_at = Some(now),
                PRESS | WAKER => {}
                // The place may have a new client since: then it finds nothing to do, which does no
                // harm.
                Token(place) => self.with_client(place, now, Client::advance),
            }
        }
        for place in self.places.with_work_left(now) {
            self.with_client(place, now, |client, turn| {
                if turn.now >= client.deadline { client.expire(turn) } else { client.advance(turn) }
            });
        }
        // One that has just started may need every descriptor there is.
        if self.press.as_ref().is_none_or(Press::is_proved) {
            self.reserve.fill();
        }
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept(now);
        }
        self.run_press(now);
    }

    /// Gives a client its turn and takes back the place of one that is through.
    fn with_client(
        &mut self,
        place: usize,
        now: Instant,
        work: impl FnOnce(&mut Client, &mut Turn) -> Standing,
    ) {
        let Some(client) = self.places.get(place) else {
            return;
        };
        let (bounds, watch, scratch) = (&self.bounds, &*self.watch, &mut self.scratch[..]);
        if work(client, &mut Turn { now, bounds, watch, scratch }) == Standing::Closed {
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(client) = self.places.free(place) {
            // The descriptor may live on in the reserve as something else, and epoll would go by
            // the old one.
            let _ = self.poll.registry().deregister(&mut SourceFd(&client.socket.as_raw_fd()));
            self.reserve.close(OwnedFd::from(client.socket));
        }
    }

    fn accept(&mut self, now: Instant) {
        // After this turn's share there may be more.
        self.accept_at = Some(now);
        self.pausing = false;
        for _ in 0..ACCEPTS_PER_TURN {
            let vacant = self.places.vacant();
            let Some(place) = vacant.or_else(|| self.least_deserving(now)) else {
                // All are being answered just now; the newcomer waits in the kernel's queue.
                self.accept_at = Some(now + self.bounds.stall);
                return;
            };
            let Some(accepted) = self.listener.as_ref().map(TcpListener::accept) else {
                self.accept_at = None;
                return;
            };
            match accepted {
                Ok((socket, peer)) => {
                    self.evict(place, now);
                    self.admit(place, socket, peer.ip(), now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_at = None;
                    return;
                }
                Err(error) if cause_of(&error) == Cause::Peer => {}
                Err(error)
                    if cause_of(&error) == Cause::Descriptors && self.spend_descriptor(now) => {}
                // Those who are being answered will soon let go of theirs.
                Err(error) if cause_of(&error) == Cause::Descriptors && self.places.any_owed() => {
                    self.accept_at = Some(now + self.bounds.stall);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the metrics endpoint cannot accept");
                    self.accept_at = Some(now + self.bounds.pause);
                    self.pausing = true;
                    return;
                }
            }
        }
    }

    /// Lets go of a descriptor for the next accept: one of the reserve, or that of a client who
    /// asks for nothing. No: there is none, and trying again at once would burn a core.
    fn spend_descriptor(&mut self, now: Instant) -> bool {
        if self.reserve.spend() {
            return true;
        }
        let Some(place) = self.least_deserving(now) else { return false };
        self.evict(place, now);
        self.reserve.spend()
    }

    /// Whose place may be given away, after a last look: a request may have come meanwhile, if only
    /// because this turn has been a long one. A client found gone has left its place vacant.
    fn least_deserving(&mut self, now: Instant) -> Option<usize> {
        // Each round but the last leaves one less to choose from.
        loop {
            let place = self.places.least_deserving(now, &self.bounds)?;
            self.with_client(place, now, Client::advance);
            let client = self.places.get(place);
            if client.is_none_or(|client| client.merit(now, self.bounds.stall).is_some()) {
                return Some(place);
            }
        }
    }

    /// Sends the client away that holds the place, if there is one.
    fn evict(&mut self, place: usize, now: Instant) {
        self.with_client(place, now, |client, turn| {
            client.evict(turn);
            Standing::Closed
        });
    }

    /// Gives the newcomer its first turn: a request that is here already is safe from eviction.
    fn admit(&mut self, place: usize, socket: TcpStream, peer: IpAddr, now: Instant) {
        let registered =
            socket.set_nonblocking(true).and_then(|()| register(&self.poll, &socket, Token(place)));
        if let Err(error) = registered {
            tracing::debug!(%error, "the metrics endpoint cannot wait for a client");
            return self.reserve.close(OwnedFd::from(socket));
        }
        self.places.take(place, |id| Client::new(id, socket, peer, now, &self.bounds));
        self.with_client(place, now, Client::advance);
    }

    /// Keeps tiny_http running, takes its answer, and asks for the next page.
    fn run_press(&mut self, now: Instant) {
        #[cfg(test)]
        if self.signals.kill.swap(false, Ordering::AcqRel)
            && let Some(press) = &self.press
        {
            // If it were gone already, that would be what the test wants.
            let _ = press.stream().shutdown(std::net::Shutdown::Both);
        }
        if self.press.is_none() && now >= self.press_at {
            self.start_press(now);
        }
        while let Some(press) = &mut self.press {
            let overdue = press.deadline().is_some_and(|deadline| now >= deadline);
            match press.advance(&mut self.scratch) {
                Ok(Some((askers, answer))) => self.hand_out(askers, &answer, now),
                Ok(None) if overdue => {
                    self.retire_press(now, &io::Error::from(io::ErrorKind::TimedOut));
                }
                Ok(None) if press.is_free() => {
                    let first = self.places.first_waiting(self.is_after_slow);
                    let Some((askers, request)) = first else { return };
                    self.is_after_slow = pages::is_slow(request);
                    press.ask(askers, request, now + self.bounds.answer);
                }
                Ok(None) => return,
                Err(error) => self.retire_press(now, &error),
            }
        }
    }

    fn hand_out(&mut self, askers: Vec<Asker>, answer: &Arc<[u8]>, now: Instant) {
        for Asker { place, id } in askers {
            self.with_client(place, now, |client, turn| {
                // The one that asked may have gone, or got tired of waiting.
                if client.id == id && client.request().is_some() {
                    client.answer(Arc::clone(answer), turn)
                } else {
                    Standing::Open
                }
            });
        }
        // One that is answered makes room, if another waits for that.
        if self.places.vacant().is_none() {
            self.accept_at = Some(now);
        }
    }

    fn start_press(&mut self, now: Instant) {
        if self.retired.as_ref().is_some_and(|retired| !retired.is_finished()) {
            self.press_at = now + self.bounds.pause;
            return;
        }
        if let Some(retired) = self.retired.take() {
            retired.join(Duration::ZERO);
        }
        // A scrape without tiny_http is worth nothing: it may have all that is kept.
        while self.reserve.spend() {}
        let opened = Press::open(&self.watch, now + self.bounds.probe)
            .and_then(|press| register(&self.poll, press.stream(), PRESS).map(|()| press));
        match opened {
            Ok(press) => {
                // The threads of one that fails at once live on for seconds: they must not pile up.
                self.press_at = now + self.bounds.probe;
                self.press = Some(press);
            }
            Err(error) => {
                self.press_at = now + self.bounds.pause;
                tracing::debug!(%error, "tiny_http cannot be started again yet");
            }
        }
    }

    /// Parts with a tiny_http that failed. Whoever waited goes on waiting, for the next one.
    fn retire_press(&mut self, now: Instant, error: &io::Error) {
        if let Some(press) = self.press.take() {
            tracing::warn!(%error, "the metrics endpoint lost tiny_http and starts it again");
            // Its descriptor is closed in any case, which takes it out of the epoll set.
            let _ = self.poll.registry().deregister(&mut SourceFd(&press.stream().as_raw_fd()));
            self.retired = Some(press.retire());
            self.press_at = self.press_at.max(now);
        }
    }

    /// Takes no one in any more, and lets those go who have not asked yet.
    fn close_entrance(&mut self) {
        self.listener = None;
        self.accept_at = None;
        for place in self.places.not_owed() {
            self.close(place);
        }
    }

    fn end(mut self) {
        if let Some(press) = self.press.take() {
            self.retired = Some(press.retire());
        }
        self.places.clear();
        if let Some(retired) = self.retired.take() {
            retired.join(self.bounds.stop);
        }
    }
}

fn register(poll: &Poll, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest)
}

fn cause_of(error: &io::Error) -> Cause {
    Errno::from_io_error(error).map_or(Cause::Host, Cause::of)
}
