//! The form of values in a line: whatever they hold, a line stays one line, acts on no terminal,
//! and has the fields that we gave it.

use std::borrow::Cow;
use std::fmt::{self, Debug, Write};

use talkback::ClientText;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The fields of a line of text: the message, then `name=value`, the value in quotes where it would
/// not be seen as one otherwise.
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        let value = escape(value, |out, harmful| write!(out, "{}", harmful.escape_default()));
        if name == "message" {
            return self.writer.write_str(&value);
        }
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}", quoted(&value))
        } else {
            write!(self.writer, "{name}={}", quoted(&value))
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.write(field.name(), &format!("{value:?}"));
        }
    }
}

/// A line of JSON: what JSON itself lets through as it is, and a terminal would act on.
pub(super) fn escape_json(line: &str) -> Cow<'_, str> {
    // All that is harmful lies in strings, and below U+10000.
    escape(line, |out, harmful| write!(out, "\\u{:04x}", u32::from(harmful)))
}

fn escape(text: &str, write: impl Fn(&mut String, char) -> fmt::Result) -> Cow<'_, str> {
    if !text.contains(ClientText::is_harmful) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if ClientText::is_harmful(character) {
            // Writing to memory does not fail.
            let _ = write(&mut escaped, character);
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

/// The value in quotes, unless it is one word or stands in quotes of its own.
fn quoted(value: &str) -> Cow<'_, str> {
    let is_word = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    if is_word || inner.is_some_and(|inner| close_quotes(inner) == inner) {
        return value.into();
    }
    format!("\"{}\"", close_quotes(value)).into()
}

/// Escapes the quotes that are not, and a backslash that would escape the one behind the text.
fn close_quotes(text: &str) -> Cow<'_, str> {
    if !text.contains(['"', '\\']) {
        return text.into();
    }
    let mut closed = String::with_capacity(text.len() + 16);
    let mut is_escaped = false;
    for character in text.chars() {
        if character == '"' && !is_escaped {
            closed.push('\\');
        }
        closed.push(character);
        is_escaped = character == '\\' && !is_escaped;
    }
    if is_escaped {
        closed.push('\\');
    }
    closed.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of what `log` logs, without the time.
    fn line(ansi: bool, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(TextFields)
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .without_time()
            .with_target(false)
            .finish();
        with_default(subscriber, log);
        let line = memory.0.lock().clone();
        String::from_utf8(line).expect("a line is text")
    }

    fn log_harm() {
        let harm = "\u{1b}[31m\n\u{202e}\u{9b}";
        tracing::info!(
            said = harm,
            shown = %harm,
            debugged = ?harm,
            number = 1.5,
            none = Option::<&str>::None,
            "message {harm}"
        );
    }

    #[test]
    fn no_value_acts_on_a_terminal_or_ends_its_line() {
        let harm = r"\u{1b}[31m\n\u{202e}\u{9b}";
        let expected = format!(
            " INFO message {harm} said=\"{harm}\" shown=\"{harm}\" debugged=\"{harm}\" number=1.5\n"
        );
        assert_eq!(line(false, log_harm), expected);
    }

    #[test]
    fn on_a_terminal_only_our_own_colours_are_left() {
        let mut colourful = line(true, log_harm);
        for ours in ["\u{1b}[32m", "\u{1b}[3m", "\u{1b}[2m", "\u{1b}[0m"] {
            assert!(colourful.contains(ours), "{colourful:?} lacks {ours:?}");
            colourful = colourful.replace(ours, "");
        }
        assert_eq!(colourful, line(false, log_harm));
    }

    #[track_caller]
    fn check_quoted(value: &str, expected: &str) {
        assert_eq!(quoted(value), expected);
    }

    #[test]
    fn a_value_stands_in_quotes_where_it_is_more_than_a_word() {
        check_quoted("127.0.0.1:80", "127.0.0.1:80");
        check_quoted("Some([::1]:80)", "Some([::1]:80)");
        check_quoted("", "\"\"");
        check_quoted("Too many open files", "\"Too many open files\"");
        check_quoted("\"from Debug\"", "\"from Debug\"");
        check_quoted("a=1", "\"a=1\"");
        check_quoted(r"\n", r#""\n""#);
    }

    #[test]
    fn no_value_can_end_its_quotes() {
        check_quoted(r#"x" forged="1"#, r#""x\" forged=\"1""#);
        check_quoted(r#""x" forged="1""#, r#""\"x\" forged=\"1\"""#);
        check_quoted(r"two words\", r#""two words\\""#);
        check_quoted(r#"{"a": "\n"}"#, r#""{\"a\": \"\n\"}""#);
        check_quoted("\"", "\"\\\"\"");
    }

    #[test]
    fn json_keeps_its_values() {
        let line = "{\"text\":\"\u{7f}\u{9b}2J\u{202e}\u{2028} 你好\"}";
        let escaped = escape_json(line);
        assert_eq!(escaped, r#"{"text":"\u007f\u009b2J\u202e\u2028 你好"}"#);
        let [before, after]: [serde_json::Value; 2] =
            [line, &*escaped].map(|line| serde_json::from_str(line).expect("it is JSON"));
        assert_eq!(before, after);
    }
}
