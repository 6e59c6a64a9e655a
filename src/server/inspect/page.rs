//! The page of `/connections` in JSON. Written by hand, because nothing that stands in it needs an
//! escape: numbers, addresses, words of ours, names of listeners, which are `[a-z0-9-]`, and the
//! host's, which is taken only if it is as plain.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use crate::connection::peer_name;
use crate::sidecar::Query;

use crate::server::question::Found;

/// Everything that the page tells.
pub(super) struct Report<'a> {
    /// Which server this is.
    pub(super) host: &'a str,
    pub(super) pid: u32,
    pub(super) query: Query,
    pub(super) draining: bool,
    pub(super) workers: Vec<Standing>,
    /// In their order, each with its worker.
    pub(super) found: Vec<(usize, Found)>,
    pub(super) listeners: &'a [String],
}

/// One worker.
pub(super) struct Standing {
    pub(super) connections: usize,
    pub(super) answered: bool,
}

/// The page, whose times end at `now`.
pub(super) fn write(report: &Report<'_>, now: Instant) -> Vec<u8> {
    let mut out = String::new();
    write_report(&mut out, report, now).expect("a string takes everything");
    out.into_bytes()
}

fn write_report(out: &mut String, report: &Report<'_>, now: Instant) -> fmt::Result {
    let Report { host, pid, query, draining, workers, found, .. } = report;
    let answered = workers.iter().filter(|worker| worker.answered);
    let total: usize = answered.map(|worker| worker.connections).sum();
    let (sort, limit) = (query.sort.as_str(), query.limit);
    write!(out, r#"{{"host":"{host}","pid":{pid},"#)?;
    write!(
        out,
        r#""sort":"{sort}","limit":{limit},"total":{total},"draining":{draining},"workers":["#
    )?;
    let mut comma = "";
    for (worker, Standing { connections, answered }) in workers.iter().enumerate() {
        write!(
            out,
            r#"{comma}{{"worker":{worker},"connections":{connections},"answered":{answered}}}"#
        )?;
        comma = ",";
    }
    out.push_str(r#"],"stalled":["#);
    let mut comma = "";
    for (worker, _) in workers.iter().enumerate().filter(|(_, worker)| !worker.answered) {
        write!(out, "{comma}{worker}")?;
        comma = ",";
    }
    out.push_str(r#"],"connections":["#);
    let mut comma = "";
    for (worker, found) in found {
        writeln!(out, "{comma}")?;
        write_connection(out, *worker, found, report.listeners, now)?;
        comma = ",";
    }
    out.push_str("]}\n");
    Ok(())
}

fn write_connection(
    out: &mut String,
    worker: usize,
    found: &Found,
    listeners: &[String],
    now: Instant,
) -> fmt::Result {
    let Found { generation, snapshot } = found;
    let listener = listeners.get(snapshot.listener).map_or("", String::as_str);
    let (peer, state) = (peer_name(snapshot.peer), snapshot.state.label());
    let age = seconds(now.saturating_duration_since(snapshot.accepted));
    let idle = seconds(now.saturating_duration_since(snapshot.last_byte));
    write!(out, r#"{{"id":"{worker}-{generation}","listener":"{listener}","peer":"{peer}","#)?;
    write!(out, r#""worker":{worker},"age_seconds":{age},"idle_seconds":{idle},"#)?;
    write!(
        out,
        r#""messages":{},"received_bytes":{},"sent_bytes":{},"pending_bytes":{},"#,
        snapshot.messages, snapshot.received_bytes, snapshot.sent_bytes, snapshot.pending_bytes
    )?;
    write!(out, r#""state":"{state}"}}"#)
}

/// To the microsecond, and never with an exponent.
fn seconds(duration: Duration) -> String {
    format!("{}.{:06}", duration.as_secs(), duration.subsec_micros())
}
