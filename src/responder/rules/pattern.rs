//! Regular expressions: linear in the text, bounded in what they may become, and all of a book's
//! tried in one pass.

use std::sync::Arc;

use regex_automata::meta::{Cache, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Input, MatchKind, PatternSet};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, Look, LookSet};

use super::certain::Certainties;
use super::fold::{Folding, ignores_case};
use super::futile::objection;
use super::template::Mistake;

/// How long a pattern may be.
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// What one pattern may become.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// What all patterns of a book may become.
pub(super) const MAX_SET_BYTES: usize = 16 << 20;
/// States that searches have met, kept for the next one in each thread: of one pattern, and of
/// those tried together. Less than twice what the pattern takes is no use, and makes it slow.
const CACHE_BYTES: usize = 2 << 20;
const SET_CACHE_BYTES: usize = 32 << 20;
/// What all have in common, to skip texts without it, is looked for in the time of their square.
const MAX_COMPARED: usize = 1000;
/// The table that takes a text apart fastest. One with Unicode's `\w` would take most of a MiB for
/// each pattern, and saves such a pattern no more than half of its time.
const MAX_TABLE_BYTES: usize = 64 << 10;

/// One regular expression.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    hir: Arc<Hir>,
    regex: Regex,
    /// The names of its groups, the whole match first.
    groups: Vec<Option<String>>,
    ignores_case: bool,
}

/// What every text has that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    /// One of these, none of them empty.
    pub(super) literals: Vec<String>,
    /// Whether it stands at the beginning.
    pub(super) at_start: bool,
}

/// Where the groups of a match begin and end, one after another.
pub(super) type Slot = Option<NonMaxUsize>;

impl Pattern {
    pub(super) fn new(pattern: &str, ignore_case: bool) -> Result<Self, Mistake> {
        let mistake = |at, problem: String| Mistake { at, problem };
        if pattern.len() > MAX_PATTERN_BYTES {
            let length = pattern.len();
            let problem = format!("has {length} bytes; a pattern may have {MAX_PATTERN_BYTES}");
            return Err(mistake(MAX_PATTERN_BYTES, problem));
        }
        let hir = parse(pattern, ignore_case)?;
        let config = Config::new()
            .nfa_size_limit(Some(MAX_COMPILED_BYTES))
            .hybrid_cache_capacity(CACHE_BYTES)
            .onepass_size_limit(Some(MAX_TABLE_BYTES));
        let regex = Regex::builder().configure(config).build_from_hir(&hir).map_err(|error| {
            let problem = match error.size_limit() {
                Some(limit) => format!("would become larger than {limit} bytes; repeat less"),
                None => error.to_string(),
            };
            mistake(0, problem)
        })?;
        let first = regex.group_info().pattern_names(regex_automata::PatternID::ZERO);
        let groups: Vec<_> = first.map(|name| name.map(str::to_owned)).collect();
        Ok(Self { hir: Arc::new(hir), regex, groups, ignores_case: ignore_case })
    }

    pub(super) fn groups(&self) -> &[Option<String>] {
        &self.groups
    }

    pub(super) fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// What it has become, in bytes.
    pub(super) fn compiled_bytes(&self) -> usize {
        self.regex.memory_usage()
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    pub(super) fn matches_with(&self, text: &str, cache: &mut Cache) -> bool {
        self.regex.search_half_with(cache, &Input::new(text).earliest(true)).is_some()
    }

    /// Whether it matches every text: it may match nothing at all, and does not mind where.
    pub(super) fn matches_always(&self) -> bool {
        let properties = self.hir.properties();
        let at_start = LookSet::singleton(Look::Start);
        properties.minimum_len() == Some(0) && properties.look_set().subtract(at_start).is_empty()
    }

    /// Those that it has anywhere.
    pub(super) fn looks(&self) -> LookSet {
        self.hir.properties().look_set()
    }

    /// Whether it matches a text in every case in which it may be written, or in none, but for
    /// what its looks see.
    pub(super) fn ignores_all_case(&self) -> bool {
        ignores_case(&self.hir)
    }

    /// Why no text fits it, if that is so.
    pub(super) fn objection(&self) -> Option<&'static str> {
        objection(&self.hir)
    }

    /// `None`: nothing that could be looked for.
    pub(super) fn needed(&self) -> Option<Needed> {
        let found = Extractor::new().extract(&self.hir);
        let text = |bytes| str::from_utf8(bytes).ok().filter(|text| !text.is_empty());
        let texts = found.literals()?.iter().map(|literal| text(literal.as_bytes()));
        let literals: Vec<String> =
            texts.map(|text| text.map(str::to_owned)).collect::<Option<_>>()?;
        let at_start = self.hir.properties().look_set_prefix().contains(Look::Start);
        (!literals.is_empty()).then_some(Needed { literals, at_start })
    }

    pub(super) fn certainties(&self, folding: &Folding) -> Certainties {
        Certainties::of(&self.hir, folding)
    }

    pub(super) fn create_cache(&self) -> Cache {
        self.regex.create_cache()
    }

    /// Whether it matches, and where its groups are then.
    pub(super) fn find(&self, text: &str, cache: &mut Cache, slots: &mut Vec<Slot>) -> bool {
        slots.clear();
        slots.resize(2 * self.groups.len(), None);
        self.regex.search_slots_with(cache, &Input::new(text), slots).is_some()
    }
}

/// What a pattern says, whatever it would become.
pub(super) fn parse(pattern: &str, ignore_case: bool) -> Result<Hir, Mistake> {
    let mistake = |at, problem: String| Mistake { at, problem };
    let mut parser = ParserBuilder::new().case_insensitive(ignore_case).build();
    parser.parse(pattern).map_err(|error| match error {
        regex_syntax::Error::Parse(error) => {
            mistake(error.span().start.offset, error.kind().to_string())
        }
        regex_syntax::Error::Translate(error) => {
            mistake(error.span().start.offset, error.kind().to_string())
        }
        error => mistake(0, error.to_string().replace('\n', " ")),
    })
}

/// Patterns that are tried together.
#[derive(Debug, Clone)]
pub(super) struct PatternsAtOnce {
    regex: Regex,
}

/// What a search needs beside the text.
#[derive(Debug)]
pub(super) struct SetCache {
    cache: Cache,
    found: PatternSet,
}

impl PatternsAtOnce {
    /// `None` when together they would become too large.
    pub(super) fn new(patterns: &[&Pattern]) -> Option<Self> {
        let hirs: Vec<&Hir> = patterns.iter().map(|pattern| &*pattern.hir).collect();
        let config = Config::new()
            .match_kind(MatchKind::All)
            .which_captures(WhichCaptures::None)
            .auto_prefilter(hirs.len() <= MAX_COMPARED)
            .nfa_size_limit(Some(MAX_SET_BYTES))
            .hybrid_cache_capacity(SET_CACHE_BYTES);
        let regex = Regex::builder().configure(config).build_many_from_hir(&hirs).ok()?;
        Some(Self { regex })
    }

    /// How many of the first ones do not become too large together, as all of them do.
    pub(super) fn most(patterns: &[&Pattern]) -> usize {
        let (mut most, mut too_many) = (0, patterns.len());
        while most + 1 < too_many {
            let count = most.midpoint(too_many);
            match Self::new(&patterns[..count]) {
                Some(_) => most = count,
                None => too_many = count,
            }
        }
        most
    }

    pub(super) fn create_cache(&self) -> SetCache {
        let found = PatternSet::new(self.regex.pattern_len());
        SetCache { cache: self.regex.create_cache(), found }
    }

    /// Those that match the text, in their order.
    pub(super) fn find<'c>(
        &self,
        text: &str,
        cache: &'c mut SetCache,
    ) -> impl Iterator<Item = usize> + use<'c> {
        let SetCache { cache, found } = cache;
        found.clear();
        self.regex.which_overlapping_matches_with(cache, &Input::new(text), found);
        found.iter().map(|pattern| pattern.as_usize())
    }
}
