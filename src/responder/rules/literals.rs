//! Rules whose matcher is a plain text, found by one look-up of each kind: a hash for those that
//! equal, a sorted list for those that begin, an automaton for those that contain.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use aho_corasick::automaton::Automaton;
use aho_corasick::{Anchored, dfa, nfa};

use super::marks::Marks;

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
    contained: Option<Contained>,
    contained_rules: Vec<Places>,
    /// The first of all rules with a contained text.
    first_contained: u32,
    /// What [`Places`] are places in.
    rules: Vec<u32>,
}

/// Finds all literals in a text at once, those that overlap too.
#[derive(Debug)]
enum Contained {
    Tabled(Box<dfa::DFA>),
    Compact(Box<nfa::contiguous::NFA>),
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
            literals.contained = Some(Contained::new(gathered.contained.keys())?);
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
    fn better(&self, places: Places, best: u32, is_open: &mut impl FnMut(u32) -> bool) -> u32 {
        if places.first >= best {
            return best;
        }
        let rules = &self.rules[places.start as usize..places.end as usize];
        let before = rules.iter().copied().take_while(|rule| *rule < best);
        before.into_iter().find(|rule| is_open(*rule)).unwrap_or(best)
    }

    /// The first open rule before `best` whose text is this one; else `best`.
    pub(super) fn equal(
        &self,
        text: &str,
        best: u32,
        is_open: &mut impl FnMut(u32) -> bool,
    ) -> u32 {
        match self.equal.get(text) {
            Some(places) => self.better(*places, best, is_open),
            None => best,
        }
    }

    /// The first open rule before `best` with a text that this one begins with; else `best`.
    pub(super) fn prefix(
        &self,
        text: &str,
        mut best: u32,
        is_open: &mut impl FnMut(u32) -> bool,
    ) -> u32 {
        // The last that is not behind the text begins with every prefix of it that there is.
        let behind = self.prefixes.partition_point(|prefix| *prefix.text <= *text);
        let mut at = behind.checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.prefixes[at]) {
            if prefix.first >= best {
                break;
            }
            if text.starts_with(&*prefix.text) {
                best = self.better(prefix.rules, best, is_open);
            }
            at = prefix.shorter.map(|at| at as usize);
        }
        best
    }

    /// How many texts there are that another may contain.
    pub(super) fn contained_count(&self) -> usize {
        self.contained_rules.len()
    }

    /// The first open rule before `best` with a text that is part of this one; else `best`. Each
    /// text is asked for its rules once, wherever else it stands: what is not open stays so for
    /// this message, and a client may write a text as often as it has place.
    pub(super) fn contained(
        &self,
        text: &str,
        mut best: u32,
        is_open: &mut impl FnMut(u32) -> bool,
        met: &mut Marks,
    ) -> u32 {
        let Some(contained) = &self.contained else { return best };
        if self.first_contained >= best {
            return best;
        }
        met.clear();
        let visit = |literal| {
            if !met.add(literal) {
                return Next::Place;
            }
            best = self.better(self.contained_rules[literal], best, is_open);
            if best > self.first_contained { Next::Literal } else { Next::Nothing }
        };
        match contained {
            Contained::Tabled(automaton) => scan(&**automaton, text, visit),
            Contained::Compact(automaton) => scan(&**automaton, text, visit),
        }
        best
    }
}

impl Contained {
    fn new<'t>(texts: impl Iterator<Item = &'t String> + Clone) -> Option<Self> {
        let bytes: usize = texts.clone().map(String::len).sum();
        if bytes <= MAX_TABLED_BYTES {
            let automaton = dfa::Builder::new().prefilter(false).build(texts).ok()?;
            return Some(Self::Tabled(Box::new(automaton)));
        }
        let automaton = nfa::contiguous::Builder::new().prefilter(false).build(texts).ok()?;
        Some(Self::Compact(Box::new(automaton)))
    }
}

/// What a scan is to show behind a literal.
enum Next {
    /// The next shorter one that ends at the same place.
    Literal,
    /// What ends behind this place.
    Place,
    Nothing,
}

/// Shows the literals that end at each place, the longest first, as far as they are asked for.
/// Which shorter ones it ends with is the same at every place of a literal, so that one that was
/// met is followed by none that is new. The crate's own search for overlapping matches takes three
/// times as many instructions.
fn scan(automaton: &impl Automaton, text: &str, mut visit: impl FnMut(usize) -> Next) {
    let mut state = automaton.start_state(Anchored::No).expect("it searches from any place");
    for byte in text.as_bytes() {
        state = automaton.next_state(Anchored::No, state, *byte);
        if automaton.is_special(state) && automaton.is_match(state) {
            for at in 0..automaton.match_len(state) {
                match visit(automaton.match_pattern(state, at).as_usize()) {
                    Next::Literal => {}
                    Next::Place => break,
                    Next::Nothing => return,
                }
            }
        }
    }
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
        if let Some(last) = bytes.last_chunk::<8>() {
            // Some of it twice, which costs less than to take only the rest.
            self.mix(if rest.is_empty() { 0 } else { u64::from_le_bytes(*last) });
        } else {
            self.mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(byte.into());
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
