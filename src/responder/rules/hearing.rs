//! Rules whose texts can never come, as a listener hears: cut into lines, of a bounded length, with
//! a word that ends the conversation. What is found is so; of a pattern only a little is asked.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::compile::{key, written};
use super::fold::shortest;
use super::pattern::parse;
use super::spec::{Matcher, Rule, RuleBook, RuleFault};
use super::template::cut;
use crate::wire::InvalidUtf8;

/// How a listener in line framing comes to its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hearing<'l> {
    /// Empty: there is none.
    pub(crate) exit_word: &'l str,
    pub(crate) max_message_bytes: usize,
    pub(crate) invalid_utf8: InvalidUtf8,
}

impl Hearing<'_> {
    /// The rules of the book that no message of this listener ever fits.
    pub(crate) fn unheard(&self, book: &RuleBook) -> Vec<RuleFault> {
        let faults = book.rules.iter().enumerate().filter_map(|(at, rule)| {
            let problem = self.objection(rule)?;
            let key = key(&rule.matcher);
            Some(RuleFault { rule: Some(at), key, entry: None, index: None, at: None, problem })
        });
        faults.collect()
    }

    fn objection(&self, rule: &Rule) -> Option<String> {
        let text = written(&rule.matcher);
        match &rule.matcher {
            Matcher::Any => None,
            Matcher::Matches(pattern) => {
                // What is no pattern has been refused as such.
                let pattern = parse(pattern, rule.ignore_case).ok()?;
                let least = pattern.properties().minimum_len().unwrap_or(0);
                if has_line_feed(&pattern) {
                    return Some(line_feed(text));
                }
                (least > self.most_text_bytes()).then(|| self.too_long(least))
            }
            _ if text.contains('\n') => Some(line_feed(text)),
            Matcher::Equals(_) if self.is_exit_word(rule, text) => {
                let shown = cut(text);
                Some(format!(
                    "is never asked: \"{shown}\" is this listener's exit_word, which closes the \
                     connection; leave the rule out, or set another exit_word (\"\" = none)"
                ))
            }
            _ => {
                let least = self.least_bytes(rule, text);
                (least > self.max_message_bytes).then(|| self.too_long(least))
            }
        }
    }

    /// Whether nothing else is this text for the rule.
    fn is_exit_word(&self, rule: &Rule, text: &str) -> bool {
        let is_only = !rule.ignore_case || super::fold::is_caseless(text);
        // A replaced byte looks like the word, and is not.
        let is_itself = !(self.replaces() && text.contains(char::REPLACEMENT_CHARACTER));
        !text.is_empty() && text == self.exit_word && is_only && is_itself
    }

    fn replaces(&self) -> bool {
        self.invalid_utf8 == InvalidUtf8::Replace
    }

    /// What a text, or one that the rule takes for it, has at least on the wire.
    fn least_bytes(&self, rule: &Rule, text: &str) -> usize {
        if text.len() <= self.max_message_bytes {
            return text.len();
        }
        let least = |character: char| match character {
            // It may stand for a single bad byte.
            char::REPLACEMENT_CHARACTER if self.replaces() => 1,
            character if rule.ignore_case => shortest(character),
            character => character.len_utf8(),
        };
        text.chars().map(least).sum()
    }

    /// What a message may have as a text: a bad byte becomes a character of three.
    fn most_text_bytes(&self) -> usize {
        let growth = if self.replaces() { char::REPLACEMENT_CHARACTER.len_utf8() } else { 1 };
        self.max_message_bytes.saturating_mul(growth)
    }

    fn too_long(&self, least: usize) -> String {
        let most = self.max_message_bytes;
        format!("never fits: it takes {least} bytes, and max_message_bytes is {most}")
    }
}

fn line_feed(text: &str) -> String {
    // A pattern has it as an escape.
    let endings = [("\r\n", "\\r\\n"), ("\n", "\\n"), (r"\r\n", "\\r\\n"), (r"\n", "\\n")];
    let text = text.strip_suffix('$').unwrap_or(text);
    let ending = endings.into_iter().find(|(ending, _)| text.ends_with(ending));
    match ending {
        Some((ending, shown)) if !text[..text.len() - ending.len()].contains('\n') => {
            format!(
                "never fits: in line framing a message comes without its ending; leave out {shown}"
            )
        }
        _ => {
            "never fits: in line framing a message is one line, and this has the end of one in it; \
              what stands behind it comes as the next message"
                .to_owned()
        }
    }
}

/// Whether a line feed is in whatever it matches.
fn has_line_feed(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'\n'),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges();
            !ranges.is_empty() && ranges.iter().all(|one| one.start() == '\n' && one.end() == '\n')
        }
        HirKind::Class(Class::Bytes(class)) => {
            let ranges = class.ranges();
            let is_it = |byte: u8| byte == b'\n';
            !ranges.is_empty() && ranges.iter().all(|one| is_it(one.start()) && is_it(one.end()))
        }
        HirKind::Repetition(repetition) => repetition.min > 0 && has_line_feed(&repetition.sub),
        HirKind::Capture(capture) => has_line_feed(&capture.sub),
        HirKind::Concat(parts) => parts.iter().any(has_line_feed),
        HirKind::Alternation(parts) => parts.iter().all(has_line_feed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::responder::rules::Rules;
    use crate::wire::InvalidUtf8::{Close, Replace};
    use crate::wire::{Framer, Framing, Protocol, Step};

    const HEARING: Hearing<'_> =
        Hearing { exit_word: "exit", max_message_bytes: 8, invalid_utf8: Close };

    fn equals(text: &str) -> Matcher {
        Matcher::Equals(text.to_owned())
    }

    fn matches(pattern: &str) -> Matcher {
        Matcher::Matches(pattern.to_owned())
    }

    /// What is said of a rule, from its beginning; nothing if it is `""`.
    #[track_caller]
    fn check(hearing: Hearing<'_>, matcher: Matcher, ignore_case: bool, said: &str) {
        let shown = format!("{matcher:?}");
        let rules = vec![Rule::default(), Rule { matcher, ignore_case, ..Rule::default() }];
        let found = hearing.unheard(&RuleBook { rules, ..RuleBook::default() });
        match &found[..] {
            [] => assert_eq!("", said, "{shown}"),
            [fault] => {
                assert!(fault.rule == Some(1) && !said.is_empty(), "{shown}: {fault}");
                assert!(fault.problem.contains(said), "{shown}: {fault}");
            }
            _ => panic!("{found:?}"),
        }
    }

    #[test]
    fn what_needs_a_line_feed_never_comes_as_a_line() {
        let check = |matcher, said| check(HEARING, matcher, false, said);
        check(equals("PING\r\n"), "comes without its ending; leave out \\r\\n");
        check(Matcher::Prefix("PING\n".into()), "comes without its ending; leave out \\n");
        check(Matcher::Contains("\n".into()), "comes without its ending; leave out \\n");
        check(equals("a\nb"), "this has the end of one in it");
        check(equals("a\n\n"), "this has the end of one in it");
        check(matches(r"^PING\r\n$"), "comes without its ending; leave out \\r\\n");
        check(matches("^PING\n"), "comes without its ending; leave out \\n");
        for pattern in
            ["(?m)a$\n^b", "(a|\n\n)\n+", r"[\n]", r"(?-u)[\n]", r"\n|\r\n", "(?:a\n){2}"]
        {
            check(matches(pattern), "in line framing a message");
        }
    }

    #[test]
    fn what_may_do_without_a_line_feed_is_taken() {
        let check = |matcher| check(HEARING, matcher, false, "");
        for text in ["PING", "PING\r", "\r", ""] {
            check(equals(text));
        }
        for pattern in [
            r"^PING\r?\n?$",
            r"(?m)^a$",
            r"\s",
            r"[^a]",
            r"\n*",
            r"a|\n",
            r"(?:\n){0,3}a",
            r"[^\s\S]",
        ] {
            check(matches(pattern));
        }
    }

    #[test]
    fn the_exit_word_is_asked_of_no_rule_that_means_it_alone() {
        check(HEARING, equals("exit"), false, "is never asked: \"exit\" is this listener's exit_");
        check(HEARING, equals("exit"), true, "");
        check(HEARING, equals("Exit"), false, "");
        check(HEARING, Matcher::Prefix("exit".into()), false, "");
        let dot = Hearing { exit_word: ".", ..HEARING };
        check(dot, equals("."), true, "is never asked");
        check(Hearing { exit_word: "", ..HEARING }, equals(""), false, "");
        let odd = Hearing { exit_word: "\u{FFFD}", ..HEARING };
        check(odd, equals("\u{FFFD}"), false, "is never asked");
        check(Hearing { invalid_utf8: Replace, ..odd }, equals("\u{FFFD}"), false, "");
    }

    #[test]
    fn what_is_longer_than_every_message_never_fits() {
        let said = "never fits: it takes 9 bytes, and max_message_bytes is 8";
        for matcher in [equals, |text: &str| Matcher::Prefix(text.into()), matches] {
            check(HEARING, matcher("123456789"), false, said);
            check(HEARING, matcher("12345678"), false, "");
        }
        check(HEARING, matches("^[0-9]{4}é.{3}"), false, said);
        check(HEARING, matches("^[0-9]{4}é.{2}"), false, "");
        check(HEARING, matches("x*"), false, "");
        // The Kelvin sign is a k, of a third of the bytes.
        let kelvin = "\u{212A}".repeat(3);
        check(HEARING, equals(&kelvin), false, said);
        check(HEARING, equals(&kelvin), true, "");
        // A bad byte becomes a character of three.
        let replaced = "\u{FFFD}".repeat(8);
        check(HEARING, equals(&replaced), false, "it takes 24 bytes");
        check(Hearing { invalid_utf8: Replace, ..HEARING }, equals(&replaced), false, "");
        check(Hearing { invalid_utf8: Replace, ..HEARING }, matches(&replaced), false, "");
    }

    fn text() -> impl Strategy<Value = String> {
        let characters = ['a', 'A', '\r', '\n', 'k', '\u{212A}', '\u{FFFD}', 'é'];
        vec(select(characters.to_vec()), 1..5).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_line_fits_a_rule_that_is_refused(
            written in text(),
            kind in 0..4,
            ignore_case: bool,
            max_message_bytes in 1..9_usize,
            invalid_utf8 in select(&[Close, Replace][..]),
            line in vec(select(b"aAk\r\xC3\xA9\xE2\x84\xAA\xFF".to_vec()), 0..10),
            exit_word in select(&["a", "aA", "\u{FFFD}", "k"][..]),
            is_exit: bool,
            same: bool,
        ) {
            let matcher = match kind {
                0 => equals(&written),
                1 => Matcher::Prefix(written.clone()),
                2 => Matcher::Contains(written.clone()),
                _ => matches(&format!("^{}", regex_syntax::escape(&written))),
            };
            let rule = Rule { matcher, ignore_case, ..Rule::default() };
            let book = RuleBook { rules: vec![rule], ..RuleBook::default() };
            let may_be_one = !written.contains(['\r', '\n']);
            let exit_word = if is_exit && may_be_one { &written } else { exit_word };
            let hearing = Hearing { exit_word, max_message_bytes, invalid_utf8 };
            if hearing.unheard(&book).is_empty() {
                return Ok(());
            }
            let rules = Rules::compile(&book).unwrap();
            let protocol = Protocol {
                framing: Framing::Line,
                invalid_utf8,
                exit_word: exit_word.as_bytes().into(),
                max_message_bytes,
            };
            let said = if same { written.clone().into_bytes() } else { line };
            for end in ["\n", "\r\n", ""] {
                let bytes = [&said, end.as_bytes()].concat();
                let (mut framer, mut at) = (Framer::new(Framing::Line), 0);
                while let Step::Message(message) = framer.next(&protocol, &bytes, &mut at) {
                    prop_assert!(!rules.lookup.fits(0, &message.text), "{:?}", message.text);
                }
                if let Step::Message(message) = framer.finish(&protocol) {
                    prop_assert!(!rules.lookup.fits(0, &message.text), "{:?}", message.text);
                }
            }
        }
    }
}
