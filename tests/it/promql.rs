//! What an expression of PromQL names: metrics, labels and values. Read as far as that needs it;
//! whether the expression is well formed is for promtool and Prometheus to say.

use std::collections::{BTreeMap, BTreeSet};

use talkback::metrics::names;

use crate::harness::Metrics;

/// What Prometheus adds to every series that it scrapes.
const TARGET_LABELS: &[&str] = &["job", "instance"];

/// Series that Prometheus makes by itself, with labels of their own.
const OF_PROMETHEUS: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity", "listener", "worker", "reason"]),
];

/// Words of the language that stand where a metric could.
const WORDS: &[&str] = &["and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"];

/// Words that a list of labels follows.
const GROUPINGS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Series that rules record, each with its labels besides those of the target.
pub type Recorded = BTreeMap<String, BTreeSet<String>>;

/// A metric and what is asked of its labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    /// Empty where the selector names none.
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

/// One condition, as in `reason=~"exit|unused"`.
#[derive(Debug, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    pub operator: String,
    pub value: String,
}

/// What an expression names. Variables of Grafana (`$listener`, `[$__rate_interval]`) may stand
/// in it.
#[derive(Debug, Default)]
pub struct Expression {
    pub selectors: Vec<Selector>,
    /// Labels of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub grouped: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(String),
}

impl Token {
    fn is(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(found) if found == sign)
    }
}

impl Expression {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut found = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            let opens = |ahead: usize| tokens.get(at + ahead).is_some_and(|next| next.is("("));
            let word = match &tokens[at] {
                Token::Word(word) => word.as_str(),
                Token::Sign(sign) if sign == "{" => "",
                _ => {
                    at += 1;
                    continue;
                }
            };
            if GROUPINGS.contains(&word) && opens(1) {
                let list = tokens[at..].iter().position(|token| token.is(")")).expect("a `)`");
                let labels = tokens[at + 1..at + list].iter();
                found.grouped.extend(labels.filter_map(|token| match token {
                    Token::Word(label) => Some(label.clone()),
                    _ => None,
                }));
                at += list;
            } else if is_function(&tokens[at..]) || is_no_metric(word) {
                at += 1;
            } else {
                at += usize::from(!word.is_empty());
                let (matchers, length) = matchers(&tokens[at..]);
                found.selectors.push(Selector { metric: word.to_owned(), matchers });
                at += length;
            }
        }
        found
    }

    /// What it names that neither the server nor Prometheus nor a rule has.
    pub fn complaints(&self, recorded: &Recorded) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut all = BTreeSet::new();
        for selector in &self.selectors {
            let metric = &selector.metric;
            let Some(labels) = labels_of(metric, recorded) else {
                complaints.push(format!("there is no metric `{metric}`"));
                continue;
            };
            let asked = selector.matchers.iter().map(|matcher| &matcher.label);
            let unknown = asked.filter(|label| !labels.contains(*label));
            complaints.extend(unknown.map(|label| format!("`{metric}` has no label `{label}`")));
            all.extend(labels);
        }
        if self.selectors.is_empty() {
            complaints.push("it names no metric".to_owned());
        }
        let unknown = self.grouped.iter().filter(|label| !all.contains(*label));
        complaints.extend(unknown.map(|label| format!("no metric here has a label `{label}`")));
        complaints
    }

    /// Values of labels that the server never gives: those with closed values (`reason`, `error`,
    /// `path`, `code`) all stand in `page`, the metrics of any server. What holds a variable or is
    /// more of a pattern than `a|b` is not looked at.
    pub fn unknown_values(&self, page: &Metrics) -> Vec<String> {
        let mut complaints = Vec::new();
        for Selector { metric, matchers } in &self.selectors {
            for Matcher { label, value, .. } in matchers {
                let is_closed = ["reason", "error", "path", "code"].contains(&label.as_str());
                let is_pattern = value.contains(['$', '.', '*', '+', '[', '(', '\\']);
                if !is_closed || is_pattern {
                    continue;
                }
                for value in value.split('|').filter(|value| !value.is_empty()) {
                    let pair = format!("{label}=\"{value}\"");
                    let of_metric = |series: &&str| match metric.split(':').nth(1) {
                        // What is recorded bears the name of what it was made from.
                        Some(source) => series.starts_with(source),
                        None => series.starts_with(&format!("{metric}{{")),
                    };
                    if !page.series().filter(of_metric).any(|series| series.contains(&pair)) {
                        complaints.push(format!("no series of `{metric}` has {pair}"));
                    }
                }
            }
        }
        complaints
    }
}

/// The labels that a series of that name may have; nothing if there is none.
pub fn labels_of(name: &str, recorded: &Recorded) -> Option<BTreeSet<String>> {
    let mut labels: BTreeSet<String> = TARGET_LABELS.iter().map(|&label| label.into()).collect();
    let of_prometheus = OF_PROMETHEUS.iter().find(|(known, _)| *known == name);
    if let Some((_, own)) = of_prometheus {
        labels.extend(own.iter().map(|&label| label.into()));
        return Some(labels);
    }
    if let Some(own) = recorded.get(name) {
        labels.extend(own.iter().cloned());
        return Some(labels);
    }
    for metric in names::ALL {
        let suffixes: &[&str] = match metric.kind.label() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let suffix = name.strip_prefix(metric.name).filter(|suffix| suffixes.contains(suffix));
        let Some(suffix) = suffix else { continue };
        labels.extend(metric.labels.iter().map(|&label| label.into()));
        labels.extend((suffix == "_bucket").then(|| "le".into()));
        return Some(labels);
    }
    None
}

/// `rate(`, and `sum by (`.
fn is_function(tokens: &[Token]) -> bool {
    match tokens.get(1) {
        Some(Token::Word(next)) => GROUPINGS[..2].contains(&next.as_str()),
        Some(next) => next.is("(") && matches!(tokens[0], Token::Word(_)),
        None => false,
    }
}

/// Also numbers, durations and variables.
fn is_no_metric(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_word = WORDS.contains(&lower.as_str()) || GROUPINGS.contains(&word);
    is_word || word.starts_with(|c: char| c.is_ascii_digit() || c == '$' || c == '.')
}

/// What stands in braces at the beginning, and how many tokens that is.
#[track_caller]
fn matchers(tokens: &[Token]) -> (Vec<Matcher>, usize) {
    if !tokens.first().is_some_and(|token| token.is("{")) {
        return (Vec::new(), 0);
    }
    let end = tokens.iter().position(|token| token.is("}")).expect("a `}`");
    let conditions = tokens[1..end].split(|token| token.is(",")).filter(|part| !part.is_empty());
    let matchers = conditions.map(|condition| match condition {
        [Token::Word(label), Token::Sign(operator), Token::Quoted(value)] => {
            Matcher { label: label.clone(), operator: operator.clone(), value: value.clone() }
        }
        other => panic!("no condition: {other:?}"),
    });
    (matchers.collect(), end + 1)
}

/// Words, quoted texts and signs; ranges such as `[5m]` and comments are left out.
#[track_caller]
fn tokens(text: &str) -> Vec<Token> {
    let is_of_word = |c: char| c.is_alphanumeric() || "_:.$".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '[' => rest.find(']').expect("a `]`") + 1,
            '"' | '\'' | '`' => {
                let length = quoted(rest, first);
                tokens.push(Token::Quoted(rest[1..length - 1].to_owned()));
                length
            }
            _ if rest.starts_with("${") => rest.find('}').expect("a `}`") + 1,
            c if is_of_word(c) => {
                let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
            _ => {
                let two = ["=~", "!~", "!=", "==", ">=", "<="];
                let length = two.iter().find(|two| rest.starts_with(**two)).map_or(1, |_| 2);
                let length = if length == 1 { first.len_utf8() } else { length };
                tokens.push(Token::Sign(rest[..length].to_owned()));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

/// How long the quoted text at the beginning is, with its quotes.
#[track_caller]
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote != '`' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    panic!("no end of the quoted text: {text}")
}

#[track_caller]
fn check(text: &str, metrics: &[&str], grouped: &[&str]) {
    let expression = Expression::parse(text);
    let found: Vec<_> = expression.selectors.iter().map(|found| found.metric.as_str()).collect();
    assert_eq!(found, metrics, "{text}");
    let expected: BTreeSet<_> = grouped.iter().map(|&label| label.to_owned()).collect();
    assert_eq!(expression.grouped, expected, "{text}");
}

#[test]
fn the_metrics_and_labels_of_an_expression_are_found() {
    check("up == 0", &["up"], &[]);
    check("sum by (le, job) (rate(a_bucket{x=\"b\"}[5m])) > 1e-3", &["a_bucket"], &["job", "le"]);
    check("sum(rate(a[$__rate_interval])) by (x)", &["a"], &["x"]);
    check(
        "a{x=~\"$x\"} / on (x) group_left b > Inf and c offset 5m > bool 2",
        &["a", "b", "c"],
        &["x"],
    );
    check("histogram_quantile(.99, i:a:rate5m) # not b\n or ${c} * c", &["i:a:rate5m", "c"], &[]);
    check("{x=\"}\"} unless ignoring(y) 'sum' == b{x!=\"\\\"(\",}", &["", "b"], &["y"]);
    check("sum without (x) (a) / b - by", &["a", "b"], &["x"]);
    check("max_over_time((a + b)[5m:15s] offset 1h)", &["a", "b"], &[]);
}

#[track_caller]
fn check_complaints(text: &str, complaints: &[&str]) {
    let recorded = [("worker:busy:rate5m".to_owned(), ["worker".to_owned()].into())].into();
    let found = Expression::parse(text).complaints(&recorded);
    assert_eq!(found, complaints, "{text}");
}

#[test]
fn a_metric_or_label_that_the_server_lacks_is_complained_of() {
    check_complaints("up{job=\"a\"} * talkback_workers", &[]);
    check_complaints("sum by (listener, job) (rate(talkback_messages_total[1m]))", &[]);
    check_complaints("worker:busy:rate5m{worker=\"0\"}", &[]);
    check_complaints("talkback_message_total", &["there is no metric `talkback_message_total`"]);
    check_complaints("worker:busy:rate1m", &["there is no metric `worker:busy:rate1m`"]);
    check_complaints(
        "talkback_workers{listener=\"a\"}",
        &["`talkback_workers` has no label `listener`"],
    );
    check_complaints("sum by (reason) (up)", &["no metric here has a label `reason`"]);
    check_complaints("talkback_workers_bucket", &["there is no metric `talkback_workers_bucket`"]);
    check_complaints("{job=\"talkback\"}", &["there is no metric ``"]);
    check_complaints("vector(1)", &["it names no metric"]);
}

#[test]
fn a_value_that_no_series_has_is_complained_of() {
    let page = Metrics::parse("a{listener=\"main\",reason=\"exit\"} 0\nb{reason=\"unused\"} 0\n");
    let found = |text: &str| Expression::parse(text).unknown_values(&page);
    assert_eq!(found("a{reason=~\"exit|unused\"}"), ["no series of `a` has reason=\"unused\""]);
    assert_eq!(found("i:b:c{reason=\"a\"}"), ["no series of `i:b:c` has reason=\"a\""]);
    assert!(found("i:a:c{reason=\"exit\"}").is_empty());
    assert!(found("b{reason!=\"unused\"} + a{reason=~\"$reason\", listener=\"x\"}").is_empty());
}
