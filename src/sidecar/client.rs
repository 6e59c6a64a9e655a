//! One client of the door: its request head comes in, its answer goes out, its end is orderly.
//! Every state has a deadline, and none of them waits for anything but the socket's readiness.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::head::{Head, Progress, Request};
use super::scrape::Rejection;
use super::{Bounds, Watch};

/// How often a client that goes on sending is read from in one turn.
const DISCARDS_PER_TURN: usize = 16;

/// How much is discarded of what a client sends behind its request. Who sends more is not listening
/// for an answer, and would have the door read at full speed for as long as it lingers.
const MAX_DISCARDED_BYTES: usize = 4 << 20;

/// How much of its answer a client has to take in each [`Bounds::stall`] to be safe of its place.
const PACE_BYTES: usize = 64 << 10;

/// What a client needs of the door for one turn.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) bounds: &'a Bounds,
    pub(super) watch: &'a Watch,
    pub(super) scratch: &'a mut [u8],
}

/// Whether a client still holds its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Closed,
}

pub(super) struct Client {
    /// Ever growing, and so the order of arrival too.
    pub(super) id: u64,
    pub(super) socket: TcpStream,
    /// The address by which a crowd is told from a single client.
    pub(super) origin: IpAddr,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    /// Set if a turn ended with input left: readiness comes on edges, and no further one would
    /// tell.
    pub(super) again: bool,
    state: State,
}

enum State {
    Reading(Head),
    /// The request waits for its turn, or for its answer.
    Waiting(Request),
    Answering {
        answer: Arc<[u8]>,
        sent: usize,
        begun: Instant,
        /// A refusal has been counted already, whatever becomes of its text.
        refusal: bool,
    },
    /// Answered; what the client still sends is discarded, because a close with input unread would
    /// make the kernel reset the connection and drop what it has not delivered.
    Lingering {
        discarded: usize,
    },
}

/// Who has to go first when all places are taken: those who hold a place and ask for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Merit {
    Lingering,
    Reading,
    Stalled,
}

impl Client {
    pub(super) fn new(
        id: u64,
        socket: TcpStream,
        peer: IpAddr,
        now: Instant,
        bounds: &Bounds,
    ) -> Client {
        Client {
            id,
            socket,
            origin: origin(peer),
            arrived: now,
            deadline: now + bounds.head,
            again: false,
            state: State::Reading(Head::new(bounds.head_bytes)),
        }
    }

    /// The request, if it waits for an answer.
    pub(super) fn request(&self) -> Option<&Request> {
        match &self.state {
            State::Waiting(request) => Some(request),
            _ => None,
        }
    }

    /// Whether an answer is owed or on its way.
    pub(super) fn is_owed(&self) -> bool {
        matches!(self.state, State::Waiting(_) | State::Answering { .. })
    }

    /// Its claim to its place; `None` if it may not be sent away.
    pub(super) fn merit(&self, now: Instant, stall: Duration) -> Option<Merit> {
        match &self.state {
            State::Reading(_) => Some(Merit::Reading),
            State::Lingering { .. } => Some(Merit::Lingering),
            // Counted from the beginning: bytes that trickle out would keep a place for long.
            State::Answering { begun, sent, .. } => {
                let paces = u32::try_from(1 + sent / PACE_BYTES).unwrap_or(u32::MAX);
                (now >= *begun + stall * paces).then_some(Merit::Stalled)
            }
            State::Waiting(_) => None,
        }
    }

    /// Goes as far as the socket allows.
    pub(super) fn advance(&mut self, turn: &mut Turn) -> Standing {
        self.again = false;
        if let State::Reading(_) = self.state
            && self.read_head(turn) == Standing::Closed
        {
            return Standing::Closed;
        }
        if let State::Answering { .. } = self.state
            && self.send_answer(turn) == Standing::Closed
        {
            return Standing::Closed;
        }
        if let State::Lingering { .. } = self.state {
            return self.discard(turn);
        }
        Standing::Open
    }

    fn read_head(&mut self, turn: &mut Turn) -> Standing {
        while let State::Reading(head) = &mut self.state {
            let progress = match self.socket.read(turn.scratch) {
                Ok(0) if head.is_empty() => return Standing::Closed,
                Ok(0) => Progress::Refused(Rejection::Incomplete),
                Ok(length) => head.feed(&turn.scratch[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Standing::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A reset: nobody is left who could be told.
                Err(_) => return Standing::Closed,
            };
            match progress {
                Progress::Partial => {}
                Progress::Refused(reason) => self.refuse(reason, turn),
                Progress::Whole(request) => {
                    self.deadline = turn.now + turn.bounds.answer;
                    self.state = State::Waiting(request);
                }
            }
        }
        Standing::Open
    }

    /// Counts the refusal and makes its text the answer.
    fn refuse(&mut self, reason: Rejection, turn: &Turn) {
        (turn.watch.rejected)(reason);
        self.deadline = turn.now + turn.bounds.linger;
        self.state = State::Answering {
            answer: reason.answer().into(),
            sent: 0,
            begun: turn.now,
            refusal: true,
        };
    }

    /// Takes the answer that it waited for, and sends what goes at once.
    pub(super) fn answer(&mut self, answer: Arc<[u8]>, turn: &mut Turn) -> Standing {
        self.deadline = turn.now + turn.bounds.send;
        self.state = State::Answering { answer, sent: 0, begun: turn.now, refusal: false };
        self.advance(turn)
    }

    fn send_answer(&mut self, turn: &Turn) -> Standing {
        let State::Answering { answer, sent, .. } = &mut self.state else {
            return Standing::Open;
        };
        while *sent < answer.len() {
            match self.socket.write(&answer[*sent..]) {
                Ok(length) => *sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Standing::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Standing::Closed,
            }
        }
        if self.socket.shutdown(Shutdown::Write).is_err() {
            return Standing::Closed;
        }
        self.deadline = turn.now + turn.bounds.linger;
        self.state = State::Lingering { discarded: 0 };
        Standing::Open
    }

    fn discard(&mut self, turn: &mut Turn) -> Standing {
        let State::Lingering { discarded } = &mut self.state else {
            return Standing::Open;
        };
        for _ in 0..DISCARDS_PER_TURN {
            match self.socket.read(turn.scratch) {
                Ok(0) => return Standing::Closed,
                Ok(_) if *discarded >= MAX_DISCARDED_BYTES => return Standing::Closed,
                Ok(length) => *discarded += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Standing::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Standing::Closed,
            }
        }
        self.again = true;
        Standing::Open
    }

    /// What happens at the deadline.
    pub(super) fn expire(&mut self, turn: &mut Turn) -> Standing {
        match self.state {
            State::Reading(_) => self.refuse(Rejection::HeadTimeout, turn),
            State::Waiting(_) => self.refuse(Rejection::Unavailable, turn),
            State::Answering { .. } => {
                self.cut(turn);
                return Standing::Closed;
            }
            State::Lingering { .. } => return Standing::Closed,
        }
        self.advance(turn)
    }

    /// Makes room for another. Whoever has not asked yet is told as far as that goes without
    /// waiting.
    pub(super) fn evict(&mut self, turn: &mut Turn) {
        match self.state {
            State::Reading(_) => {
                self.refuse(Rejection::OverCapacity, turn);
                // Its place is given away in any case.
                let _ = self.advance(turn);
            }
            State::Answering { .. } => self.cut(turn),
            State::Waiting(_) | State::Lingering { .. } => {}
        }
    }

    /// Gives up on a client that does not take its answer; the kernel is to let go of its copy too.
    fn cut(&mut self, turn: &Turn) {
        if let State::Answering { refusal: false, .. } = self.state {
            (turn.watch.rejected)(Rejection::SlowReader);
        }
        // Without it the socket is closed in the ordinary way.
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

/// One host of IPv6 has a whole /64 to speak from.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn an_origin_is_an_address_of_ipv4_or_a_64_of_ipv6() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
    }

    #[test]
    fn only_who_takes_its_answer_at_a_pace_is_safe_of_its_place() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (now, bounds) = (Instant::now(), Bounds::default());
        let peer = IpAddr::from([127, 0, 0, 1]);
        let mut client = Client::new(0, socket, peer, now, &bounds);
        let mut check = |sent, stalls: u32, merit| {
            let answer = vec![0; 1 << 20].into();
            client.state = State::Answering { answer, sent, begun: now, refusal: false };
            let later = now + bounds.stall * stalls;
            assert_eq!(client.merit(later, bounds.stall), merit, "{sent} in {stalls}");
        };
        check(0, 0, None);
        check(0, 1, Some(Merit::Stalled));
        check(PACE_BYTES - 1, 1, Some(Merit::Stalled));
        check(PACE_BYTES, 1, None);
        check(PACE_BYTES, 2, Some(Merit::Stalled));
        check(10 * PACE_BYTES, 10, None);
    }

    #[test]
    fn who_asks_for_nothing_goes_first() {
        assert!(Merit::Lingering < Merit::Reading && Merit::Reading < Merit::Stalled);
    }
}
