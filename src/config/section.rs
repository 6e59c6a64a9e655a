//! Typed readers over one table of the file. Each gives a value or nothing; what is wrong is noted
//! with its place, and reading goes on, so that the operator sees every fault at once.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::reference::{Allowed, Key, reference};
use super::syntax::Lines;
use super::validate::{out_of_range, shortened};
use super::{Fault, Origin, Origins, rules_reference};

/// The contents of a file that this one names.
pub(super) type Files<'f> = &'f dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What reading notes on its way.
pub(super) struct Notes<'s> {
    pub(super) path: PathBuf,
    pub(super) source: &'s str,
    pub(super) files: Files<'s>,
    /// Names of responders beside the built-in ones.
    pub(super) own_responders: &'s [String],
    pub(super) faults: Vec<Fault>,
    /// Those of the files that this one names, each file's by place.
    pub(super) included: Vec<Fault>,
    pub(super) origins: Origins,
    /// Where each line begins.
    lines: Vec<usize>,
    /// The byte last placed, and the characters before it on its line.
    last: (usize, usize),
}

impl<'s> Notes<'s> {
    pub(super) fn new(path: &Path, source: &'s str, files: Files<'s>) -> Self {
        let behind_each = source.match_indices('\n').map(|(newline, _)| newline + 1);
        let lines = std::iter::once(0).chain(behind_each).collect();
        let (path, origins, last) = (path.to_owned(), Origins::default(), (0, 0));
        let (faults, included) = (Vec::new(), Vec::new());
        Self { path, source, files, own_responders: &[], faults, included, origins, lines, last }
    }

    /// The source as a tree, unless so much is wrong with it that what a parser makes of the rest
    /// would blame keys that are right.
    pub(super) fn tree(&mut self) -> Option<Spanned<DeTable<'s>>> {
        let (tree, errors) = DeTable::parse_recoverable(self.source);
        for error in &errors {
            let end = self.source.len();
            let span = error.span().unwrap_or(end..end);
            let lines = Lines { source: self.source, starts: &self.lines };
            let hint = lines.hint(span.clone(), error.message());
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            self.fault(span, "", format!("not TOML: {}{hint}", error.message()));
        }
        // One slip often makes several syntax errors; the first of a line is the one that helps.
        self.faults.sort_by_key(Fault::rank);
        self.faults.dedup_by_key(|fault| fault.rank().1);
        errors.iter().all(|error| error.message().contains("duplicate key")).then_some(tree)
    }

    /// The fault of a file of which only the source is UTF-8.
    pub(super) fn not_utf8(&mut self) {
        let end = self.source.len();
        self.fault(end..end, "", "not TOML: here is a byte that is not UTF-8");
    }

    /// The place of a byte of the source. A log named by mistake has a fault on each line, and a
    /// table on one line has all of its own there: nothing is counted anew for each of them.
    pub(super) fn place(&mut self, offset: usize) -> Origin {
        let at = self.source.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let (last, counted) = self.last;
        let (from, counted) =
            if (start..=at).contains(&last) { (last, counted) } else { (start, 0) };
        let mut between = &self.source[from..at];
        if counted == 0 {
            // A byte order mark is no character that an editor would show.
            between = between.trim_start_matches('\u{feff}');
        }
        let before = counted + between.chars().count();
        self.last = (at, before);
        Origin::File { path: self.path.clone(), line, column: before + 1 }
    }

    pub(super) fn fault(&mut self, at: Range<usize>, key: &str, problem: impl Into<String>) {
        let origin = Some(self.place(at.start));
        self.faults.push(Fault { origin, key: key.to_owned(), problem: problem.into() });
    }

    fn written(&self, at: Range<usize>) -> String {
        shortened(self.source.get(at).unwrap_or_default())
    }
}

/// One table of the file: `limits`, one `[[listener]]`, or the top (`""`).
pub(super) struct Section<'r, 's> {
    pub(super) notes: &'r mut Notes<'s>,
    pub(super) table: &'r DeTable<'s>,
    /// The name of the table in messages, such as `listener[0]`.
    pub(super) path: String,
    /// The name of the table in the reference, such as `listener`.
    pub(super) kind: &'static str,
}

impl<'s> Section<'_, 's> {
    pub(super) fn full_name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The keys of the reference that may stand in this table.
    fn known(&self) -> impl Iterator<Item = &'static Key> {
        let kind = self.kind;
        every_key().filter(move |key| key.split().0 == kind)
    }

    fn find(&self, key: &str) -> &'static Key {
        self.known().find(|known| known.split().1 == key).expect("the reference has every key read")
    }

    /// Notes every key that is neither in the reference nor one of the `tables` below this one.
    pub(super) fn refuse_unknown(&mut self, tables: &[&'static str]) {
        let known: Vec<&str> =
            self.known().map(|key| key.split().1).chain(tables.iter().copied()).collect();
        for key in self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = match shortened(key.get_ref()) {
                // TOML allows that, and a message must still say what it is about.
                empty if empty.is_empty() => "\"\"".to_owned(),
                name => name,
            };
            let problem = match elsewhere(key.get_ref()) {
                Some(place) => format!("unknown key; {place}"),
                None => match nearest(key.get_ref(), known.iter().copied()) {
                    Some(meant) => format!("unknown key; did you mean \"{meant}\"?"),
                    None => format!("unknown key; allowed: {}", known.join(", ")),
                },
            };
            self.notes.fault(key.span(), &self.full_name(&name), problem);
        }
    }

    /// Notes where the value came from, whether it turns out to be right or not.
    pub(super) fn value(&mut self, key: &str) -> Option<&Spanned<DeValue<'s>>> {
        let value = self.table.get(key)?;
        self.note_origin(key, value);
        Some(value)
    }

    pub(super) fn note_origin(&mut self, key: &str, value: &Spanned<DeValue<'s>>) {
        let place = self.notes.place(value.span().start);
        self.notes.origins.set(self.full_name(key), place);
    }

    /// Where the key itself stands, if it does.
    pub(super) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.get_key_value(key).map(|(key, _)| key.span())
    }

    pub(super) fn fault(&mut self, key: &str, at: Range<usize>, problem: &str) {
        let value = self.notes.written(at.clone());
        let allowed = self.find(key).allowed;
        let name = self.full_name(key);
        self.notes.fault(at, &name, format!("{value} {problem}; allowed: {allowed}"));
    }

    pub(super) fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'s>>) {
        let allowed = self.find(key).allowed;
        let name = self.full_name(key);
        let problem = match value.get_ref() {
            // A table's span is its header or its first key, which would not read as a value.
            DeValue::Table(_) => format!("it is a table; allowed: {allowed}"),
            other => {
                let written = self.notes.written(value.span());
                format!("{written} is {}; allowed: {allowed}", with_article(other))
            }
        };
        self.notes.fault(value.span(), &name, problem);
    }

    pub(super) fn integer<T: TryFrom<u64>>(&mut self, key: &str) -> Option<T> {
        let value = self.value(key)?.clone();
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, &value);
            return None;
        };
        let known = self.find(key);
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let within = number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| known.bounds().is_some_and(|(min, max)| (min..=max).contains(number)));
        let read = within.and_then(|number| T::try_from(number).ok());
        if read.is_none() {
            let written = self.notes.written(value.span());
            let name = self.full_name(key);
            self.notes.fault(value.span(), &name, out_of_range(&written, known));
        }
        read
    }

    /// `Some(None)` for `"auto"`.
    pub(super) fn auto_or_integer<T: TryFrom<u64>>(&mut self, key: &str) -> Option<Option<T>> {
        match self.value(key)?.get_ref() {
            DeValue::String(word) if word == "auto" => Some(None),
            DeValue::String(_) => self.parsed(key, "is a string other than \"auto\"", |_| None),
            _ => self.integer(key).map(Some),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?.clone();
        let read = value.get_ref().as_bool();
        if read.is_none() {
            self.wrong_type(key, &value);
        }
        read
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let value = self.value(key)?.clone();
        let read = value.get_ref().as_str().map(str::to_owned);
        if read.is_none() {
            self.wrong_type(key, &value);
        }
        read
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?.clone();
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(key, &value);
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => self.wrong_type(key, item),
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// A string, or a list of at least one.
    pub(super) fn text_or_texts(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                let at = value.span();
                self.fault(key, at, "has nothing in it");
                None
            }
            DeValue::Array(_) => self.texts(key),
            _ => self.text(key).map(|text| vec![text]),
        }
    }

    /// A table of strings.
    pub(super) fn named_texts(&mut self, key: &str) -> Option<BTreeMap<String, String>> {
        let value = self.table.get(key)?;
        self.note_origin(key, value);
        let DeValue::Table(entries) = value.get_ref() else {
            self.wrong_type(key, value);
            return None;
        };
        let mut texts = BTreeMap::new();
        for (name, value) in entries {
            if let Some(text) = value.get_ref().as_str() {
                texts.insert(name.get_ref().clone().into_owned(), text.to_owned());
                continue;
            }
            let found = with_article(value.get_ref());
            let name = format!("{}.{}", self.full_name(key), shortened(name.get_ref()));
            self.notes.fault(value.span(), &name, format!("it is {found}; allowed: a string"));
        }
        Some(texts)
    }

    /// A string that `parse` understands; `problem` says what it is where that fails.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        problem: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let read = parse(&text);
        if read.is_none() {
            let at = self.table.get(key).map(Spanned::span).unwrap_or_default();
            self.fault(key, at, problem);
        }
        read
    }

    /// One of the words of the reference, which `parse` knows.
    pub(super) fn word<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let Allowed::Word(words) = self.find(key).allowed else {
            return parse(&text);
        };
        let problem = match nearest(&text, words.iter().copied()) {
            Some(meant) => format!("is not known (did you mean \"{meant}\"?)"),
            None => "is not known".to_owned(),
        };
        self.parsed(key, &problem, parse)
    }
}

fn every_key() -> impl Iterator<Item = &'static Key> {
    reference().iter().chain(rules_reference())
}

/// A key that stands in the wrong table: TOML takes what follows a `[table]` as its own.
fn elsewhere(written: &str) -> Option<String> {
    let known = every_key().map(Key::split).filter(|(_, key)| *key == written);
    let places = known.chain((written == "rule").then_some(("rules", "rule")));
    let places = places.map(|(table, _)| match table {
        "" => "at the top of the file, before the first [table]".to_owned(),
        "listener" => "in [[listener]]".to_owned(),
        "rules" => "in [listener.rules], or at the top of a rules file".to_owned(),
        "rule" => "in [[listener.rules.rule]], or in [[rule]] of a rules file".to_owned(),
        table => format!("in [{table}]"),
    });
    let places: Vec<String> = places.collect();
    (!places.is_empty()).then(|| format!("\"{written}\" belongs {}", places.join(" or ")))
}

pub(super) fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
