//! What a sidecar answers, and the numbers of its `/metrics` with the ledger that they must keep.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// One scrape: each series, as it is written, with its value.
#[derive(Debug, Default)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let series = lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect();
        Self { series }
    }

    /// One series, as in `talkback_connections{listener="main"}`.
    #[track_caller]
    pub fn get(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no series {series}\n{self}"))
    }

    /// Every series, as it is written.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// All series of a metric added up.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = self.series.iter().filter(|(series, _)| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        });
        of_name.map(|(_, value)| value).sum()
    }

    /// The closes by reason, all listeners together, without those at 0.
    pub fn closes(&self) -> BTreeMap<String, u64> {
        self.by_reason("talkback_connections_closed_total")
    }

    /// The rejections by reason, all listeners together, without those at 0.
    pub fn rejections(&self) -> BTreeMap<String, u64> {
        self.by_reason("talkback_connections_rejected_total")
    }

    fn by_reason(&self, name: &str) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for (series, value) in &self.series {
            let Some(labels) = series.strip_prefix(name) else { continue };
            let reason = labels.split("reason=\"").nth(1).unwrap().split('"').next().unwrap();
            if *value > 0.0 {
                *reasons.entry(reason.to_owned()).or_default() += *value as u64;
            }
        }
        reasons
    }

    /// accepted = open + closed + rejected, which holds at rest.
    pub fn adds_up(&self) -> bool {
        let accepted = self.sum("talkback_connections_accepted_total");
        let open = self.sum("talkback_connections");
        let closed = self.sum("talkback_connections_closed_total");
        let rejected = self.sum("talkback_connections_rejected_total");
        accepted == open + closed + rejected
    }

    #[track_caller]
    pub fn assert_ledger(&self) {
        assert!(self.adds_up(), "the ledger does not add up\n{self}");
    }
}

impl std::fmt::Display for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (series, value) in self.series.iter().filter(|(_, value)| **value != 0.0) {
            writeln!(f, "{series} {value}")?;
        }
        Ok(())
    }
}

/// The answer of a sidecar to `GET path`: status and body; nothing if it does not answer.
pub fn get(sidecar: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(sidecar).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
