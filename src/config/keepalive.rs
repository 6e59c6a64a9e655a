//! How the kernel finds out that a TCP client is gone, and the rules that its three clocks must
//! keep among themselves and with `send_timeout`.

use std::time::Duration;

use super::{Fault, Limits, duration};

pub(super) const IDLE: &str =
    "a string of whole seconds, such as \"60s\", up to \"32767s\"; \"0s\" = never";
pub(super) const INTERVAL: &str =
    "a string of whole seconds, such as \"10s\", from \"1s\" to \"32767s\"";
pub(super) const USER_TIMEOUT: &str = "\"auto\", or a string of an integer and one of us ms s m h, \
                                       such as \"90s\", up to \"596h\"; \"0s\" = never";

/// The kernel keeps both periods in seconds, and no more of them than this (tcp(7)).
const MOST_SECONDS: u64 = 32_767;

/// The kernel takes milliseconds in an int: 596 hours and a half.
const MOST_USER_TIMEOUT: Duration = Duration::from_secs(596 * 3600);

/// The kernel ends a connection whose peer's window stays closed for the user timeout, so it must
/// leave a `send_timeout` the time to do so first, with its own reason.
const AFTER_SEND_TIMEOUT: Duration = Duration::from_secs(10);

impl Limits {
    /// What TCP_USER_TIMEOUT is set to; `None` = left off.
    ///
    /// Where `user_timeout` is not set it is as short as may be: a smaller one than the keepalive's
    /// sum would override the count of probes (tcp(7)), and one that `send_timeout` cannot precede
    /// would end live clients with a closed window as dead ones. A `send_timeout` of never, or one
    /// longer than the kernel can count, leaves it off: keepalive still finds a client that is gone
    /// while nothing is unacknowledged.
    #[must_use]
    pub fn user_timeout(&self) -> Option<Duration> {
        let chosen = match self.user_timeout {
            Some(chosen) => chosen,
            None if self.send_timeout.is_zero() => Duration::ZERO,
            None => self.keepalive_sum().max(self.after_send_timeout()),
        };
        (!chosen.is_zero() && chosen <= MOST_USER_TIMEOUT).then_some(chosen)
    }

    /// From the last sign of a client to its end, if it answers no question.
    fn keepalive_sum(&self) -> Duration {
        if self.keepalive_idle.is_zero() {
            return Duration::ZERO;
        }
        let asking = self.keepalive_interval.saturating_mul(self.keepalive_probes);
        self.keepalive_idle.saturating_add(asking)
    }

    fn after_send_timeout(&self) -> Duration {
        self.send_timeout.saturating_add(AFTER_SEND_TIMEOUT)
    }

    pub(super) fn keepalive_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, value: Duration, problem: String| {
            let value = if key == "user_timeout" { duration::format(value) } else { format(value) };
            faults.push(Fault::of(format!("limits.{key}"), format!("\"{value}\" {problem}")));
        };
        if !is_whole_seconds(self.keepalive_idle) {
            fault("keepalive_idle", self.keepalive_idle, refused(IDLE));
        }
        if !is_whole_seconds(self.keepalive_interval) || self.keepalive_interval.is_zero() {
            fault("keepalive_interval", self.keepalive_interval, refused(INTERVAL));
        }
        if let Some(chosen) = self.user_timeout.filter(|chosen| !chosen.is_zero())
            && let Some(problem) = self.user_timeout_problem(chosen)
        {
            fault("user_timeout", chosen, problem);
        }
        faults
    }

    fn user_timeout_problem(&self, chosen: Duration) -> Option<String> {
        if chosen > MOST_USER_TIMEOUT {
            return Some(refused(USER_TIMEOUT));
        }
        if self.send_timeout.is_zero() {
            return Some(
                "would end clients that send_timeout = \"0s\" lets wait for ever; allowed: \
                 \"auto\", \"0s\", or a send_timeout"
                    .to_owned(),
            );
        }
        let (sum, after_send) = (self.keepalive_sum(), self.after_send_timeout());
        let (least, why) = if sum >= after_send {
            let (idle, interval) = (format(self.keepalive_idle), format(self.keepalive_interval));
            let probes = self.keepalive_probes;
            (sum, format!("keepalive_idle {idle} + {probes} × keepalive_interval {interval}"))
        } else {
            let send_timeout = duration::format(self.send_timeout);
            (after_send, format!("send_timeout {send_timeout} + 10s"))
        };
        (chosen < least).then(|| {
            let least = duration::format(least);
            format!(
                "is too short: it would act before {why}; \
                 allowed: \"auto\", \"0s\", from \"{least}\""
            )
        })
    }
}

fn refused(allowed: &str) -> String {
    format!("is out of range; allowed: {allowed}")
}

fn is_whole_seconds(period: Duration) -> bool {
    period.subsec_nanos() == 0 && period.as_secs() <= MOST_SECONDS
}

/// `None` if it is neither `"auto"` nor a duration.
pub(super) fn user_timeout(written: &str) -> Option<Option<Duration>> {
    match written {
        "auto" => Some(None),
        written => duration::parse(written).map(Some),
    }
}

/// In the kernel's own unit, where that is exact.
pub(super) fn format(period: Duration) -> String {
    match period.subsec_nanos() {
        0 => format!("{}s", period.as_secs()),
        _ => duration::format(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Limits), expected: &[&str]) {
        let config = Config { limits: limits(change), ..Config::default() };
        let found = config.validate().err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for (line, start) in found.lines().zip(expected) {
            assert!(line.starts_with(start), "{line}\nshould start with {start}");
        }
    }

    #[track_caller]
    fn check_auto(change: impl FnOnce(&mut Limits), expected: Option<Duration>) {
        let limits = limits(change);
        assert_eq!(limits.user_timeout(), expected);
        // What it picks must pass as if it had been written.
        let config =
            Config { limits: Limits { user_timeout: expected, ..limits }, ..Config::default() };
        assert!(config.validate().is_ok(), "{:?}", config.validate());
    }

    #[test]
    fn the_kernel_gives_up_after_the_send_timeout_and_never_before_keepalive() {
        check_auto(|_| (), Some(seconds(90)));
        check_auto(|limits| limits.send_timeout = Duration::from_millis(1), Some(seconds(90)));
        check_auto(|limits| limits.send_timeout = seconds(81), Some(seconds(91)));
        check_auto(|limits| limits.keepalive_idle = Duration::ZERO, Some(seconds(30)));
        check_auto(|limits| limits.keepalive_probes = 10, Some(seconds(160)));
    }

    #[test]
    fn the_kernel_never_gives_up_without_a_send_timeout() {
        check_auto(|limits| limits.send_timeout = Duration::ZERO, None);
        check_auto(|limits| limits.send_timeout = seconds(596 * 3600), None);
        check_auto(|limits| limits.send_timeout = seconds(595 * 3600), Some(seconds(2_142_010)));
    }

    #[test]
    fn a_user_timeout_that_overrides_the_probes_is_refused() {
        let at = |timeout| move |limits: &mut Limits| limits.user_timeout = Some(timeout);
        check(at(seconds(90)), &[]);
        check(
            at(Duration::from_millis(89_999)),
            &["limits.user_timeout: \"89999ms\" is too short: it would act before keepalive_idle \
               60s + 3 × keepalive_interval 10s; allowed: \"auto\", \"0s\", from \"90s\""],
        );
        check(at(Duration::ZERO), &[]);
    }

    #[test]
    fn a_user_timeout_that_comes_before_the_send_timeout_is_refused() {
        let at = |timeout, send_timeout| {
            move |limits: &mut Limits| {
                limits.user_timeout = Some(timeout);
                limits.send_timeout = send_timeout;
            }
        };
        check(at(seconds(130), seconds(120)), &[]);
        check(
            at(seconds(129), seconds(120)),
            &["limits.user_timeout: \"129s\" is too short: it would act before send_timeout 2m + \
               10s; allowed: \"auto\", \"0s\", from \"130s\""],
        );
        let never = at(seconds(129), Duration::ZERO);
        check(never, &["limits.user_timeout: \"129s\" would end clients that send_timeout"]);
        check(at(Duration::ZERO, Duration::ZERO), &[]);
    }

    #[test]
    fn what_the_kernel_cannot_keep_is_refused() {
        check(|limits| limits.keepalive_idle = seconds(32_767), &[]);
        for (idle, shown) in [(seconds(32_768), "32768s"), (Duration::from_millis(1500), "1500ms")]
        {
            let expected =
                format!("limits.keepalive_idle: \"{shown}\" is out of range; allowed: a");
            check(|limits| limits.keepalive_idle = idle, &[&expected]);
        }
        let zero = |limits: &mut Limits| limits.keepalive_interval = Duration::ZERO;
        check(zero, &["limits.keepalive_interval: \"0s\" is out of range; allowed: a string of"]);
        let none = |limits: &mut Limits| limits.keepalive_probes = 0;
        check(none, &["limits.keepalive_probes: 0 is out of range; allowed: an integer from 1"]);
        let long = |limits: &mut Limits| limits.user_timeout = Some(seconds(597 * 3600));
        check(long, &["limits.user_timeout: \"597h\" is out of range; allowed: \"auto\""]);
    }
}
