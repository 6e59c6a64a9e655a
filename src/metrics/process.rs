//! The process as the kernel accounts for it, under the names that every Prometheus client uses.

use std::fs;

use parking_lot::Mutex;
use prometheus::{Counter, Gauge, Registry};
use rustix::process::{Resource, getrlimit};

use super::families::{counter, gauge};
use super::names;

/// The `process_*` metrics.
pub(super) struct ProcessInstruments {
    cpu: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    virtual_memory_max: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
    threads: Gauge,
    /// When the system booted, in seconds since 1970. Read once: a clock that is set would move it.
    booted: Mutex<Option<f64>>,
}

/// What is used of `/proc/self/stat` (proc(5)), in its own units.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl ProcessInstruments {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            cpu: counter(registry, &names::PROCESS_CPU_SECONDS)?,
            open_fds: gauge(registry, &names::PROCESS_OPEN_FDS)?,
            max_fds: gauge(registry, &names::PROCESS_MAX_FDS)?,
            virtual_memory: gauge(registry, &names::PROCESS_VIRTUAL_MEMORY)?,
            virtual_memory_max: gauge(registry, &names::PROCESS_VIRTUAL_MEMORY_MAX)?,
            resident_memory: gauge(registry, &names::PROCESS_RESIDENT_MEMORY)?,
            start_time: gauge(registry, &names::PROCESS_START_TIME)?,
            threads: gauge(registry, &names::PROCESS_THREADS)?,
            booted: Mutex::new(None),
        })
    }

    /// Reads all of it. What cannot be read, as where no descriptor is left for it, stays as it
    /// was.
    pub(super) fn refresh(&self) {
        self.max_fds.set(limit(Resource::Nofile));
        self.virtual_memory_max.set(limit(Resource::As));
        if let Some(count) = open_descriptors() {
            self.open_fds.set(count as f64);
        }
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse) {
            self.show(&stat);
        }
    }

    fn show(&self, stat: &Stat) {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu = stat.cpu_ticks as f64 / ticks;
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
        self.threads.set(stat.threads as f64);
        self.virtual_memory.set(stat.virtual_bytes as f64);
        self.resident_memory.set(stat.resident_pages as f64 * rustix::param::page_size() as f64);
        let mut booted = self.booted.lock();
        if booted.is_none() {
            *booted = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time);
        }
        if let Some(booted) = *booted {
            self.start_time.set(booted + stat.start_ticks as f64 / ticks);
        }
    }
}

fn limit(resource: Resource) -> f64 {
    // RLIM_INFINITY, as other clients write it: not every parser takes an infinity.
    getrlimit(resource).current.unwrap_or(u64::MAX) as f64
}

/// Linux tells the number of entries as the directory's size from 6.2 on; before that they have to
/// be counted.
fn open_descriptors() -> Option<u64> {
    let known = fs::metadata("/proc/self/fd").ok()?.len();
    if known > 0 {
        return Some(known);
    }
    // The one that the count itself takes is none of them.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

fn parse(stat: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    // proc(5) counts from 1, and two fields are cut off.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_moves_no_field() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 6 0 9000 123456 78 1";
        let expected = Stat {
            cpu_ticks: 175,
            threads: 6,
            start_ticks: 9000,
            virtual_bytes: 123_456,
            resident_pages: 78,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("7 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_time_of_boot_is_found_among_the_other_lines() {
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000.0));
        assert_eq!(boot_time("cpu 1 2\n"), None);
    }

    #[test]
    fn this_process_has_what_every_process_has() {
        let instruments = ProcessInstruments::register(&Registry::new()).unwrap();
        instruments.refresh();
        for gauge in [
            &instruments.open_fds,
            &instruments.max_fds,
            &instruments.virtual_memory,
            &instruments.virtual_memory_max,
            &instruments.resident_memory,
            &instruments.start_time,
            &instruments.threads,
        ] {
            assert!(gauge.get() > 0.0, "{gauge:?}");
        }
    }
}
