//! How many lines one kind of event may have: decided before a line is made of it. What is left out
//! is counted, and told by kind.

use std::collections::{HashMap, VecDeque};
use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use talkback::ClientText;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The target of the lines that tell what was left out. They are not limited themselves.
pub(super) const SUPPRESSED: &str = "suppressed";

/// The target of the lines that programs write to standard error. They come in bursts of which the
/// last matters most, as the end of a traceback does, so that a kind of them may have more.
const STANDARD_ERROR: &str = "standard_error";
const STANDARD_ERROR_TIMES: usize = 10;

/// Fields whose value makes a kind of its own: else a flood of health checks would hide the one
/// close that matters. Their values come from closed sets.
const DISTINGUISHING: [&str; 2] = ["reason", "place"];

/// The same for lines of programs: one that floods must not hide what another one says.
const DISTINGUISHING_PROGRAM: &str = "listener";

/// Kinds of one place in the code; more share one.
const MAX_KINDS: usize = 64;

/// A kind is shown by so much of the message that it began with.
const MAX_MESSAGE: usize = 128;

const SECOND: u64 = 1_000_000_000;

/// Counts lines by kind of event. Lines of the main thread are not limited: there are as many as
/// the config makes them, at the start and at the end, and no client causes one.
pub(super) struct Limit {
    /// Lines a second; 0 = no limit.
    max_lines: usize,
    main: ThreadId,
    origin: Instant,
    /// By their place in the code. Grows by what the program holds, never by what clients do.
    kinds: RwLock<HashMap<Identifier, Vec<Arc<Kind>>>>,
    /// Called when an event is left out.
    on_suppressed: Box<dyn Fn() + Send + Sync>,
}

/// Events of one kind.
struct Kind {
    level: Level,
    /// So many times the limit.
    times: usize,
    message: String,
    /// The distinguishing field and its value; empty = none.
    field: &'static str,
    value: String,
    window: Mutex<Window>,
    /// Before that time no line is possible: in a flood nobody waits for the window.
    full_until: AtomicU64,
    suppressed: AtomicU64,
}

/// When the lines of the last second were shown, in nanoseconds.
#[derive(Default)]
struct Window(VecDeque<u64>);

/// The part of the log that asks a [`Limit`].
pub(super) struct LimitLayer(pub(super) Arc<Limit>);

impl Limit {
    /// A limit of so many lines a second and kind; the calling thread counts as the main one.
    pub(super) fn new(max_lines: u32, on_suppressed: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            max_lines: usize::try_from(max_lines).unwrap_or(usize::MAX),
            main: thread::current().id(),
            origin: Instant::now(),
            kinds: RwLock::default(),
            on_suppressed: Box::new(on_suppressed),
        }
    }

    /// Tells what was left out since the last time: a line for each kind.
    pub(super) fn announce(&self) {
        // Not under the lock: a line takes longer than a look.
        let kinds: Vec<_> = self.kinds.read().values().flatten().cloned().collect();
        for kind in kinds {
            let count = kind.suppressed.swap(0, Ordering::Relaxed);
            if count > 0 {
                announce(&kind, count);
            }
        }
    }

    /// Whether an event is shown whose distinguishing field has that value.
    fn admit(&self, event: &Event<'_>, field: &'static str, value: &str) -> bool {
        let callsite = event.metadata().callsite();
        let kinds = self.kinds.read();
        let known = kinds.get(&callsite).and_then(|of_place| find(of_place, value));
        if let Some(kind) = known {
            return self.admit_one(kind);
        }
        drop(kinds);
        let mut kinds = self.kinds.write();
        let of_place = kinds.entry(callsite).or_default();
        // Another thread may have been here in between.
        if find(of_place, value).is_none() {
            let has_room = of_place.len() < MAX_KINDS - 1;
            let (field, value) = if has_room { (field, value) } else { ("", "") };
            of_place.push(Arc::new(Kind::new(event, field, value)));
        }
        find(of_place, value).is_none_or(|kind| self.admit_one(kind))
    }

    fn admit_one(&self, kind: &Kind) -> bool {
        if self.now() >= kind.full_until.load(Ordering::Relaxed) {
            let mut window = kind.window.lock();
            match window.admit(self.now(), self.max_lines.saturating_mul(kind.times)) {
                None => return true,
                Some(until) => kind.full_until.store(until, Ordering::Relaxed),
            }
        }
        kind.suppressed.fetch_add(1, Ordering::Relaxed);
        (self.on_suppressed)();
        false
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The kind of that value, or the one that stands for all that there was no room for.
fn find<'a>(of_place: &'a [Arc<Kind>], value: &str) -> Option<&'a Kind> {
    let found = of_place.iter().find(|kind| kind.value == value);
    found.or_else(|| of_place.get(MAX_KINDS - 1)).map(|kind| &**kind)
}

fn announce(kind: &Kind, count: u64) {
    let message = &kind.message;
    let value = |field| (kind.field == field).then_some(kind.value.as_str());
    let (reason, place) = (value("reason"), value("place"));
    let listener = value(DISTINGUISHING_PROGRAM);
    macro_rules! line {
        ($level:ident) => {
            tracing::event!(
                target: SUPPRESSED,
                Level::$level,
                reason,
                place,
                listener,
                suppressed = count,
                "{count} suppressed: {message}"
            )
        };
    }
    match kind.level {
        Level::ERROR => line!(ERROR),
        Level::WARN => line!(WARN),
        Level::INFO => line!(INFO),
        Level::DEBUG => line!(DEBUG),
        Level::TRACE => line!(TRACE),
    }
}

impl Kind {
    fn new(event: &Event<'_>, field: &'static str, value: &str) -> Self {
        let mut message = MessageOf(String::new());
        event.record(&mut message);
        Self {
            level: *event.metadata().level(),
            times: match event.metadata().target() {
                STANDARD_ERROR => STANDARD_ERROR_TIMES,
                _ => 1,
            },
            message: ClientText::new(&message.0).at_most(MAX_MESSAGE).to_string(),
            field,
            value: value.to_owned(),
            window: Mutex::default(),
            full_until: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }
}

impl Window {
    /// Takes a line that is shown now; or tells from when on one can be.
    fn admit(&mut self, now: u64, max_lines: usize) -> Option<u64> {
        while self.0.front().is_some_and(|shown| shown + SECOND <= now) {
            self.0.pop_front();
        }
        if let Some(first) = self.0.front()
            && self.0.len() >= max_lines
        {
            return Some(first + SECOND);
        }
        self.0.push_back(now);
        None
    }
}

impl<S: Subscriber> Layer<S> for LimitLayer {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let (limit, metadata) = (&*self.0, event.metadata());
        let is_exempt = limit.max_lines == 0
            || metadata.target() == SUPPRESSED
            || thread::current().id() == limit.main;
        is_exempt || distinguish(limit, event, metadata)
    }
}

fn distinguish(limit: &Limit, event: &Event<'_>, metadata: &Metadata<'_>) -> bool {
    let mut question = Question { limit, event, answer: None };
    if metadata.fields().iter().any(|field| is_distinguishing(metadata, &field)) {
        event.record(&mut question);
    }
    question.answer.unwrap_or_else(|| limit.admit(event, "", ""))
}

fn is_distinguishing(metadata: &Metadata<'_>, field: &Field) -> bool {
    let is_programs =
        || metadata.target() == STANDARD_ERROR && field.name() == DISTINGUISHING_PROGRAM;
    DISTINGUISHING.contains(&field.name()) || is_programs()
}

/// Asks as soon as it sees a distinguishing value, so that nothing needs to be copied.
struct Question<'a> {
    limit: &'a Limit,
    event: &'a Event<'a>,
    answer: Option<bool>,
}

impl Visit for Question<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.answer.is_none() && is_distinguishing(self.event.metadata(), field) {
            self.answer = Some(self.limit.admit(self.event, field.name(), value));
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}

struct MessageOf(String);

impl Visit for MessageOf {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to memory does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    const MILLISECOND: u64 = SECOND / 1000;

    /// When lines are shown of events that come at those times, at most three a second.
    fn shown(events: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut window = Window::default();
        let at = events.into_iter().map(|at| at * MILLISECOND);
        at.filter(|at| window.admit(*at, 3).is_none()).map(|at| at / MILLISECOND).collect()
    }

    #[test]
    fn no_second_has_more_lines_wherever_it_begins() {
        assert_eq!(shown(0..2500), [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002]);
        // Not three at the end of one second and three at the beginning of the next.
        assert_eq!(shown([0, 900, 950, 1000, 1050, 1100, 1899, 1900]), [0, 900, 950, 1000, 1900]);
    }

    #[test]
    fn what_stays_below_the_limit_is_shown() {
        let steady: Vec<_> = (0..100).map(|event| event * 334).collect();
        assert_eq!(shown(steady.iter().copied()), steady);
    }

    #[test]
    fn a_full_window_says_from_when_on_a_line_can_be_shown() {
        let mut window = Window::default();
        assert_eq!(window.admit(5, 1), None);
        assert_eq!(window.admit(6, 1), Some(5 + SECOND));
        assert_eq!(window.admit(4 + SECOND, 1), Some(5 + SECOND));
        assert_eq!(window.admit(5 + SECOND, 1), None);
    }

    /// Counts what is shown.
    struct Shown(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Shown {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many are shown of a hundred events in a burst, where the limit is three.
    fn shown_of_a_hundred(event: impl Fn() + Send + 'static) -> u64 {
        let shown = Arc::new(AtomicU64::new(0));
        // Lines of the thread that makes the limit would be exempt.
        let limit = Arc::new(Limit::new(3, || {}));
        let log = tracing_subscriber::registry().with(Shown(shown.clone())).with(LimitLayer(limit));
        let burst = move || with_default(log, || (0..100).for_each(|_| event()));
        thread::spawn(burst).join().unwrap();
        shown.load(Ordering::Relaxed)
    }

    #[test]
    fn a_burst_on_standard_error_may_be_ten_times_as_long() {
        let began = Instant::now();
        let other = shown_of_a_hundred(|| tracing::info!("other"));
        let said = shown_of_a_hundred(|| tracing::info!(target: STANDARD_ERROR, "said"));
        // Who was held up for a second may show as much again.
        let seconds = began.elapsed().as_secs() + 1;
        assert!((3..=3 * seconds).contains(&other), "{other}");
        assert!((30..=30 * seconds).contains(&said), "{said}");
    }

    #[test]
    fn a_program_that_floods_hides_nothing_of_another_one() {
        let began = Instant::now();
        let turn = AtomicU64::new(0);
        let shown = shown_of_a_hundred(move || {
            let is_other = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let listener = if is_other { "one" } else { "other" };
            tracing::info!(target: STANDARD_ERROR, listener, "said");
        });
        let seconds = began.elapsed().as_secs() + 1;
        assert!((60..=60 * seconds).contains(&shown), "{shown}");
    }
}
