//! What rules say, slowly and plainly: one rule after another, each text read when it is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use regex_automata::PatternID;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::{Heard, Said, Stage};
use crate::responder::Answer;
use crate::responder::rules::timestamp::Timestamp;
use crate::responder::rules::{Fault, Matcher, Rule, RuleBook};

/// What the values of a connection may have together that are not written in its book.
const MAX_STATE_BYTES: usize = 64 << 10;

pub(super) struct Model<'b> {
    book: &'b RuleBook,
    /// `None`: any text fits.
    regexes: Vec<Option<Regex>>,
    /// Each value, and whether a text with holes made it.
    state: BTreeMap<&'b str, (String, bool)>,
    uses: Vec<usize>,
    default_uses: usize,
    is_stalled: bool,
}

/// What fills the holes of a text.
struct Filling<'f> {
    number: u64,
    message: &'f str,
    delay: Duration,
    /// The groups of what matched, and the pattern that names them.
    groups: &'f [String],
    regex: Option<&'f Regex>,
}

impl<'b> Model<'b> {
    pub(super) fn new(book: &'b RuleBook) -> Self {
        let mut model = Self {
            book,
            regexes: book.rules.iter().map(regex).collect(),
            state: BTreeMap::new(),
            uses: vec![0; book.rules.len()],
            default_uses: 0,
            is_stalled: false,
        };
        for name in book.rules.iter().flat_map(|rule| rule.set.keys()) {
            model.state.insert(name, (String::new(), false));
        }
        for (name, value) in &book.state {
            model.state.insert(name, (model.plain(value), false));
        }
        model
    }

    pub(super) fn greeting(&self) -> Said {
        let Some(text) = &self.book.greeting else {
            return (Answer::Silence, Vec::new(), true, Duration::ZERO);
        };
        let delay = Duration::ZERO;
        let filling = Filling { number: 0, message: "", delay, groups: &[], regex: None };
        let reply = self.fill(text, &filling) + self.terminator();
        (Answer::Reply, reply.into_bytes(), self.book.terminator.is_none(), delay)
    }

    pub(super) fn hear(&mut self, number: u64, message: &str) -> Heard<'_> {
        if self.is_stalled {
            return self.heard(None, Answer::Silence, Vec::new(), Duration::ZERO);
        }
        let found = (0..self.book.rules.len()).find_map(|at| Some((at, self.fits(at, message)?)));
        let Some((at, groups)) = found else {
            let turn = self.default_uses;
            self.default_uses += 1;
            let filling =
                Filling { number, message, delay: Duration::ZERO, groups: &[], regex: None };
            return self.answer(None, &Rule::default(), &self.book.default, turn, &filling);
        };
        let (rule, regex) = (&self.book.rules[at], self.regexes[at].clone());
        let turn = self.uses[at];
        self.uses[at] += 1;
        let mut filling = Filling {
            number,
            message,
            delay: Duration::ZERO,
            groups: &groups,
            regex: regex.as_ref(),
        };
        let values: Vec<_> = rule
            .set
            .iter()
            .map(|(name, text)| (name.as_str(), (self.fill(text, &filling), has_holes(text))))
            .collect();
        self.state.extend(values);
        let written = self.state.values().filter(|(_, is_written)| *is_written);
        if written.map(|(value, _)| value.len()).sum::<usize>() > MAX_STATE_BYTES {
            return self.heard(Some(at), Answer::Failed, Vec::new(), Duration::ZERO);
        }
        filling.delay = rule.delay;
        self.answer(Some(at), rule, &rule.send, turn, &filling)
    }

    /// The groups of the rule at that place, if it answers the message.
    fn fits(&self, at: usize, message: &str) -> Option<Vec<String>> {
        let rule = &self.book.rules[at];
        let holds = |(name, value): (&String, &String)| {
            self.state.get(name.as_str()).is_some_and(|(is, _)| *is == self.plain(value))
        };
        let is_open = rule.when.iter().all(holds)
            && rule.times.is_none_or(|times| self.uses[at] < times as usize);
        if !is_open {
            return None;
        }
        let Some(regex) = &self.regexes[at] else { return Some(Vec::new()) };
        let mut captures = regex.create_captures();
        regex.captures(message, &mut captures);
        let found = captures.get_match()?;
        let (before, behind) = (&message[..found.start()], &message[found.end()..]);
        let groups = match &rule.matcher {
            Matcher::Any | Matcher::Equals(_) => vec![""],
            Matcher::Prefix(_) => vec!["", behind],
            Matcher::Contains(_) => vec!["", before, behind],
            Matcher::Matches(_) => {
                captures.iter().map(|group| group.map_or("", |span| &message[span])).collect()
            }
        };
        Some(groups.into_iter().map(str::to_owned).collect())
    }

    fn answer(
        &mut self,
        at: Option<usize>,
        rule: &Rule,
        texts: &[String],
        turn: usize,
        filling: &Filling<'_>,
    ) -> Heard<'_> {
        let delay = rule.delay;
        // Chance never spares a rule its fault: 0 is below every probability.
        match rule.fault {
            Some(Fault::Reset) => return self.heard(at, Answer::Reset, Vec::new(), delay),
            Some(Fault::Stall) => {
                self.is_stalled = true;
                return self.heard(at, Answer::Silence, Vec::new(), delay);
            }
            Some(Fault::Half | Fault::Garbage) | None => {}
        }
        if texts.is_empty() {
            let answer = if rule.close { Answer::Close } else { Answer::Silence };
            return self.heard(at, answer, Vec::new(), delay);
        }
        let answer = if rule.close { Answer::ReplyAndClose } else { Answer::Reply };
        let text = self.fill(&texts[turn % texts.len()], filling);
        let terminator = self.terminator().as_bytes();
        match rule.fault {
            Some(Fault::Half) => {
                let half = text.as_bytes()[..text.len() / 2].to_vec();
                let heard = self.heard(at, Answer::ReplyAndClose, half, delay);
                Heard { is_terminated: false, ..heard }
            }
            Some(_) => {
                let mut garbage = vec![0x80; text.len().max(1)];
                garbage[0] = 0xFF;
                self.heard(at, answer, [&*garbage, terminator].concat(), delay)
            }
            None => self.heard(at, answer, [text.as_bytes(), terminator].concat(), delay),
        }
    }

    fn heard(
        &self,
        rule: Option<usize>,
        answer: Answer,
        reply: Vec<u8>,
        delay: Duration,
    ) -> Heard<'_> {
        let says = matches!(answer, Answer::Reply | Answer::ReplyAndClose);
        let is_terminated = !says || self.book.terminator.is_none();
        let state = self.state.iter().map(|(name, (value, _))| (*name, value.as_str()));
        Heard { rule, answer, reply, is_terminated, delay, state: state.collect() }
    }

    // ---- texts ----

    fn terminator(&self) -> &'b str {
        self.book.terminator.as_deref().unwrap_or_default()
    }

    /// A text, or a piece of one, with the line ends that are sent.
    fn lines(&self, text: &str) -> String {
        match self.terminator() {
            "" => text.to_owned(),
            terminator => {
                text.replace("\r\n", "\n").split('\n').collect::<Vec<_>>().join(terminator)
            }
        }
    }

    /// A text without holes, which its own last line end is no part of.
    fn plain(&self, text: &str) -> String {
        let text =
            text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        self.lines(text)
    }

    fn fill(&self, text: &str, filling: &Filling<'_>) -> String {
        let pieces = pieces(text);
        let last = pieces.len().saturating_sub(1);
        let filled = pieces.into_iter().enumerate().map(|(at, piece)| match piece {
            Piece::Text(text) if at == last => self.plain(&text),
            Piece::Text(text) => self.lines(&text),
            Piece::Capture(name) => filling.capture(name),
            Piece::Hole(name) => match self.state.get(name) {
                Some((value, _)) => value.clone(),
                None => filling.hole(name),
            },
        });
        filled.collect()
    }
}

impl Filling<'_> {
    fn capture(&self, name: &str) -> String {
        let named = || self.regex?.group_info().to_index(PatternID::ZERO, name);
        let group = name.parse().ok().or_else(named).expect("a group of the pattern");
        self.groups[group].clone()
    }

    fn hole(&self, name: &str) -> String {
        match name {
            "message" => self.message.to_owned(),
            "count" => self.number.to_string(),
            "peer" => Stage::PEER.to_string(),
            "time" => Timestamp(Stage::NOW + self.delay).to_string(),
            range => {
                // The lowest, as chance has it here.
                let low = range.strip_prefix("random:").and_then(|range| range.split("..").next());
                let low = low.and_then(|low| low.trim().parse::<i64>().ok());
                low.expect("a range, as all else is known").to_string()
            }
        }
    }
}

enum Piece<'t> {
    Text(String),
    Capture(&'t str),
    Hole(&'t str),
}

/// A text that is well formed.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let open = match rest {
            _ if rest.starts_with("{{") || rest.starts_with("}}") => 0,
            _ if rest.starts_with("${") && !rest.starts_with("${{") => 2,
            _ if rest.starts_with('{') => 1,
            _ => 0,
        };
        if open > 0 {
            let (name, behind) = rest[open..].split_once('}').expect("a hole is closed");
            pieces.push(if open == 2 { Piece::Capture(name) } else { Piece::Hole(name) });
            rest = behind;
            continue;
        }
        match pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(first),
            _ => pieces.push(Piece::Text(first.into())),
        }
        let twice = if matches!(first, '{' | '}') { 2 } else { first.len_utf8() };
        rest = &rest[twice..];
    }
    pieces
}

fn has_holes(text: &str) -> bool {
    pieces(text).iter().any(|piece| !matches!(piece, Piece::Text(_)))
}

/// Any matcher is a regular expression.
fn regex(rule: &Rule) -> Option<Regex> {
    let escaped = |text: &str| regex_syntax::escape(text);
    let pattern = match &rule.matcher {
        Matcher::Any => return None,
        Matcher::Equals(text) => format!("^(?:{})$", escaped(text)),
        Matcher::Prefix(text) => format!("^(?:{})", escaped(text)),
        Matcher::Contains(text) => escaped(text),
        Matcher::Matches(pattern) => pattern.clone(),
    };
    let syntax = syntax::Config::new().case_insensitive(rule.ignore_case);
    Some(Regex::builder().syntax(syntax).build(&pattern).expect("the rules took it"))
}
