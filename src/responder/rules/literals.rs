//! Rules whose matcher is a plain text, found by one look-up of each kind: a hash for those that
//! equal, a sorted list for those that begin, an automaton for those that contain.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// What a table of transitions may be built for, in bytes of literals; it takes some 256 times as
/// much. Above, the automaton is smaller and a few times slower.
const MAX_TABLED_BYTES: usize = 8 << 10;
/// Stands for no rule: it comes behind all others.
pub(super) const NONE: u32 = u32::MAX;

/// Plain texts, and the rules that each belongs to.
#[derive(Debug, Default)]
pub(super) struct Literals {
    equal: HashMap<Box<str>, Places, BuildHasherDefault<WordHasher>>,
    prefixes: Vec<Prefix>,
    contained: Option<AhoCorasick>,
    contained_rules: Vec<Places>,
    /// The first of all rules with a contained text.
    first_contained: u32,
    /// What [`Places`] are places in.
    rules: Vec<u32>,
}

/// The rules of one literal, in order.
#[derive(Debug, Clone, Copy)]
struct Places {
    first: u32,
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    rules: Places,
    /// The longest other prefix that this one begins with.
    shorter: Option<u32>,
    /// The first rule of this one and all shorter ones.
    first: u32,
}

/// Literals as they are gathered, each with its rules in order.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) equal: BTreeMap<String, Vec<u32>>,
    pub(super) prefixes: BTreeMap<String, Vec<u32>>,
    pub(super) contained: BTreeMap<String, Vec<u32>>,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.equal.is_empty() && self.prefixes.is_empty() && self.contained.is_empty()
    }
}

impl Literals {
    /// `None` when the texts are more than an automaton can be built for.
    pub(super) fn new(gathered: &Gathered) -> Option<Self> {
        let mut literals = Self { first_contained: NONE, ..Self::default() };
        for (text, rules) in &gathered.equal {
            let places = literals.keep(rules);
            literals.equal.insert(text.as_str().into(), places);
        }
        // In their order each prefix of a text stands before it, with only such texts between
        // that begin with it too.
        let mut open: Vec<u32> = Vec::new();
        for (text, rules) in &gathered.prefixes {
            let rules = literals.keep(rules);
            let is_shorter = |at: &u32| text.starts_with(&*literals.prefixes[*at as usize].text);
            while open.last().is_some_and(|at| !is_shorter(at)) {
                open.pop();
            }
            let shorter = open.last().copied();
            let first = shorter.map_or(NONE, |at| literals.prefixes[at as usize].first);
            open.push(u32::try_from(literals.prefixes.len()).ok()?);
            let (text, first) = (text.as_str().into(), first.min(rules.first));
            literals.prefixes.push(Prefix { text, rules, shorter, first });
        }
        if !gathered.contained.is_empty() {
            literals.contained = Some(automaton(gathered.contained.keys())?);
            for rules in gathered.contained.values() {
                let places = literals.keep(rules);
                literals.first_contained = literals.first_contained.min(places.first);
                literals.contained_rules.push(places);
            }
        }
        Some(literals)
    }

    fn keep(&mut self, rules: &[u32]) -> Places {
        let length =
            |rules: &[u32]| u32::try_from(rules.len()).expect("rules are counted in 32 bits");
        let start = length(&self.rules);
        self.rules.extend_from_slice(rules);
        Places { first: rules[0], start, end: length(&self.rules) }
    }

    /// The first rule before `best` of those at `places` that is open; else `best`.
    fn better(&self, places: Places, best: u32, is_open: impl Fn(u32) -> bool) -> u32 {
        if places.first >= best {
            return best;
        }
        let rules = &self.rules[places.start as usize..places.end as usize];
        let before = rules.iter().copied().take_while(|rule| *rule < best);
        before.into_iter().find(|rule| is_open(*rule)).unwrap_or(best)
    }

    /// The first open rule before `best` whose text is this one; else `best`.
    pub(super) fn equal(&self, text: &str, best: u32, is_open: impl Fn(u32) -> bool) -> u32 {
        match self.equal.get(text) {
            Some(places) => self.better(*places, best, is_open),
            None => best,
        }
    }

    /// The first open rule before `best` with a text that this one begins with; else `best`.
    pub(super) fn prefix(&self, text: &str, mut best: u32, is_open: impl Fn(u32) -> bool) -> u32 {
        // The last that is not behind the text begins with every prefix of it that there is.
        let behind = self.prefixes.partition_point(|prefix| *prefix.text <= *text);
        let mut at = behind.checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.prefixes[at]) {
            if prefix.first >= best {
                break;
            }
            if text.starts_with(&*prefix.text) {
                best = self.better(prefix.rules, best, &is_open);
            }
            at = prefix.shorter.map(|at| at as usize);
        }
        best
    }

    /// The first open rule before `best` with a text that is part of this one; else `best`.
    pub(super) fn contained(
        &self,
        text: &str,
        mut best: u32,
        is_open: impl Fn(u32) -> bool,
    ) -> u32 {
        let Some(automaton) = &self.contained else { return best };
        if self.first_contained >= best {
            return best;
        }
        let mut last = None;
        for found in automaton.find_overlapping_iter(text) {
            let literal = found.pattern();
            // A text of one repeated character would else ask for the same rules at each place.
            if last != Some(literal) {
                last = Some(literal);
                best = self.better(self.contained_rules[literal.as_usize()], best, &is_open);
                if best <= self.first_contained {
                    break;
                }
            }
        }
        best
    }
}

fn automaton<'t>(texts: impl Iterator<Item = &'t String> + Clone) -> Option<AhoCorasick> {
    let bytes: usize = texts.clone().map(String::len).sum();
    let kind = match bytes <= MAX_TABLED_BYTES {
        true => AhoCorasickKind::DFA,
        false => AhoCorasickKind::ContiguousNFA,
    };
    let mut builder = AhoCorasick::builder();
    builder.kind(Some(kind)).match_kind(MatchKind::Standard).prefilter(false);
    builder.build(texts).ok()
}

/// Hashes eight bytes at a time. The keys are those of the config, so that no client can choose
/// ones that collide.
#[derive(Debug, Default)]
struct WordHasher {
    state: u64,
}

impl WordHasher {
    fn mix(&mut self, word: u64) {
        // 2^64 divided by the golden ratio, made odd.
        let product = u128::from(self.state ^ word) * 0x9E37_79B9_7F4A_7C15;
        let bytes = product.to_le_bytes();
        let (low, high) = bytes.split_first_chunk().expect("16 bytes are two words");
        let high = high.first_chunk().expect("16 bytes are two words");
        self.state = u64::from_le_bytes(*low) ^ u64::from_le_bytes(*high);
    }
}

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        // A product with nothing would be nothing, whatever comes next.
        self.state ^= 0x243F_6A88_85A3_08D3 ^ bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
