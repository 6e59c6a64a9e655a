//! What a responder of the user's own is asked, and what its answers lead to: at once, after a
//! delay, or when they come in. Nothing of this is on the way of an echo.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::metrics::names::LateReplyRefusal;
use crate::metrics::{CloseReason, Tally};
use crate::responder::{
    self, Address, Answer, Context, Host, Late, LateReply, Reply, Responder, Sender, Service,
    Ticket, Written,
};

use super::recv::Stop;
use super::{Connection, Conversation, Outcome, Phase, Turn};

/// An answer that the connection waits for. Behind a pointer, as few connections have one.
#[derive(Debug)]
pub(super) struct Awaited {
    message: u64,
    /// `None`: for longer than the clock can tell.
    until: Option<Instant>,
    /// The answer, if it is only delayed.
    held: Option<Held>,
}

/// An answer that takes effect later.
#[derive(Debug)]
pub(super) struct Held {
    effect: Effect,
    bytes: Vec<u8>,
    /// The worker knows when.
    is_scheduled: bool,
}

/// What an answer does beside what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Effect {
    is_reply: bool,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    Reset,
    Fail,
    TimeOut,
}

impl Awaited {
    /// When to give up. A delayed answer is there already.
    pub(super) fn until(&self) -> Option<Instant> {
        if self.held.is_none() { self.until } else { None }
    }

    /// Drops a delayed reply and tells its length. Its time stays known, for whoever has noted it.
    pub(super) fn drop_held(&mut self) -> usize {
        self.held.as_mut().map_or(0, |held| std::mem::take(&mut held.bytes).len())
    }
}

/// The surroundings of a responder on a connection.
struct Surroundings<'t, 'w> {
    turn: &'t Turn<'w>,
    address: Address,
}

impl Host for Surroundings<'_, '_> {
    fn ticket(&mut self) -> Ticket {
        Ticket::new(self.address, self.turn.services.mailbox.clone())
    }

    fn sender(&mut self) -> Sender {
        Sender::new(self.address, self.turn.services.mailbox.clone())
    }

    fn unix_time(&mut self) -> Duration {
        // Shown to people, never waited for: a clock that may jump is the right one.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Duration::try_from(now).unwrap_or_default()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

impl Connection {
    /// Makes the responder, and lets it greet.
    pub(super) fn make_responder(&mut self, turn: &mut Turn<'_>) {
        let Service::Custom(factory) = &self.conversation.service else { return };
        let local = self.peer.and_then(|_| local_address(&self.socket));
        let client = responder::Client::new(&self.conversation.name, self.peer, local);
        match catch_unwind(AssertUnwindSafe(|| factory(&client))) {
            Ok(responder) => self.responder = Some(responder),
            Err(_) => {
                turn.services.panics.inc();
                self.stop_reading(CloseReason::ResponderPanic);
            }
        }
        let asked = self.ask(turn, &mut |responder, reply, context| responder.open(reply, context));
        self.is_stopped = matches!(asked, Some(Stop::Held));
        // The turn that follows sends it.
        self.keep_gathered(&[], turn);
        if let Some(stop) = asked {
            let ended = self.follow(stop, turn);
            debug_assert!(ended.is_none(), "nothing is lost before the first send");
        }
    }

    /// Asks the responder something that is no message; `None`: the conversation goes on.
    fn ask(&mut self, turn: &mut Turn<'_>, question: Question<'_>) -> Option<Stop> {
        let responder = self.responder.as_deref_mut()?;
        let terminator = self.conversation.protocol.terminator();
        let asked = turn.ask(responder, &[], self.messages, terminator, question);
        asked.heed(&mut self.awaited, self.messages, &self.conversation)
    }

    /// The client's end of input: room for a last answer, once.
    pub(super) fn ask_to_finish(&mut self, turn: &mut Turn<'_>) -> Option<Stop> {
        if self.responder.is_none() || std::mem::replace(&mut self.is_finished, true) {
            return None;
        }
        // No message of the client has this number: a late answer to its last one is not this.
        self.messages += 1;
        let asked =
            self.ask(turn, &mut |responder, reply, context| responder.finish(reply, context));
        self.messages -= 1;
        asked
    }

    /// The client said what ends the reading: a responder that owes what nobody can count is heard
    /// out while what is owed is sent, see [`Phase::Flushing`].
    #[cold]
    pub(super) fn leave(&mut self, reason: CloseReason, turn: &mut Turn<'_>) -> Option<Outcome> {
        if !self.conversation.is_heard_out {
            return self.stop_reading(reason);
        }
        let asked = self.ask_to_finish(turn);
        self.keep_gathered(&[], turn);
        match asked {
            None | Some(Stop::Held) => self.stop_reading(reason),
            Some(stop) => self.follow(stop, turn),
        }
    }

    /// A stop, and the last receive is done: a responder that owes what nobody can count is heard
    /// out.
    pub(super) fn ask_to_leave(&mut self, turn: &mut Turn<'_>) -> Option<Stop> {
        if !self.conversation.is_heard_out {
            return None;
        }
        // What comes from now on is not owed anything.
        self.last_receive = Some(0);
        let asked = self.ask_to_finish(turn);
        self.is_stopped = matches!(asked, Some(Stop::Held));
        asked
    }

    /// Tells the responder that the conversation has ended, and lets it go.
    ///
    /// # Errors
    /// It panicked at that, which concerns this connection alone.
    pub(crate) fn end_responder(&mut self, reason: CloseReason) -> Result<(), ()> {
        let Some(responder) = &mut self.responder else { return Ok(()) };
        let ended = catch_unwind(AssertUnwindSafe(|| responder.end(reason.label())));
        ended.map_err(std::mem::forget).and(self.drop_responder())
    }

    /// Lets the responder go, whose own drop may panic.
    ///
    /// # Errors
    /// It did.
    pub(super) fn drop_responder(&mut self) -> Result<(), ()> {
        let responder = self.responder.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(responder)));
        // What a panic carries may panic in its own drop, and who closes must not be interrupted.
        dropped.map_err(std::mem::forget)
    }

    /// What to tell the worker while an answer is awaited: of a delayed one it must know the time.
    pub(super) fn awaiting(&mut self) -> Outcome {
        match self.awaited.as_deref_mut() {
            Some(Awaited { held: Some(held), .. }) if !held.is_scheduled => {
                held.is_scheduled = true;
                Outcome::Delayed
            }
            _ => Outcome::Waiting,
        }
    }

    /// When the delayed answer takes effect, if there is one.
    pub(crate) fn delayed_until(&self) -> Option<Instant> {
        self.awaited.as_deref().filter(|awaited| awaited.held.is_some())?.until
    }

    /// Lets a delayed answer take effect whose time has come. A turn must follow if the answer is
    /// yes.
    pub(crate) fn release(&mut self, now: Instant, tally: &mut Tally) -> bool {
        if self.delayed_until().is_none_or(|until| now < until) {
            return false;
        }
        let Some(Awaited { held: Some(held), .. }) = self.awaited.take().map(|boxed| *boxed) else {
            return false;
        };
        self.take_effect(&[&held.bytes], held.effect, tally);
        true
    }

    /// The answer that was to come later. A turn must follow if the answer is yes; no: nobody
    /// waits for it any more.
    pub(crate) fn answer_late(&mut self, reply: LateReply, tally: &mut Tally) -> bool {
        let is_awaited = self.awaited.as_deref().is_some_and(|awaited| {
            awaited.held.is_none() && awaited.message == reply.address.message
        });
        if !is_awaited {
            return false;
        }
        self.awaited = None;
        let terminator = self.conversation.protocol.terminator().as_bytes();
        let effect = |is_reply, then| Effect { is_reply, then };
        match reply.late {
            Late::Reply(text) => {
                self.take_effect(&[text.as_bytes(), terminator], effect(true, Then::GoOn), tally);
            }
            Late::ReplyAndClose(text) => {
                self.take_effect(&[text.as_bytes(), terminator], effect(true, Then::Close), tally);
            }
            Late::Bytes(bytes) => self.take_effect(&[&bytes], effect(true, Then::GoOn), tally),
            Late::Silence => self.take_effect(&[], effect(false, Then::GoOn), tally),
            Late::Close => self.take_effect(&[], effect(false, Then::Close), tally),
            Late::Reset => self.take_effect(&[], effect(false, Then::Reset), tally),
            Late::Failed => self.take_effect(&[], effect(false, Then::Fail), tally),
            Late::Written(Written { bytes, is_terminated, is_last }) => {
                let terminator = if is_terminated { terminator } else { &[] };
                let then = if is_last { Then::Close } else { Then::GoOn };
                self.take_effect(&[&bytes, terminator], effect(true, then), tally);
            }
            Late::Panicked => {
                self.stop_reading(CloseReason::ResponderPanic);
            }
            Late::TimedOut => self.take_effect(&[], effect(false, Then::TimeOut), tally),
        }
        true
    }

    /// A text that the client did not ask for; `None`: the connection is to close. A turn must
    /// follow.
    ///
    /// # Errors
    /// It is dropped.
    pub(crate) fn push(
        &mut self,
        text: Option<&str>,
        tally: &mut Tally,
    ) -> Result<(), LateReplyRefusal> {
        if self.phase != Phase::Reading {
            return Err(LateReplyRefusal::Stale);
        }
        let Some(text) = text else {
            self.stop_reading(CloseReason::ResponderClosed);
            return Ok(());
        };
        if self.pending.len() > self.conversation.max_pending_bytes {
            return Err(LateReplyRefusal::PendingFull);
        }
        let terminator = self.conversation.protocol.terminator().as_bytes();
        let effect = Effect { is_reply: true, then: Then::GoOn };
        self.take_effect(&[text.as_bytes(), terminator], effect, tally);
        Ok(())
    }

    /// Whether it takes more of what nobody asked for.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        let is_heard = match self.phase {
            Phase::Reading => true,
            Phase::Flushing(_) => self.awaited.is_some(),
            Phase::Lingering(_) => false,
        };
        is_heard && self.pending.len() <= self.conversation.max_pending_bytes
    }

    /// Bytes that go to the client as they stand. There must be room; a turn must follow.
    pub(crate) fn give(&mut self, bytes: &[u8], tally: &mut Tally) {
        self.take_effect(&[bytes], Effect { is_reply: false, then: Then::GoOn }, tally);
    }

    /// The responder has ended, whatever it still owed. A turn must follow.
    pub(crate) fn end_by_responder(&mut self) {
        if self.phase == Phase::Reading {
            self.awaited = None;
            self.stop_reading(CloseReason::ResponderClosed);
        }
    }

    fn take_effect(&mut self, parts: &[&[u8]], effect: Effect, tally: &mut Tally) {
        if parts.iter().any(|part| !part.is_empty()) {
            if self.pending.is_empty() {
                self.times.progress = Instant::now();
            }
            self.pending.append(parts, self.conversation.max_pending_bytes);
            self.tally_pending(tally);
        }
        tally.replies += u64::from(effect.is_reply);
        match effect.then {
            Then::GoOn => {}
            Then::Close => {
                self.stop_reading(CloseReason::ResponderClosed);
            }
            Then::Reset => {
                self.is_cut = true;
                self.stop_reading(CloseReason::ResponderClosed);
            }
            Then::Fail => {
                self.stop_reading(CloseReason::ResponderError);
            }
            Then::TimeOut => {
                self.stop_reading(CloseReason::ResponderTimeout);
            }
        }
    }
}

/// What a responder is asked.
pub(super) type Question<'q> =
    &'q mut dyn FnMut(&mut dyn Responder, &mut Reply<'_>, &mut Context<'_>) -> Answer;

/// What an answer leads to.
pub(super) enum Asked {
    GoOn,
    Stop(Stop),
    /// The connection waits; `within` of `None` is the listener's own bound.
    Await {
        within: Option<Duration>,
        held: Option<Held>,
    },
}

impl Asked {
    /// Why answering stops; `None`: it goes on.
    pub(super) fn heed(
        self,
        awaited: &mut Option<Box<Awaited>>,
        message: u64,
        conversation: &Conversation,
    ) -> Option<Stop> {
        match self {
            Self::GoOn => None,
            Self::Stop(stop) => Some(stop),
            Self::Await { within, held } => {
                let within = within.unwrap_or(conversation.reply_timeout);
                let until = Instant::now().checked_add(within);
                *awaited = Some(Box::new(Awaited { message, until, held }));
                Some(Stop::Held)
            }
        }
    }
}

impl Turn<'_> {
    /// Asks a responder, whose panic concerns its connection alone. What it sends is gathered with
    /// the replies before.
    pub(super) fn ask(
        &mut self,
        responder: &mut dyn Responder,
        chunk: &[u8],
        message: u64,
        terminator: &str,
        question: Question<'_>,
    ) -> Asked {
        let (slot, generation) = self.place;
        let mut buffer = std::mem::take(self.outgoing.copied(chunk));
        let before = buffer.len();
        let address = Address { slot, generation, message };
        let mut host = Surroundings { turn: self, address };
        let mut context = Context::new(&mut host, message);
        let mut reply = Reply::new(&mut buffer);
        let answer =
            catch_unwind(AssertUnwindSafe(|| question(responder, &mut reply, &mut context)));
        let (delay, is_terminated) = (context.delayed(), reply.is_terminated());
        let asked = match answer {
            Ok(answer) => {
                let effect = effect_of(answer);
                if !effect.is_ok_and(|effect| effect.is_reply) {
                    buffer.truncate(before);
                } else if is_terminated {
                    buffer.extend_from_slice(terminator.as_bytes());
                }
                match effect {
                    Err(within) => Asked::Await { within, held: None },
                    Ok(effect) if delay > Duration::ZERO => {
                        let bytes = buffer.split_off(before);
                        let held = Some(Held { effect, bytes, is_scheduled: false });
                        Asked::Await { within: Some(delay), held }
                    }
                    Ok(effect) => {
                        self.tally.replies += u64::from(effect.is_reply);
                        at_once(effect.then)
                    }
                }
            }
            Err(_) => {
                buffer.truncate(before);
                self.services.panics.inc();
                Asked::Stop(Stop::Panicked)
            }
        };
        *self.outgoing.copied(chunk) = buffer;
        asked
    }
}

/// What the answer does, or within what time it comes.
fn effect_of(answer: Answer) -> Result<Effect, Option<Duration>> {
    let (is_reply, then) = match answer {
        Answer::Reply => (true, Then::GoOn),
        Answer::Silence => (false, Then::GoOn),
        Answer::ReplyAndClose => (true, Then::Close),
        Answer::Close => (false, Then::Close),
        Answer::Reset => (false, Then::Reset),
        Answer::Failed => (false, Then::Fail),
        Answer::Later => return Err(None),
        Answer::LaterWithin(within) => return Err(Some(within)),
    };
    Ok(Effect { is_reply, then })
}

fn at_once(then: Then) -> Asked {
    match then {
        Then::GoOn => Asked::GoOn,
        Then::Close => Asked::Stop(Stop::End(CloseReason::ResponderClosed)),
        Then::Reset => Asked::Stop(Stop::Cut),
        Then::Fail => Asked::Stop(Stop::End(CloseReason::ResponderError)),
        Then::TimeOut => Asked::Stop(Stop::End(CloseReason::ResponderTimeout)),
    }
}

fn local_address(socket: &std::os::fd::OwnedFd) -> Option<std::net::SocketAddr> {
    let local = std::net::SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    Some(std::net::SocketAddr::new(local.ip().to_canonical(), local.port()))
}
