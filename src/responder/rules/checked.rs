//! Matchers that were checked: which texts fit a rule. Nothing is known here of how rules are
//! found, covered by one another or taken apart; whoever does that knows these.

use super::fold::is_caseless;

/// A matcher that was checked.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Any,
    Equals(Literal),
    Prefix(Literal),
    Contains(Literal),
    /// By its place among the patterns.
    Matches(usize),
}

/// A plain text to compare with.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    pub(super) text: String,
    /// Only where it has characters of another case.
    pub(super) ignores_case: bool,
}

impl Literal {
    pub(super) fn new(text: &str, ignore_case: bool) -> Self {
        Self { text: text.to_owned(), ignores_case: ignore_case && !is_caseless(text) }
    }
}

/// The texts of literals that ignore case.
pub(super) fn ignoring<'t>(
    tests: impl IntoIterator<Item = &'t Test>,
) -> impl Iterator<Item = &'t str> {
    tests.into_iter().filter_map(|test| match test {
        Test::Equals(literal) | Test::Prefix(literal) | Test::Contains(literal) => {
            literal.ignores_case.then_some(literal.text.as_str())
        }
        Test::Any | Test::Matches(_) => None,
    })
}
