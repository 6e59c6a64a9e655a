//! What a client said, in a form that may stand in a log line or on a terminal: nothing of it acts
//! on whoever looks at it, and it is short.

use std::fmt::{self, Display, Formatter, Write};

/// The beginning of a client's text, for people to read.
///
/// Shown are at most [`ClientText::MAX_CHARACTERS`] characters, and `…` where there are more.
/// Control characters (escape is one), bidirectional controls, line and paragraph separators and
/// the backslash are escaped as in a Rust string; a byte that is no UTF-8 becomes `\xff` and counts
/// as one character. [`Display`] adds no quotes; [`fmt::Debug`] does, and escapes those in it.
///
/// # Examples
/// ```
/// use talkback::ClientText;
///
/// let text = ClientText::new("GET /\r\n\u{1b}[2J");
/// assert_eq!(text.to_string(), r"GET /\r\n\u{1b}[2J");
/// assert_eq!(ClientText::new(b"\xfftrue").to_string(), r"\xfftrue");
/// assert_eq!(ClientText::new("hello").at_most(4).to_string(), "hell…");
/// ```
#[derive(Clone, Copy)]
pub struct ClientText<'a> {
    bytes: &'a [u8],
    max_characters: usize,
}

impl<'a> ClientText<'a> {
    /// So many characters are shown, unless [`ClientText::at_most`] says otherwise.
    pub const MAX_CHARACTERS: usize = 64;

    /// Of text, or of bytes that may be none.
    #[must_use]
    pub fn new(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { bytes: text.as_ref(), max_characters: Self::MAX_CHARACTERS }
    }

    /// Shows so many characters instead.
    #[must_use]
    pub fn at_most(self, characters: usize) -> Self {
        Self { max_characters: characters, ..self }
    }

    /// Whether a character would do something to a terminal or to a log instead of being seen: all
    /// control characters, the bidirectional controls, line and paragraph separators.
    #[must_use]
    pub fn is_harmful(character: char) -> bool {
        character.is_control()
            || matches!(
                character,
                '\u{061c}'
                    | '\u{200e}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2066}'..='\u{2069}'
            )
    }

    /// The text, with each of `quotes` escaped too.
    fn write(&self, out: &mut impl Write, quotes: &[char]) -> fmt::Result {
        let mut left = self.max_characters;
        let mut is_over = || {
            let is_over = left == 0;
            left = left.saturating_sub(1);
            is_over
        };
        for part in self.bytes.utf8_chunks() {
            for character in part.valid().chars() {
                if is_over() {
                    return out.write_char('…');
                }
                let is_escaped = character == '\\' || quotes.contains(&character);
                if is_escaped || Self::is_harmful(character) {
                    write!(out, "{}", character.escape_default())?;
                } else {
                    out.write_char(character)?;
                }
            }
            for byte in part.invalid() {
                if is_over() {
                    return out.write_char('…');
                }
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Display for ClientText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, &[])
    }
}

impl fmt::Debug for ClientText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, &['"'])?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, expected: &str) {
        assert_eq!(ClientText::new(&text).to_string(), expected);
    }

    #[test]
    fn what_acts_on_a_terminal_or_a_log_is_escaped() {
        check("\u{1b}[2J", r"\u{1b}[2J");
        check("one\ntwo\r\tthree", r"one\ntwo\r\tthree");
        check("\0\u{7f}\u{80}\u{9b}2J", r"\u{0}\u{7f}\u{80}\u{9b}2J");
        check("\u{202e}\u{2066}\u{200f}\u{61c}", r"\u{202e}\u{2066}\u{200f}\u{61c}");
        check("\u{2028}\u{2029}", r"\u{2028}\u{2029}");
        for harmful in
            (0..=0x2fff).filter_map(char::from_u32).filter(|c| ClientText::is_harmful(*c))
        {
            let shown = ClientText::new(&harmful.to_string()).to_string();
            assert!(shown.is_ascii() && shown.starts_with('\\'), "{shown}");
        }
    }

    #[test]
    fn what_is_only_seen_stays_as_it_is() {
        check("你好 🙂 é \u{200d} \"'", "你好 🙂 é \u{200d} \"'");
        check("", "");
    }

    #[test]
    fn an_escape_cannot_be_mistaken_for_text() {
        check(r"\u{1b}", r"\\u{1b}");
        check(b"\\xff\xff", r"\\xff\xff");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        check(b"a\xffb\xf0\x9f\x99", r"a\xffb\xf0\x9f\x99");
    }

    #[test]
    fn the_cut_counts_characters_and_is_marked() {
        let text = "🙂".repeat(64);
        check(&text, &text);
        check("🙂".repeat(65), &format!("{text}…"));
        check(b"\xff".repeat(65), &(r"\xff".repeat(64) + "…"));
        check("\n".repeat(10_000), &(r"\n".repeat(64) + "…"));
    }

    #[test]
    fn debug_stands_in_quotes_that_the_text_cannot_end() {
        let text = ClientText::new("x\" forged=\"1\\");
        assert_eq!(format!("{text:?}"), r#""x\" forged=\"1\\""#);
    }
}
