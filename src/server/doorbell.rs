//! Wakes a thread that waits in epoll, and only if it waits: a wake costs a system call, a look
//! costs nothing. The fences are what makes it safe; without them wakes are lost, on x86 too. It
//! remembers that it was rung, so that one look stands for a look into every inbox.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Ends the wait of one thread, or its next one.
pub(super) trait Wake {
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        // An eventfd refuses only at 2^64 - 2 unread wakes.
        let _ = mio::Waker::wake(self);
    }
}

/// Between one sleeper and any number of senders.
///
/// Sleeper: [`Doorbell::take_ring`], and if that says yes, a look into every inbox; then
/// [`Doorbell::lie_down`], [`Doorbell::has_rung`] once more, wait, [`Doorbell::get_up`]. Sender:
/// put the item into the inbox, then [`Doorbell::ring`]. Either the sleeper's look sees that it was
/// rung or the sender sees the sleeper, as both fences are in one order.
#[derive(Debug)]
pub(super) struct Doorbell<W> {
    rung: AtomicBool,
    asleep: AtomicBool,
    waker: W,
}

impl<W: Wake> Doorbell<W> {
    pub(super) fn new(waker: W) -> Self {
        Self { rung: AtomicBool::new(false), asleep: AtomicBool::new(false), waker }
    }

    /// Whether something may be in an inbox. The answer is yes once: what is left there must be
    /// followed by [`Doorbell::keep_ringing`].
    pub(super) fn take_ring(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::Acquire)
    }

    /// The sleeper did not take everything. It does not wipe out what a sender has said meanwhile.
    pub(super) fn keep_ringing(&self) {
        self.rung.swap(true, Ordering::Relaxed);
    }

    /// Whether [`Doorbell::take_ring`] would say yes.
    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Before the last look at whether it was rung.
    pub(super) fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// After the wait, or instead of it.
    pub(super) fn get_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// After something was put into an inbox.
    pub(super) fn ring(&self) {
        // Not a store: who takes the ring of a second sender must also see the first one's item.
        self.rung.swap(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}

#[cfg(all(test, loom))]
pub(super) mod interleavings {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// What an eventfd in an epoll set is: a wake before the wait ends the wait.
    #[derive(Default)]
    pub(in crate::server) struct Event {
        is_set: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        pub(in crate::server) fn wait(&self) {
            let mut is_set = self.is_set.lock().unwrap();
            while !*is_set {
                is_set = self.changed.wait(is_set).unwrap();
            }
            *is_set = false;
        }
    }

    impl Wake for Arc<Event> {
        fn wake(&self) {
            *self.is_set.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    /// An inbox as loom can see it, in the channel's place.
    trait Inbox: Send + Sync + 'static {
        fn of(senders: usize) -> Self;
        fn send(&self, item: usize);
        /// How many have been sent, as far as the sleeper can see.
        fn arrived(&self) -> usize;
    }

    /// A flag an item, set once and only looked at, so that nothing but the doorbell's own fences
    /// puts the two sides in order.
    struct Flags(Vec<AtomicBool>);

    impl Inbox for Flags {
        fn of(senders: usize) -> Self {
            Self((0..senders).map(|_| AtomicBool::new(false)).collect())
        }

        fn send(&self, item: usize) {
            self.0[item].store(true, Ordering::Relaxed);
        }

        fn arrived(&self) -> usize {
            self.0.iter().filter(|item| item.load(Ordering::Relaxed)).count()
        }
    }

    /// A queue behind a lock.
    struct Queue(Mutex<Vec<usize>>);

    impl Inbox for Queue {
        fn of(_: usize) -> Self {
            Self(Mutex::new(Vec::new()))
        }

        fn send(&self, item: usize) {
            self.0.lock().unwrap().push(item);
        }

        fn arrived(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    fn check<I: Inbox>(senders: usize, most_preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = most_preemptions;
        model.check(move || {
            let event = Arc::new(Event::default());
            let doorbell = Arc::new(Doorbell::new(event.clone()));
            let inbox = Arc::new(I::of(senders));
            let threads: Vec<_> = (0..senders)
                .map(|index| {
                    let (doorbell, inbox) = (doorbell.clone(), inbox.clone());
                    thread::spawn(move || {
                        inbox.send(index);
                        doorbell.ring();
                    })
                })
                .collect();
            let mut taken = 0;
            while taken < senders {
                doorbell.lie_down();
                if !doorbell.has_rung() {
                    // A lost wake would be a wait without end, which loom reports as a deadlock.
                    event.wait();
                }
                doorbell.get_up();
                if doorbell.take_ring() {
                    taken = inbox.arrived();
                }
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn no_wake_is_lost_between_one_sender_and_the_sleeper() {
        check::<Flags>(1, None);
        check::<Queue>(1, None);
    }

    #[test]
    fn no_wake_is_lost_between_two_senders_and_the_sleeper() {
        // All interleavings of three threads are too many; a lost wake needs but two preemptions.
        check::<Flags>(2, Some(2));
        check::<Queue>(2, Some(2));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::sync::Arc;
    use std::time::Duration;

    /// By hand, ten million rounds: TALKBACK_TEST_ROUNDS=10000000.
    #[test]
    fn a_real_channel_and_a_real_epoll_lose_no_wake() {
        let rounds = std::env::var("TALKBACK_TEST_ROUNDS").ok();
        let items: usize = rounds.map_or(200_000, |rounds| rounds.parse().unwrap());
        let mut poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let doorbell = Arc::new(Doorbell::new(waker));
        let (inbox, inbox_end) = bounded::<usize>(4);
        let sender = {
            let doorbell = doorbell.clone();
            std::thread::spawn(move || {
                for item in 0..items {
                    inbox.send(item).unwrap();
                    doorbell.ring();
                }
            })
        };
        let mut events = mio::Events::with_capacity(4);
        let mut taken = 0;
        while taken < items {
            while doorbell.take_ring() {
                taken += inbox_end.try_iter().count();
            }
            doorbell.lie_down();
            if !doorbell.has_rung() && taken < items {
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "a wake was lost after {taken} items");
            }
            doorbell.get_up();
        }
        sender.join().unwrap();
    }
}
