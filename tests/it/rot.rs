//! Dashboards and alerts against a real Prometheus that watches a server under mixed load and
//! faults: whatever they ask for is there.

mod dashboard;
mod load;
mod programs;
mod sides;

use std::fs;
use std::time::SystemTime;

use talkback::metrics::names::{self, Kind};

use crate::harness::{Server, eventually};
use crate::prometheus::{Prometheus, Series};

use dashboard::Dashboard;
use load::Load;

/// Rounds of load, with a scrape after each.
const ROUNDS: usize = 6;

/// What finds nothing under this load, and why that is right: by where it stands and a part of its
/// query. One that finds something is a failure as well, and so is one that would find nothing
/// without its condition.
const FINDS_NOTHING: &[(&str, &str, &str)] = &[
    ("Restarts", "changes(process_start_time_seconds", "nothing restarts"),
    ("Alerts", "ALERTS", "nothing is wrong for long enough"),
    ("Errors: ", "talkback_accept_errors_total", "the host is well"),
];

/// A matcher that is a condition: without it the query finds the alerts that wait to fire.
const FIRES: &str = ", alertstate=\"firing\"";

/// Metrics that this load leaves at 0, and why; it must move all others, or it is no test of them.
const STILL: &[(&str, &str)] = &[
    ("talkback_accept_errors_total", "the host is well"),
    ("talkback_worker_turn_seconds", "a turn lasts microseconds, and no scrape may meet one"),
    ("talkback_worker_inbox_connections", "nor does anybody stay in an inbox"),
    ("talkback_worker_panics_total", "nothing panics"),
    ("talkback_late_replies_refused_total", "the program has no late replies"),
    ("talkback_draining", "nothing stops"),
    ("talkback_log_lines_dropped_total", "the log is read"),
];

/// Alerts whose conditions this load fulfils; none of them for long enough to call anybody.
const ROUSED: [&str; 7] = [
    "TalkbackRejecting",
    "TalkbackNearConnectionLimit",
    "TalkbackAcceptQueueFilling",
    "TalkbackDrops",
    "TalkbackSlowAccept",
    "TalkbackErrorCloses",
    "TalkbackBadMessages",
];

/// A query, and where it stands.
struct Query {
    place: String,
    text: String,
    /// The labels that its legend shows.
    legend: Vec<String>,
}

/// What Prometheus made of the load.
struct Stage {
    prometheus: Prometheus,
    load: Load,
    _quiet: Server,
    /// From the first scrape under load to the last one, in seconds.
    span: (f64, f64),
}

impl Stage {
    #[track_caller]
    fn set() -> Self {
        let mut load = Load::start();
        let quiet = Server::with_listener("");
        let sidecars = [load.server().metrics_address(), quiet.metrics_address()];
        let prometheus = Prometheus::watch(&sidecars);
        let loaded = sidecars[0].to_string();
        let first = scraped_from_now_on(&prometheus, &loaded);
        let mut last = first;
        for _ in 0..ROUNDS {
            load.round();
            last = scraped_from_now_on(&prometheus, &loaded);
        }
        programs::await_all(load.server());
        last = last.max(scraped_from_now_on(&prometheus, &loaded));
        Self { prometheus, load, _quiet: quiet, span: (first, last) }
    }

    /// Why a query is not as it must be.
    fn fault(&self, query: &Query) -> Option<String> {
        let at_once = self.prometheus.query(&query.text, Some(self.span.1));
        let over_time = self.prometheus.query_range(&query.text, self.span);
        let complaint = match (at_once, over_time) {
            (Err(error), _) | (_, Err(error)) => error,
            (Ok(at_once), Ok(over_time)) => {
                let finds = shows(&at_once) && shows(&over_time);
                match (finds, excuse(query)) {
                    (true, None) => legend_fault(query, &at_once)?,
                    (false, Some(_)) => self.fault_without_condition(query)?,
                    (false, None) => format!("nothing but {at_once:?}"),
                    (true, Some(why)) => format!("it finds something, though {why}"),
                }
            }
        };
        Some(format!("{}: {complaint}\n    {}", query.place, query.text))
    }

    fn fault_without_condition(&self, query: &Query) -> Option<String> {
        let finds = |text: &str| {
            self.prometheus.query(text, Some(self.span.1)).is_ok_and(|found| shows(&found))
        };
        let text = query.text.replace(FIRES, "");
        let sides = sides::sides(&text);
        let has_none = sides.len() < 2 && text == query.text;
        let missing = sides.iter().find(|side| has_none || !finds(side))?;
        Some(format!("nothing, without its condition too: {missing}"))
    }

    /// The load was one: Prometheus has seen each metric above 0.
    #[track_caller]
    fn check_load(&self) {
        let is_still = |name: &str| STILL.iter().any(|(still, _)| *still == name);
        for metric in names::ALL.iter().filter(|metric| !is_still(metric.name)) {
            let suffix = if metric.kind == Kind::Histogram { "_count" } else { "" };
            let query = format!("max(max_over_time({}{suffix}[1m]))", metric.name);
            let most = self.prometheus.number(&query);
            assert!(most.is_some_and(|most| most > 0.0), "{query} is {most:?}");
        }
    }

    /// What the load does wrong is what alerts look for.
    #[track_caller]
    fn check_alerts(&self) {
        for alert in ROUSED {
            let query = format!("count(count_over_time(ALERTS{{alertname=\"{alert}\"}}[1m]))");
            assert!(self.prometheus.number(&query).is_some(), "{alert} saw nothing");
        }
        let firing = self.prometheus.number("count(ALERTS{alertstate=\"firing\"})");
        assert_eq!(firing, None, "an alert fires after seconds");
    }

    #[track_caller]
    fn check(&self, queries: &[Query]) {
        let faults: Vec<_> = queries.iter().filter_map(|query| self.fault(query)).collect();
        assert!(faults.is_empty(), "\n{}\n{}", faults.join("\n"), self.load.server().metrics());
        println!("{} queries", queries.len());
    }
}

/// Waits for a scrape of that sidecar that begins after this call, and returns when it began, in
/// seconds as Prometheus counts them. The first one comes when it has looked for targets: 5 s.
#[track_caller]
fn scraped_from_now_on(prometheus: &Prometheus, sidecar: &str) -> f64 {
    let earlier = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let up = format!("up{{instance=\"{sidecar}\"}}");
    let query = format!("timestamp({up}) > {earlier} and {up} == 1");
    let mut at = None;
    eventually("prometheus has scraped", || {
        at = prometheus.number(&query);
        at.is_some()
    });
    at.unwrap()
}

/// A quotient of nothing by nothing leaves a panel as empty as no series does.
fn shows(series: &[Series]) -> bool {
    series.iter().any(|series| series.values.iter().any(|value| !value.is_nan()))
}

fn excuse(query: &Query) -> Option<&'static str> {
    let fits = |place: &str, part: &str| query.place.contains(place) && query.text.contains(part);
    let mut excuses = FINDS_NOTHING.iter().filter(|(place, part, _)| fits(place, part));
    excuses.next().map(|(_, _, why)| *why)
}

fn legend_fault(query: &Query, found: &[Series]) -> Option<String> {
    let lacks = |label: &&String| found.iter().any(|series| !series.labels.contains_key(*label));
    let missing: Vec<_> = query.legend.iter().filter(lacks).collect();
    (!missing.is_empty()).then(|| format!("its legend's {missing:?} are in no series"))
}

/// The rules as Prometheus has understood them, with what it says of each.
#[track_caller]
fn rules(prometheus: &Prometheus) -> Vec<serde_json::Value> {
    let answer = prometheus.ask("rules", &[]).unwrap();
    let groups = answer["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// How many rules the files of the repository have.
#[track_caller]
fn written_rules(prometheus: &Prometheus) -> usize {
    let files = fs::read_dir(prometheus.file("dashboards")).unwrap().map(|file| file.unwrap());
    let files = files.filter(|file| file.file_name().to_str().unwrap().ends_with(".rules.yml"));
    let texts = files.map(|file| fs::read_to_string(file.path()).unwrap());
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ");
        line.starts_with("alert: ") || line.starts_with("record: ")
    };
    texts.map(|text| text.lines().filter(|line| begins(line)).count()).sum()
}

/// The queries of the rules, those of alerts without what makes them silent.
#[track_caller]
fn queries_of_rules(prometheus: &Prometheus) -> Vec<Query> {
    let mut queries = Vec::new();
    for rule in rules(prometheus) {
        let (name, text) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let query =
            |text: &str| Query { place: name.to_owned(), text: text.to_owned(), legend: vec![] };
        if rule["type"] == "alerting" {
            queries.extend(sides::sides(text).into_iter().map(query));
            queries.push(query(&sides::joined(text)));
        } else {
            queries.push(query(text));
        }
    }
    queries
}

#[track_caller]
fn check_health(prometheus: &Prometheus) {
    let mut rules = Vec::new();
    eventually("every rule has been evaluated", || {
        rules = self::rules(prometheus);
        rules.iter().all(|rule| rule["health"] != "unknown")
    });
    for rule in &rules {
        assert!(rule["health"] == "ok" && rule["lastError"].is_null(), "{rule}");
    }
    assert_eq!(rules.len(), written_rules(prometheus));
    assert!(!rules.is_empty());
    let targets = prometheus.ask("targets", &[]).unwrap();
    let targets = targets["activeTargets"].as_array().unwrap();
    assert_eq!(targets.len(), 2, "{targets:?}");
    for target in targets {
        assert!(target["health"] == "up" && target["lastError"] == "", "{target}");
    }
    assert_eq!(prometheus.complaints(), Vec::<serde_json::Value>::new());
}

/// One test for all of it: a Prometheus, a load and a dozen scrapes are not had in a moment.
#[test]
fn whatever_dashboard_and_rules_ask_for_is_there_under_load() {
    let stage = Stage::set();
    let mut queries = queries_of_rules(&stage.prometheus);
    queries.extend(Dashboard::read().queries(&stage.prometheus, stage.span));
    for (place, part, _) in FINDS_NOTHING {
        let fits = |query: &Query| query.place.contains(place) && query.text.contains(part);
        assert!(queries.iter().any(fits), "no query of {place} has {part}: it needs no excuse");
    }
    stage.check_load();
    stage.check_alerts();
    stage.check(&queries);
    check_health(&stage.prometheus);
    stage.load.check_metrics();
}
