//! A framer on trial: it goes through what a connection does with it, and what comes of it is held
//! to a slow model of the contract and to `std`. For the tests here and for those in `fuzz`.

pub(crate) mod model;

use super::{Framer, Framing, InvalidUtf8, MAX_HELD, Protocol, Step};
use model::{End, Outcome};

/// Everything that must hold for one conversation, cut in each of these ways.
#[track_caller]
pub(crate) fn check(protocol: &Protocol, turns: Turns, ways: &[Vec<&[u8]>]) {
    let mut first: Option<Outcome> = None;
    for chunks in ways {
        let found = tried(protocol, chunks, turns).unwrap_or_else(|difference| {
            panic!("{turns:?}, {protocol:?}\nchunks {chunks:x?}\n{difference}")
        });
        if found.end == End::Exit && protocol.framing == Framing::Raw {
            // Whether a chunk is the word depends on how it was cut, as nothing else does.
            continue;
        }
        let first = first.get_or_insert_with(|| found.clone());
        let alike = match protocol.framing {
            Framing::Raw => found.messages.concat() == first.messages.concat(),
            Framing::Line => found.messages == first.messages,
        };
        let ended = (found.end, found.was_unfinished) == (first.end, first.was_unfinished);
        assert!(alike && ended, "{protocol:?}\nchunks {chunks:x?}\n{found:?}\nas {first:?}");
    }
}

/// How a connection goes through a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turns {
    /// All of it at once.
    Whole,
    /// A turn for each message; what is left of the chunk is moved, as a connection moves it.
    OneMessage,
    /// By runs of so many messages and bytes, where there are any.
    Runs { most: usize, room: usize },
}

/// Does with a framer what a connection does, chunk by chunk.
pub(crate) fn frame(protocol: &Protocol, chunks: &[&[u8]], turns: Turns) -> Outcome {
    let mut framer = Framer::new(protocol.framing);
    let mut messages = Vec::new();
    for received in chunks {
        assert!(framer.held().len() <= MAX_HELD);
        let mut chunk = [framer.held(), *received].concat();
        let mut at = 0;
        loop {
            if let Turns::Runs { most, room } = turns
                && !framer.is_unfinished()
                && let Some(run) = framer.next_run(protocol, &chunk, &mut at, most, room, |_| ())
            {
                let text = str::from_utf8(&chunk[run.bytes]).expect("a run is text");
                let texts: Vec<&str> = match protocol.framing {
                    Framing::Raw => vec![text],
                    Framing::Line => text.split_terminator('\n').collect(),
                };
                assert_eq!(texts.len(), run.messages);
                let last = texts.last().expect("a run holds a message");
                let last = last.len() + protocol.terminator().len();
                assert!(run.messages <= most && text.len() <= room + last, "{texts:?}");
                messages.extend(texts.into_iter().map(str::to_owned));
                continue;
            }
            let end = match framer.next(protocol, &chunk, &mut at) {
                Step::More => break,
                Step::Message(message) => {
                    if let Some(verbatim) = message.verbatim {
                        let echo = format!("{}{}", message.text, protocol.terminator());
                        assert_eq!(chunk[verbatim], *echo.as_bytes(), "verbatim is not the echo");
                    }
                    messages.push(message.text.into_owned());
                    if let Turns::OneMessage = turns {
                        chunk.drain(..at);
                        at = 0;
                    }
                    continue;
                }
                Step::Exit => End::Exit,
                Step::InvalidUtf8 => End::InvalidUtf8,
                Step::TooLong => End::TooLong,
            };
            let is_one_line = !framer.refused(&chunk, at).contains(&b'\n');
            assert!(protocol.framing == Framing::Raw || end == End::Exit || is_one_line);
            return Outcome { messages, was_unfinished: false, end };
        }
        assert_eq!(at, chunk.len(), "bytes of the chunk were left");
    }
    let was_unfinished = framer.is_unfinished();
    loop {
        let end = match framer.finish(protocol) {
            Step::More => End::Finished,
            Step::Message(message) => {
                messages.push(message.text.into_owned());
                continue;
            }
            Step::Exit => End::Exit,
            Step::InvalidUtf8 => End::InvalidUtf8,
            Step::TooLong => End::TooLong,
        };
        return Outcome { messages, was_unfinished, end };
    }
}

/// What comes of one input cut in one way; `Err` says where that is not as it must be.
pub(crate) fn tried(
    protocol: &Protocol,
    chunks: &[&[u8]],
    turns: Turns,
) -> Result<Outcome, String> {
    let found = frame(protocol, chunks, turns);
    let expected = model::outcome(protocol, chunks);
    if found != expected {
        return Err(format!("the framer: {found:?}\nthe model:  {expected:?}"));
    }
    // The model may be wrong too; std has the last word on what is text.
    let agrees = match protocol.framing {
        Framing::Raw => raw_as_std(protocol, chunks, &found),
        Framing::Line => lines_as_std(protocol, &chunks.concat(), &found),
    };
    if agrees { Ok(found) } else { Err(format!("the framer, but not std: {found:?}")) }
}

fn raw_as_std(protocol: &Protocol, chunks: &[&[u8]], found: &Outcome) -> bool {
    let said = found.messages.concat();
    if found.end == End::Exit {
        // Some chunk is the word, and whole characters stand before it.
        let endings = [&b""[..], b"\n", b"\r\n"].map(|end| [&protocol.exit_word[..], end].concat());
        return (0..chunks.len()).any(|at| {
            endings.iter().any(|word| word == chunks[at])
                && said == String::from_utf8_lossy(&chunks[..at].concat())
        });
    }
    let bytes = chunks.concat();
    let valid = match protocol.invalid_utf8 {
        InvalidUtf8::Replace => bytes.len(),
        InvalidUtf8::Close => {
            str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len)
        }
    };
    let end = if valid == bytes.len() { End::Finished } else { End::InvalidUtf8 };
    said == String::from_utf8_lossy(&bytes[..valid]) && found.end == end
}

/// Each line is one message, up to the line that ended the conversation.
fn lines_as_std(protocol: &Protocol, bytes: &[u8], found: &Outcome) -> bool {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let count_fits = match found.end {
        End::Finished => found.messages.len() == lines.len(),
        End::Exit | End::InvalidUtf8 | End::TooLong => found.messages.len() < lines.len(),
    };
    count_fits
        && lines.iter().zip(&found.messages).all(|(line, message)| {
            let ended = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n"));
            let line = ended.unwrap_or(line);
            let is_allowed =
                protocol.invalid_utf8 == InvalidUtf8::Replace || str::from_utf8(line).is_ok();
            is_allowed
                && line.len() <= protocol.max_message_bytes
                && *message == String::from_utf8_lossy(line)
        })
}
