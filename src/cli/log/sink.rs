//! Where log lines go: a bounded queue and one thread that writes to standard error. Who logs never
//! waits; a line that the queue or standard error does not take is counted.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

/// Lines that may wait.
const QUEUE_LINES: usize = 8192;

/// Bytes of lines that may wait.
const QUEUE_BYTES: usize = 1 << 20;

/// What is longer is cut.
const LINE_BYTES: usize = 16 << 10;

/// From the first event that was left out until that is told.
const ANNOUNCE_AFTER: Duration = Duration::from_secs(1);

/// How long the end of the process waits for standard error: as a whole, and for each line.
const FLUSH: Duration = Duration::from_secs(1);
const FLUSH_LINE: Duration = Duration::from_millis(250);

/// Between two tries where standard error was made non-blocking by somebody who shares it.
const RETRY: Duration = Duration::from_millis(10);

/// What makes the lines that tell of events left out.
type Announce = Box<dyn Fn() + Send + Sync>;

/// The way to standard error.
#[derive(Clone)]
pub(crate) struct Sink {
    queue: Sender<Item>,
    shared: Arc<Shared>,
    /// One for each line that was taken, while the end waits.
    ticks: Receiver<()>,
}

enum Item {
    Line(Box<[u8]>),
    /// Only wakes the thread.
    Look,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    dropped: Arc<AtomicU64>,
    /// Something was left out and is not told yet.
    is_announcement_due: AtomicBool,
    announce: OnceLock<Announce>,
    /// Made by the thread itself, for which the queue may have no room.
    announcements: Mutex<Vec<Box<[u8]>>>,
    is_ending: AtomicBool,
    is_flushed: AtomicBool,
}

impl Sink {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_on(Stderr)
    }

    fn start_on(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = bounded(QUEUE_LINES);
        // One is enough: whoever waits looks at the flags, too.
        let (tick, ticks) = bounded(1);
        let shared = Arc::new(Shared::default());
        let writing = Writing { out, is_mid_line: false, items, tick, shared: shared.clone() };
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.run())?;
        Ok(Self { queue, shared, ticks })
    }

    /// Queues one line, which ends with its newline.
    pub(crate) fn push(&self, line: &[u8]) {
        let line = cut(line);
        let bytes = line.len();
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = before + bytes <= QUEUE_BYTES;
        if !has_room || self.queue.try_send(Item::Line(line)).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.drop_line();
        }
    }

    /// Queues a text of our own as it is, a line or more.
    pub(crate) fn say(&self, text: &str) {
        for line in text.lines() {
            self.push(format!("{line}\n").as_bytes());
        }
    }

    /// Lines that were not written.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.shared.dropped.clone()
    }

    /// Says who tells of events left out: called in the sink's thread, which alone may use
    /// [`Sink::push_announcement`].
    pub(crate) fn announce_by(&self, announce: impl Fn() + Send + Sync + 'static) {
        // Once a process.
        let _ = self.shared.announce.set(Box::new(announce));
    }

    /// Writes a line as soon as the one at hand is done.
    pub(crate) fn push_announcement(&self, line: &[u8]) {
        self.shared.announcements.lock().push(cut(line));
    }

    /// An event was left out: that is told within a second or so.
    pub(crate) fn request_announcement(&self) {
        let is_due = &self.shared.is_announcement_due;
        if !is_due.load(Ordering::SeqCst) && !is_due.swap(true, Ordering::SeqCst) {
            // A thread that has a full queue looks after the next line anyway.
            let _ = self.queue.try_send(Item::Look);
        }
    }

    /// Waits until everything queued is written: not for long, and hardly if nothing moves.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + FLUSH;
        self.shared.is_flushed.store(false, Ordering::SeqCst);
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let _ = self.queue.try_send(Item::Look);
        while !self.shared.is_flushed.load(Ordering::SeqCst) {
            let left = until.saturating_duration_since(Instant::now()).min(FLUSH_LINE);
            if left.is_zero() || self.ticks.recv_timeout(left).is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The thread's own state.
struct Writing<W> {
    out: W,
    /// An error cut a line off.
    is_mid_line: bool,
    items: Receiver<Item>,
    tick: Sender<()>,
    shared: Arc<Shared>,
}

impl<W: Write> Writing<W> {
    fn run(mut self) {
        let mut announce_at = None;
        loop {
            let is_due = &self.shared.is_announcement_due;
            if announce_at.is_none() && is_due.swap(false, Ordering::SeqCst) {
                announce_at = Some(Instant::now() + ANNOUNCE_AFTER);
            }
            let item = match announce_at {
                Some(at) => self.items.recv_deadline(at),
                None => self.items.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match item {
                Ok(Item::Line(line)) => {
                    self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    self.write_line(&line);
                }
                Ok(Item::Look) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let is_ending = self.shared.is_ending.load(Ordering::SeqCst);
            let is_last = is_ending && self.items.is_empty();
            if is_last || announce_at.is_some_and(|at| Instant::now() >= at) {
                announce_at = None;
                self.announce();
            }
            if is_ending {
                self.shared.is_flushed.store(is_last, Ordering::SeqCst);
                // Full: one is on its way already.
                let _ = self.tick.try_send(());
            }
        }
    }

    fn announce(&mut self) {
        let Some(announce) = self.shared.announce.get() else { return };
        announce();
        let lines = std::mem::take(&mut *self.shared.announcements.lock());
        for line in lines {
            self.write_line(&line);
        }
    }

    /// A line is written as a whole, or counted.
    fn write_line(&mut self, line: &[u8]) {
        let is_written = (!self.is_mid_line || self.write_all(b"\n")) && self.write_all(line);
        if !is_written {
            self.shared.drop_line();
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return false,
                Ok(length) => {
                    self.is_mid_line = bytes[length - 1] != b'\n';
                    bytes = &bytes[length..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(_) => return false,
            }
        }
        true
    }
}

/// Standard error without the lock and the leniency of std's, which takes a closed one for a good
/// one.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line, at most [`LINE_BYTES`] of it. What is cut off is marked.
fn cut(line: &[u8]) -> Box<[u8]> {
    const MARK: &str = "…\n";
    if line.len() <= LINE_BYTES {
        return line.into();
    }
    let mut end = LINE_BYTES - MARK.len();
    // Not within a character.
    while line[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&line[..end], MARK.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what it is told to, once for each write; then everything.
    #[derive(Clone, Default)]
    struct Script {
        steps: Arc<Mutex<Vec<io::Result<usize>>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Script {
        fn of(steps: impl IntoIterator<Item = io::Result<usize>>) -> Self {
            let mut steps: Vec<_> = steps.into_iter().collect();
            steps.reverse();
            Self { steps: Arc::new(Mutex::new(steps)), ..Self::default() }
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = match self.steps.lock().pop() {
                Some(step) => step?.min(bytes.len()),
                None => bytes.len(),
            };
            self.written.lock().extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What becomes of three lines where the first writes end like that, and how many are counted.
    #[track_caller]
    fn check(steps: impl IntoIterator<Item = io::Result<usize>>, expected: &str, dropped: u64) {
        let script = Script::of(steps);
        let sink = Sink::start_on(script.clone()).expect("a thread can be had");
        sink.say("first\nsecond\nthird");
        sink.flush();
        assert_eq!(String::from_utf8_lossy(&script.written.lock()), expected);
        assert_eq!(sink.dropped().load(Ordering::Relaxed), dropped);
    }

    fn full() -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_line_that_is_not_taken_is_counted_and_the_next_is_tried() {
        check([], "first\nsecond\nthird\n", 0);
        check([full()], "second\nthird\n", 1);
        check([full(), full()], "third\n", 2);
        check([full(), full(), full()], "", 3);
        check([Ok(0)], "second\nthird\n", 1);
    }

    #[test]
    fn a_line_is_finished_where_it_was_taken_in_parts() {
        check([Ok(1), Ok(2), Ok(1)], "first\nsecond\nthird\n", 0);
    }

    #[test]
    fn behind_a_line_cut_off_by_an_error_a_new_one_begins() {
        check([Ok(3), full()], "fir\nsecond\nthird\n", 1);
        check([Ok(3), full(), full(), Ok(1), Ok(2)], "fir\nthird\n", 2);
    }

    #[test]
    fn an_interruption_or_a_pipe_that_is_full_for_a_moment_costs_no_line() {
        let moment = || Err(ErrorKind::WouldBlock.into());
        let interrupted = Err(ErrorKind::Interrupted.into());
        check([interrupted, Ok(2), moment(), moment()], "first\nsecond\nthird\n", 0);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        for length in LINE_BYTES - 8..LINE_BYTES + 8 {
            let line = "é".repeat(length / 2) + &"x".repeat(length % 2) + "\n";
            let cut = cut(line.as_bytes());
            assert!(cut.len() <= LINE_BYTES);
            let text = std::str::from_utf8(&cut).expect("no character is cut");
            assert_eq!(text == line, line.len() <= LINE_BYTES, "{length}");
            assert!(text.ends_with('\n'));
        }
    }

    /// Hangs in its first write until the test lets go of the other end.
    struct Hanging(Receiver<()>);

    impl Write for Hanging {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Whether it is told or let go does not matter.
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_hangs_takes_a_bounded_number_of_lines_and_bytes() {
        for line in [b"short\n".to_vec(), [b'x'; LINE_BYTES].to_vec()] {
            let (let_go, hanging) = bounded(0);
            let sink = Sink::start_on(Hanging(hanging)).expect("a thread can be had");
            let room = QUEUE_LINES.min(QUEUE_BYTES / line.len());
            for _ in 0..room + 100 {
                sink.push(&line);
            }
            let dropped = sink.dropped().load(Ordering::Relaxed);
            // The thread may have taken one, or one fewer.
            assert!((99..=100).contains(&dropped), "{dropped}");
            let began = Instant::now();
            sink.flush();
            assert!((FLUSH_LINE..FLUSH).contains(&began.elapsed()), "{:?}", began.elapsed());
            drop(let_go);
        }
    }

    #[test]
    fn announcements_come_by_themselves_and_at_the_end() {
        let script = Script::default();
        let sink = Sink::start_on(script.clone()).expect("a thread can be had");
        let (tell, told) = bounded(2);
        let announcing = sink.clone();
        sink.announce_by(move || {
            announcing.push_announcement(b"told\n");
            tell.send(()).expect("the test takes it");
        });
        let began = Instant::now();
        sink.request_announcement();
        told.recv_timeout(20 * ANNOUNCE_AFTER).expect("it comes by itself");
        assert!(began.elapsed() >= ANNOUNCE_AFTER);
        sink.request_announcement();
        sink.say("last");
        sink.flush();
        assert_eq!(String::from_utf8_lossy(&script.written.lock()), "told\nlast\ntold\n");
    }
}
