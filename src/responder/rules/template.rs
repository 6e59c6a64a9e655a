//! Texts with holes: read once into parts, so that filling them is one walk.

use std::fmt::{self, Write};

use crate::nearest::nearest;

/// What a hole may always name.
pub(super) const BUILT_IN: [&str; 5] = ["message", "peer", "time", "count", "random"];

/// A text with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// By the number of the group.
    Capture(usize),
    /// By its place among the variables.
    Variable(usize),
    Message,
    Peer,
    Time,
    Count,
    /// Both ends included.
    Random {
        low: i64,
        high: i64,
    },
}

/// What the holes of one text may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// `None`: there is no message yet.
    pub(super) captures: Option<Captures<'a>>,
    /// The variables' names, in order.
    pub(super) variables: &'a [String],
    /// Whether there may be others, of which nothing is said.
    pub(super) is_open: bool,
}

/// What a matcher captures.
#[derive(Debug, Clone, Copy)]
pub(super) enum Captures<'a> {
    /// Nothing, said of whom.
    Nothing(&'static str),
    /// Up to that number, from 1, said of whom.
    Numbered(&'static str, usize),
    /// The groups of a pattern with their names, from 0.
    Groups(&'a [Option<String>]),
    /// Those of a pattern that could not be read: nothing is said of them.
    Unknown,
}

/// How lines end in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineEnds<'a> {
    /// `None`: line feeds stay what they are.
    terminator: Option<&'a str>,
}

impl<'a> LineEnds<'a> {
    pub(super) fn new(terminator: Option<&'a str>) -> Self {
        Self { terminator: terminator.filter(|terminator| !terminator.is_empty()) }
    }

    /// The text without one line end at its end, and with the terminator for each other one.
    pub(super) fn settle(self, text: &str) -> String {
        // What a file sends must not depend on whether its own lines end in CR LF.
        let kept = text.strip_suffix("\r\n").or(text.strip_suffix('\n'));
        self.replace(kept.unwrap_or(text))
    }

    fn replace(self, text: &str) -> String {
        match self.terminator {
            Some(terminator) => text.replace("\r\n", "\n").replace('\n', terminator),
            None => text.to_owned(),
        }
    }
}

/// Something wrong in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The byte where.
    pub(super) at: usize,
    pub(super) problem: String,
}

/// What fills the holes.
pub(super) trait Filling {
    /// A group of what matched; empty if it took no part.
    fn capture(&self, group: usize) -> &str;
    fn variable(&self, variable: usize) -> &str;
    fn message(&self) -> &str;
    fn count(&self) -> u64;
    fn write_peer(&self, out: &mut impl Write) -> fmt::Result;
    fn write_time(&mut self, out: &mut impl Write) -> fmt::Result;
    fn random(&mut self) -> u64;
}

impl Template {
    /// Reads a text; all that is wrong with it goes to `mistakes`.
    pub(super) fn read(
        text: &str,
        scope: &Scope<'_>,
        ends: LineEnds<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut reader = Reader { text, parts: Vec::new(), literal: String::new() };
        reader.read(scope, mistakes);
        Self { parts: settled(reader.parts, ends).into() }
    }

    /// The text with `end` behind it.
    pub(super) fn ended(self, end: &str) -> Self {
        let mut parts = self.parts.into_vec();
        match parts.last_mut() {
            Some(Part::Text(text)) => *text = format!("{text}{end}").into(),
            _ if end.is_empty() => {}
            _ => parts.push(Part::Text(end.into())),
        }
        Self { parts: parts.into() }
    }

    /// The whole text, if it has no hole.
    pub(super) fn fixed(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether what matched must be taken apart for it.
    pub(super) fn has_captures(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Capture(_)))
    }

    pub(super) fn fill(&self, out: &mut impl Write, filling: &mut impl Filling) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_str(text)?,
                Part::Capture(group) => out.write_str(filling.capture(*group))?,
                Part::Variable(variable) => out.write_str(filling.variable(*variable))?,
                Part::Message => out.write_str(filling.message())?,
                Part::Peer => filling.write_peer(out)?,
                Part::Time => filling.write_time(out)?,
                Part::Count => write!(out, "{}", filling.count())?,
                Part::Random { low, high } => {
                    write!(out, "{}", within(*low, *high, filling.random()))?;
                }
            }
        }
        Ok(())
    }
}

/// The number of the range that a random one stands for.
fn within(low: i64, high: i64, random: u64) -> i64 {
    let many = u128::from(high.abs_diff(low)) + 1;
    let step = (u128::from(random) * many) >> 64;
    let step = u64::try_from(step).expect("it is below 2^64, as both factors are at most that");
    low.wrapping_add_unsigned(step)
}

/// Line ends are those that the author wrote, not those of what a client sent: they are looked for
/// between the holes, and the last one at the end alone.
fn settled(parts: Vec<Part>, ends: LineEnds<'_>) -> Vec<Part> {
    let last = parts.len().saturating_sub(1);
    let settle = |(at, part)| match part {
        Part::Text(text) if at == last => Part::Text(ends.settle(&text).into()),
        Part::Text(text) => Part::Text(ends.replace(&text).into()),
        part => part,
    };
    let parts = parts.into_iter().enumerate().map(settle);
    parts.filter(|part| !matches!(part, Part::Text(text) if text.is_empty())).collect()
}

struct Reader<'t> {
    text: &'t str,
    parts: Vec<Part>,
    /// The text read since the last hole.
    literal: String,
}

impl Reader<'_> {
    fn read(&mut self, scope: &Scope<'_>, mistakes: &mut Vec<Mistake>) {
        let mut at = 0;
        while let Some(found) = self.text[at..].find(['$', '{', '}']) {
            let start = at + found;
            self.literal.push_str(&self.text[at..start]);
            let rest = &self.text[start..];
            at = start;
            if rest.starts_with("{{") || rest.starts_with("}}") {
                self.literal.push_str(&rest[..1]);
                at += 2;
            } else if rest.starts_with('}') {
                mistakes.push(Mistake { at, problem: "a brace of its own is written }}".into() });
                at += 1;
            } else if rest.starts_with('$') && (!rest.starts_with("${") || rest.starts_with("${{"))
            {
                self.literal.push('$');
                at += 1;
            } else {
                match hole(rest, scope) {
                    Ok((part, length)) => {
                        self.close_literal();
                        self.parts.push(part);
                        at += length;
                    }
                    Err((problem, length)) => {
                        mistakes.push(Mistake { at, problem });
                        at += length;
                    }
                }
            }
        }
        self.literal.push_str(&self.text[at..]);
        self.close_literal();
    }

    fn close_literal(&mut self) {
        if !self.literal.is_empty() {
            self.parts.push(Part::Text(std::mem::take(&mut self.literal).into()));
        }
    }
}

/// The hole at the beginning of `rest`, and how long it is; an error says how far to go on.
fn hole(rest: &str, scope: &Scope<'_>) -> Result<(Part, usize), (String, usize)> {
    let Some(close) = rest.find('}') else {
        let problem = "the brace is never closed; one of its own is written {{";
        return Err((problem.to_owned(), rest.len()));
    };
    let open = if rest.starts_with('$') { 2 } else { 1 };
    // A message stays in its line, whatever stands in the text.
    let (written, length) = (&*cut(&rest[..=close]), close + 1);
    let name = &rest[open..close];
    let part = match open {
        2 => capture(written, name, scope),
        _ => named(written, name, scope),
    };
    part.map(|part| (part, length)).map_err(|problem| (problem, length))
}

fn capture(written: &str, name: &str, scope: &Scope<'_>) -> Result<Part, String> {
    // A number has one way to be written: 01 is as likely a slip as meant.
    let number = name.parse::<usize>().ok().filter(|number| number.to_string() == name);
    let refused = |who: &str, most: usize| match most {
        1 => Err(format!("{written} names nothing: {who} captures ${{1}} alone")),
        _ => Err(format!("{written} names nothing: {who} captures ${{1}} to ${{{most}}}")),
    };
    match scope.captures {
        None => Err(format!("{written} names nothing: there is no message yet")),
        Some(Captures::Unknown) => Ok(Part::Capture(0)),
        Some(Captures::Nothing(who)) => Err(format!("{written} names nothing: {who}")),
        Some(Captures::Numbered(who, most)) => match number {
            Some(group) if (1..=most).contains(&group) => Ok(Part::Capture(group)),
            _ => refused(who, most),
        },
        Some(Captures::Groups(groups)) => {
            let by_name = || groups.iter().position(|group| group.as_deref() == Some(name));
            match number.or_else(by_name) {
                Some(group) if group < groups.len() => Ok(Part::Capture(group)),
                _ => Err(no_such_group(written, name, groups)),
            }
        }
    }
}

fn no_such_group(written: &str, name: &str, groups: &[Option<String>]) -> String {
    let names: Vec<&str> = groups.iter().flatten().map(String::as_str).collect();
    if let Some(meant) = nearest(name, names.iter().copied()) {
        return format!("{written} is no group of the pattern; did you mean ${{{meant}}}?");
    }
    let mut problem = format!("{written} is no group of the pattern, which has ");
    match groups.len() {
        1 => problem += "${0} alone",
        count => problem += &format!("${{0}} to ${{{}}}", count - 1),
    }
    if !names.is_empty() {
        problem += &format!(", named {}", listed(names.into_iter().map(cut)));
    }
    problem
}

fn named(written: &str, name: &str, scope: &Scope<'_>) -> Result<Part, String> {
    if scope.captures.is_none() && matches!(name, "message" | "count") {
        return Err(format!("{written} names nothing: there is no message yet"));
    }
    match name {
        "message" => return Ok(Part::Message),
        "peer" => return Ok(Part::Peer),
        "time" => return Ok(Part::Time),
        "count" => return Ok(Part::Count),
        _ => {}
    }
    if let Ok(variable) = scope.variables.binary_search_by(|known| known.as_str().cmp(name)) {
        return Ok(Part::Variable(variable));
    }
    // No variable has the name of a range, but its name may begin like one.
    if let Some(range) = name.strip_prefix("random") {
        return random(range)
            .ok_or_else(|| format!("{written} is no range; such as {{random:1..6}}, low to high"));
    }
    if scope.is_open && is_name(name) {
        return Ok(Part::Text(written.into()));
    }
    let known = scope.variables.iter().map(String::as_str).chain(BUILT_IN);
    let group = match scope.captures {
        Some(Captures::Groups(groups)) => groups.iter().flatten().any(|group| group == name),
        _ => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if group {
        return Err(format!("{written} is no variable; a capture is written ${written}"));
    }
    if let Some(meant) = nearest(name, known.clone()) {
        return Err(format!("{written} is no variable; did you mean {{{}}}?", cut(meant)));
    }
    if !is_name(name) {
        return Err(format!("{written} is no variable; a brace of its own is written {{{{"));
    }
    Err(format!("{written} is no variable; known: {}", listed(known.map(cut))))
}

/// `:LOW..HIGH`
fn random(range: &str) -> Option<Part> {
    let (low, high) = range.strip_prefix(':')?.split_once("..")?;
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (low <= high).then_some(Part::Random { low, high })
}

/// What a variable may be called.
pub(super) fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_next = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.len() <= 64 && name.starts_with(is_first) && name.chars().all(is_next)
}

/// How many characters of something are shown, and how many of several.
const MAX_SHOWN: usize = 40;
const MAX_LISTED: usize = 16;

/// So many of these as a person reads.
pub(super) fn listed(all: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = all.take(MAX_LISTED + 1).collect();
    if shown.len() > MAX_LISTED {
        shown[MAX_LISTED] = "…".to_owned();
    }
    shown.join(", ")
}

/// The beginning of something that may be long, in one line.
pub(super) fn cut(written: &str) -> String {
    let escaped = written.escape_debug().to_string();
    match escaped.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}
