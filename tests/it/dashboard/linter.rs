//! Rules for the dashboard, those of `dashboard-linter` and some of ours. Each tells what it finds
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::promql::{Expression, Recorded, Selector, labels_of};

/// Units of Grafana that the panels may use.
const UNITS: &[&str] = &[
    "none",
    "short",
    "percentunit",
    "s",
    "dtdurations",
    "bytes",
    "Bps",
    "cps",
    "ops",
    "pps",
    "reqps",
];

const COLUMNS: u64 = 24;

pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Every panel that shows something: all but the headings of rows.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every query with the title of its panel or annotation.
pub fn queries(dashboard: &Value) -> Vec<(&str, &Value)> {
    let of_panel =
        |panel| list(panel, "targets").iter().map(|target| (title(panel), target)).collect();
    let mut found: Vec<_> = panels(dashboard).flat_map::<Vec<_>, _>(of_panel).collect();
    let notes = list(&dashboard["annotations"], "list").iter();
    found.extend(notes.filter(|note| note["expr"].is_string()).map(|note| (title(note), note)));
    found
}

/// Panels have a title, annotations and variables a name.
pub fn title(of: &Value) -> &str {
    of["title"].as_str().or(of["name"].as_str()).unwrap_or("")
}

#[track_caller]
pub fn expr(query: &Value) -> &str {
    query["expr"].as_str().expect("a query has an expression")
}

pub fn variables(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["templating"], "list").iter()
}

pub type Rule = fn(&Value) -> Vec<String>;

// ---- the rules of dashboard-linter, by its names ----

pub fn template_datasource(dashboard: &Value) -> Vec<String> {
    let found: Vec<_> = variables(dashboard).filter(|v| v["type"] == "datasource").collect();
    let is_good = |v: &Value| {
        v["name"] == "datasource" && v["label"] == "Data source" && v["query"] == "prometheus"
    };
    let one = found.len() == 1 && is_good(found[0]);
    (!one).then(|| format!("not one variable for the data source: {found:?}")).into_iter().collect()
}

/// `template-job-rule` and `template-instance-rule`; ours holds the same of the listener.
pub fn template_variables(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, label) in [("job", "Job"), ("instance", "Instance"), ("listener", "Listener")] {
        let Some(variable) = variables(dashboard).find(|v| v["name"] == name) else {
            found.push(format!("no variable {name}"));
            continue;
        };
        for (key, expected) in [
            ("type", json!("query")),
            ("label", json!(label)),
            ("multi", json!(true)),
            ("includeAll", json!(true)),
            ("allValue", json!(".+")),
            ("datasource", json!({"type": "prometheus", "uid": "${datasource}"})),
        ] {
            if variable[key] != expected {
                found.push(format!("{name}: {key} is {}, not {expected}", variable[key]));
            }
        }
    }
    found
}

pub fn template_label_promql(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for variable in variables(dashboard).filter(|v| v["type"] == "query") {
        let query = variable["query"].as_str().unwrap_or("");
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let Some((expression, label)) = inner.and_then(|inner| inner.rsplit_once(", ")) else {
            found.push(format!("{}: `{query}` asks for no values of a label", title(variable)));
            continue;
        };
        let read = Expression::parse(expression);
        found.extend(read.complaints(&Recorded::new()));
        let metric = read.selectors.first().map_or("", |selector| &selector.metric);
        if !labels_of(metric, &Recorded::new()).is_some_and(|labels| labels.contains(label)) {
            found.push(format!("`{metric}` has no label `{label}`"));
        }
    }
    found
}

pub fn template_on_time_change_reload(dashboard: &Value) -> Vec<String> {
    let stale = variables(dashboard).filter(|v| v["type"] == "query" && v["refresh"] != 2);
    stale.map(|v| format!("{} does not follow the time range", title(v))).collect()
}

pub fn panel_datasource(dashboard: &Value) -> Vec<String> {
    let all = panels(dashboard).map(|panel| (title(panel), panel)).chain(queries(dashboard));
    let fixed = all.filter(|(_, one)| one["datasource"]["uid"] != "${datasource}");
    fixed.map(|(title, _)| format!("{title}: not the data source of the variable")).collect()
}

pub fn panel_title_description(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        let description = panel["description"].as_str().unwrap_or("");
        // What a bad value means and where to look next has not been said in less.
        if title(panel).is_empty() || description.len() < 80 {
            found.push(format!("{}: no title, or too short a description", panel["id"]));
        }
    }
    found
}

pub fn panel_units(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        let mut units = vec![&panel["fieldConfig"]["defaults"]["unit"]];
        let overrides = list(&panel["fieldConfig"], "overrides").iter();
        let properties = overrides.flat_map(|one| list(one, "properties"));
        units.extend(properties.filter(|one| one["id"] == "unit").map(|one| &one["value"]));
        let odd = units.into_iter().filter(|unit| !UNITS.iter().any(|known| unit == known));
        found.extend(odd.map(|unit| format!("{}: the unit is {unit}", title(panel))));
    }
    found
}

pub fn panel_no_targets(dashboard: &Value) -> Vec<String> {
    let bare = panels(dashboard).filter(|panel| list(panel, "targets").is_empty());
    bare.map(|panel| format!("{}: no query", title(panel))).collect()
}

pub fn target_rate_interval(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        for range in expr(query).split('[').skip(1) {
            let range = range.split(']').next().unwrap_or("");
            // What happened in the shown time is asked once, and not for each point of a line.
            let is_whole = range == "$__range" && query["instant"] == true;
            if range != "$__rate_interval" && !is_whole {
                found.push(format!("{title}: a range of [{range}]"));
            }
        }
    }
    found
}

/// `target-job-rule` and `target-instance-rule`; ours holds the same of the listener, where the
/// metric has one.
pub fn target_matchers(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        for Selector { metric, matchers } in Expression::parse(expr(query)).selectors {
            for label in ["job", "instance", "listener"] {
                let has_it =
                    labels_of(&metric, &Recorded::new()).is_some_and(|all| all.contains(label));
                let is_asked = matchers.iter().any(|matcher| {
                    let is_free = matcher.value == format!("${label}");
                    matcher.label == label && matcher.operator == "=~" && is_free
                });
                // An alert may have a listener, or none; max_connections is for all of them.
                let is_of_all = metric == "ALERTS" || expr(query).contains("connections_limit");
                if has_it && !is_asked && !(label == "listener" && is_of_all) {
                    found.push(format!("{title}: `{metric}` without {label}=~\"${label}\""));
                }
            }
        }
    }
    found
}

/// `target-counter-agg-rule`, and histograms, which are counters too.
pub fn target_counter_agg(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        let text = expr(query);
        let selectors = Expression::parse(text).selectors.into_iter();
        for metric in selectors.map(|selector| selector.metric).collect::<BTreeSet<_>>() {
            let counts = ["_total", "_bucket", "_sum", "_count"];
            if !counts.iter().any(|suffix| metric.ends_with(suffix)) {
                continue;
            }
            let naked = text.match_indices(&metric).any(|(at, _)| {
                let before = &text[..at];
                let functions = ["rate(", "irate(", "increase("];
                let after = text[at..].split_once('}').map_or("", |(_, after)| after);
                let inside = functions.iter().any(|function| before.ends_with(function));
                !inside || !after.starts_with('[')
            });
            if naked {
                found.push(format!("{title}: `{metric}` without its rate"));
            }
        }
    }
    found
}

pub fn uneditable(dashboard: &Value) -> Vec<String> {
    let is_editable = dashboard["editable"] != false;
    is_editable.then(|| "it may be edited".to_owned()).into_iter().collect()
}

// ---- rules of ours ----

/// Buckets keep their bounds until a quantile or a heat map has read them.
pub fn histograms(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        let text = expr(query);
        let is_read = text.contains("histogram_quantile(") || query["format"] == "heatmap";
        let keeps = Expression::parse(text).grouped.contains("le");
        if text.contains("_bucket{") && !(is_read && keeps) {
            found.push(format!("{title}: buckets that nothing reads as such"));
        }
    }
    found
}

pub fn names_and_labels(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        let complaints = Expression::parse(expr(query)).complaints(&Recorded::new());
        found.extend(complaints.into_iter().map(|what| format!("{title}: {what}")));
    }
    found
}

/// A legend can name what the query's result has: the labels it groups by or, of a plain
/// selection, those of its metric.
pub fn legends(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (title, query) in queries(dashboard) {
        let legend = ["legendFormat", "textFormat"].iter().find_map(|key| query[key].as_str());
        let legend = legend.unwrap_or("");
        if legend.is_empty() {
            found.push(format!("{title}: no legend"));
        }
        let read = Expression::parse(expr(query));
        let mut labels = read.grouped;
        if !["sum", "max", "min"].iter().any(|word| expr(query).contains(word)) {
            let metrics = read.selectors.iter().map(|selector| selector.metric.as_str());
            labels.extend(metrics.filter_map(|name| labels_of(name, &Recorded::new())).flatten());
        }
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap_or("");
            if !labels.contains(label) {
                found.push(format!("{title}: the legend names {label}, the result has {labels:?}"));
            }
        }
    }
    found
}

fn cells(panel: &Value) -> impl Iterator<Item = (u64, u64)> {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
    (y..y + h).flat_map(move |row| (x..x + w).map(move |column| (row, column)))
}

/// Every cell down to the lowest is covered by exactly one panel.
pub fn grid(dashboard: &Value) -> Vec<String> {
    let mut covered: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for panel in list(dashboard, "panels") {
        cells(panel).for_each(|cell| *covered.entry(cell).or_default() += 1);
    }
    let height = covered.keys().map(|(row, _)| row + 1).max().unwrap_or(0);
    let all = (0..height).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
    let bare = all.filter(|cell| !covered.contains_key(cell)).count();
    let twice = covered.values().filter(|&&count| count > 1).count();
    let outside = covered.keys().filter(|(_, column)| *column >= COLUMNS).count();
    let counts = [("bare", bare), ("covered twice", twice), ("outside", outside)];
    let wrong = counts.into_iter().filter(|(_, count)| *count > 0);
    wrong.map(|(what, count)| format!("{count} cells are {what}")).collect()
}

pub fn identities(dashboard: &Value) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ids = list(dashboard, "panels").iter().map(|panel| panel["id"].to_string());
    let letters = panels(dashboard).flat_map(|panel| {
        let of_panel = move |target: &Value| format!("{} {}", panel["id"], target["refId"]);
        list(panel, "targets").iter().map(of_panel)
    });
    ids.chain(letters).filter(|id| !seen.insert(id.clone())).collect()
}
