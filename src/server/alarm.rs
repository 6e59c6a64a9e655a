//! Ends a worker's wait at a time. A timeout given to epoll_wait(2) makes the kernel set up a timer
//! and take it down at every single wait; this one stays set from wait to wait, as coarse deadlines
//! do not move with each message.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const SOON: Duration = Duration::from_nanos(1);

/// A timer in the worker's epoll set.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    /// When it goes off, or did; `None`: never.
    at: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set; its event bears `token`.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, at: None })
    }

    /// A wait that begins at `now` ends at `until`, which is later; `None`: not by this. It need
    /// not be read: on edges each expiry is an event of its own.
    #[inline]
    pub(super) fn set(&mut self, until: Option<Instant>, now: Instant) {
        if self.at != until {
            self.change(until, now);
        }
    }

    #[cold]
    fn change(&mut self, until: Option<Instant>, now: Instant) {
        // Zero would switch it off.
        let left = |until: Instant| until.saturating_duration_since(now).max(SOON);
        let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let it_value = until.map_or(Timespec::default(), |at| left(at).try_into().unwrap_or(never));
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)
            .expect("the timer is ours and the time is one");
        self.at = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    const ALARM: Token = Token(7);

    /// Waits until it goes off, for as long as it takes.
    fn rings(poll: &mut Poll) -> Instant {
        let mut events = Events::with_capacity(1);
        while events.is_empty() {
            poll.poll(&mut events, None).unwrap();
        }
        assert!(events.iter().all(|event| event.token() == ALARM));
        Instant::now()
    }

    #[test]
    fn a_wait_ends_at_its_time_and_not_before_again_and_again() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), ALARM).unwrap();
        for _ in 0..3 {
            let now = Instant::now();
            let until = now + Duration::from_millis(5);
            alarm.set(Some(until), now);
            assert!(rings(&mut poll) >= until);
        }
    }

    #[test]
    fn the_time_that_was_set_last_counts() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), ALARM).unwrap();
        let seconds = Duration::from_secs;
        for first in [None, Some(Duration::from_millis(5)), Some(seconds(3600))] {
            let now = Instant::now();
            let later = now + Duration::from_millis(10);
            alarm.set(first.map(|first| now + first), now);
            alarm.set(Some(later), now);
            assert!(rings(&mut poll) >= later);
        }
    }

    #[test]
    fn one_that_was_switched_off_does_not_go_off() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), ALARM).unwrap();
        let now = Instant::now();
        alarm.set(Some(now + Duration::from_millis(1)), now);
        alarm.set(None, now);
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn eternity_is_a_time_too() {
        let poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), ALARM).unwrap();
        let now = Instant::now();
        alarm.set(Some(now + Duration::from_secs(1 << 40)), now);
    }
}
