//! The process as its metrics tell it, against what the kernel tells of it to others.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::harness::{Metrics, Server};

/// Fields of `/proc/PID/stat` (proc(5)), by their numbers there.
struct Stat(Vec<f64>);

impl Stat {
    #[track_caller]
    fn of(server: &Server) -> Self {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split_whitespace();
        Self(fields.map(|field| field.parse().unwrap_or(f64::NAN)).collect())
    }

    /// Two fields stand before those that were kept, and numbers begin at 1.
    fn field(&self, number: usize) -> f64 {
        self.0[number - 3]
    }

    /// User and system.
    fn cpu_seconds(&self) -> f64 {
        (self.field(14) + self.field(15)) / ticks()
    }
}

fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// The number in a line of a file of the process's.
#[track_caller]
fn number(server: &Server, file: &str, line: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let line = text.lines().find_map(|found| found.strip_prefix(line)).expect(line);
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

#[track_caller]
fn check_near(metrics: &Metrics, name: &str, expected: f64) {
    let value = metrics.get(name);
    assert!((value - expected).abs() <= 0.2 * expected, "{name} is {value}, not {expected}");
}

#[test]
fn it_started_when_it_was_started() {
    let earlier = SystemTime::now();
    let server = Server::with_listener("");
    let metrics = server.metrics();
    let start = metrics.get("process_start_time_seconds");
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(start);
    // The kernel tells in whole seconds when it booted.
    let off = Duration::from_secs(1);
    assert!(start + off >= earlier && start <= SystemTime::now() + off, "{start:?} {earlier:?}");
    assert_eq!(
        server.metrics().get("process_start_time_seconds"),
        metrics.get("process_start_time_seconds")
    );
}

#[test]
fn its_cpu_time_is_what_the_kernel_counts_to_the_tick() {
    let server = Server::with_listener("framing = \"line\"");
    let text = "hello\n".repeat(50_000);
    // Work enough for some ticks, in whole seconds of which there is perhaps none.
    server.eventually("it has worked", |_| {
        server.connect().exchange(text.as_bytes());
        Stat::of(&server).cpu_seconds() > 0.1
    });
    let before = Stat::of(&server).cpu_seconds();
    let told = server.metrics().get("process_cpu_seconds_total");
    let after = Stat::of(&server).cpu_seconds();
    assert!(before <= told && told <= after, "{before} {told} {after}");
    // Never less than before.
    assert!(server.metrics().get("process_cpu_seconds_total") >= told);
}

#[test]
fn its_descriptors_are_counted_as_they_come_and_go() {
    let server = Server::with_listener("");
    let limit = number(&server, "limits", "Max open files");
    server.eventually(
        "nothing is open but what belongs to the server and this scrape",
        |metrics| {
            // The scrape has some of its own.
            let told = metrics.get("process_open_fds");
            let open = descriptors(&server) as f64;
            metrics.get("process_max_fds") == limit && (open..open + 8.0).contains(&told)
        },
    );
    let before = server.metrics().get("process_open_fds");
    let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    // A scrape before may still have its own.
    let near = |count: f64| {
        move |metrics: &Metrics| (metrics.get("process_open_fds") - count).abs() <= 3.0
    };
    server.eventually("fifty more", near(before + 50.0));
    drop(clients);
    server.eventually("as before", near(before));
}

#[test]
fn its_memory_and_threads_are_those_of_proc() {
    let server = Server::with_listener("");
    let metrics = server.metrics();
    check_near(
        &metrics,
        "process_resident_memory_bytes",
        number(&server, "status", "VmRSS:") * 1024.0,
    );
    check_near(
        &metrics,
        "process_virtual_memory_bytes",
        number(&server, "status", "VmSize:") * 1024.0,
    );
    let threads =
        |metrics: &Metrics| metrics.get("process_threads") == server.threads("comm").count() as f64;
    server.eventually("as many threads as there are", threads);
    // Without a limit it is that of 64 bits, as other programs tell it.
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space")).unwrap();
    let limit = line.split_whitespace().next().unwrap();
    let limit = if limit == "unlimited" { u64::MAX as f64 } else { limit.parse().unwrap() };
    assert_eq!(metrics.get("process_virtual_memory_max_bytes"), limit);
}
