//! What must hold for any bytes whatever, and how the bytes of an input are read: what the targets
//! in `fuzz/` call, and the smoke test here. The checks stand beside what they check.

#[cfg(test)]
mod smoke;

use crate::wire::trial::Turns;
use crate::wire::{Framing, InvalidUtf8, Protocol, trial};
use crate::{client, config, sidecar};

/// The decoder and the framers, against `std` and a slow model, whatever the cuts.
///
/// One byte is the line limit (0: none), one chooses exit word and turns, three are the strides of
/// one of the ways to cut. The rest is what a client sends, in either framing and with bad bytes
/// closing or replaced.
pub fn framing(input: &[u8]) {
    let Some((&[limit, choice, ref strides @ ..], bytes)) = input.split_first_chunk::<5>() else {
        return;
    };
    let words: [&[u8]; 4] = [b"exit", b"", "é".as_bytes(), "再见".as_bytes()];
    let choose = |shift: u8| usize::from(choice >> shift) & 3;
    let turns = match choose(2) {
        0 => Turns::Whole,
        1 => Turns::OneMessage,
        _ => Turns::Runs { most: 1 + choose(4), room: 4 * choose(6) },
    };
    for framing in [Framing::Raw, Framing::Line] {
        for invalid_utf8 in [InvalidUtf8::Close, InvalidUtf8::Replace] {
            let max_message_bytes = if limit == 0 { 65_536 } else { limit.into() };
            let exit_word = words[choose(0)].into();
            let protocol = Protocol { framing, invalid_utf8, exit_word, max_message_bytes };
            trial::check(&protocol, turns, &ways_to_cut(bytes, strides));
        }
    }
}

/// The configuration's reader and its inverse, the printing.
///
/// The file, and behind a NUL each `TALKBACK_LISTEN`, `TALKBACK_WORKERS` and `TALKBACK_LOG`. Each
/// line is also read as what stands in a file or on a command line.
pub fn config(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    config::trial::check_file(file, [parts.next(), parts.next(), parts.next()]);
    for line in input.split(|byte| matches!(byte, b'\n' | 0)) {
        let Ok(word) = str::from_utf8(line) else { continue };
        config::trial::check_word(word);
        if let Ok(address) = word.parse::<client::Address>() {
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}

/// The reader of rules files, and the rules, against a slow model that tries one after another.
///
/// The file, and behind a NUL each what a client says.
pub fn rules(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let messages: Vec<_> = parts.map(String::from_utf8_lossy).collect();
    config::trial::check_rules(file, &messages);
}

/// The sidecar's reader of request heads, against a slow model, whatever the cuts.
///
/// One byte is the limit less one, three are the strides of one of the ways to cut. The rest is
/// what a scraper sends; it is also read under the limit that the sidecar has.
pub fn request_head(input: &[u8]) {
    let Some((&[limit, ref strides @ ..], bytes)) = input.split_first_chunk::<4>() else { return };
    for limit in [1 + usize::from(limit), sidecar::head_trial::real_limit()] {
        sidecar::head_trial::check(limit, bytes, &ways_to_cut(bytes, strides));
    }
}

/// Whole, byte by byte, and in pieces that are by one longer than these strides in turn.
fn ways_to_cut<'a>(bytes: &'a [u8], strides: &[u8; 3]) -> [Vec<&'a [u8]>; 3] {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for stride in strides.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(rest.len().min(1 + usize::from(*stride)));
        pieces.push(piece);
        rest = behind;
    }
    [bytes.chunks(bytes.len().max(1)).collect(), bytes.chunks(1).collect(), pieces]
}
