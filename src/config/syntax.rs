//! What to do about an error of TOML itself: told from the kind of the error and the text at its
//! place alone, and not at all where that might mislead.

use std::ops::Range;

use super::validate::shortened;

/// Longer values are not shown.
const MAX_VALUE_BYTES: usize = 100;
/// Longer lines are not looked into. They may hold an error for every few bytes.
const MAX_LINE_BYTES: usize = 1000;
/// So far above what stands twice the first is looked for. Every line may be such an error.
const MAX_LINES_BACK: usize = 100;

/// The file, and where each of its lines begins.
#[derive(Clone, Copy)]
pub(super) struct Lines<'s> {
    pub(super) source: &'s str,
    pub(super) starts: &'s [usize],
}

impl<'s> Lines<'s> {
    fn index_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Without its ending; empty if it is too long.
    fn line(&self, index: usize) -> &'s str {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.source.len());
        let line = &self.source[self.starts[index]..end];
        if line.len() > MAX_LINE_BYTES { "" } else { line.trim_end_matches(['\n', '\r']) }
    }

    /// What stands behind the message of an error at this place.
    pub(super) fn hint(&self, at: Range<usize>, message: &str) -> Option<String> {
        let start = self.source.floor_char_boundary(at.start);
        let behind = &self.source[start..];
        match message.split(", expected").next()? {
            "duplicate key" => Some(self.twice(at)),
            // They come up in double quotes alone.
            "missing escaped value" | "too few unicode value digits" | "invalid value" => {
                let problem = "in double quotes \\ begins an escape: write \\\\ there, or put the \
                               text in single quotes, where \\ is itself";
                Some(problem.to_owned())
            }
            "invalid unquoted key" if behind.starts_with(':') => {
                Some("between a key and its value stands =".to_owned())
            }
            "unexpected leading zero" => {
                Some("a number has no leading zero, and a text stands in quotes".to_owned())
            }
            kind if is_of_a_value(kind) => Some(self.unquoted(start)),
            _ => None,
        }
    }

    fn unquoted(&self, start: usize) -> String {
        let index = self.index_of(start);
        let line = self.line(index);
        let column = start - self.starts[index];
        let before = line.get(..column).unwrap_or_default();
        let behind = self.source[start..].trim_start_matches([' ', '\t']);
        match behind.chars().next() {
            None | Some('#' | '\r' | '\n') if before.trim_end().ends_with('=') => {
                return "the value is missing".to_owned();
            }
            Some(quote) if "“”„«‘’".contains(quote) => {
                return format!("a text stands in \" or ', not in {quote}");
            }
            _ => {}
        }
        let value = value(line, column);
        if value.is_some_and(|value| matches!(&*value.to_lowercase(), "true" | "false")) {
            return "true and false are written in small letters".to_owned();
        }
        let example = value.map(|value| format!(", as in \"{}\"", shortened(value)));
        let example = example.unwrap_or_default();
        format!("what is neither a number nor true or false stands in quotes{example}")
    }

    /// Says of what stands twice where it stands first.
    fn twice(&self, at: Range<usize>) -> String {
        let index = self.index_of(at.start);
        let line = without_comment(self.line(index)).trim_start();
        let is_header = line.starts_with('[');
        let key = self.source.get(at).unwrap_or_default().trim_matches(['"', '\'']);
        let farthest = index.saturating_sub(MAX_LINES_BACK);
        let above = (farthest..index).rev().map(|above| (above, self.line(above).trim()));
        // Behind another [[listener]] its tables begin anew; a key's table ends with any header.
        let ends = |text: &str| match is_header {
            true => text.starts_with("[["),
            false => text.starts_with('['),
        };
        let first = above.take_while(|(_, text)| !ends(text)).find(|(_, text)| match is_header {
            true => without_comment(text) == line,
            false => text.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')),
        });
        let (what, each) = match is_header && first.is_some() {
            true => (shortened(line), "a table has one header"),
            false => (format!("\"{}\"", shortened(key)), "a key has one value"),
        };
        match first {
            Some((above, _)) => format!("{what} stands in line {} already: {each}", above + 1),
            None => format!("{what} is there already: {each}"),
        }
    }
}

/// Errors of a value that stands in no quotes and is nothing else either.
fn is_of_a_value(kind: &str) -> bool {
    let kinds = ["boolean", "float", "integer number", "mantissa", "fraction", "exponent"];
    kind == "string values must be quoted"
        || kind.starts_with("invalid date")
        || kind.strip_prefix("invalid ").is_some_and(|what| kinds.contains(&what))
}

fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(line, _)| line).trim_end()
}

/// The value of a line that holds one key and one word, which would only need quotes, if the error
/// is there.
fn value(line: &str, column: usize) -> Option<&str> {
    let line = without_comment(line);
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    let is_array = value.starts_with('[') && value.ends_with(']');
    let is_word = value.len() <= MAX_VALUE_BYTES
        && !value.contains(|character: char| {
            character.is_whitespace() || "\"'\\,{}".contains(character)
        });
    (column > key.len() && is_word && !is_array && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::section::Notes;

    fn problems(file: &str) -> Vec<String> {
        let mut notes = Notes::new(Path::new("t.toml"), file, &|_| unreachable!());
        notes.tree();
        notes.faults.into_iter().map(|fault| fault.problem).collect()
    }

    /// What stands behind TOML's own message of the only fault.
    #[track_caller]
    fn check(file: &str, expected: &str) {
        let found = problems(file);
        let [problem] = &found[..] else { panic!("{file}: {found:#?}") };
        let hint = problem.split_once("; ").map_or("", |(_, hint)| hint);
        assert_eq!(hint, expected, "{file}: {problem}");
    }

    const UNQUOTED: &str = "what is neither a number nor true or false stands in quotes";

    #[test]
    fn a_value_without_quotes_is_shown_with_them() {
        for value in [
            "127.0.0.1:7000",
            "localhost:7000",
            "unix:/run/x.sock",
            "[::]:7000",
            "info",
            "5m",
            "1.5.2",
            "^VOLT",
        ] {
            check(&format!("x = {value}"), &format!("{UNQUOTED}, as in \"{value}\""));
            check(
                &format!("[a]\r\nx={value} # \"y\"\r\n"),
                &format!("{UNQUOTED}, as in \"{value}\""),
            );
        }
        assert_eq!(
            problems("address = 127.0.0.1:7000"),
            [format!(
                "not TOML: invalid float, expected nothing; {UNQUOTED}, as in \"127.0.0.1:7000\""
            )]
        );
    }

    #[test]
    fn more_than_one_word_is_not_shown_in_quotes_for_it_may_be_meant_in_many_ways() {
        let long = "a".repeat(101);
        let longer = "a".repeat(1001);
        for value in ["[a, 1]", "a b", "a, 1", "{a = b}", "[\na=b\n]", "\\d", &long, &longer] {
            check(&format!("x = {value}\n"), UNQUOTED);
        }
    }

    #[test]
    fn a_value_that_is_almost_one_is_told_what_it_lacks() {
        check("x = True", "true and false are written in small letters");
        check("x = FALSE # off", "true and false are written in small letters");
        check("x = 0660", "a number has no leading zero, and a text stands in quotes");
        check("x = “a”", "a text stands in \" or ', not in “");
        for missing in ["x = ", "x =", "x = # y", "x =\ny = 1"] {
            check(missing, "the value is missing");
        }
        check("x: 1", "between a key and its value stands =");
        check("x", "");
        check("x = \"a", "");
    }

    #[test]
    fn an_escape_that_is_none_is_told_of_single_quotes() {
        let hint = "in double quotes \\ begins an escape: write \\\\ there, or put the text in \
                    single quotes, where \\ is itself";
        for text in [r#""^VOLT (\d+)$""#, r#"["a", "\s"]"#, r#""\xZZ""#, r#""\u12""#, r#""""\d""""#]
        {
            check(&format!("matches = {text}\n"), hint);
        }
    }

    #[test]
    fn what_stands_twice_is_named_with_the_line_of_the_first() {
        let (key, table) = (": a key has one value", ": a table has one header");
        check(
            "[limits]\nx = 1\n\n[limits] # again\n",
            &format!("[limits] stands in line 1 already{table}"),
        );
        check("  [limits]\n  [limits]", &format!("[limits] stands in line 1 already{table}"));
        check("\"x\" = 1\n\"x\" = 2", &format!("\"x\" is there already{key}"));
        check("[a]\nx = 1\n# x\nx=2", &format!("\"x\" stands in line 2 already{key}"));
        let commands = "[[listener]]\n[listener.command]\n";
        let twice = format!("{commands}{commands}[listener.command]\n");
        check(&twice, &format!("[listener.command] stands in line 4 already{table}"));
        // Where the first is written in another way it is not looked for.
        for file in ["limits = 1\n[limits]", "limits.y = 1\nlimits = 2", "[[limits]]\n[limits]"] {
            check(file, &format!("\"limits\" is there already{key}"));
        }
        let other = "[[listener]]\n[listener.command]\n[[listener]]\ncommand = {}\n";
        let twice = format!("{other}[listener.command]\n");
        check(&twice, &format!("\"command\" is there already{key}"));
        check("x = {a = 1, a = 2}", &format!("\"a\" is there already{key}"));
    }
}
