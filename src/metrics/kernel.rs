//! What the kernel knows of the TCP listeners: it is read when someone scrapes. Nothing of this
//! exists for Unix sockets, so there is no series for them.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::families::{int_counters, int_gauges};
use super::names;

/// What the kernel says of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenReading {
    /// Connections in the accept queue.
    pub queue_length: u32,
    /// The backlog after the clamp.
    pub queue_limit: u32,
    /// The socket's count of drops, which wraps at 32 bits.
    pub drops: u32,
}

/// The metrics of the listeners' queues.
pub(super) struct KernelInstruments {
    queue_length: IntGaugeVec,
    queue_limit: IntGaugeVec,
    drops: Vec<(String, Option<Drops>)>,
    /// No child before the kernel has told a value.
    overflows: IntCounterVec,
}

struct Drops {
    total: IntCounter,
    last: Mutex<u32>,
}

impl Drops {
    fn count(&self, now: u32) {
        let mut last = self.last.lock();
        let grown = now.wrapping_sub(*last);
        // What an acceptor counts at its close may overtake what a scrape has just read.
        if grown < 1 << 31 {
            self.total.inc_by(grown.into());
            *last = now;
        }
    }
}

impl KernelInstruments {
    /// `listeners` are names, and whether each is of TCP.
    pub(super) fn register(
        registry: &Registry,
        listeners: &[(&str, bool)],
    ) -> prometheus::Result<Self> {
        let drops = int_counters(registry, &names::LISTEN_DROPS)?;
        let of = |&(name, is_tcp): &(&str, bool)| {
            let total = is_tcp.then(|| drops.with_label_values(&[name]));
            (name.to_owned(), total.map(|total| Drops { total, last: Mutex::new(0) }))
        };
        Ok(Self {
            queue_length: int_gauges(registry, &names::LISTEN_QUEUE_LENGTH)?,
            queue_limit: int_gauges(registry, &names::LISTEN_QUEUE_LIMIT)?,
            drops: listeners.iter().map(of).collect(),
            overflows: int_counters(registry, &names::NETNS_LISTEN_OVERFLOWS)?,
        })
    }

    /// Shows what was read of a listener; `None` when it has closed, or has nothing to tell.
    pub(super) fn show(&self, listener: usize, reading: Option<ListenReading>) {
        let (name, drops) = &self.drops[listener];
        let Some(reading) = reading else {
            // A queue that is no more is not an empty one. An error says that there is no series.
            let _ = self.queue_length.remove_label_values(&[name]);
            let _ = self.queue_limit.remove_label_values(&[name]);
            return;
        };
        self.queue_length.with_label_values(&[name]).set(reading.queue_length.into());
        self.queue_limit.with_label_values(&[name]).set(reading.queue_limit.into());
        if let Some(drops) = drops {
            drops.count(reading.drops);
        }
    }

    /// Counts what a listener's socket has dropped by now; nothing of a Unix socket.
    pub(super) fn count_drops(&self, listener: usize, drops: u32) {
        if let (_, Some(counted)) = &self.drops[listener] {
            counted.count(drops);
        }
    }

    /// Shows the namespace's overflows, if the kernel lets us read them.
    pub(super) fn refresh_overflows(&self) {
        let text = std::fs::read_to_string("/proc/net/netstat");
        if let Some(overflows) = text.ok().as_deref().and_then(listen_overflows) {
            let total = self.overflows.with_label_values(&[] as &[&str]);
            total.inc_by(overflows.saturating_sub(total.get()));
        }
    }
}

/// `ListenOverflows` of `/proc/net/netstat`: a line of names, then one of values, for each group.
fn listen_overflows(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|name| name == "ListenOverflows")?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(drops: u32) -> Option<ListenReading> {
        Some(ListenReading { queue_length: 1, queue_limit: 2, drops })
    }

    #[test]
    fn drops_go_on_where_the_kernels_count_wraps() {
        let instruments = KernelInstruments::register(&Registry::new(), &[("main", true)]).unwrap();
        for drops in [3, 1 << 30, 1 << 31, 3 << 30, u32::MAX, 1, u32::MAX] {
            instruments.show(0, reading(drops));
        }
        let (_, drops) = &instruments.drops[0];
        // The last one was read before the one that came before it.
        assert_eq!(drops.as_ref().unwrap().total.get(), (1 << 32) + 1);
    }

    #[test]
    fn a_closed_listener_has_no_queue_but_keeps_its_drops() {
        let registry = Registry::new();
        let instruments =
            KernelInstruments::register(&registry, &[("main", true), ("local", false)]).unwrap();
        instruments.show(0, reading(7));
        instruments.show(1, None);
        assert_eq!(registry.gather().len(), 3);
        instruments.show(0, None);
        let left = registry.gather();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].name(), names::LISTEN_DROPS.name);
        assert_eq!(left[0].get_metric().len(), 1);
    }

    #[test]
    fn overflows_are_found_by_their_name_and_group() {
        let netstat = "IpExt: ListenOverflows\nIpExt: 1\n\
                       TcpExt: A ListenOverflows B\nTcpExt: 5 42 6\n";
        assert_eq!(listen_overflows(netstat), Some(42));
        assert_eq!(listen_overflows("TcpExt: A B\nTcpExt: 1 2\n"), None);
        assert_eq!(listen_overflows("TcpExt: ListenOverflows\n"), None);
        assert_eq!(listen_overflows(""), None);
    }
}
