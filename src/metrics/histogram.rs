//! Histograms that cost an observation a few plain stores: each thread that observes has cells of
//! its own, and only who scrapes adds them up. The library's own would cost the way of a message
//! contended atomics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::{Registry, proto};

use super::names::Metric;

/// More buckets than any scale has, the last one without a bound included.
const CELLS: usize = 24;

/// Where a histogram's buckets end.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Upper bounds in the unit that is observed, ascending.
    bounds: &'static [u64],
    /// By the number of bits of a value: the first bucket that may be its own. Half a dozen
    /// instructions instead of a search, for each message.
    first: [u8; 65],
    /// Units observed in one unit of the metric.
    unit: f64,
}

impl Scale {
    const fn new(bounds: &'static [u64], unit: f64) -> Self {
        assert!(bounds.len() < CELLS, "a scale leaves a cell for what is above it");
        let mut first = [0; 65];
        let (mut bits, mut bucket) = (1, 0);
        while bits <= 64 {
            // The least value of so many bits.
            while bucket < bounds.len() && bounds[bucket] < 1 << (bits - 1) {
                bucket += 1;
            }
            first[bits] = bucket as u8;
            bits += 1;
        }
        Self { bounds, first, unit }
    }

    /// The first bucket whose bound `value` does not exceed; the last one has no bound.
    fn bucket(&self, value: u64) -> usize {
        let mut bucket = usize::from(self.first[64 - value.leading_zeros() as usize]);
        while self.bounds.get(bucket).is_some_and(|&bound| bound < value) {
            bucket += 1;
        }
        bucket
    }
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const IN_SECONDS: f64 = 1e9;

/// What a worker or a network takes: 10 µs to 10 s.
pub static WAITS: Scale = Scale::new(
    &[
        10 * US,
        20 * US,
        50 * US,
        100 * US,
        200 * US,
        500 * US,
        MS,
        2 * MS,
        5 * MS,
        10 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        S,
        2 * S,
        5 * S,
        10 * S,
    ],
    IN_SECONDS,
);

/// What the kernel tells in ticks of 4 ms. From a second on there is a bound at each time at which
/// a dropped client tries again, and up to a minute: a server may have been stopped.
pub static TICKS: Scale = Scale::new(
    &[
        4 * MS,
        8 * MS,
        16 * MS,
        32 * MS,
        64 * MS,
        128 * MS,
        256 * MS,
        512 * MS,
        S,
        2 * S,
        3 * S,
        4 * S,
        5 * S,
        7 * S,
        10 * S,
        15 * S,
        30 * S,
        60 * S,
    ],
    IN_SECONDS,
);

/// How long connections live: 1 ms to a day.
pub static LIVES: Scale = Scale::new(
    &[
        MS,
        10 * MS,
        100 * MS,
        500 * MS,
        S,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
        300 * S,
        900 * S,
        3_600 * S,
        14_400 * S,
        86_400 * S,
    ],
    IN_SECONDS,
);

/// How long messages are: 16 B to 16 MiB, in steps of four.
pub static SIZES: Scale = Scale::new(
    &[
        1 << 4,
        1 << 6,
        1 << 8,
        1 << 10,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
    ],
    1.0,
);

/// One thread's counts; aligned, so that no other thread's lie in the same cache lines.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    /// Observations by bucket; the one behind the last bound has none.
    counts: [AtomicU64; CELLS],
    /// All values added up, in the unit that is observed.
    sum: AtomicU64,
}

/// One thread's end of a histogram. It alone writes its cells, which is why it is not `Clone`.
#[derive(Debug)]
pub struct Recorder {
    scale: &'static Scale,
    cells: Arc<Cells>,
    held: Held,
}

impl Recorder {
    /// Counts a value, in the unit of the scale.
    pub fn observe(&mut self, value: u64) {
        if super::MEASURED {
            add(&self.cells.counts[self.scale.bucket(value)], 1);
            add(&self.cells.sum, value);
        }
    }

    /// Takes note of a value that may yet turn out not to count.
    pub fn hold(&mut self, value: u64) {
        if super::MEASURED {
            let bucket = self.scale.bucket(value);
            self.held.counts[bucket] += 1;
            self.held.buckets |= 1 << bucket;
            self.held.sum += value;
        }
    }

    /// Counts what is held.
    pub fn count_held(&mut self) {
        add(&self.cells.sum, std::mem::take(&mut self.held.sum));
        while let Some((bucket, count)) = self.held.take_bucket() {
            add(&self.cells.counts[bucket], count.into());
        }
    }

    /// Forgets what is held: it did not count.
    pub fn forget_held(&mut self) {
        self.held.sum = 0;
        while self.held.take_bucket().is_some() {}
    }

    /// Counts a time on a scale of times.
    pub fn observe_time(&mut self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Values that may yet turn out not to count.
#[derive(Debug, Default)]
struct Held {
    counts: [u32; CELLS],
    /// Which of them are not 0, a bit each, so that few are looked at.
    buckets: u32,
    sum: u64,
}

impl Held {
    fn take_bucket(&mut self) -> Option<(usize, u32)> {
        let bucket = self.buckets.trailing_zeros() as usize;
        self.buckets &= self.buckets.checked_sub(1)?;
        Some((bucket, std::mem::take(&mut self.counts[bucket])))
    }
}

/// Nobody else writes this cell: a load and a store do, where a locked addition costs ten times as
/// much.
fn add(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// One histogram with its children, by label values. Clones are the same histogram.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    metric: &'static Metric,
    scale: &'static Scale,
    desc: Desc,
    children: Arc<Mutex<Vec<Child>>>,
}

#[derive(Debug)]
struct Child {
    labels: Vec<String>,
    recorded: Vec<Arc<Cells>>,
}

impl Histogram {
    /// Registers it, without any child.
    pub(super) fn register(
        registry: &Registry,
        metric: &'static Metric,
        scale: &'static Scale,
    ) -> prometheus::Result<Self> {
        let labels = metric.labels.iter().map(|&label| label.to_owned()).collect();
        let (name, help) = (metric.name.to_owned(), metric.help.to_owned());
        let desc = Desc::new(name, help, labels, HashMap::new())?;
        let histogram = Self { metric, scale, desc, children: Arc::default() };
        registry.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    /// Makes the child stand at 0, if there is none of these label values yet.
    pub(super) fn child(&self, labels: &[&str]) {
        let mut children = self.children.lock();
        if !children.iter().any(|child| child.labels == labels) {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            children.push(Child { labels, recorded: Vec::new() });
        }
    }

    /// A recorder of that child's, for one more thread.
    pub(super) fn recorder(&self, labels: &[&str]) -> Recorder {
        self.child(labels);
        let cells = Arc::new(Cells::default());
        let mut children = self.children.lock();
        for child in children.iter_mut().filter(|child| child.labels == labels) {
            child.recorded.push(cells.clone());
        }
        Recorder { scale: self.scale, cells, held: Held::default() }
    }

    fn read(&self, child: &Child) -> proto::Histogram {
        let total = |of: &dyn Fn(&Cells) -> u64| {
            child.recorded.iter().map(|cells| of(cells)).fold(0, u64::wrapping_add)
        };
        let count = |bucket: usize| total(&|cells| cells.counts[bucket].load(Ordering::Relaxed));
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(self.scale.bounds.len());
        for (index, &bound) in self.scale.bounds.iter().enumerate() {
            cumulative += count(index);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound as f64 / self.scale.unit);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let sum = total(&|cells| cells.sum.load(Ordering::Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        // From the same reading as the buckets, or the two might disagree.
        histogram.set_sample_count(cumulative + count(self.scale.bounds.len()));
        histogram.set_sample_sum(sum as f64 / self.scale.unit);
        histogram
    }
}

impl Collector for Histogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let pair = |(name, value): (&&str, &String)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        };
        let metric = |child: &Child| {
            let labels = self.metric.labels.iter().zip(&child.labels).map(pair).collect();
            let mut metric = proto::Metric::from_label(labels);
            metric.set_histogram(self.read(child));
            metric
        };
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(self.children.lock().iter().map(metric).collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::metrics::names;

    fn series(registry: &Registry) -> Vec<String> {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let registry = Registry::new();
        let histogram = Histogram::register(&registry, &names::MESSAGE_BYTES, &SIZES).unwrap();
        let mut recorder = histogram.recorder(&["main"]);
        for value in [0, 16, 17, 64, 1 << 24, (1 << 24) + 1] {
            recorder.observe(value);
        }
        let series = series(&registry);
        for (le, count) in [("16", 2), ("64", 4), ("4194304", 4), ("16777216", 5), ("+Inf", 6)] {
            let line =
                format!("talkback_message_bytes_bucket{{listener=\"main\",le=\"{le}\"}} {count}");
            assert!(series.contains(&line), "{line} is not in {series:#?}");
        }
        let sum = 16 + 17 + 64 + (1 << 25) + 1;
        assert_eq!(series[12], format!("talkback_message_bytes_sum{{listener=\"main\"}} {sum}"));
        assert_eq!(series[13], "talkback_message_bytes_count{listener=\"main\"} 6");
    }

    #[test]
    fn the_recorders_of_all_threads_add_up() {
        let registry = Registry::new();
        let histogram = Histogram::register(&registry, &names::RESPOND, &WAITS).unwrap();
        let mut recorders: Vec<_> = (0..4).map(|_| histogram.recorder(&["main"])).collect();
        std::thread::scope(|scope| {
            for recorder in &mut recorders {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        recorder.observe_time(Duration::from_micros(30));
                    }
                });
            }
        });
        let series = series(&registry);
        let bucket = |le: &str, count: u32| {
            format!("talkback_respond_seconds_bucket{{listener=\"main\",le=\"{le}\"}} {count}")
        };
        assert_eq!(series[1], bucket("0.00002", 0));
        assert_eq!(series[2], bucket("0.00005", 4000));
        assert_eq!(series[20], "talkback_respond_seconds_sum{listener=\"main\"} 0.12");
        assert_eq!(series[21], "talkback_respond_seconds_count{listener=\"main\"} 4000");
    }

    #[test]
    fn a_child_stands_at_0_before_anything_is_observed() {
        let registry = Registry::new();
        let histogram = Histogram::register(&registry, &names::ACCEPT_WAIT, &TICKS).unwrap();
        histogram.child(&["main"]);
        let series = series(&registry);
        assert_eq!(series.len(), TICKS.bounds.len() + 3);
        assert!(series.iter().all(|line| line.ends_with(" 0")), "{series:#?}");
    }

    #[test]
    fn every_value_finds_its_bucket_on_every_scale() {
        for scale in [&WAITS, &TICKS, &LIVES, &SIZES] {
            assert!(scale.bounds.is_sorted_by(|a, b| a < b), "{:?}", scale.bounds);
            let around = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
            let bounds = scale.bounds.iter().flat_map(|&bound| around(bound));
            let powers = (0..64).flat_map(|bit| around(1 << bit));
            for value in bounds.chain(powers).chain([0, u64::MAX]) {
                let expected = scale.bounds.partition_point(|&bound| bound < value);
                assert_eq!(scale.bucket(value), expected, "{value}");
            }
        }
    }

    /// Clients whom the kernel dropped come back at these times, and a stop may last.
    #[test]
    fn the_waits_of_clients_that_try_again_are_told_apart() {
        let bound = |wait: u64| TICKS.bounds.get(TICKS.bucket(wait));
        for (wait, expected) in [(1, 1), (3, 3), (6, 7), (7, 7), (15, 15), (28, 30), (60, 60)] {
            assert_eq!(bound(wait * S), Some(&(expected * S)), "{wait} s");
        }
        assert_eq!(bound(60 * S + 1), None);
    }

    #[test]
    fn what_is_held_counts_as_its_values_would_or_not_at_all() {
        let registry = Registry::new();
        let histogram = Histogram::register(&registry, &names::MESSAGE_BYTES, &SIZES).unwrap();
        let mut recorders = [histogram.recorder(&["one"]), histogram.recorder(&["all"])];
        for round in 0..3 {
            for value in [0, 5, 17, 17, 1 << 30] {
                recorders[1].hold(value);
                if round != 1 {
                    recorders[0].observe(value);
                }
            }
            if round == 1 {
                recorders[1].forget_held()
            } else {
                recorders[1].count_held()
            }
            recorders[1].count_held();
        }
        let series = series(&registry);
        let of = |name: &str| -> Vec<String> {
            let child = format!("listener=\"{name}\"");
            let lines = series.iter().filter(|line| line.contains(&child));
            lines.map(|line| line.replace(&child, "")).collect()
        };
        assert_eq!(of("one"), of("all"));
        assert_eq!(of("one").last().unwrap(), "talkback_message_bytes_count{} 10");
    }
}
