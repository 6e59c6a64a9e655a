//! Wakes a thread that waits in epoll, and only if it waits: a wake costs a system call, a look
//! costs nothing. The fences are what makes it safe; without them wakes are lost, on x86 too.

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
/// Sleeper: [`Doorbell::lie_down`], look into every inbox once more, wait, [`Doorbell::get_up`].
/// Sender: put the item into the inbox, then [`Doorbell::ring`]. Either the sleeper's look sees the
/// item or the sender sees the sleeper, as both fences are in one order.
#[derive(Debug)]
pub(super) struct Doorbell<W> {
    asleep: AtomicBool,
    waker: W,
}

impl<W: Wake> Doorbell<W> {
    pub(super) fn new(waker: W) -> Self {
        Self { asleep: AtomicBool::new(false), waker }
    }

    /// Before the last look into the inboxes.
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
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.waker.wake();
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// What an eventfd in an epoll set is: a wake before the wait ends the wait.
    #[derive(Default)]
    struct Event {
        is_set: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn wait(&self) {
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

    /// An inbox as loom can see it: a flag an item, set once and only looked at, so that nothing
    /// but the doorbell's own fences puts the two sides in order.
    fn check(senders: usize, most_preemptions: Option<usize>) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = most_preemptions;
        model.check(move || {
            let event = Arc::new(Event::default());
            let doorbell = Arc::new(Doorbell::new(event.clone()));
            let inbox: Arc<Vec<AtomicBool>> =
                Arc::new((0..senders).map(|_| AtomicBool::new(false)).collect());
            let threads: Vec<_> = (0..senders)
                .map(|index| {
                    let (doorbell, inbox) = (doorbell.clone(), inbox.clone());
                    thread::spawn(move || {
                        inbox[index].store(true, Ordering::Relaxed);
                        doorbell.ring();
                    })
                })
                .collect();
            let arrived = || inbox.iter().filter(|item| item.load(Ordering::Relaxed)).count();
            let mut taken = arrived();
            while taken < senders {
                doorbell.lie_down();
                if arrived() == taken {
                    // A lost wake would be a wait without end, which loom reports as a deadlock.
                    event.wait();
                }
                doorbell.get_up();
                taken = arrived();
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn no_wake_is_lost_between_one_sender_and_the_sleeper() {
        check(1, None);
    }

    #[test]
    fn no_wake_is_lost_between_two_senders_and_the_sleeper() {
        // All interleavings of three threads are too many; a lost wake needs but two preemptions.
        check(2, Some(2));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_real_channel_and_a_real_epoll_lose_no_wake() {
        const ITEMS: usize = 200_000;
        let mut poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let doorbell = Arc::new(Doorbell::new(waker));
        let (inbox, items) = bounded::<usize>(4);
        let sender = {
            let doorbell = doorbell.clone();
            std::thread::spawn(move || {
                for item in 0..ITEMS {
                    inbox.send(item).unwrap();
                    doorbell.ring();
                }
            })
        };
        let mut events = mio::Events::with_capacity(4);
        let mut taken = 0;
        while taken < ITEMS {
            while items.try_recv().is_ok() {
                taken += 1;
            }
            doorbell.lie_down();
            if items.is_empty() && taken < ITEMS {
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "a wake was lost after {taken} items");
            }
            doorbell.get_up();
        }
        sender.join().unwrap();
    }
}
