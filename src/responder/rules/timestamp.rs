//! A moment as RFC 3339 writes it.

use std::fmt;
use std::time::Duration;

/// Shows a time since 1970 as `2026-11-22T22:30:05.250Z`: UTC, to the millisecond. Leap seconds
/// are not counted, as in Unix time.
pub(super) struct Timestamp(pub(super) Duration);

const SECONDS_A_DAY: u64 = 86_400;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / SECONDS_A_DAY);
        let of_day = seconds % SECONDS_A_DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let millis = self.0.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of the so many-th day since 1 January 1970.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March: the leap day is then the last of its year. 400 of them, an era,
    // have 146,097 days and begin with 1 March of a year that 400 divides, such as 0; from there to
    // 1 January 1970 it is 719,468 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // From March on, five months have 153 days, again and again.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: u64, shown: &str) {
        let time = Duration::from_secs(seconds) + Duration::from_micros(250_999);
        assert_eq!(Timestamp(time).to_string(), shown);
    }

    #[test]
    fn moments_are_what_other_clocks_call_them() {
        // By `date -u -d @SECONDS`.
        check(0, "1970-01-01T00:00:00.250Z");
        check(951_782_399, "2000-02-28T23:59:59.250Z");
        check(951_782_400, "2000-02-29T00:00:00.250Z");
        check(1_709_164_800, "2024-02-29T00:00:00.250Z");
        check(1_795_386_605, "2026-11-22T22:30:05.250Z");
        check(4_107_542_400, "2100-03-01T00:00:00.250Z");
        check(32_503_679_999, "2999-12-31T23:59:59.250Z");
    }

    #[test]
    fn each_day_of_a_thousand_years_follows_the_one_before() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..365_243 {
            assert_eq!(date(days), (year, month, day));
            let last = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
