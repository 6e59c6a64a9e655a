//! The alerts and recorded series in `dashboards/`: promtool accepts and tests them, the runbook
//! explains them, and they are about nothing that the server lacks.
//!
//! The files are ours, so a few lines read the one shape of YAML that they have; what promtool
//! counts in them shows that nothing was passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use talkback::config::config_table;
use talkback::metrics::{AcceptError, CloseReason, CommandRefusal, ProcessEnd, Rejection};

use crate::harness::Server;
use crate::promql::{Expression, Recorded, labels_of};

const RULES: &str = "dashboards/talkback.rules.yml";
const TESTS: &str = "dashboards/talkback.test.yml";
const PROMETHEUS: &str = "config/prometheus/prometheus.yml";
const RUNBOOK: &str = "docs/runbook.md";

/// Alerts on what happens once, where waiting would only be late.
const EVENTS: &[&str] = &["TalkbackPanics", "TalkbackRestarting"];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What promtool prints; it must be content.
#[track_caller]
fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{out}\n{error}");
    format!("{out}{error}")
}

/// One rule: `alert` or `record`, and every key below it, those of `labels` and `annotations` too.
struct Rule {
    keys: BTreeMap<String, String>,
}

impl Rule {
    fn alert(&self) -> Option<&str> {
        self.keys.get("alert").map(String::as_str)
    }

    fn record(&self) -> Option<&str> {
        self.keys.get("record").map(String::as_str)
    }

    fn name(&self) -> &str {
        self.alert().or_else(|| self.record()).expect("one or the other")
    }

    #[track_caller]
    fn key(&self, key: &str) -> &str {
        self.keys.get(key).unwrap_or_else(|| panic!("{} has no {key}", self.name()))
    }

    fn expression(&self) -> Expression {
        Expression::parse(self.key("expr"))
    }
}

/// Every rule of a file in this shape; a line of another one is an error.
#[track_caller]
fn rules_of(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        if let Some((above, key)) = &block
            && indent > *above
        {
            let rule = rules.last_mut().expect("a block stands in a rule");
            let expression = rule.keys.entry(key.clone()).or_default();
            *expression += &format!("{} ", line.trim());
            continue;
        }
        block = None;
        let line = line.trim();
        if let Some(begin) = line.strip_prefix("- ")
            && (begin.starts_with("alert: ") || begin.starts_with("record: "))
        {
            rules.push(Rule { keys: BTreeMap::new() });
        }
        let is_frame = line == "groups:" || line.starts_with("- name: ") || line.ends_with("s:");
        let Some((key, value)) = line.trim_start_matches("- ").split_once(": ") else {
            assert!(line.is_empty() || is_frame, "not in the shape that is read here: {line}");
            continue;
        };
        let Some(rule) = rules.last_mut() else { continue };
        if value == "|" {
            block = Some((indent, key.to_owned()));
        } else {
            let twice = rule.keys.insert(key.to_owned(), value.to_owned());
            assert!(twice.is_none(), "{key} stands twice in {}", rule.name());
        }
    }
    rules
}

fn rules() -> Vec<Rule> {
    rules_of(&read(RULES))
}

/// The words before the first colon of a recorded name are its labels; `instance` is the target.
fn recorded(rules: &[Rule]) -> Recorded {
    let names = rules.iter().filter_map(Rule::record);
    let labelled = names.map(|name| {
        let level = name.split(':').next().expect("a level");
        let labels = level.split('_').filter(|label| *label != "instance");
        (name.to_owned(), labels.map(str::to_owned).collect())
    });
    labelled.collect()
}

fn seconds(duration: &str) -> u64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let number: u64 = number.parse().unwrap();
    number * if unit == "m" { 60 } else { 1 }
}

/// The ranges in brackets, in seconds; also those of the recorded series that it names.
fn windows(rule: &Rule, rules: &[Rule]) -> Vec<u64> {
    let ranges = rule.key("expr").split('[').skip(1);
    let mut windows: Vec<_> =
        ranges.map(|rest| seconds(rest.split(']').next().expect("a range"))).collect();
    for selector in rule.expression().selectors {
        let source = rules.iter().find(|other| other.record() == Some(&selector.metric));
        windows.extend(source.into_iter().flat_map(|source| self::windows(source, rules)));
    }
    windows
}

#[test]
fn promtool_accepts_the_configuration_and_every_rule_of_it_was_read() {
    let said = promtool(&["check", "config", PROMETHEUS]);
    assert!(said.contains("SUCCESS: 1 rule files found"), "{said}");
    let said = promtool(&["check", "rules", RULES]);
    let count = format!("SUCCESS: {} rules found", rules().len());
    assert!(said.contains(&count), "{count}: {said}");
}

#[test]
fn every_alert_fires_in_one_case_and_is_silent_in_another() {
    promtool(&["test", "rules", TESTS]);
    let tests = read(TESTS);
    let mut cases = BTreeSet::new();
    for case in tests.split("alertname: ").skip(1) {
        let mut lines = case.lines();
        let name = lines.next().expect("a name");
        let expected = lines.next().expect("what is expected").trim();
        assert!(expected.starts_with("exp_alerts:"), "{name}: {expected}");
        cases.insert((name, expected == "exp_alerts: []"));
    }
    let expected: BTreeSet<_> = rules()
        .iter()
        .filter_map(Rule::alert)
        .flat_map(|name| [(name.to_owned(), false), (name.to_owned(), true)])
        .collect();
    let cases: BTreeSet<_> =
        cases.into_iter().map(|(name, case)| (name.to_owned(), case)).collect();
    assert_eq!(cases, expected, "(name, is silent)");
}

#[test]
fn every_recorded_series_is_tested() {
    let tests = read(TESTS);
    let tested: BTreeSet<_> =
        tests.lines().filter_map(|line| line.trim().strip_prefix("- expr: ")).collect();
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(Rule::record).collect();
    assert_eq!(tested, recorded);
}

#[test]
fn every_alert_says_whom_it_calls_and_what_to_do() {
    let runbook = read(RUNBOOK);
    let rules = rules();
    let mut expected = BTreeSet::new();
    for rule in &rules {
        let Some(name) = rule.alert() else { continue };
        assert!(["critical", "warning"].contains(&rule.key("severity")), "{name}");
        for key in ["summary", "description"] {
            assert!(
                rule.key(key).contains("{{ $labels.instance }}"),
                "{name}: {key} says not where"
            );
        }
        let anchor = name.to_lowercase();
        assert_eq!(rule.key("runbook"), format!("{RUNBOOK}#{anchor}"), "{name}");
        expected.insert(name);
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("### "));
    let sections: BTreeSet<_> = sections.filter(|name| name.starts_with("Talkback")).collect();
    assert_eq!(sections, expected, "sections of {RUNBOOK}, and alerts");
}

#[test]
fn what_the_rules_name_exists() {
    let rules = rules();
    let recorded = recorded(&rules);
    let page = Server::with_program("").metrics();
    for rule in &rules {
        let expression = rule.expression();
        let mut complaints = expression.complaints(&recorded);
        complaints.extend(expression.unknown_values(&page));
        let named = expression.selectors.iter();
        let labels: BTreeSet<_> =
            named.filter_map(|it| labels_of(&it.metric, &recorded)).flatten().collect();
        for text in rule.keys.values() {
            for rest in text.split("$labels.").skip(1) {
                let label = rest.split([' ', '}']).next().expect("a label");
                if !labels.contains(label) {
                    complaints.push(format!("a text names the label `{label}`"));
                }
            }
        }
        assert!(complaints.is_empty(), "{}: {complaints:#?}", rule.name());
    }
}

/// A count that Prometheus has extrapolated has decimals, which nobody wants to read.
#[test]
fn every_figure_in_a_text_has_a_form() {
    let forms = ["humanizePercentage", "humanizeDuration", "printf \"%.0f\""];
    for rule in rules().iter().filter(|rule| rule.alert().is_some()) {
        for rest in rule.key("description").split("$value").skip(1) {
            let form = rest.split("}}").next().expect("a part").trim_matches([' ', '|']);
            assert!(forms.contains(&form), "{}: {form}", rule.name());
        }
    }
}

#[test]
fn the_line_that_makes_links_of_the_runbook_does() {
    let text = read(RULES);
    let line = text.lines().find_map(|line| line.strip_prefix("#     sed -i ")).expect("a line");
    for file in [RULES, "dashboards/talkback.json"] {
        let before = read(file).matches("docs/runbook.md#").count();
        let command = line.replace("talkback.rules.yml talkback.json", file);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("sed {command}")]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        let base = "https://git.example.com/talkback/blob/main/docs/runbook.md#";
        let links = output.matches(base).count();
        assert!(before >= 20 && links >= before, "{file}: {links} of {before}");
    }
}

/// Who reads no further than that knows what he is called for.
#[test]
fn the_readme_names_the_alerts_that_call_a_person() {
    let rules = rules();
    let alerts = rules.iter().filter(|rule| rule.alert().is_some());
    let critical: BTreeSet<_> =
        alerts.filter(|rule| rule.key("severity") == "critical").map(Rule::name).collect();
    let readme = read("README.md");
    let (_, rest) = readme.split_once("**Grafana and Prometheus.**").expect("a section");
    let section = rest.split("\n\n").next().expect("a paragraph");
    let named: BTreeSet<_> =
        section.split('`').filter(|word| word.starts_with("Talkback")).collect();
    assert_eq!(named, critical);
}

/// Words of the runbook that are neither a metric nor a key nor a label's value.
const OTHER_WORDS: &[&str] = &["awaiting_reply", "nr_throttled"];

#[test]
fn what_the_runbook_names_exists() {
    let runbook = read(RUNBOOK);
    let page = Server::with_program("").metrics();
    let keys = config_table();
    let exists = |word: &str| {
        let of_histogram = format!("{word}_bucket");
        labels_of(word, &Recorded::new()).is_some()
            || labels_of(&of_histogram, &Recorded::new()).is_some()
            || page.series().any(|series| series.contains(&format!("\"{word}\"")))
            || keys.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|key| key == word)
            || OTHER_WORDS.contains(&word)
    };
    // Every second part stands between backticks; code blocks have three of them, and none inside.
    let quoted = runbook.split('`').skip(1).step_by(2);
    let words = quoted.flat_map(|text| text.split(|c: char| c != '_' && !c.is_alphanumeric()));
    let named: BTreeSet<_> = words
        .filter(|word| word.trim_matches('_').contains('_') && word.to_lowercase() == **word)
        .collect();
    let unknown: Vec<_> = named.iter().filter(|word| !exists(word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(named.len() > 40, "{named:?}");
    let links: BTreeSet<_> =
        runbook.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let sections =
        runbook.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let sections: BTreeSet<_> = sections.map(str::to_lowercase).collect();
    let lost: Vec<_> = links.iter().filter(|link| !sections.contains(**link)).collect();
    assert!(lost.is_empty() && links.len() > 10, "{lost:?}");
}

/// One blip leaves the window before the alert fires, and no window is so short that a scrape or
/// two that are missing empty it.
#[test]
fn no_blip_fires_an_alert() {
    let scrape = read(PROMETHEUS);
    let mut keys = scrape.lines().filter_map(|line| line.trim().strip_prefix("scrape_interval: "));
    let scrape = seconds(keys.next().expect("an interval"));
    let rules = rules();
    for rule in &rules {
        let windows = windows(rule, &rules);
        for window in &windows {
            assert!(*window >= 8 * scrape, "{}: {window} s", rule.name());
        }
        let Some(name) = rule.alert() else { continue };
        assert_eq!(rule.keys.contains_key("for"), !EVENTS.contains(&name), "{name}");
        if let Some(waits) = rule.keys.get("for") {
            let window = windows.into_iter().max().unwrap_or(3 * scrape);
            assert!(seconds(waits) > window, "{name} waits {waits} with a window of {window} s");
        }
    }
}

/// So can each be evaluated without its threshold, and nothing fires that only is there.
#[test]
fn every_alert_compares_a_value_with_a_threshold() {
    for rule in rules().iter().filter(|rule| rule.alert().is_some()) {
        let text = rule.key("expr");
        let (_, threshold) = text.rsplit_once(['<', '>']).unwrap_or_else(|| panic!("{text}"));
        let is_number = threshold.trim().parse::<f64>().is_ok();
        assert!(is_number && !text.contains("absent"), "{}: {text}", rule.name());
    }
}

/// Every value of a closed set is some alert's or is left to none on purpose: whoever adds one
/// decides which.
#[track_caller]
fn check_shared_out(all: &[&str], alerts: &[&str], nobodys: &[&str]) {
    let rules = rules();
    let mut given: Vec<String> = nobodys.iter().map(|&value| value.to_owned()).collect();
    for name in alerts {
        let rule = rules.iter().find(|rule| rule.alert() == Some(name)).expect("an alert");
        let selectors = rule.expression().selectors;
        let matchers = selectors.into_iter().flat_map(|selector| selector.matchers);
        for matcher in matchers {
            let values = matcher.value.split('|').map(str::to_owned);
            match matcher.operator.as_str() {
                "=" | "=~" => given.extend(values),
                _ => {
                    let left_out: Vec<_> = values.collect();
                    let rest = all.iter().map(|&value| value.to_owned());
                    given.extend(rest.filter(|value| !left_out.contains(value)));
                }
            }
        }
    }
    given.sort();
    let mut all = all.to_vec();
    all.sort_unstable();
    assert_eq!(given, all);
}

#[test]
fn every_end_is_some_alerts_or_normal() {
    let closes: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.label()).collect();
    let normal = [
        "exit",
        "peer_closed",
        "peer_reset",
        "unused",
        "idle_timeout",
        "responder_closed",
        "shutdown",
        "shutdown_forced",
    ];
    check_shared_out(&closes, &["TalkbackErrorCloses", "TalkbackBadMessages"], &normal);
    let rejections: Vec<_> = Rejection::ALL.iter().map(|reason| reason.label()).collect();
    check_shared_out(&rejections, &["TalkbackRejecting", "TalkbackAddressLimited"], &["draining"]);
    let ends: Vec<_> = ProcessEnd::ALL.iter().map(|reason| reason.label()).collect();
    let ordinary = ["exited", "timeout", "max_requests", "idle", "connection_closed", "stopped"];
    check_shared_out(&ends, &["TalkbackProgramDies"], &ordinary);
    // An open circuit has an alert that asks no further why.
    let refusals: Vec<_> = CommandRefusal::ALL.iter().map(|reason| reason.label()).collect();
    check_shared_out(&refusals, &["TalkbackProgramRefuses"], &["circuit_open"]);
    let errors: Vec<_> = AcceptError::ALL.iter().map(|error| error.label()).collect();
    check_shared_out(&errors, &["TalkbackAcceptErrors"], &["econnaborted"]);
}

#[test]
fn the_rules_are_read_as_they_are_written() {
    let text = "groups:\n  - name: a\n    rules:\n      # Why.\n      - record: i:b:c\n".to_owned()
        + "        expr: |\n          d\n            / e\n\n      - alert: F\n        expr: g > 1\n"
        + "        labels:\n          severity: h\n";
    let rules = rules_of(&text);
    let keys: Vec<_> = rules.iter().flat_map(|rule| rule.keys.iter()).collect();
    let keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.trim())).collect();
    let expected = [
        ("expr", "d / e"),
        ("record", "i:b:c"),
        ("alert", "F"),
        ("expr", "g > 1"),
        ("severity", "h"),
    ];
    assert_eq!(keys, expected);
}
