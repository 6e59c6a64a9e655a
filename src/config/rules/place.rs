//! Where in a file stands what is wrong with its rules: the byte of a string, whatever escapes it
//! is written with.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::full_name;
use crate::config::section::Notes;
use crate::responder::rules::RuleFault;

/// Notes a fault of the compiler at its place: the byte in a string, else the value, else the rule.
pub(super) fn blame<'s>(notes: &mut Notes<'s>, table: &DeTable<'s>, path: &str, fault: &RuleFault) {
    let rule = fault.rule.and_then(|index| table.get("rule")?.get_ref().get(index));
    let keys = rule.map_or(Some(table), |rule| rule.get_ref().as_table());
    let mut value = keys.and_then(|keys| keys.get(fault.key));
    let mut fault = fault.clone();
    if let Some(entry) = &fault.entry {
        value = value.map(|value| value.get_ref().get(entry.as_str()).unwrap_or(value));
    }
    if let Some(index) = fault.index {
        match value.and_then(|value| value.get_ref().get(index)) {
            Some(item) => value = Some(item),
            // Written as one string, and not as a list.
            None => fault.index = None,
        }
    }
    let name = full_name(path, &fault);
    let at = match value.or(rule).or(table.get("rule")) {
        None => 0..0,
        Some(value) => {
            let exact = fault.at.and_then(|at| inside(notes.source, value, at));
            exact.map_or(value.span(), |at| at..at)
        }
    };
    notes.fault(at, &name, fault.problem);
}

/// Where a byte of a string stands in the source.
fn inside(source: &str, value: &Spanned<DeValue<'_>>, at: usize) -> Option<usize> {
    let before = value.get_ref().as_str()?.get(..at)?;
    let span = value.span();
    let written = source.get(span.clone())?;
    let is_long = written.starts_with("\"\"\"") || written.starts_with("'''");
    let body = written.get(if is_long { 3 } else { 1 }..)?;
    // A line ending right behind the quotes is no part of the text.
    let kept = if is_long { without_first_line_end(body) } else { body };
    let length = match written.starts_with('\'') {
        true => kept.starts_with(before).then_some(before.len())?,
        false => length_of(kept, before)?,
    };
    Some(span.start + written.len() - kept.len() + length)
}

fn without_first_line_end(body: &str) -> &str {
    body.strip_prefix("\r\n").or(body.strip_prefix('\n')).unwrap_or(body)
}

/// As how many bytes this beginning of a basic string is written.
fn length_of(written: &str, before: &str) -> Option<usize> {
    let (length, mut written, mut before) = (written.len(), written, before);
    while let Some(first) = before.chars().next() {
        let (character, rest) = character(written)?;
        written = rest;
        if let Some(character) = character {
            (character == first).then_some(())?;
            before = &before[first.len_utf8()..];
        }
    }
    // What stands in the next line stands there.
    while let Some((None, rest)) = character(written) {
        written = rest;
    }
    Some(length - written.len())
}

/// The next character of a basic string, and what stands behind it; none for a line ending that is
/// escaped with the blanks behind it.
fn character(written: &str) -> Option<(Option<char>, &str)> {
    let mut characters = written.chars();
    let first = characters.next()?;
    if first != '\\' {
        return Some((Some(first), characters.as_str()));
    }
    let kind = characters.next()?;
    let rest = characters.as_str();
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        'b' => return Some((Some('\u{8}'), rest)),
        't' => return Some((Some('\t'), rest)),
        'n' => return Some((Some('\n'), rest)),
        'f' => return Some((Some('\u{C}'), rest)),
        'r' => return Some((Some('\r'), rest)),
        'e' => return Some((Some('\u{1B}'), rest)),
        '"' | '\\' => return Some((Some(kind), rest)),
        _ => return Some((None, rest.trim_start_matches([' ', '\t', '\r', '\n']))),
    };
    let (code, rest) = rest.split_at_checked(digits)?;
    Some((Some(char::from_u32(u32::from_str_radix(code, 16).ok()?)?), rest))
}
