//! One connection's place: its responder, what it is to be asked next, and the thread's work on
//! that. A desk is with one thread at a time, so that its responder is never asked twice at once.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::responder::{
    Answer, Client, Context, Factory, Host, Late, Reply, Responder, Sender, Ticket, Written,
};

/// How often, and how long apart, an answer is offered to a worker whose inbox is full.
const OFFERS: u32 = 1000;
const OFFER_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Desk {
    state: Mutex<State>,
}

struct State {
    occupant: Occupant,
    question: Option<Question>,
    end: Option<End>,
    /// In the queue or with a thread.
    is_scheduled: bool,
    /// Nobody waits for answers any more.
    is_over: bool,
    /// Tells the connection's worker of a panic when no question is open.
    witness: Option<Unused>,
}

enum Occupant {
    /// Made by the first question.
    Unmade(Maker),
    Made(Box<dyn Responder>),
    /// With the thread that works on it.
    Out,
    /// It panicked or has ended.
    Gone,
}

/// What makes the responder, and for whom.
pub(super) struct Maker {
    pub(super) factory: Factory,
    pub(super) listener: String,
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
}

/// What a responder is asked.
pub(super) struct Question {
    what: What,
    number: u64,
    ticket: Unused,
    /// From then on nobody waits for the answer; `None`: not as far as the clock can tell.
    until: Option<Instant>,
}

pub(super) enum What {
    Open,
    Respond(String),
    Finish,
}

/// Why the responder goes; `None`: nobody said.
type End = Option<String>;

enum Work {
    Ask(Occupant, Question),
    End(Occupant, End),
}

impl Question {
    pub(super) fn new(what: What, context: &mut Context<'_>, until: Option<Instant>) -> Self {
        Self { what, number: context.message(), ticket: Unused(Some(context.ticket())), until }
    }

    fn is_awaited(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Desk {
    pub(super) fn new(maker: Maker) -> Self {
        let occupant = Occupant::Unmade(maker);
        let state = State {
            occupant,
            question: None,
            end: None,
            is_scheduled: false,
            is_over: false,
            witness: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Puts a question on the desk; `schedule` finds a thread for it, unless one is here.
    ///
    /// # Errors
    /// None was found; the question is dropped.
    pub(super) fn put(
        &self,
        question: Question,
        schedule: impl FnOnce() -> bool,
    ) -> Result<(), ()> {
        let mut state = self.state.lock();
        if !state.is_scheduled && !schedule() {
            return Err(());
        }
        if state.witness.is_none() {
            state.witness = question.ticket.another();
        }
        state.is_scheduled = true;
        state.question = Some(question);
        Ok(())
    }

    /// The connection is over; `schedule` finds a thread to end the responder, if there is one.
    pub(super) fn put_end(&self, end: End, schedule: impl FnOnce()) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        state.question = None;
        state.end = Some(end);
        if !state.is_scheduled && matches!(state.occupant, Occupant::Made(_)) {
            state.is_scheduled = true;
            schedule();
        }
    }

    /// Does one thing that lies on the desk; whether there is another.
    pub(super) fn serve(&self) -> bool {
        match self.take() {
            Some(Work::Ask(occupant, question)) => self.ask(occupant, question),
            Some(Work::End(Occupant::Made(responder), end)) => {
                self.end(responder, end);
                false
            }
            Some(Work::End(..)) | None => false,
        }
    }

    fn take(&self) -> Option<Work> {
        let mut state = self.state.lock();
        if let Some(end) = state.end.take() {
            return Some(Work::End(std::mem::replace(&mut state.occupant, Occupant::Gone), end));
        }
        // The connection of one that is overdue may linger, long before it ends.
        let Some(question) = state.question.take().filter(Question::is_awaited) else {
            state.is_scheduled = false;
            return None;
        };
        Some(Work::Ask(std::mem::replace(&mut state.occupant, Occupant::Out), question))
    }

    fn ask(&self, occupant: Occupant, question: Question) -> bool {
        let Question { what, number, mut ticket, until: _ } = question;
        let (occupant, late) = match contained(|| occupant.responder()) {
            Err(Panicked) => (Occupant::Gone, Some(Late::Panicked)),
            Ok(None) => (Occupant::Gone, Some(Late::Failed)),
            Ok(Some(mut responder)) => {
                match contained(|| put_to(&mut *responder, what, number, &ticket)) {
                    Ok(late) => (Occupant::Made(responder), late),
                    Err(Panicked) => {
                        self.let_go(responder);
                        (Occupant::Gone, Some(Late::Panicked))
                    }
                }
            }
        };
        // Before the answer sets out, which lets the next question come.
        let has_more = self.put_back(occupant);
        if let Some(late) = late {
            self.deliver(&mut ticket, late);
        }
        has_more
    }

    fn end(&self, mut responder: Box<dyn Responder>, end: End) {
        if let Some(reason) = end
            && contained(|| responder.end(&reason)).is_err()
        {
            self.tell_panic();
        }
        self.let_go(responder);
    }

    /// Its own drop may block, or panic.
    fn let_go(&self, responder: Box<dyn Responder>) {
        if contained(|| drop(responder)).is_err() {
            self.tell_panic();
        }
    }

    /// Of a panic that is no answer to anything, so that it is counted.
    fn tell_panic(&self) {
        let witness = self.state.lock().witness.as_ref().and_then(Unused::another);
        if let Some(mut witness) = witness {
            // Where the inbox is full the hook has still reported it.
            let _ = witness.resolve(Late::Panicked);
        }
    }

    fn put_back(&self, occupant: Occupant) -> bool {
        let mut state = self.state.lock();
        state.occupant = occupant;
        state.is_scheduled = state.question.is_some() || state.end.is_some();
        state.is_scheduled
    }

    /// Takes an answer to the worker, again where its inbox is full. This thread may wait.
    fn deliver(&self, ticket: &mut Unused, mut late: Late) {
        for _ in 0..OFFERS {
            match ticket.resolve(late) {
                None => return,
                Some(refused) => late = refused,
            }
            if self.state.lock().is_over {
                return;
            }
            thread::sleep(OFFER_PAUSE);
        }
        // The connection's own deadline ends it.
    }
}

impl Occupant {
    fn responder(self) -> Option<Box<dyn Responder>> {
        match self {
            Self::Unmade(maker) => {
                let client = Client::new(&maker.listener, maker.peer, maker.local);
                Some((maker.factory)(&client))
            }
            Self::Made(responder) => Some(responder),
            Self::Out | Self::Gone => None,
        }
    }
}

/// Asks, on this thread; `None`: the responder will answer by itself.
fn put_to(responder: &mut dyn Responder, what: What, number: u64, ticket: &Unused) -> Option<Late> {
    let mut host = Away { ticket: ticket.0.as_ref()? };
    let mut context = Context::new(&mut host, number);
    let mut bytes = Vec::new();
    let mut reply = Reply::new(&mut bytes);
    let answer = match what {
        What::Open => responder.open(&mut reply, &mut context),
        What::Respond(text) => responder.respond(&text, &mut reply, &mut context),
        What::Finish => responder.finish(&mut reply, &mut context),
    };
    let is_terminated = reply.is_terminated();
    let written = |is_last| Late::Written(Written { bytes, is_terminated, is_last });
    let late = match answer {
        Answer::Reply => written(false),
        Answer::ReplyAndClose => written(true),
        Answer::Silence => Late::Silence,
        Answer::Close => Late::Close,
        Answer::Reset => Late::Reset,
        Answer::Failed => Late::Failed,
        Answer::Later | Answer::LaterWithin(_) => return None,
    };
    thread::sleep(context.delayed());
    Some(late)
}

/// The hook has reported it.
struct Panicked;

fn contained<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        // What a panic carries may panic in its own drop.
        std::mem::forget(payload);
        Panicked
    })
}

/// A ticket that says nothing when it is dropped: its connection has ended, or waits for its own
/// deadline.
struct Unused(Option<Ticket>);

impl Unused {
    fn another(&self) -> Option<Self> {
        self.0.as_ref().map(|ticket| Self(Some(ticket.another())))
    }

    /// Uses it; gives the answer back where it was not taken.
    fn resolve(&mut self, late: Late) -> Option<Late> {
        let refused = self.0.take()?.resolve(late).err()?;
        self.0 = Some(refused.ticket);
        Some(refused.late)
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.forgo();
        }
    }
}

/// The surroundings of a responder on a thread that is no worker's.
struct Away<'t> {
    ticket: &'t Ticket,
}

impl Host for Away<'_> {
    fn ticket(&mut self) -> Ticket {
        self.ticket.another()
    }

    fn sender(&mut self) -> Sender {
        self.ticket.sender()
    }

    fn unix_time(&mut self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn random(&mut self) -> u64 {
        fastrand::u64(..)
    }
}
