//! Upper and lower case as one: Unicode's simple case folding, a character for a character, and the
//! same that a regular expression with `(?i)` uses. So a text and its folding have as many
//! characters, if not as many bytes.

use std::collections::BTreeMap;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

/// Folds texts to compare them with some literals: only what these hold has to be known. ASCII
/// becomes lower case without a look at the table.
#[derive(Debug, Default)]
pub(super) struct Folding {
    /// In the order of the first: characters beyond ASCII that equal one in a literal, and what
    /// they all become.
    table: Box<[(char, char)]>,
}

impl Folding {
    pub(super) fn of<'a>(literals: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = BTreeMap::new();
        let mut seen: Vec<char> = literals.into_iter().flat_map(str::chars).collect();
        seen.sort_unstable();
        seen.dedup();
        for character in seen {
            let alike = alike(character);
            let ascii = alike.iter().find(|alike| alike.is_ascii());
            // Each of them gives the same, so that it does not matter which of them were met.
            let one = ascii.unwrap_or(&alike[0]).to_ascii_lowercase();
            table.extend(alike.into_iter().filter(|c| !c.is_ascii()).map(|c| (c, one)));
        }
        Self { table: table.into_iter().collect() }
    }

    /// The folding of `text`, in the place of what `folded` held.
    pub(super) fn fold(&self, text: &str, folded: &mut String) {
        folded.clear();
        if text.is_ascii() {
            folded.push_str(text);
            folded.make_ascii_lowercase();
        } else {
            folded.extend(text.chars().map(|character| self.character(character)));
        }
    }

    pub(super) fn folded(&self, text: &str) -> String {
        let mut folded = String::new();
        self.fold(text, &mut folded);
        folded
    }

    pub(super) fn character(&self, character: char) -> char {
        if character.is_ascii() {
            return character.to_ascii_lowercase();
        }
        match self.table.binary_search_by_key(&character, |(from, _)| *from) {
            Ok(at) => self.table[at].1,
            Err(_) => character,
        }
    }
}

/// Whether no character of the text has another case.
pub(super) fn is_caseless(text: &str) -> bool {
    text.chars().all(|character| alike(character).len() == 1)
}

/// Whether each character of a pattern stands there in all of its cases.
pub(super) fn ignores_case(pattern: &Hir) -> bool {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => str::from_utf8(&literal.0).is_ok_and(is_caseless),
        HirKind::Class(class) => {
            let class = match class {
                Class::Unicode(class) => Some(class.clone()),
                Class::Bytes(class) => class.to_unicode_class(),
            };
            class.is_some_and(|class| {
                let mut folded = class.clone();
                folded.case_fold_simple();
                folded.ranges() == class.ranges()
            })
        }
        HirKind::Repetition(repetition) => ignores_case(&repetition.sub),
        HirKind::Capture(capture) => ignores_case(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(ignores_case),
    }
}

/// The bytes of the shortest character that equals this one when case is ignored.
pub(super) fn shortest(character: char) -> usize {
    let lengths = alike(character).into_iter().map(char::len_utf8);
    lengths.min().unwrap_or(character.len_utf8())
}

/// The characters that equal this one when case is ignored, with itself, in order.
fn alike(character: char) -> Vec<char> {
    if character.is_ascii() && !character.is_ascii_alphabetic() {
        return vec![character];
    }
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(character, character)]);
    class.case_fold_simple();
    class.iter().flat_map(|range| range.start()..=range.end()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(literal: &str, text: &str, is_equal: bool) {
        let folding = Folding::of([literal]);
        let equal = folding.folded(literal) == folding.folded(text);
        assert_eq!(equal, is_equal, "{literal:?} and {text:?}");
        assert_eq!(text.chars().count(), folding.folded(text).chars().count());
    }

    #[test]
    fn characters_that_differ_in_case_alone_are_equal() {
        for (literal, text) in [
            ("Volt?", "vOLT?"),
            ("straße", "STRAẞE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("привет", "ПРИВЕТ"),
            // The Kelvin sign and the long s fold into ASCII.
            ("kiss", "\u{212A}i\u{17F}\u{17F}"),
            ("\u{212A}", "k"),
            ("\u{1C4}", "\u{1C5}"),
        ] {
            check(literal, text, true);
            check(text, literal, true);
        }
    }

    #[test]
    fn simple_folding_makes_no_character_two_and_knows_no_language() {
        for (literal, text) in [("ß", "ss"), ("İ", "i"), ("ı", "I"), ("é", "e"), ("[", "{")] {
            check(literal, text, false);
            check(text, literal, false);
        }
    }

    #[test]
    fn digits_signs_and_scripts_without_case_are_caseless() {
        for text in ["", "*1;?\n", "世界", "١"] {
            assert!(is_caseless(text), "{text}");
        }
        for text in ["1a", "ß", "\u{17F}", "ǆ"] {
            assert!(!is_caseless(text), "{text}");
        }
    }
}
