//! Regular expressions: linear in the text, bounded in what they may become, and all of a book's
//! tried in one pass.

use regex_automata::meta::{Cache, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Input, MatchKind, PatternSet};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, Look, LookSet};

use super::template::Mistake;

/// How long a pattern may be.
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// What one pattern may become.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// What all patterns of a book may become.
const MAX_SET_BYTES: usize = 16 << 20;
/// States that a search has met, kept for the next one, in each thread: of one pattern, and of all.
const CACHE_BYTES: usize = 256 << 10;
const SET_CACHE_BYTES: usize = 4 << 20;
/// One regular expression.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    hir: Hir,
    regex: Regex,
    /// The names of its groups, the whole match first.
    groups: Vec<Option<String>>,
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
        let mut parser = ParserBuilder::new().case_insensitive(ignore_case).build();
        let hir = parser.parse(pattern).map_err(|error| match error {
            regex_syntax::Error::Parse(error) => {
                mistake(error.span().start.offset, error.kind().to_string())
            }
            regex_syntax::Error::Translate(error) => {
                mistake(error.span().start.offset, error.kind().to_string())
            }
            error => mistake(0, error.to_string().replace('\n', " ")),
        })?;
        let config = Config::new()
            .nfa_size_limit(Some(MAX_COMPILED_BYTES))
            .hybrid_cache_capacity(CACHE_BYTES);
        let regex = Regex::builder().configure(config).build_from_hir(&hir).map_err(|error| {
            let problem = match error.size_limit() {
                Some(limit) => format!("would become larger than {limit} bytes; repeat less"),
                None => error.to_string(),
            };
            mistake(0, problem)
        })?;
        let first = regex.group_info().pattern_names(regex_automata::PatternID::ZERO);
        let groups: Vec<_> = first.map(|name| name.map(str::to_owned)).collect();
        Ok(Self { hir, regex, groups })
    }

    pub(super) fn groups(&self) -> &[Option<String>] {
        &self.groups
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Whether it matches every text: it may match nothing at all, and does not mind where.
    pub(super) fn matches_always(&self) -> bool {
        let properties = self.hir.properties();
        let at_start = LookSet::singleton(Look::Start);
        properties.minimum_len() == Some(0) && properties.look_set().subtract(at_start).is_empty()
    }

    pub(super) fn create_cache(&self) -> Cache {
        self.regex.create_cache()
    }

    /// Where its groups are in a text that it matches.
    pub(super) fn find(&self, text: &str, cache: &mut Cache, slots: &mut Vec<Slot>) {
        slots.clear();
        slots.resize(2 * self.groups.len(), None);
        // Where there is no match the slots stay empty.
        let _ = self.regex.search_slots_with(cache, &Input::new(text), slots);
    }
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
    pub(super) fn new<'p>(patterns: impl IntoIterator<Item = &'p Pattern>) -> Option<Self> {
        let hirs: Vec<&Hir> = patterns.into_iter().map(|pattern| &pattern.hir).collect();
        let config = Config::new()
            .match_kind(MatchKind::All)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(MAX_SET_BYTES))
            .hybrid_cache_capacity(SET_CACHE_BYTES);
        let regex = Regex::builder().configure(config).build_many_from_hir(&hirs).ok()?;
        Some(Self { regex })
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
