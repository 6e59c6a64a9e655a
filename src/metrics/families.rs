//! How a row of the list of metrics becomes a family of the registry.

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::names::Metric;

fn options(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

pub(super) fn counters(registry: &Registry, metric: &Metric) -> prometheus::Result<CounterVec> {
    registered(registry, CounterVec::new(options(metric), metric.labels)?)
}

pub(super) fn gauges(registry: &Registry, metric: &Metric) -> prometheus::Result<GaugeVec> {
    registered(registry, GaugeVec::new(options(metric), metric.labels)?)
}

pub(super) fn int_counters(
    registry: &Registry,
    metric: &Metric,
) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(options(metric), metric.labels)?)
}

pub(super) fn int_gauges(registry: &Registry, metric: &Metric) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(options(metric), metric.labels)?)
}

pub(super) fn counter(registry: &Registry, metric: &Metric) -> prometheus::Result<Counter> {
    registered(registry, Counter::with_opts(options(metric))?)
}

pub(super) fn gauge(registry: &Registry, metric: &Metric) -> prometheus::Result<Gauge> {
    registered(registry, Gauge::with_opts(options(metric))?)
}

pub(super) fn int_counter(registry: &Registry, metric: &Metric) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::with_opts(options(metric))?)
}

pub(super) fn int_gauge(registry: &Registry, metric: &Metric) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::with_opts(options(metric))?)
}

/// The children of a family whose only label has these values.
pub(super) fn children(
    family: &IntCounterVec,
    labels: impl Iterator<Item = &'static str>,
) -> Vec<IntCounter> {
    labels.map(|label| family.with_label_values(&[label])).collect()
}
