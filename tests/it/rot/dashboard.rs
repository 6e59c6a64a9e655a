//! The queries of the dashboard, with its variables filled in as Grafana does it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Query;
use crate::prometheus::Prometheus;

/// What Grafana makes of its own variables, where a panel shows some scrapes of a second each.
const BUILT_IN: [(&str, &str); 4] =
    [("__rate_interval", "8s"), ("__range", "30s"), ("__range_s", "30"), ("__interval", "2s")];

pub struct Dashboard(Value);

impl Dashboard {
    #[track_caller]
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/talkback.json");
        let text = fs::read_to_string(&path).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    /// Those of panels, annotations and whatever else has one.
    #[track_caller]
    pub fn queries(&self, prometheus: &Prometheus, span: (f64, f64)) -> Vec<Query> {
        let variables = self.variables(prometheus, span);
        let mut queries = Vec::new();
        collect(&self.0, "dashboard", &variables, &mut queries);
        assert!(!queries.is_empty(), "a dashboard without queries");
        queries
    }

    /// Each variable with its value: all that it offers, where it may have more than one.
    #[track_caller]
    fn variables(&self, prometheus: &Prometheus, span: (f64, f64)) -> Vec<(String, String)> {
        let mut variables: Vec<_> = BUILT_IN.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        for variable in self.0["templating"]["list"].as_array().expect("variables") {
            let name = variable["name"].as_str().expect("a variable's name").to_owned();
            let value = match variable["type"].as_str() {
                Some("datasource") => "a datasource".to_owned(),
                Some("query") => offered(variable, &variables, prometheus, span),
                other => panic!("{name}: a variable of type {other:?}"),
            };
            variables.push((name, value));
        }
        variables
    }
}

/// The value of a variable whose query is `label_values(series, label)`.
#[track_caller]
fn offered(
    variable: &Value,
    variables: &[(String, String)],
    prometheus: &Prometheus,
    span: (f64, f64),
) -> String {
    let query = variable["query"].as_str().or_else(|| variable["query"]["query"].as_str());
    let query = filled(query.expect("a variable's query"), variables);
    let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (series, label) = inside.and_then(|inside| inside.rsplit_once(',')).expect(&query);
    let (from, to) = (span.0.to_string(), span.1.to_string());
    let parameters = [("match[]", series.trim()), ("start", &from), ("end", &to)];
    let values = prometheus.ask(&format!("label/{}/values", label.trim()), &parameters).unwrap();
    let values = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap());
    let values: Vec<_> = values.collect();
    assert!(!values.is_empty(), "{query} offers nothing");
    let is_multiple = variable["multi"] == true || variable["includeAll"] == true;
    match variable["allValue"].as_str() {
        _ if !is_multiple => values[0].to_owned(),
        Some(all) if !all.is_empty() => all.to_owned(),
        // A dot stands for itself, in a regular expression within a string.
        _ => format!("({})", values.join("|").replace('.', "\\\\.")),
    }
}

/// A text with the values of its variables: `$name`, `${name}` and `${name:format}`.
#[track_caller]
fn filled(text: &str, variables: &[(String, String)]) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, rest) = match part.strip_prefix('{') {
            Some(braced) => {
                let (inside, rest) = braced.split_once('}').expect("braces come in pairs");
                (inside.split(':').next().unwrap_or(""), rest)
            }
            None => part.split_at(part.find(|c| !is_of_a_name(c)).unwrap_or(part.len())),
        };
        // A group of label_replace's regular expression.
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            filled += &format!("${part}");
            continue;
        }
        let variable = variables.iter().find(|(known, _)| known == name);
        let (_, value) = variable.unwrap_or_else(|| panic!("no variable {name:?}: {text}"));
        filled += value;
        filled += rest;
    }
    filled
}

/// The labels of a legend such as `{{listener}} {{reason}}`.
fn labels(legend: &str) -> Vec<String> {
    let parts = legend.split("{{").skip(1);
    parts.map(|part| part.split("}}").next().unwrap_or("").trim().to_owned()).collect()
}

/// Every object with an `expr`, under the title of its panel or its own name.
#[track_caller]
fn collect(value: &Value, place: &str, variables: &[(String, String)], found: &mut Vec<Query>) {
    let has = |key: &str| !value[key].is_null();
    let title = value["title"].as_str().or_else(|| value["name"].as_str());
    let place = title.filter(|_| has("gridPos") || has("expr")).unwrap_or(place);
    if let Some(text) = value["expr"].as_str() {
        let legend = labels(value["legendFormat"].as_str().unwrap_or(""));
        found.push(Query { place: place.to_owned(), text: filled(text, variables), legend });
    }
    let inner: Vec<&Value> = match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(object) => object.values().collect(),
        _ => return,
    };
    for value in inner {
        collect(value, place, variables, found);
    }
}
