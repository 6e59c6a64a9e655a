//! How often accept(2) may be called: `max_accept_rate` with its burst. Pure: the time comes in as
//! a value.

use std::time::{Duration, Instant};

/// A bucket of a burst's size that fills at the rate, kept as the one point in time at which it
/// will be full again.
#[derive(Debug)]
pub(super) struct Pace {
    /// From one connection to the next, at the rate.
    period: Duration,
    /// How far ahead of the rate a burst may get.
    ahead: Duration,
    full_at: Instant,
}

impl Pace {
    /// `None` for a rate of 0, which is no limit; a burst of 0 is one second's.
    pub(super) fn new(rate: u32, burst: u32, now: Instant) -> Option<Self> {
        if rate == 0 {
            return None;
        }
        // Rounded up: the rate is a most.
        let period = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(rate)));
        let burst = if burst == 0 { rate } else { burst };
        Some(Self { period, ahead: period.saturating_mul(burst - 1), full_at: now })
    }

    /// When the next connection is allowed; `None` = now.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        let until = self.full_at.checked_sub(self.ahead)?;
        (until > now).then_some(until)
    }

    /// A connection was accepted.
    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.period;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many are let through in `time` if somebody always waits.
    fn accepted(pace: &mut Pace, from: Instant, time: Duration) -> u32 {
        let mut now = from;
        let mut count = 0;
        while now < from + time {
            match pace.held_until(now) {
                Some(until) => now = until,
                None => {
                    pace.take(now);
                    count += 1;
                }
            }
        }
        count
    }

    #[track_caller]
    fn check(rate: u32, burst: u32, first_second: u32, next_second: u32) {
        let now = Instant::now();
        let mut pace = Pace::new(rate, burst, now).expect("a limit");
        assert_eq!(accepted(&mut pace, now, SECOND), first_second);
        assert_eq!(accepted(&mut pace, now + SECOND, SECOND), next_second);
        // A quiet time as long as the burst, and it is there again, no matter how long it was.
        let later = now + 1000 * SECOND;
        assert_eq!(accepted(&mut pace, later, SECOND), first_second);
    }

    #[test]
    fn a_burst_then_the_rate() {
        check(10, 1, 10, 10);
        check(10, 5, 14, 10);
        check(10, 0, 19, 10);
        check(1, 0, 1, 1);
        check(1_000_000, 1, 1_000_000, 1_000_000);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_never_exceeded() {
        let now = Instant::now();
        let mut pace = Pace::new(3, 1, now).expect("a limit");
        assert_eq!(accepted(&mut pace, now, 1000 * SECOND), 3000);
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Pace::new(0, 7, Instant::now()).is_none());
    }
}
