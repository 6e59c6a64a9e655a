//! What the contract says of one conversation, told as slowly as it reads: which bytes are answered
//! and what ends it. It shares no code with the server.

use talkback::wire::{Framing, InvalidUtf8};

/// The listener's `max_message_bytes`: the longest line, and the most that a raw receive takes.
pub const MAX_MESSAGE_BYTES: usize = 1000;

const EXIT_WORD: &[u8] = b"exit";

/// What the server has heard of one client, as far as it matters for what comes next.
#[derive(Debug, Clone)]
pub struct Conversation {
    framing: Framing,
    invalid_utf8: InvalidUtf8,
    /// The unfinished line, or the beginning of a character.
    begun: Vec<u8>,
}

/// What some input leads to.
#[derive(Debug, Default)]
pub struct Heard {
    /// One a message, as they are on the wire.
    pub replies: Vec<Vec<u8>>,
    /// The close reason, where the server reads no further.
    pub end: Option<&'static str>,
}

impl Conversation {
    pub fn new(framing: Framing, invalid_utf8: InvalidUtf8) -> Self {
        Self { framing, invalid_utf8, begun: Vec::new() }
    }

    /// Whether a message has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Bytes that arrive together at a server that has read everything before them. What is sent at
    /// once is one segment on this host, so that even a raw server's receives are known.
    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        match self.framing {
            Framing::Line => {
                bytes.iter().all(|&byte| self.hear_byte(byte, &mut heard));
            }
            Framing::Raw => {
                let mut receives = bytes.chunks(MAX_MESSAGE_BYTES);
                receives.all(|received| self.hear_receive(received, &mut heard));
            }
        }
        heard
    }

    /// The end of input: an unfinished message is finished.
    pub fn finish(&mut self) -> Heard {
        let mut heard = Heard::default();
        let begun = std::mem::take(&mut self.begun);
        match self.framing {
            _ if begun.is_empty() => {}
            Framing::Line if begun.len() > MAX_MESSAGE_BYTES => {
                heard.end = Some("message_too_long");
            }
            Framing::Line => self.hear_line(&begun, &mut heard),
            Framing::Raw => match self.invalid_utf8 {
                InvalidUtf8::Close => heard.end = Some("invalid_utf8"),
                InvalidUtf8::Replace => heard.replies.push("\u{FFFD}".into()),
            },
        }
        heard
    }

    /// Says whether the server reads on.
    fn hear_byte(&mut self, byte: u8, heard: &mut Heard) -> bool {
        if byte == b'\n' {
            let line = std::mem::take(&mut self.begun);
            self.hear_line(line.strip_suffix(b"\r").unwrap_or(&line), heard);
            return heard.end.is_none();
        }
        self.begun.push(byte);
        let may_be_its_end = byte == b'\r' && self.begun.len() == MAX_MESSAGE_BYTES + 1;
        if self.begun.len() > MAX_MESSAGE_BYTES && !may_be_its_end {
            heard.end = Some("message_too_long");
        } else if self.invalid_utf8 == InvalidUtf8::Close && is_bad(&self.begun) {
            heard.end = Some("invalid_utf8");
        }
        heard.end.is_none()
    }

    fn hear_line(&self, line: &[u8], heard: &mut Heard) {
        if line == EXIT_WORD {
            heard.end = Some("exit");
        } else if self.invalid_utf8 == InvalidUtf8::Close && std::str::from_utf8(line).is_err() {
            heard.end = Some("invalid_utf8");
        } else {
            heard.replies.push((String::from_utf8_lossy(line) + "\n").into_owned().into_bytes());
        }
    }

    /// Says whether the server reads on.
    fn hear_receive(&mut self, received: &[u8], heard: &mut Heard) -> bool {
        let without_end =
            received.strip_suffix(b"\n").map(|it| it.strip_suffix(b"\r").unwrap_or(it));
        if self.begun.is_empty() && without_end.unwrap_or(received) == EXIT_WORD {
            heard.end = Some("exit");
            return false;
        }
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(received);
        self.begun = bytes.split_off(bytes.len() - unfinished(&bytes));
        let text = match (std::str::from_utf8(&bytes), self.invalid_utf8) {
            (Err(error), InvalidUtf8::Close) => {
                heard.end = Some("invalid_utf8");
                bytes[..error.valid_up_to()].to_vec()
            }
            _ => String::from_utf8_lossy(&bytes).into_owned().into_bytes(),
        };
        if !text.is_empty() {
            heard.replies.push(text);
        }
        heard.end.is_none()
    }
}

/// Whether no continuation could mend the line; its last byte is new.
fn is_bad(line: &[u8]) -> bool {
    // Behind good ASCII another one changes nothing, and nearly all bytes are such.
    let is_plain = line.iter().rev().take(2).all(u8::is_ascii);
    !is_plain && std::str::from_utf8(line).is_err_and(|error| error.error_len().is_some())
}

/// The bytes at the end that begin a character without completing it.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_begun = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if is_begun { last.len() } else { 0 }
}
