//! What a responder of the user's own is asked, and what its answers lead to: at once, after a
//! delay, or when they come in. Nothing of this is on the way of an echo.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::metrics::CloseReason;
use crate::metrics::names::LateReplyRefusal;
use crate::responder::{
    self, Address, Answer, Context, Host, Late, Push, Reply, Responder, Sender, Service, Ticket,
    Written,
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
    Panic,
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
        let client = responder::Client::new(&self.conversation.name, self.peer, local)
            .with_reply_timeout(self.conversation.reply_timeout);
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

    /// Whether there is a delayed answer whose time has come.
    pub(crate) fn is_to_be_released(&self, now: Instant) -> bool {
        self.delayed_until().is_some_and(|until| until <= now)
    }

    /// Whether an answer to that message is awaited.
    pub(crate) fn awaits(&self, message: u64) -> bool {
        let awaited = self.awaited.as_deref();
        awaited.is_some_and(|awaited| awaited.held.is_none() && awaited.message == message)
    }

    /// Whether the client may be sent what it did not ask for.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_push(&self, push: &Push) -> Result<(), LateReplyRefusal> {
        if self.phase != Phase::Reading {
            Err(LateReplyRefusal::Stale)
        } else if push.text.is_some() && self.pending.len() > self.conversation.max_pending_bytes {
            Err(LateReplyRefusal::PendingFull)
        } else {
            Ok(())
        }
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

    /// The responder has ended, whatever it still owed. A turn must follow.
    pub(crate) fn end_by_responder(&mut self, reason: CloseReason) {
        if self.phase == Phase::Reading {
            self.awaited = None;
            self.stop_reading(reason);
        }
    }

    /// Sends what that brings, behind what is pending. Returns how the connection has ended, if it
    /// has.
    #[cold]
    pub(super) fn take_effect(
        &mut self,
        cause: &Cause<'_>,
        turn: &mut Turn<'_>,
    ) -> Option<Outcome> {
        let terminator = self.conversation.protocol.terminator();
        let gathered = turn.outgoing.copied(&[]);
        let effect = match cause {
            Cause::Answered(late) => {
                self.awaited = None;
                write_late(late, gathered, terminator)
            }
            Cause::AnsweredLine(line) => {
                self.awaited = None;
                gathered.extend_from_slice(line);
                Effect { is_reply: true, then: Then::GoOn }
            }
            Cause::Released => {
                let held = self.awaited.take().and_then(|awaited| awaited.held);
                let Held { effect, bytes, .. } = held?;
                gathered.extend_from_slice(&bytes);
                effect
            }
            Cause::Pushed(Some(text)) => {
                gathered.extend_from_slice(text.as_bytes());
                gathered.extend_from_slice(terminator.as_bytes());
                Effect { is_reply: true, then: Then::GoOn }
            }
            Cause::Pushed(None) => Effect { is_reply: false, then: Then::Close },
            Cause::Given(bytes) => {
                gathered.extend_from_slice(bytes);
                Effect { is_reply: true, then: Then::GoOn }
            }
        };
        turn.tally.replies += u64::from(effect.is_reply);
        // Where this fails, what was gathered is still to be counted.
        let flushed = self.flush(turn);
        let sent = flushed.and(self.send_gathered(&[], turn));
        if let Err(error) = sent {
            return Some(self.failed(error, turn));
        }
        if self.rest.is_empty() && !self.has_input_ended {
            // What stopped it was the wait for this answer.
            self.is_stopped = false;
        }
        // If another message follows at once, this one would never be observed as answered.
        if self.readiness.readable && self.times.unanswered.is_some() && self.pending.is_empty() {
            self.note_answered(Instant::now(), turn);
        }
        match effect.then {
            Then::GoOn => None,
            Then::Close => self.stop_reading(CloseReason::ResponderClosed),
            Then::Reset => {
                self.is_cut = true;
                self.stop_reading(CloseReason::ResponderClosed)
            }
            Then::Fail => self.stop_reading(CloseReason::ResponderError),
            Then::TimeOut => self.stop_reading(CloseReason::ResponderTimeout),
            Then::Panic => self.stop_reading(CloseReason::ResponderPanic),
        }
    }
}

/// What leads to a turn beside what epoll says.
pub(crate) enum Cause<'a> {
    /// The answer that is awaited.
    Answered(Late),
    /// The same, where it is a line that brings its own end.
    AnsweredLine(&'a [u8]),
    /// The time of a delayed answer has come.
    Released,
    /// A text that the client did not ask for; `None`: the connection closes.
    Pushed(Option<&'a str>),
    /// Bytes that go to the client as they stand. There must be room.
    Given(&'a [u8]),
}

fn write_late(late: &Late, buffer: &mut Vec<u8>, terminator: &str) -> Effect {
    let mut write = |text: &[u8], terminator: &str| {
        buffer.extend_from_slice(text);
        buffer.extend_from_slice(terminator.as_bytes());
        true
    };
    let (is_reply, then) = match late {
        Late::Reply(text) => (write(text.as_bytes(), terminator), Then::GoOn),
        Late::ReplyAndClose(text) => (write(text.as_bytes(), terminator), Then::Close),
        Late::Bytes(bytes) => (write(bytes, ""), Then::GoOn),
        Late::Written(Written { bytes, is_terminated, is_last }) => {
            let terminator = if *is_terminated { terminator } else { "" };
            (write(bytes, terminator), if *is_last { Then::Close } else { Then::GoOn })
        }
        Late::Silence => (false, Then::GoOn),
        Late::Close => (false, Then::Close),
        Late::Reset => (false, Then::Reset),
        Late::Failed => (false, Then::Fail),
        Late::TimedOut => (false, Then::TimeOut),
        Late::Panicked => (false, Then::Panic),
    };
    Effect { is_reply, then }
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
        Then::Panic => Asked::Stop(Stop::Panicked),
    }
}

fn local_address(socket: &std::os::fd::OwnedFd) -> Option<std::net::SocketAddr> {
    let local = std::net::SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    Some(std::net::SocketAddr::new(local.ip().to_canonical(), local.port()))
}
