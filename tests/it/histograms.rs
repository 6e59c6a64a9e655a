//! The histograms count what clients did, neither more nor less, and time what they waited for.

mod answers;
mod exact;

use crate::harness::Metrics;

/// One histogram with its labels.
struct Histogram<'a> {
    metrics: &'a Metrics,
    name: &'a str,
    labels: &'a str,
}

impl<'a> Histogram<'a> {
    fn of(metrics: &'a Metrics, name: &'a str) -> Self {
        Self { metrics, name, labels: "listener=\"main\"" }
    }

    /// One that belongs to no listener.
    fn of_all(metrics: &'a Metrics, name: &'a str) -> Self {
        Self { metrics, name, labels: "" }
    }

    #[track_caller]
    fn value(&self, suffix: &str) -> f64 {
        let labels = Some(self.labels).filter(|labels| !labels.is_empty());
        let labels = labels.map_or_else(String::new, |labels| format!("{{{labels}}}"));
        self.metrics.get(&format!("{}_{suffix}{labels}", self.name))
    }

    #[track_caller]
    fn count(&self) -> f64 {
        self.value("count")
    }

    #[track_caller]
    fn sum(&self) -> f64 {
        self.value("sum")
    }

    /// Observations up to that bound, it included.
    #[track_caller]
    fn up_to(&self, bound: &str) -> f64 {
        let comma = if self.labels.is_empty() { "" } else { "," };
        self.metrics.get(&format!("{}_bucket{{{}{comma}le=\"{bound}\"}}", self.name, self.labels))
    }
}
