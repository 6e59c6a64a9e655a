//! Patterns that match no text. What is found is so; of the looks only those are asked that see
//! where a text begins and ends.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Why no text fits the pattern, if that is so.
pub(super) fn objection(pattern: &Hir) -> Option<&'static str> {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) => None,
        HirKind::Class(class) => {
            let is_empty = match class {
                Class::Unicode(class) => class.ranges().is_empty(),
                Class::Bytes(class) => class.ranges().is_empty(),
            };
            is_empty.then_some("never fits: a class in it has no character")
        }
        HirKind::Repetition(repetition) if repetition.min == 0 => None,
        HirKind::Repetition(repetition) => {
            let again = || beside(&repetition.sub, &repetition.sub);
            objection(&repetition.sub).or_else(|| again().filter(|_| repetition.min > 1))
        }
        HirKind::Capture(capture) => objection(&capture.sub),
        HirKind::Concat(parts) => parts.iter().find_map(objection).or_else(|| in_a_row(parts)),
        HirKind::Alternation(parts) => {
            let mut all = parts.iter().map(objection);
            let first = all.next()??;
            all.all(|other| other.is_some()).then_some(first)
        }
    }
}

fn in_a_row(parts: &[Hir]) -> Option<&'static str> {
    let (first, last) = (parts.iter().position(has_width)?, parts.iter().rposition(has_width)?);
    let before = parts[..last].iter().find_map(|part| beside(part, &parts[last]));
    before.or_else(|| parts[first + 1..].iter().find_map(|part| beside(&parts[first], part)))
}

/// What is wrong where the second one stands somewhere behind the first.
fn beside(first: &Hir, second: &Hir) -> Option<&'static str> {
    if has_width(second) && first.properties().look_set_suffix().contains(Look::End) {
        return Some(
            "never fits: something would have to stand behind the text's end, $; (?m) makes it \
             the end of a line",
        );
    }
    if has_width(first) && second.properties().look_set_prefix().contains(Look::Start) {
        return Some(
            "never fits: something would have to stand before the text's beginning, ^; (?m) \
             makes it the beginning of a line",
        );
    }
    None
}

/// Whether whatever it matches has a character.
fn has_width(part: &Hir) -> bool {
    part.properties().minimum_len().is_some_and(|length| length > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::rules::pattern::parse;

    #[track_caller]
    fn check(patterns: &[&str], said: &str) {
        for pattern in patterns {
            let found = objection(&parse(pattern, false).unwrap()).unwrap_or_default();
            assert!(found.contains(said) && found.is_empty() == said.is_empty(), "{pattern}");
        }
    }

    #[test]
    fn what_needs_a_character_of_an_empty_class_matches_nothing() {
        let patterns = [r"[^\s\S]", "a[a&&b]", r"(x|y[^\d\D])[^\s\S]+", r"[^\s\S]x|[a&&b]{2}"];
        check(&patterns, "a class in it has no character");
    }

    #[test]
    fn what_stands_outside_of_the_text_matches_nothing() {
        check(&["a^b", "[ab]^", "(a)(^b|^c)", "x+(?:y?^)?z*^", "(?:^a){2}"], "beginning, ^");
        check(&["x$y", "$x", "(a$)(b)", "x$z*y", "(?:a$){2,}", r"a\z\n"], "end, $");
        check(&["a$b|c^d", "x(?:a$b|c$d)"], "never fits");
    }

    #[test]
    fn what_may_match_something_is_taken() {
        let patterns = [
            "^a$",
            "^^a?$$",
            "$^",
            "x*^a",
            "a$b*",
            r"[^\s\S]*a",
            r"a|[^\s\S]",
            "a^b|c",
            "(?:a^)?b",
            "(?m)a$\n^b",
            "(?:^a)+",
            "(?:a|^)(?:b|^)",
            "(^a|b$)c?",
        ];
        check(&patterns, "");
    }
}
