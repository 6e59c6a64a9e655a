//! The keys of rules as data: what stands at the top of a rules file, and in each `[[rule]]`.

use crate::config::reference::{Allowed, Key, key, table_of};

use Allowed::{Boolean, Form, Integer, Text, Word};

pub(super) const FAULTS: &[&str] = &["reset", "half", "stall", "garbage"];
/// The keys that say which messages a rule answers.
pub(super) const MATCHERS: [&str; 4] = ["equals", "prefix", "contains", "matches"];

const TEXTS: &str = "a string, or a list of them";
const NAMED_TEXTS: &str = "a table of strings, such as { mode = \"data\" }";
/// The compiler's bound is one for both.
const DELAY: &str = "a string of an integer and one of us ms s m h, such as \"50ms\", up to \
                     \"24h\" together with jitter; \"0s\" = at once";
const JITTER: &str = "a string of an integer and one of us ms s m h, such as \"50ms\", up to \
                      \"24h\" together with delay; \"0s\" = none";
const PROBABILITY: &str = "a number from 0.000001 to 1, such as 0.25";

#[rustfmt::skip] // One key a row, as in the reference of the whole file.
static KEYS: &[Key] = &[
    key("rules.greeting", Text("a string"), "",
        "sent when a client has connected; left out = the client speaks first"),
    key("rules.terminator", Text(r#"a string, such as "\r\n""#), "",
        "behind each reply and for each line ending in one; left out = LF in line, none in raw"),
    key("rules.ignore_case", Boolean, "false",
        "for each rule that does not say it by itself"),
    key("rules.default", Form(TEXTS), "",
        "sent where no rule answers, a list's texts in turn; left out = nothing"),
    key("rules.state", Form(NAMED_TEXTS), "",
        "variables that each connection has for itself, and how they begin"),

    key("rule.equals", Text("a string"), "",
        "answers this message alone"),
    key("rule.prefix", Text("a string"), "",
        "answers what begins like this; ${1} is what stands behind"),
    key("rule.contains", Text("a string"), "",
        "answers what has this in it; ${1} is what stands before, ${2} behind"),
    key("rule.matches", Text("a string, a regular expression of the crate regex"), "",
        "answers where it matches anywhere in the message; ${1} and ${name} are its groups"),
    key("rule.ignore_case", Boolean, "false",
        "upper and lower case are one"),
    key("rule.when", Form(NAMED_TEXTS), "",
        "only while variables have these values, all of them"),
    key("rule.set", Form(NAMED_TEXTS), "",
        "what variables become; send sees them so"),
    key("rule.times", Integer(1, 4_294_967_295), "",
        "after so many answers on a connection the rule is passed over; left out = never"),
    key("rule.send", Form(TEXTS), "",
        "the reply, a list's texts in turn; \"\" = an empty line; left out = no reply"),
    key("rule.delay", Form(DELAY), r#""0s""#,
        "the answer comes so much later, and the client's next messages wait"),
    key("rule.jitter", Form(JITTER), r#""0s""#,
        "and by chance up to so much later again"),
    key("rule.close", Boolean, "false",
        "the connection closes behind the reply"),
    key("rule.fault", Word(FAULTS), "",
        "reset the connection, send half of the reply and close, stall for good, send garbage"),
    key("rule.probability", Form(PROBABILITY), "1",
        "how often the fault happens; else the rule answers as usual"),
];

/// Every key of rules: `rules.…` stands at the top of a rules file and under a listener's `rules`,
/// `rule.…` in each of their `[[rule]]`.
pub fn rules_reference() -> &'static [Key] {
    KEYS
}

/// The README's table of the keys of rules, in Markdown.
#[doc(hidden)]
pub fn rules_table() -> String {
    table_of(KEYS, |key| match key.split() {
        ("rule", field) => format!("[[rule]] {field}"),
        (_, field) => field.to_owned(),
    })
}
