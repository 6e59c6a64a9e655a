//! The Grafana dashboard keeps the rules of Grafana's dashboard-linter and some of ours, and names
//! nothing that the server lacks. Each rule is also run against a dashboard that breaks it, so that
//! none of them can pass by seeing nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use talkback::metrics::names;

use crate::harness::{Metrics, Server};
use crate::promql::Expression;

mod linter;
mod picture;
use linter::*;

/// Metrics that neither a panel nor a rule uses, each with the reason.
const UNUSED: &[(&str, &str)] = &[
    // It is unlimited nearly everywhere; the figure would be 2^64.
    ("process_virtual_memory_max_bytes", "no limit that anything comes near"),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text_of(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of("dashboards/talkback.json")).unwrap()
}

#[track_caller]
fn holds(rule: Rule) {
    let dashboard = dashboard();
    assert!(queries(&dashboard).len() > 60, "the queries were not found");
    let complaints = rule(&dashboard);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The rule finds so much in the dashboard after `spoil`.
#[track_caller]
fn finds(rule: Rule, count: usize, spoil: impl FnOnce(&mut Value)) {
    let mut dashboard = dashboard();
    spoil(&mut dashboard);
    let found = rule(&dashboard);
    assert_eq!(found.len(), count, "{found:?}");
}

/// The rule finds one thing in the dashboard if its first panel has that query.
#[track_caller]
fn finds_in(rule: Rule, expression: &str) {
    finds(rule, 1, |dashboard| target(dashboard)["expr"] = json!(expression));
}

/// The first panel.
fn panel(dashboard: &mut Value) -> &mut Value {
    &mut dashboard["panels"][1]
}

fn target(dashboard: &mut Value) -> &mut Value {
    &mut panel(dashboard)["targets"][0]
}

fn variable<'a>(dashboard: &'a mut Value, name: &str) -> &'a mut Value {
    let all = dashboard["templating"]["list"].as_array_mut().unwrap();
    all.iter_mut().find(|variable| variable["name"] == name).unwrap()
}

#[test]
fn its_variables_choose_data_source_job_instance_and_listener() {
    holds(template_datasource);
    finds(template_datasource, 1, |d| variable(d, "datasource")["label"] = json!("DS"));
    finds(template_datasource, 1, |d| variable(d, "datasource")["type"] = json!("query"));
    holds(template_variables);
    finds(template_variables, 1, |d| variable(d, "job")["multi"] = json!(false));
    finds(template_variables, 1, |d| variable(d, "instance")["allValue"] = json!(".*"));
    finds(template_variables, 1, |d| variable(d, "listener")["name"] = json!("socket"));
    holds(template_label_promql);
    finds(template_label_promql, 1, |d| variable(d, "job")["query"] = json!("up"));
    let query = json!("label_values(talkback_workers, listener)");
    finds(template_label_promql, 1, |d| variable(d, "job")["query"] = query);
    holds(template_on_time_change_reload);
    finds(template_on_time_change_reload, 1, |d| variable(d, "job")["refresh"] = json!(1));
    holds(uneditable);
    finds(uneditable, 1, |d| d["editable"] = json!(true));
}

#[test]
fn every_panel_has_source_title_description_unit_and_query() {
    holds(panel_datasource);
    finds(panel_datasource, 1, |d| panel(d)["datasource"]["uid"] = json!("abc"));
    finds(panel_datasource, 1, |d| target(d)["datasource"] = json!(null));
    holds(panel_title_description);
    finds(panel_title_description, 1, |d| panel(d)["title"] = json!(""));
    finds(panel_title_description, 1, |d| panel(d)["description"] = json!("Connections."));
    holds(panel_units);
    finds(panel_units, 1, |d| panel(d)["fieldConfig"]["defaults"]["unit"] = json!("seconds"));
    let unit = json!([{"matcher": {}, "properties": [{"id": "unit", "value": ""}]}]);
    finds(panel_units, 1, |d| panel(d)["fieldConfig"]["overrides"] = unit);
    holds(panel_no_targets);
    finds(panel_no_targets, 1, |d| panel(d)["targets"] = json!([]));
}

#[test]
fn every_query_is_of_the_chosen_servers_and_rates_its_counters() {
    holds(target_rate_interval);
    finds_in(target_rate_interval, "rate(a[5m])");
    finds_in(target_rate_interval, "increase(a[$__range])");
    holds(target_matchers);
    finds_in(target_matchers, "talkback_workers{job=\"$job\", instance=~\"$instance\"}");
    finds_in(target_matchers, "talkback_workers{job=~\"$job\", instance=~\".+\"}");
    finds_in(target_matchers, "talkback_connections{job=~\"$job\", instance=~\"$instance\"}");
    holds(target_counter_agg);
    finds_in(target_counter_agg, "a_total{}");
    finds_in(target_counter_agg, "max_over_time(a_total{}[1m])");
    finds_in(target_counter_agg, "rate(a_total{}[1m]) + a_total{}");
    finds_in(target_counter_agg, "a_bucket{}");
    holds(histograms);
    finds_in(histograms, "sum by (le) (rate(a_bucket{}[1m]))");
    finds_in(histograms, "histogram_quantile(0.5, sum(rate(a_bucket{}[1m])))");
}

#[test]
fn every_metric_label_and_value_it_names_exists() {
    holds(names_and_labels);
    finds_in(names_and_labels, "rate(talkback_message_total{}[1m])");
    finds_in(names_and_labels, "talkback_workers{listener=~\"$listener\"}");
    finds_in(names_and_labels, "sum by (reason) (talkback_connections)");
    holds(legends);
    finds(legends, 1, |d| target(d)["legendFormat"] = json!(""));
    finds(legends, 1, |d| target(d)["legendFormat"] = json!("{{reason}}"));

    let page = Server::with_program("").metrics();
    let unknown = |query: &str, page: &Metrics| Expression::parse(query).unknown_values(page);
    let spoiled = "talkback_connections_closed_total{reason=\"exited\"}";
    assert_eq!(unknown(spoiled, &page).len(), 1);
    for (title, query) in queries(&dashboard()) {
        assert_eq!(unknown(expr(query), &page), [""; 0], "{title}");
    }
}

/// What is pending may yet come to nothing, and would stand there as what is wrong.
#[test]
fn only_alerts_that_fire_are_marked() {
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    let (_, marks) = queries.iter().find(|(title, _)| *title == "Alerts").unwrap();
    assert!(expr(marks).contains("alertstate=\"firing\""), "{marks}");
    assert_eq!(marks["textFormat"], "{{alertname}} {{instance}} {{listener}}");
}

/// The panel whose figure turns red where the alert calls somebody, and who is counted, agree.
#[test]
fn rejections_are_red_at_the_threshold_of_their_alert() {
    let rules = text_of("dashboards/talkback.rules.yml");
    let (_, rest) = rules.split_once("alert: TalkbackRejecting\n").unwrap();
    let rule = rest.lines().next().unwrap();
    let (matchers, threshold) = rule.rsplit_once(" > ").unwrap();
    let reasons = matchers.rsplit_once('{').unwrap().1.trim_end_matches('}');
    let dashboard = dashboard();
    let socket = panels(&dashboard).next().unwrap();
    let mut targets = list(socket, "targets").iter();
    let rejected = targets.find(|target| target["legendFormat"] == "rejected").unwrap();
    assert!(expr(rejected).contains(reasons), "{reasons}");
    let mut overrides = list(&socket["fieldConfig"], "overrides").iter();
    let own = overrides.find(|one| one["matcher"]["options"] == rejected["refId"]).unwrap();
    let mut properties = list(own, "properties").iter();
    let steps = &properties.find(|one| one["id"] == "thresholds").unwrap()["value"]["steps"];
    let red = steps.as_array().unwrap().last().unwrap();
    assert_eq!(red["color"], "red");
    assert_eq!(red["value"].as_f64(), threshold.parse().ok());
}

#[test]
fn panels_fill_their_grid_and_have_numbers_of_their_own() {
    holds(grid);
    finds(grid, 1, |d| panel(d)["gridPos"]["w"] = json!(3));
    finds(grid, 1, |d| panel(d)["gridPos"]["w"] = json!(5));
    holds(identities);
    finds(identities, 1, |d| panel(d)["id"] = json!(100));
}

/// Every metric is shown or watched, or there is a reason why not.
#[test]
fn every_metric_is_shown_or_watched() {
    let dashboard = dashboard();
    let all = queries(&dashboard);
    let mut used: Vec<_> = all.iter().map(|(_, query)| expr(query).to_owned()).collect();
    for entry in fs::read_dir(file("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".rules.yml") {
            let text = fs::read_to_string(path).unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            used.extend(lines.map(str::to_owned));
        }
    }
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let words: BTreeSet<&str> =
        used.iter().flat_map(|text| text.split(|c| !is_of_name(c))).collect();
    for metric in names::ALL {
        let names = ["", "_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name));
        let is_used = names.iter().any(|name| words.contains(name.as_str()));
        let is_excused = UNUSED.iter().any(|(name, _)| *name == metric.name);
        assert!(is_used || is_excused, "nothing uses {}", metric.name);
        assert!(!(is_used && is_excused), "{} is used, and excused", metric.name);
    }
}

#[track_caller]
fn succeed(output: &Output) -> &[u8] {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    &output.stdout
}

#[test]
fn the_file_is_what_its_generator_makes() {
    let output = Command::new("python3").arg(file("dashboards/compose")).output().unwrap();
    let is_same = succeed(&output) == text_of("dashboards/talkback.json").as_bytes();
    assert!(is_same, "write it anew: dashboards/compose > dashboards/talkback.json");
}

/// As the expressions of rules, with values for Grafana's variables.
#[track_caller]
fn promtool_accepts(expressions: &[String]) -> bool {
    let rules = expressions.iter().enumerate();
    let rules: Vec<_> =
        rules.map(|(at, e)| json!({"record": format!("a:{at}"), "expr": e})).collect();
    let directory = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let path = directory.path().join("queries.yml");
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&path, groups.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(path).output().unwrap();
    output.status.success()
}

#[test]
fn promtool_understands_every_query() {
    let dashboard = dashboard();
    let plain = |text: &str| text.replace("$__rate_interval", "1m").replace("$__range", "1h");
    let expressions: Vec<_> =
        queries(&dashboard).iter().map(|(_, query)| plain(expr(query))).collect();
    assert!(promtool_accepts(&expressions));
    assert!(!promtool_accepts(&["sum by (rate(up[1m])".to_owned()]));
}

/// Anchors that GitHub makes of the headings of a Markdown text.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_alert_has_its_panel_and_every_panel_its_page_of_the_runbook() {
    assert!(anchors("## A b, c\n### `D`\n").is_superset(&["a-b-c".into(), "d".into()].into()));
    let runbook = anchors(&text_of("docs/runbook.md"));
    let alerts = runbook.into_iter().filter(|anchor| anchor.starts_with("talkback"));
    let mut named = BTreeSet::new();
    for panel in panels(&dashboard()) {
        let description = panel["description"].as_str().unwrap();
        let links = description.split("docs/runbook.md#").skip(1);
        named.extend(links.map(|link| link.split([',', ' ']).next().unwrap().to_owned()));
    }
    assert_eq!(alerts.collect::<BTreeSet<_>>(), named);
}
