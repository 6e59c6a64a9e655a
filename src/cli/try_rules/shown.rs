//! Rules, states and replies as a person reads them. What came from a file or a client is escaped:
//! nothing of it acts on a terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use talkback::ClientText;
use talkback::responder::rules::{Fault, Matcher, Rule, Why};

/// `1 rule`, `2 rules`
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn quoted(text: impl AsRef<[u8]>) -> String {
    format!("{:?}", ClientText::new(&text).at_most(usize::MAX))
}

/// What a rule asks of a message and of the state.
pub(super) fn matcher(rule: &Rule) -> String {
    let mut shown = match &rule.matcher {
        Matcher::Any => "any text".to_owned(),
        Matcher::Equals(text) => format!("equals {}", quoted(text)),
        Matcher::Prefix(text) => format!("prefix {}", quoted(text)),
        Matcher::Contains(text) => format!("contains {}", quoted(text)),
        // A backslash doubled would not be the pattern that was written.
        Matcher::Matches(text) if !text.contains(ClientText::is_harmful) => {
            format!("matches '{text}'")
        }
        Matcher::Matches(text) => format!("matches {}", quoted(text)),
    };
    if rule.ignore_case && rule.matcher != Matcher::Any {
        shown += " in any case";
    }
    if !rule.when.is_empty() {
        shown += &format!(" when {}", conditions(&rule.when));
    }
    shown
}

fn conditions(when: &BTreeMap<String, String>) -> String {
    let each = when.iter().map(|(name, value)| format!("{name} = {}", quoted(value)));
    each.collect::<Vec<_>>().join(", ")
}

/// What kept a rule from answering a text that is one of its own; `None` if the text is not.
pub(super) fn why(why: &Why<'_>) -> Option<String> {
    match why {
        Why::Text => None,
        Why::State { variable, is, wants } => {
            let (is, wants) = (quoted(is), quoted(wants));
            Some(format!("wants {variable} = {wants}, but {variable} = {is}"))
        }
        Why::UsedUp { times } => Some(match times {
            1 => "has answered once, as often as it may".to_owned(),
            _ => format!("has answered {times} times, as often as it may"),
        }),
        other => Some(format!("does not answer: {other:?}")),
    }
}

/// Each variable with its value, and the one before where that was another.
pub(super) fn state(before: &[(String, String)], after: &[(String, String)]) -> String {
    let each = before.iter().zip(after).map(|((name, was), (_, is))| match was == is {
        true => format!("{name} = {}", quoted(is)),
        false => format!("{name} = {} -> {}", quoted(was), quoted(is)),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The bytes of a reply, a line of the reply on each line.
pub(super) fn write_sent(out: &mut impl Write, verb: &str, sent: &[u8]) -> io::Result<()> {
    let mut lines = sent.split_inclusive(|byte| *byte == b'\n');
    writeln!(out, "  {verb} {}", quoted(lines.next().unwrap_or_default()))?;
    let indent = verb.len();
    lines.try_for_each(|line| writeln!(out, "  {:indent$} {}", "", quoted(line)))
}

/// To the microsecond, in the unit that makes it short.
pub(super) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
    match units.into_iter().find(|(_, unit)| micros.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", micros / unit),
        None => format!("{micros}us"),
    }
}

/// Whether what a rule simulates has happened this time.
pub(super) fn write_fault(
    out: &mut impl Write,
    rule: &Rule,
    fault: Fault,
    has_happened: bool,
) -> io::Result<()> {
    let what = match fault {
        Fault::Reset => "a reset",
        Fault::Half => "half of the reply, and no end of it",
        Fault::Stall => "a stall: from now on nothing is answered",
        Fault::Garbage => "garbage in the reply's place",
    };
    let millionths = rule.probability.millionths();
    match (has_happened, f64::from(millionths) / 1e6) {
        (true, 1.0) => writeln!(out, "  fault: {what}"),
        (true, chance) => writeln!(out, "  fault, by a chance of {chance}: {what}"),
        (false, chance) => writeln!(out, "  no fault, by a chance of {chance}: {what}"),
    }
}
