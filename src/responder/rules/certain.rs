//! The texts that stand in whatever a pattern matches, as far as its own words tell. It may find
//! fewer than there are, and none that is not so.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::checked::Literal;
use super::fold::Folding;

/// What is looked at of a pattern; what is longer counts as unknown from there on.
const MAX_PIECES: usize = 4096;
/// A character in all of its cases is one; what may be more characters is not looked at.
const MAX_ALIKE: usize = 8;

/// A text that every match of a pattern has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certain {
    pub(super) text: String,
    /// Whether the message begins with it.
    pub(super) at_start: bool,
    /// Whether it is the whole message.
    pub(super) is_whole: bool,
}

/// Those of one pattern, as they are written and as they are folded.
#[derive(Debug, Default)]
pub(super) struct Certainties {
    pub(super) exact: Vec<Certain>,
    /// Each stands in the folding of the message.
    pub(super) folded: Vec<Certain>,
}

/// What comes next in a match.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// One of these characters; there is at least one.
    One(Vec<char>),
    Unknown,
}

impl Certainties {
    /// Those of a plain text that stands at the start, or is the whole of what it matches.
    pub(super) fn of_literal(
        literal: &Literal,
        at_start: bool,
        is_whole: bool,
        folding: &Folding,
    ) -> Self {
        let certain = |text| vec![Certain { text, at_start, is_whole }];
        let exact = if literal.ignores_case { Vec::new() } else { certain(literal.text.clone()) };
        Self { exact, folded: certain(folding.folded(&literal.text)) }
    }

    pub(super) fn of(hir: &Hir, folding: &Folding) -> Self {
        let pieces = pieces(hir);
        let properties = hir.properties();
        let at_start = properties.look_set_prefix().contains(Look::Start);
        let at_end = properties.look_set_suffix().contains(Look::End);
        let exact = |one: &[char]| match one {
            [character] => Some(*character),
            _ => None,
        };
        let folded = |one: &[char]| {
            let (first, others) = one.split_first()?;
            let first = folding.character(*first);
            others.iter().all(|other| folding.character(*other) == first).then_some(first)
        };
        Self {
            exact: runs(&pieces, at_start, at_end, exact),
            folded: runs(&pieces, at_start, at_end, folded),
        }
    }
}

/// The texts between what is not known or, by `character`, not one character.
fn runs(
    pieces: &[Piece],
    at_start: bool,
    at_end: bool,
    character: impl Fn(&[char]) -> Option<char>,
) -> Vec<Certain> {
    let read = pieces.iter().map(|piece| match piece {
        Piece::One(one) => character(one),
        Piece::Unknown => None,
    });
    let read: Vec<Option<char>> = read.collect();
    let mut found = Vec::new();
    let mut start = 0;
    for run in read.split(Option::is_none) {
        let text: String = run.iter().flatten().collect();
        let at_start = at_start && start == 0;
        let is_whole = at_start && at_end && run.len() == read.len();
        // The empty message is one too.
        if !text.is_empty() || is_whole {
            found.push(Certain { text, at_start, is_whole });
        }
        start += run.len() + 1;
    }
    found
}

/// Looks take no place: what stands on their two sides stands side by side.
fn pieces(hir: &Hir) -> Vec<Piece> {
    let pieces = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => match str::from_utf8(&literal.0) {
            Ok(text) => text.chars().map(|character| Piece::One(vec![character])).collect(),
            Err(_) => vec![Piece::Unknown],
        },
        HirKind::Class(class) => vec![one_of(class)],
        HirKind::Capture(capture) => pieces(&capture.sub),
        HirKind::Repetition(repetition) => repeated(repetition),
        HirKind::Concat(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(pieces(part));
                if all.len() > MAX_PIECES {
                    break;
                }
            }
            all
        }
        HirKind::Alternation(parts) => alternated(parts),
    };
    bounded(pieces)
}

fn bounded(mut pieces: Vec<Piece>) -> Vec<Piece> {
    if pieces.len() > MAX_PIECES {
        pieces.truncate(MAX_PIECES);
        pieces.push(Piece::Unknown);
    }
    pieces
}

fn one_of(class: &Class) -> Piece {
    let characters: Vec<char> = match class {
        Class::Unicode(class) => {
            let all = class.iter().flat_map(|range| range.start()..=range.end());
            all.take(MAX_ALIKE + 1).collect()
        }
        Class::Bytes(class) => match class.to_unicode_class() {
            // What is beyond ASCII is no character by itself.
            None => Vec::new(),
            Some(class) => return one_of(&Class::Unicode(class)),
        },
    };
    match characters.len() {
        1..=MAX_ALIKE => Piece::One(characters),
        _ => Piece::Unknown,
    }
}

fn repeated(repetition: &Repetition) -> Vec<Piece> {
    let one = pieces(&repetition.sub);
    let least = usize::try_from(repetition.min).unwrap_or(usize::MAX);
    let mut all = Vec::new();
    let mut count = 0;
    while count < least && all.len() <= MAX_PIECES && !one.is_empty() {
        all.extend_from_slice(&one);
        count += 1;
    }
    let is_exact = repetition.max == Some(repetition.min) && count == least;
    if !is_exact {
        all.push(Piece::Unknown);
        if least > 0 {
            // Whatever stands between the first and the last one.
            all.extend(one);
        }
    }
    all
}

/// What all begin with, and what all end with.
fn alternated(parts: &[Hir]) -> Vec<Piece> {
    let mut all = parts.iter().map(pieces);
    let Some(one) = all.next() else { return vec![Piece::Unknown] };
    let (mut first, mut last) = (one.clone(), one.clone());
    let mut is_same = true;
    for other in all {
        is_same &= other == one;
        let alike = |(one, other): &(&Piece, &Piece)| one == other && **one != Piece::Unknown;
        let begin = first.iter().zip(&other).take_while(alike).count();
        let end = last.iter().rev().zip(other.iter().rev()).take_while(alike).count();
        first.truncate(begin);
        last.drain(..last.len() - end);
    }
    if is_same {
        return one;
    }
    first.push(Piece::Unknown);
    first.extend(last);
    first
}
