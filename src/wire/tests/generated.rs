//! More inputs than anyone would write down: every character, and generated ones by the million.

use proptest::prelude::*;

use super::protocol;
use crate::wire::trial::model::End;
use crate::wire::trial::{Turns, frame, tried};
use crate::wire::{Framing, InvalidUtf8};

fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let mut start = 0;
    ends.map(|end| &bytes[std::mem::replace(&mut start, end)..end])
        .filter(|chunk| !chunk.is_empty())
        .collect()
}

const EVERY_KIND: [(Framing, InvalidUtf8); 4] = [
    (Framing::Raw, InvalidUtf8::Close),
    (Framing::Raw, InvalidUtf8::Replace),
    (Framing::Line, InvalidUtf8::Close),
    (Framing::Line, InvalidUtf8::Replace),
];

/// Small, seeded, and the same everywhere: xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % sides
    }
}

/// What inputs are made of: characters of every length and their beginnings, what only looks like
/// one, line endings, and the exit word and what resembles it.
const PIECES: [&[u8]; 46] = [
    b"a",
    b"b",
    b" ",
    b"\0",
    b"\x7F",
    b"\n",
    b"\n",
    b"\n",
    b"\n",
    b"\r",
    b"\r",
    b"\r\n",
    b"\r\r\n",
    b"exit",
    b"exit",
    b"exit\n",
    b"exit\r\n",
    b"exi",
    b"xit",
    b" exit ",
    b"EXIT\n",
    b"\xC3\xA9",
    b"\xC3",
    b"\xA9",
    b"\x80",
    b"\xBF",
    b"\xE4\xBD\xA0",
    b"\xE4\xBD",
    b"\xE4",
    b"\xBD\xA0",
    b"\xEF\xBB\xBF",
    b"\xE2\x80\xA8",
    b"\xC2\x85",
    b"\xF0\x9F\x99\x82",
    b"\xF0\x9F\x99",
    b"\xF0\x9F",
    b"\xF0",
    b"\x9F\x99\x82",
    b"\xF4\x8F\xBF\xBF",
    b"\xF4\x90",
    b"\xED\xA0\x80",
    b"\xED\x9F\xBF",
    b"\xE0\x80",
    b"\xE0\xA0",
    b"\xC0\xAF",
    b"\xFF",
];

/// The line limits lie around the inputs' lengths; 9 stands for none.
const LIMITS: usize = 9;

fn limit(choice: usize) -> usize {
    if choice == LIMITS { 65_536 } else { choice }
}

/// `count` inputs of one kind, with cuts, against the model and std.
fn generate(kind: (Framing, InvalidUtf8), count: u64) {
    for seed in 1..=count {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut bytes = Vec::new();
        for _ in 0..=dice.roll(6) {
            match dice.roll(16) {
                0 => bytes.push(u8::try_from(dice.roll(256)).unwrap()),
                _ => bytes.extend_from_slice(PIECES[dice.roll(PIECES.len())]),
            }
        }
        let cuts: Vec<usize> = match dice.roll(4) {
            0 => (1..bytes.len()).collect(),
            sides => (1..bytes.len()).filter(|_| dice.roll(1 + sides) == 0).collect(),
        };
        let chunks = cut(&bytes, &cuts);
        let mut protocol = protocol(kind.0, kind.1, limit(1 + dice.roll(LIMITS)));
        if dice.roll(8) == 0 {
            let others: [&[u8]; 3] = [b"", "é".as_bytes(), "你".as_bytes()];
            protocol.exit_word = others[dice.roll(3)].into();
        }
        let turns = match dice.roll(3) {
            0 => Turns::Whole,
            1 => Turns::OneMessage,
            _ => Turns::Runs { most: 1 + dice.roll(4), room: dice.roll(8) },
        };
        if let Err(difference) = tried(&protocol, &chunks, turns) {
            panic!("seed {seed}, {turns:?}, {protocol:?}\nchunks {chunks:x?}\n{difference}");
        }
    }
}

const GENERATED_OF_A_KIND: u64 = 256 * 1024;

#[test]
fn a_quarter_million_raw_inputs_are_answered_up_to_the_first_bad_byte() {
    generate(EVERY_KIND[0], GENERATED_OF_A_KIND);
}

#[test]
fn a_quarter_million_raw_inputs_are_answered_as_std_replaces() {
    generate(EVERY_KIND[1], GENERATED_OF_A_KIND);
}

#[test]
fn a_quarter_million_line_inputs_end_alike_however_cut_where_bad_bytes_close() {
    generate(EVERY_KIND[2], GENERATED_OF_A_KIND);
}

#[test]
fn a_quarter_million_line_inputs_end_alike_however_cut_where_bad_bytes_are_replaced() {
    generate(EVERY_KIND[3], GENERATED_OF_A_KIND);
}

#[test]
fn every_character_cut_anywhere_comes_back_whole_in_raw() {
    check_every_character(Framing::Raw);
}

#[test]
fn every_character_cut_anywhere_comes_back_whole_in_line() {
    check_every_character(Framing::Line);
}

#[track_caller]
fn check_every_character(framing: Framing) {
    let protocol = protocol(framing, InvalidUtf8::Close, 65_536);
    let every: Vec<char> = ('\0'..=char::MAX).collect();
    assert_eq!(every.len(), 0x11_0000 - 0x800);
    for some in every.chunks(64) {
        let text = String::from_iter(some);
        // In line framing LF is not text.
        let expected = if framing == Framing::Line { text.replace('\n', "") } else { text.clone() };
        for offset in 0..4 {
            let begun = text.char_indices().filter(|(_, character)| offset < character.len_utf8());
            let cuts: Vec<usize> = begun.map(|(start, _)| start + offset).collect();
            let found = frame(&protocol, &cut(text.as_bytes(), &cuts), Turns::Whole);
            assert_eq!((found.messages.concat(), found.end), (expected.clone(), End::Finished));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Fewer inputs than above, but a failure is shown at its smallest.
    #[test]
    fn any_bytes_in_any_chunks_end_as_the_contract_says(
        kind in 0..EVERY_KIND.len(),
        max in 1..=LIMITS,
        pieces in prop::collection::vec(0..PIECES.len(), 0..8),
        cuts in prop::collection::btree_set(0..32_usize, 0..8),
        most in 1..4_usize,
        room in 0..8_usize,
    ) {
        let (framing, invalid_utf8) = EVERY_KIND[kind];
        let bytes = pieces.iter().map(|piece| PIECES[*piece]).collect::<Vec<_>>().concat();
        let cuts: Vec<usize> = cuts.into_iter().filter(|at| *at < bytes.len()).collect();
        let protocol = protocol(framing, invalid_utf8, limit(max));
        for turns in [Turns::Whole, Turns::OneMessage, Turns::Runs { most, room }] {
            let found = tried(&protocol, &cut(&bytes, &cuts), turns).map(drop);
            prop_assert_eq!(found, Ok(()), "{:x?} cut at {:?}", bytes, cuts);
        }
    }
}
