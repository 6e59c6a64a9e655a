//! The contract of a conversation, told again byte by byte and as slowly as it reads: what the
//! framers are compared with. It shares no code with them.

use crate::wire::{Framing, InvalidUtf8, Protocol};

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exit,
    InvalidUtf8,
    TooLong,
    Finished,
}

/// All that came of a client's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) messages: Vec<String>,
    /// Whether a message had begun and not ended when the input did.
    pub(crate) was_unfinished: bool,
    pub(crate) end: End,
}

/// What the contract says of these chunks, each what one receive gave.
pub(crate) fn outcome(protocol: &Protocol, chunks: &[&[u8]]) -> Outcome {
    let mut messages = Vec::new();
    let (end, was_unfinished) = match protocol.framing {
        Framing::Raw => raw(protocol, chunks, &mut messages),
        Framing::Line => line(protocol, &chunks.concat(), &mut messages),
    };
    Outcome { messages, was_unfinished, end }
}

fn raw(protocol: &Protocol, chunks: &[&[u8]], messages: &mut Vec<String>) -> (End, bool) {
    let mut reader = Reader::new(protocol.invalid_utf8);
    for chunk in chunks {
        let mut word = chunk.to_vec();
        if word.last() == Some(&b'\n') {
            word.pop();
            if word.last() == Some(&b'\r') {
                word.pop();
            }
        }
        if reader.begun.is_empty() && !word.is_empty() && *word == *protocol.exit_word {
            return (End::Exit, false);
        }
        let is_good = chunk.iter().all(|byte| reader.take(*byte));
        if !reader.text.is_empty() {
            messages.push(std::mem::take(&mut reader.text));
        }
        if !is_good {
            return (End::InvalidUtf8, false);
        }
    }
    if reader.begun.is_empty() {
        return (End::Finished, false);
    }
    match protocol.invalid_utf8 {
        InvalidUtf8::Close => (End::InvalidUtf8, true),
        InvalidUtf8::Replace => {
            messages.push("\u{FFFD}".to_owned());
            (End::Finished, true)
        }
    }
}

fn line(protocol: &Protocol, bytes: &[u8], messages: &mut Vec<String>) -> (End, bool) {
    let max = protocol.max_message_bytes;
    let is_exit = |line: &[u8]| !line.is_empty() && *line == *protocol.exit_word;
    let mut line = Vec::new();
    let mut reader = Reader::new(protocol.invalid_utf8);
    for byte in bytes {
        if *byte == b'\n' {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if is_exit(&line) {
                return (End::Exit, false);
            }
            let Some(text) = text(protocol, &line) else { return (End::InvalidUtf8, false) };
            messages.push(text);
            line.clear();
            reader = Reader::new(protocol.invalid_utf8);
            continue;
        }
        line.push(*byte);
        // One CR too many may be the one before the LF; the byte behind it shows.
        let may_end_here = line.len() == max + 1 && *byte == b'\r';
        if line.len() > max && !may_end_here {
            return (End::TooLong, false);
        }
        if !reader.take(*byte) {
            return (End::InvalidUtf8, false);
        }
    }
    if line.is_empty() {
        return (End::Finished, false);
    }
    if is_exit(&line) {
        return (End::Exit, true);
    }
    if line.len() > max {
        return (End::TooLong, true);
    }
    let Some(text) = text(protocol, &line) else { return (End::InvalidUtf8, true) };
    messages.push(text);
    (End::Finished, true)
}

/// A whole line's text; `None`: it is not UTF-8, and that closes.
fn text(protocol: &Protocol, line: &[u8]) -> Option<String> {
    let mut reader = Reader::new(protocol.invalid_utf8);
    if !line.iter().all(|byte| reader.take(*byte)) {
        return None;
    }
    match (reader.begun.is_empty(), protocol.invalid_utf8) {
        (true, _) => Some(reader.text),
        (false, InvalidUtf8::Close) => None,
        (false, InvalidUtf8::Replace) => Some(reader.text + "\u{FFFD}"),
    }
}

/// Reads characters, one byte at a time.
struct Reader {
    invalid_utf8: InvalidUtf8,
    begun: Vec<u8>,
    text: String,
}

impl Reader {
    fn new(invalid_utf8: InvalidUtf8) -> Self {
        Self { invalid_utf8, begun: Vec::new(), text: String::new() }
    }

    /// Whether the text is still good.
    fn take(&mut self, byte: u8) -> bool {
        self.begun.push(byte);
        match judge(&self.begun) {
            Judgement::Whole => {
                self.text += str::from_utf8(&self.begun).expect("the table says so");
                self.begun.clear();
            }
            Judgement::Begun => {}
            Judgement::Bad if self.invalid_utf8 == InvalidUtf8::Close => return false,
            Judgement::Bad => {
                let was_begun = self.begun.len() > 1;
                self.text.push('\u{FFFD}');
                self.begun.clear();
                // What was begun is one bad sequence; this byte may begin another character.
                return !was_begun || self.take(byte);
            }
        }
        true
    }
}

enum Judgement {
    Whole,
    Begun,
    Bad,
}

/// Table 3-7, "Well-Formed UTF-8 Byte Sequences", of the Unicode Standard.
fn judge(bytes: &[u8]) -> Judgement {
    use Judgement::{Bad, Begun, Whole};
    match bytes {
        [0x00..=0x7F] => Whole,
        [0xC2..=0xF4] => Begun,
        [0xC2..=0xDF, 0x80..=0xBF] => Whole,
        [0xE0, 0xA0..=0xBF]
        | [0xE1..=0xEC | 0xEE | 0xEF, 0x80..=0xBF]
        | [0xED, 0x80..=0x9F]
        | [0xF0, 0x90..=0xBF]
        | [0xF1..=0xF3, 0x80..=0xBF]
        | [0xF4, 0x80..=0x8F] => Begun,
        [0xE0..=0xEF, _, 0x80..=0xBF] => Whole,
        [0xF0..=0xF4, _, 0x80..=0xBF] => Begun,
        [0xF0..=0xF4, _, 0x80..=0xBF, 0x80..=0xBF] => Whole,
        _ => Bad,
    }
}
