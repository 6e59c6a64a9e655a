//! The framers against the contract: a slow model of it, `std`, and more inputs than anyone would
//! write down, cut anywhere.

mod generated;

use super::trial::model::End;
use super::trial::{Turns, tried};
use super::{Framer, Framing, InvalidUtf8, Protocol, Step};

fn protocol(framing: Framing, invalid_utf8: InvalidUtf8, max_message_bytes: usize) -> Protocol {
    Protocol { framing, invalid_utf8, exit_word: (*b"exit").into(), max_message_bytes }
}

#[track_caller]
fn check(protocol: &Protocol, chunks: &[&[u8]], messages: &[&str], end: End) {
    let run = Turns::Runs { most: 2, room: 4 };
    for turns in [Turns::Whole, Turns::OneMessage, run] {
        let found = tried(protocol, chunks, turns).map(|found| (found.messages, found.end));
        assert_eq!(found, Ok((owned(messages), end)), "{chunks:x?}");
    }
}

/// A line conversation comes to the same however it is cut.
#[track_caller]
fn check_line(protocol: &Protocol, bytes: &[u8], messages: &[&str], end: End) {
    check(protocol, &[bytes], messages, end);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    check(protocol, &single, messages, end);
    for at in 1..bytes.len() {
        check(protocol, &[&bytes[..at], &bytes[at..]], messages, end);
    }
}

fn owned(messages: &[&str]) -> Vec<String> {
    messages.iter().map(|message| (*message).to_owned()).collect()
}

fn raw(invalid_utf8: InvalidUtf8) -> Protocol {
    protocol(Framing::Raw, invalid_utf8, 65_536)
}

fn line(invalid_utf8: InvalidUtf8, max_message_bytes: usize) -> Protocol {
    protocol(Framing::Line, invalid_utf8, max_message_bytes)
}

#[test]
fn a_raw_message_is_what_a_receive_completes() {
    let protocol = raw(InvalidUtf8::Close);
    check(
        &protocol,
        &[b"a\r\n\n", b"\0", b"\xEF\xBB\xBF"],
        &["a\r\n\n", "\0", "\u{FEFF}"],
        End::Finished,
    );
    check(&protocol, &[b"a\xE4", b"\xBD", b"\xA0b"], &["a", "你b"], End::Finished);
    check(&protocol, &[b"\xF0", b"\x9F", b"\x99", b"\x82\xF0"], &["🙂"], End::InvalidUtf8);
}

#[test]
fn raw_text_before_a_bad_byte_is_the_last_message() {
    let protocol = raw(InvalidUtf8::Close);
    check(&protocol, &[b"ab\xFFcd", b"ef"], &["ab"], End::InvalidUtf8);
    check(&protocol, &[b"\xC0\xAF"], &[], End::InvalidUtf8);
    check(&protocol, &[b"a\xE4", b"b"], &["a"], End::InvalidUtf8);
    check(&protocol, &[b"a\xED", b"\xA0"], &["a"], End::InvalidUtf8);
    check(&protocol, &[b"a\xE4\xBD"], &["a"], End::InvalidUtf8);
}

#[test]
fn a_cut_raw_character_is_replaced_only_when_a_byte_or_the_end_decides() {
    let protocol = raw(InvalidUtf8::Replace);
    check(&protocol, &[b"a\xE4", b"\xBD", b"\xA0"], &["a", "你"], End::Finished);
    check(&protocol, &[b"a\xE4", b"\xBD", b"b"], &["a", "\u{FFFD}b"], End::Finished);
    check(&protocol, &[b"a\xE4\xBD"], &["a", "\u{FFFD}"], End::Finished);
    check(
        &protocol,
        &[b"\xFF\xF0\x90", b"\xF0"],
        &["\u{FFFD}", "\u{FFFD}", "\u{FFFD}"],
        End::Finished,
    );
}

#[test]
fn the_raw_exit_word_is_a_whole_chunk_of_bytes() {
    for invalid_utf8 in [InvalidUtf8::Close, InvalidUtf8::Replace] {
        let protocol = raw(invalid_utf8);
        for exit in [&b"exit"[..], b"exit\n", b"exit\r\n"] {
            check(&protocol, &[b"a", exit, b"b"], &["a"], End::Exit);
        }
        for message in [" exit ", "EXIT", "exitexit", "exit\n\n", "exit\r", "\nexit", "exit\0"] {
            check(&protocol, &[message.as_bytes()], &[message], End::Finished);
        }
        check(&protocol, &[b"exit\xE4", b"\xBD\xA0"], &["exit", "你"], End::Finished);
    }
    check(&raw(InvalidUtf8::Close), &[b"\xE4", b"exit"], &[], End::InvalidUtf8);
    check(&raw(InvalidUtf8::Replace), &[b"\xE4", b"exit"], &["\u{FFFD}exit"], End::Finished);
}

#[test]
fn an_exit_word_with_held_bytes_before_it_is_a_message() {
    let protocol = Protocol { exit_word: "再见".as_bytes().into(), ..raw(InvalidUtf8::Close) };
    check(&protocol, &["再见\r\n".as_bytes(), b"a"], &[], End::Exit);
    check(&protocol, &[b"\xE5", b"\x86\x8D\xE8\xA7\x81"], &["再见"], End::Finished);
}

#[test]
fn without_an_exit_word_everything_is_a_message() {
    for framing in [Framing::Raw, Framing::Line] {
        let protocol =
            Protocol { exit_word: Box::default(), ..protocol(framing, InvalidUtf8::Close, 65_536) };
        check(&protocol, &[b"exit"], &["exit"], End::Finished);
        let nothing = if framing == Framing::Raw { "\n" } else { "" };
        check(&protocol, &[b"\n"], &[nothing], End::Finished);
    }
}

#[test]
fn lf_alone_ends_a_line_and_takes_one_cr_with_it() {
    let protocol = line(InvalidUtf8::Close, 65_536);
    check_line(&protocol, b"a\nb\r\n\n\r\n\r\r\n", &["a", "b", "", "", "\r"], End::Finished);
    for within in ["a\rb", "a\u{85}b", "a\u{2028}b", "a\u{B}b", "a\u{C}b", "\0", "\u{FEFF}"] {
        check_line(&protocol, format!("{within}\n").as_bytes(), &[within], End::Finished);
    }
}

#[test]
fn an_unfinished_last_line_counts_and_keeps_its_cr() {
    let protocol = line(InvalidUtf8::Close, 4);
    check_line(&protocol, b"a\nb", &["a", "b"], End::Finished);
    check_line(&protocol, b"b\r", &["b\r"], End::Finished);
    check_line(&protocol, b"a\nexit", &["a"], End::Exit);
    check_line(&protocol, b"exi\r", &["exi\r"], End::Finished);
    check_line(&protocol, b"exit\r", &[], End::TooLong);
    check_line(&line(InvalidUtf8::Close, 5), b"exit\r", &["exit\r"], End::Finished);
    check_line(&protocol, b"a\n\xE4", &["a"], End::InvalidUtf8);
    check_line(&line(InvalidUtf8::Replace, 4), b"\xE4\xBD", &["\u{FFFD}"], End::Finished);
}

#[test]
fn a_line_is_too_long_at_its_first_byte_over_the_limit() {
    for invalid_utf8 in [InvalidUtf8::Close, InvalidUtf8::Replace] {
        let protocol = line(invalid_utf8, 3);
        check_line(&protocol, b"abc\nabc\r\nabc", &["abc"; 3], End::Finished);
        for long in
            [&b"ok\nabcd"[..], b"ok\nabcd\n", b"ok\nabcd\r\n", b"ok\nabc\rd", b"ok\nabc\r\r\n"]
        {
            check_line(&protocol, long, &["ok"], End::TooLong);
        }
    }
}

#[test]
fn a_line_both_bad_and_too_long_ends_by_what_came_first() {
    let protocol = line(InvalidUtf8::Close, 3);
    check_line(&protocol, b"ab\xFFd\n", &[], End::InvalidUtf8);
    check_line(&protocol, b"\xFFbcdef\n", &[], End::InvalidUtf8);
    check_line(&protocol, b"abcd\xFF\n", &[], End::TooLong);
    check_line(&protocol, b"abc\xFF\n", &[], End::TooLong);
    check_line(&protocol, b"ab\xE4\xBD\xA0\n", &[], End::TooLong);
    check_line(&protocol, b"ab\xE4\n", &[], End::InvalidUtf8);
    // The CR may yet be the one before LF, and so is bad before it is too much.
    check_line(&protocol, b"ab\xE4\rx\n", &[], End::InvalidUtf8);
}

#[test]
fn the_line_exit_word_is_a_whole_line_of_bytes() {
    let protocol = line(InvalidUtf8::Close, 65_536);
    check_line(&protocol, b"a\nexit\nb\n", &["a"], End::Exit);
    check_line(&protocol, b"a\nexit\r\nb\n", &["a"], End::Exit);
    for message in [" exit ", "EXIT", "exitexit", "exit\r\r", "exit\0"] {
        let text = message.strip_suffix('\r').unwrap_or(message);
        check_line(&protocol, format!("{message}\n").as_bytes(), &[text], End::Finished);
    }
    check_line(&protocol, b"exit\xE4\n", &[], End::InvalidUtf8);
    check_line(&line(InvalidUtf8::Replace, 9), b"exit\xE4\n", &["exit\u{FFFD}"], End::Finished);
}

#[test]
fn an_exit_word_longer_than_a_line_may_be_is_a_line_too_long() {
    for bytes in [&b"exit\n"[..], b"exit", b"exit\r\n", b"exitexit\n"] {
        check_line(&line(InvalidUtf8::Close, 2), bytes, &[], End::TooLong);
    }
}

#[test]
fn a_conversation_that_owes_nothing_owns_no_memory() {
    let protocol = line(InvalidUtf8::Close, 65_536);
    let mut framer = Framer::new(Framing::Line);
    for (chunk, messages) in [(&b"a\nlong and not yet"[..], 1), (b" ended\n", 1)] {
        let mut at = 0;
        let steps = std::iter::from_fn(|| {
            matches!(framer.next(&protocol, chunk, &mut at), Step::Message(_)).then_some(())
        });
        assert_eq!(steps.count(), messages);
    }
    assert!(!framer.is_unfinished());
    assert_eq!(format!("{framer:?}"), format!("{:?}", Framer::new(Framing::Line)));
}
