//! UTF-8 that arrives in pieces: what of some bytes is text, what waits for its rest, what is bad.

use std::borrow::Cow;
use std::str;

/// What stands behind the text at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing: the bytes are whole characters.
    Nothing,
    /// So many bytes (1 to 3) that begin a character and may still be completed.
    Cut(usize),
    /// A byte that no continuation could mend.
    Bad,
}

/// The longest valid text at the start of `bytes`, and what stands behind it.
pub(super) fn split(bytes: &[u8]) -> (&str, Behind) {
    let cut = cut_at_end(bytes);
    let (whole, _) = bytes.split_at(bytes.len() - cut);
    match simdutf8::basic::from_utf8(whole) {
        Ok(text) if cut == 0 => (text, Behind::Nothing),
        Ok(text) => (text, Behind::Cut(cut)),
        Err(_) => (longest_valid_prefix(whole), Behind::Bad),
    }
}

/// Like `String::from_utf8_lossy`, but a character cut off at the end is left for its rest: the
/// second value is its length.
pub(super) fn split_lossy(bytes: &[u8]) -> (Cow<'_, str>, usize) {
    let cut = cut_at_end(bytes);
    let (whole, _) = bytes.split_at(bytes.len() - cut);
    (String::from_utf8_lossy(whole), cut)
}

/// Whether `bytes` hold a sequence that no continuation could mend.
pub(super) fn is_bad(bytes: &[u8]) -> bool {
    split(bytes).1 == Behind::Bad
}

fn longest_valid_prefix(bytes: &[u8]) -> &str {
    let end = match str::from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.valid_up_to(),
    };
    str::from_utf8(&bytes[..end]).expect("the bytes before a UTF-8 error are valid")
}

/// The number of bytes at the end that begin a character without completing it, 0 to 3. Bytes
/// that no continuation could mend are not such a beginning.
pub(super) fn cut_at_end(bytes: &[u8]) -> usize {
    match bytes.last() {
        None | Some(0..=0x7F) => return 0,
        Some(_) => {}
    }
    // A lead byte is at most three bytes from the end, or the character is complete.
    for length in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - length..];
        if tail[0] & 0b1100_0000 != 0b1000_0000 {
            let mendable = str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
            return if mendable { length } else { 0 };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], text: &str, behind: Behind) {
        assert_eq!(split(bytes), (text, behind), "{bytes:x?}");
    }

    #[test]
    fn whole_characters_leave_nothing_behind() {
        check(b"", "", Behind::Nothing);
        check(b"abc\0", "abc\0", Behind::Nothing);
        check("\u{FEFF}你好🙂".as_bytes(), "\u{FEFF}你好🙂", Behind::Nothing);
    }

    #[test]
    fn a_character_cut_anywhere_waits_for_its_rest() {
        for whole in ["é", "你", "🙂", "\u{10FFFF}"] {
            for cut in 1..whole.len() {
                let mut bytes = b"a".to_vec();
                bytes.extend_from_slice(&whole.as_bytes()[..cut]);
                check(&bytes, "a", Behind::Cut(cut));
            }
        }
    }

    #[test]
    fn what_no_continuation_could_mend_is_bad_at_once() {
        for bad in [
            &b"\xFF"[..],
            b"\x80",
            b"\xC0",
            b"\xC1",
            b"\xF5",
            b"\xE0\x80",
            b"\xED\xA0",
            b"\xF0\x80",
            b"\xF4\x90",
            b"\xE4a",
            b"\xE4\xBD\xE4",
        ] {
            let mut bytes = b"ok".to_vec();
            bytes.extend_from_slice(bad);
            check(&bytes, "ok", Behind::Bad);
        }
    }

    #[test]
    fn replacement_holds_a_cut_character_back() {
        assert_eq!(split_lossy(b"a\xFFb\xE4\xBD"), ("a\u{FFFD}b".into(), 2));
        assert_eq!(split_lossy(b"\xE0\x80"), ("\u{FFFD}\u{FFFD}".into(), 0));
    }
}
