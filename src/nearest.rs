//! The known word that a mistyped one was probably meant to be.

/// Shorter beginnings are nobody's.
const LEAST_BEGINNING: usize = 3;

/// The candidate with the fewest typing errors, if they are few enough for its length; else the one
/// that begins like this.
pub(crate) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written: Vec<char> = written.to_lowercase().chars().take(64).collect();
    candidates
        .into_iter()
        .filter_map(|candidate| Some((strangeness(&written, candidate)?, candidate)))
        .min_by_key(|(strangeness, _)| *strangeness)
        .map(|(_, candidate)| candidate)
}

fn strangeness(written: &[char], candidate: &str) -> Option<usize> {
    let most = (candidate.len() / 3).clamp(1, 3);
    let distance = distance(written, candidate);
    let is_beginning =
        written.len() >= LEAST_BEGINNING && candidate.starts_with(&String::from_iter(written));
    match distance <= most {
        true => Some(distance),
        false if is_beginning => Some(distance.max(most + 1)),
        false => None,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(written: &[char], candidate: &str) -> usize {
    let wanted: Vec<char> = candidate.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=wanted.len()).collect();
    for (i, &have) in written.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &want) in wanted.iter().enumerate() {
            let mut cost =
                (above[j] + usize::from(have != want)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && have == wanted[j - 1] && written[i - 1] == want {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[wanted.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["idle_timeout", "send_timeout", "name", "workers"];

    #[test]
    fn a_typing_error_finds_its_word() {
        for (written, meant) in [
            ("idle_timeut", "idle_timeout"),
            ("idle-timeout", "idle_timeout"),
            ("Send_Timeout", "send_timeout"),
            ("naem", "name"),
            ("worker", "workers"),
            ("idle", "idle_timeout"),
        ] {
            assert_eq!(nearest(written, KNOWN), Some(meant));
        }
    }

    #[test]
    fn a_word_that_resembles_nothing_finds_none() {
        for written in ["", "x", "timeout", "colour", &"n".repeat(10_000)] {
            assert_eq!(nearest(written, KNOWN), None, "{written}");
        }
    }
}
