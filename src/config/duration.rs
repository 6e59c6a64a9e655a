//! Durations as the operator writes them: an integer and one unit, so that nothing has to be
//! guessed.

use std::time::Duration;

/// The longest duration, a year: far above any use, and far below where a point in time overflows.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(8760 * 3600);

/// Units with their microseconds, the largest first, so that `format` takes the shortest text.
const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// `None` if it is no duration, or one above [`MAX_DURATION`].
pub(super) fn parse(written: &str) -> Option<Duration> {
    let digits = written.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = written.split_at(digits);
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let duration = Duration::from_micros(count.parse::<u64>().ok()?.checked_mul(*micros)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// The shortest text that `parse` reads back; what is finer than a microsecond is cut.
pub(super) fn format(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let micros = duration.as_micros();
    let fits = |(_, unit): &&(&str, u64)| micros.is_multiple_of(u128::from(*unit));
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("us", 1));
    format!("{}{name}", micros / u128::from(*unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written_back() {
        for (written, micros) in [
            ("7us", 7),
            ("1500ms", 1_500_000),
            ("30s", 30_000_000),
            ("5m", 300_000_000),
            ("2h", 7_200_000_000),
        ] {
            assert_eq!(parse(written), Some(Duration::from_micros(micros)));
            assert_eq!(format(Duration::from_micros(micros)), written);
        }
        assert_eq!(parse("0s"), Some(Duration::ZERO));
        assert_eq!(format(Duration::ZERO), "0s");
        assert_eq!(format(parse("60s").unwrap()), "1m");
    }

    #[test]
    fn anything_else_is_no_duration() {
        for written in
            ["", "5", "s", "5 s", " 5s", "+5s", "-5s", "5.0s", "1_0s", "5S", "5min", "5m30s", "٥s"]
        {
            assert_eq!(parse(written), None, "{written:?}");
        }
    }

    #[test]
    fn a_year_is_the_longest() {
        assert_eq!(parse("8760h"), Some(MAX_DURATION));
        assert_eq!(parse("8761h"), None);
        assert_eq!(parse("18446744073709551616us"), None);
        assert_eq!(parse("18446744073709551615h"), None);
    }
}
