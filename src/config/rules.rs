//! Rules in the configuration: a table under their listener, or a file of their own that it names.
//! They are read with their places and compiled, so that whatever is wrong with them is told where
//! it stands.

mod keys;
mod load;
mod place;
#[cfg(any(test, fuzzing))]
pub(super) mod trial;
mod unread;
#[cfg(any(test, fuzzing))]
pub(super) mod written;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::NO_DURATION;
use super::section::{Notes, Section, with_article};
use super::validate::shortened;
use super::{Fault, Listener, Origin, Origins, duration};
use crate::responder::rules::{
    self, Gaps, Hearing, Matcher, Probability, Rule, RuleBook, RuleFault, Rules,
};
use crate::wire::Framing;

use place::blame;

pub use keys::{rules_reference, rules_table};
pub use load::{Scripted, load_rules};

/// What a listener's key may be.
pub(super) const FORMS: &str = "a string, the path of a rules file, or a table of rules";
/// The responder that they are for.
const RESPONDER: &str = "rules";

/// What is wrong with a listener's rules beside what was told when they were read.
pub(super) fn faults(path: &str, listener: &Listener, origins: &Origins) -> Vec<Fault> {
    let key = format!("{path}.rules");
    let (responder, answers) = (&listener.responder, listener.responder == RESPONDER);
    let Some(book) = &listener.rules else {
        let problem = "\"rules\" has none to answer by; set rules too: the name of a rules file, \
                       or a table [listener.rules]";
        let fault = Fault::of(format!("{path}.responder"), problem).at(origins);
        return answers.then_some(fault).into_iter().collect();
    };
    let mut faults = Vec::new();
    if !answers {
        let responder = shortened(&format!("{responder:?}"));
        let problem = format!("it means nothing with responder = {responder}, only with \"rules\"");
        let mut fault = Fault::of(key.clone(), problem).at(origins);
        let named = origins.of(&naming(&key));
        if named != Origin::Default {
            fault.origin = Some(named);
        }
        faults.push(fault);
    }
    // Those that were read have been compiled, and their faults have better places than this.
    if origins.of(&key) == Origin::Default {
        let broken = Rules::compile(book).err().unwrap_or_default();
        let unheard = unheard(listener, book);
        let named = |fault: &RuleFault| Fault::of(full_name(&key, fault), fault.problem.clone());
        faults.extend(broken.iter().chain(&unheard).map(named));
    }
    faults
}

/// The rules that no message of the listener fits. Raw framing has every text that there is, if
/// only the network cuts it so.
fn unheard(listener: &Listener, book: &RuleBook) -> Vec<RuleFault> {
    if listener.framing != Framing::Line || listener.responder != RESPONDER {
        return Vec::new();
    }
    let hearing = Hearing {
        exit_word: listener.exit_word(),
        max_message_bytes: listener.max_message_bytes,
        invalid_utf8: listener.invalid_utf8,
    };
    hearing.unheard(book)
}

/// Notes which rules of a listener that was read no message of it fits: that is for the listener
/// to say, also where they stand in a file of their own.
pub(super) fn note_unheard(section: &mut Section<'_, '_>, listener: &Listener) {
    let Some(book) = &listener.rules else { return };
    let decides = ["framing", "responder", "exit_word", "invalid_utf8", "max_message_bytes"];
    let decides = decides.map(|key| section.full_name(key));
    let key = section.full_name("rules");
    let notes = &mut *section.notes;
    if notes.faults.iter().any(|fault| decides.contains(&fault.key)) {
        // What could not be read may be what lets the rule be asked.
        return;
    }
    for fault in unheard(listener, book) {
        let fault = Fault::of(full_name(&key, &fault), fault.problem).at(&notes.origins);
        match &fault.origin {
            Some(Origin::File { path, .. }) if *path != notes.path => notes.included.push(fault),
            _ => notes.faults.push(fault),
        }
    }
}

/// The rules of a file come from there; what names it stands elsewhere, noted under this.
fn naming(key: &str) -> String {
    format!("{key} by name")
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `listener[0].rules.rule[3].send[1]`
fn full_name(path: &str, fault: &RuleFault) -> String {
    let mut name = path.to_owned();
    if let Some(rule) = fault.rule {
        name = below(&name, &format!("rule[{rule}]"));
    }
    // These are not keys: they stand for the rule as a whole, and for all of them.
    if !["rule", "rules"].contains(&fault.key) {
        name = below(&name, fault.key);
    }
    if let Some(entry) = &fault.entry {
        name = below(&name, &shortened(entry));
    }
    match fault.index {
        Some(index) => format!("{name}[{index}]"),
        None => name,
    }
}

/// Those under the key `rules` of a listener, or in the file that it names. Rules that could not be
/// read stand there empty, lest somebody miss them.
pub(super) fn of_listener(section: &mut Section<'_, '_>) -> Option<RuleBook> {
    let value = section.table.get("rules")?;
    let name = section.full_name("rules");
    section.note_origin("rules", value);
    let book = match value.get_ref() {
        DeValue::Table(table) => read(section.notes, table, &name),
        DeValue::String(file) => read_named(section, file, value.span(), &name),
        _ => {
            section.wrong_type("rules", value);
            RuleBook::default()
        }
    };
    Some(book)
}

fn read_named(section: &mut Section<'_, '_>, file: &str, at: Range<usize>, name: &str) -> RuleBook {
    if file.is_empty() || file.contains(char::is_control) {
        section.fault("rules", at, "is no file's name");
        return RuleBook::default();
    }
    let notes = &mut *section.notes;
    let path = notes.path.parent().unwrap_or(Path::new("")).join(file);
    let bytes = match (notes.files)(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let path = shortened(&path.display().to_string());
            notes.fault(at, name, format!("cannot read the rules file {path}: {error}"));
            return RuleBook::default();
        }
    };
    let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut own = Notes::new(&path, valid, notes.files);
    let book = read_file(&mut own, valid.len() == bytes.len(), name);
    own.faults.sort_by_key(Fault::rank);
    let (faults, mut origins) = (own.faults, own.origins);
    origins.set(naming(name), notes.origins.of(name));
    origins.set(name.to_owned(), Origin::File { path, line: 1, column: 1 });
    notes.included.extend(faults);
    notes.origins.extend(origins);
    book
}

/// A whole file, of which the notes have as much as is UTF-8.
fn read_file(notes: &mut Notes<'_>, is_utf8: bool, name: &str) -> RuleBook {
    if !is_utf8 {
        notes.not_utf8();
        return RuleBook::default();
    }
    match notes.tree() {
        Some(tree) => read(notes, tree.get_ref(), name),
        None => RuleBook::default(),
    }
}

/// A table of rules, named `path` in messages.
fn read<'s>(notes: &mut Notes<'s>, table: &DeTable<'s>, path: &str) -> RuleBook {
    let before = notes.faults.len();
    let mut section = Section { notes, table, path: path.to_owned(), kind: "rules" };
    section.refuse_unknown(&["rule"]);
    let mut book = RuleBook {
        greeting: section.text("greeting"),
        terminator: section.text("terminator"),
        default: section.text_or_texts("default").unwrap_or_default(),
        state: section.named_texts("state").unwrap_or_default(),
        rules: Vec::new(),
    };
    let ignore_case = section.boolean("ignore_case").unwrap_or(false);
    let mut gaps = Gaps::default();
    match table.get("rule").map(|value| (value, value.get_ref())) {
        None => {}
        Some((_, DeValue::Array(tables))) => {
            for (index, value) in tables.iter().enumerate() {
                let path = below(path, &format!("rule[{index}]"));
                let before = notes.faults.len();
                let mut read = rule(notes, value, path.clone(), ignore_case);
                let (table, faults) = (value.get_ref().as_table(), &notes.faults[before..]);
                unread::note_rule(&mut gaps, index, &mut read, table, &path, faults);
                book.rules.push(read);
            }
        }
        Some((value, other)) => {
            let found = with_article(other);
            let problem = format!("it is {found}; allowed: tables with double brackets, [[rule]]");
            notes.fault(value.span(), &below(path, "rule"), problem);
        }
    }
    let found = &notes.faults[before..];
    unread::note_book(&mut gaps, &mut book, table, path, found);
    let told: BTreeSet<String> = found.iter().map(|fault| fault.key.clone()).collect();
    for fault in Rules::faults(&book, &gaps) {
        if !told.contains(&full_name(path, &fault)) {
            blame(notes, table, path, &fault);
        }
    }
    book
}

fn rule<'s>(
    notes: &mut Notes<'s>,
    value: &Spanned<DeValue<'s>>,
    path: String,
    ignore_case: bool,
) -> Rule {
    let DeValue::Table(table) = value.get_ref() else {
        let found = with_article(value.get_ref());
        notes.fault(value.span(), &path, format!("it is {found}; allowed: a table"));
        return Rule::default();
    };
    let place = notes.place(value.span().start);
    notes.origins.set(path.clone(), place);
    let mut section = Section { notes, table, path, kind: "rule" };
    section.refuse_unknown(&[]);
    let mut duration = |key| section.parsed(key, NO_DURATION, duration::parse).unwrap_or_default();
    let (delay, jitter) = (duration("delay"), duration("jitter"));
    Rule {
        matcher: matcher(&mut section),
        ignore_case: section.boolean("ignore_case").unwrap_or(ignore_case),
        when: section.named_texts("when").unwrap_or_default(),
        set: section.named_texts("set").unwrap_or_default(),
        times: section.integer("times"),
        send: section.text_or_texts("send").unwrap_or_default(),
        delay,
        jitter,
        close: section.boolean("close").unwrap_or(false),
        fault: section.word("fault", fault_from_word),
        probability: probability(&mut section).unwrap_or_default(),
    }
}

fn matcher(section: &mut Section<'_, '_>) -> Matcher {
    let written = keys::MATCHERS.map(|key| section.text(key));
    let mut keys = keys::MATCHERS.into_iter().filter(|key| section.table.contains_key(*key));
    let first = keys.next();
    for (key, other) in keys.zip(first.iter().cycle()) {
        let at = section.key_span(key).unwrap_or_default();
        let name = section.full_name(key);
        let problem = format!("a rule has one way to match, and this one has {other} already");
        section.notes.fault(at, &name, problem);
    }
    let [equals, prefix, contains, matches] = written;
    (equals.map(Matcher::Equals))
        .or(prefix.map(Matcher::Prefix))
        .or(contains.map(Matcher::Contains))
        .or(matches.map(Matcher::Matches))
        .unwrap_or_default()
}

fn fault_from_word(word: &str) -> Option<rules::Fault> {
    use rules::Fault::{Garbage, Half, Reset, Stall};
    [Reset, Half, Stall, Garbage].into_iter().find(|fault| fault_word(*fault) == word)
}

fn fault_word(fault: rules::Fault) -> &'static str {
    match fault {
        rules::Fault::Reset => keys::FAULTS[0],
        rules::Fault::Half => keys::FAULTS[1],
        rules::Fault::Stall => keys::FAULTS[2],
        rules::Fault::Garbage => keys::FAULTS[3],
    }
}

/// From a fraction of 1, written with or without a point.
fn probability(section: &mut Section<'_, '_>) -> Option<Probability> {
    let value = section.table.get("probability")?;
    section.note_origin("probability", value);
    let fraction: f64 = match value.get_ref() {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(integer) => integer.as_str().parse().ok(),
        _ => {
            section.wrong_type("probability", value);
            return None;
        }
    }
    .unwrap_or(f64::NAN);
    if !section.table.contains_key("fault") {
        let name = section.full_name("probability");
        section.notes.fault(value.span(), &name, "it means nothing without a fault; set that too");
    }
    let millionths = (fraction * 1e6).round();
    // What is no number is not within the bounds either.
    if fraction <= 1.0 && millionths >= 1.0 {
        return Probability::from_millionths(millionths as u32);
    }
    section.fault("probability", value.span(), "is out of range");
    None
}

#[cfg(test)]
mod tests;
