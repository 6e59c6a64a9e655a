//! What is counted: what the server says, what the model expects, and how the two are compared.

use std::collections::BTreeMap;
use std::fmt;

use talkback::Server;

use super::contract::MAX_MESSAGE_BYTES;
use crate::harness::Metrics;

/// Every number of the ledger by its name; what is not named is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, i64>);

/// The metrics that have no label worth telling, and their names here.
const SUMS: [(&str, &str); 13] = [
    ("accepted", "talkback_connections_accepted_total"),
    ("open", "talkback_connections"),
    ("owned by workers", "talkback_worker_connections"),
    ("received", "talkback_received_bytes_total"),
    ("sent", "talkback_sent_bytes_total"),
    ("discarded", "talkback_discarded_bytes_total"),
    ("pending", "talkback_pending_bytes"),
    ("messages", "talkback_messages_total"),
    ("replies", "talkback_replies_total"),
    ("accept errors", "talkback_accept_errors_total"),
    ("panics", "talkback_worker_panics_total"),
    ("late replies refused", "talkback_late_replies_refused_total"),
    ("draining", "talkback_draining"),
];

/// Those that go down again.
const GAUGES: [&str; 4] = ["open", "owned by workers", "pending", "in a turn"];

impl Counts {
    pub fn of_server(server: &Server) -> Self {
        Self::of(&Metrics::parse(&String::from_utf8_lossy(&server.metrics())))
    }

    pub fn of(metrics: &Metrics) -> Self {
        let mut counts = Self::default();
        for (name, metric) in SUMS {
            counts.add(name, metrics.sum(metric) as i64);
        }
        // What a worker has counted is told when its turn is over.
        let is_in_turn = metrics.sum("talkback_worker_turn_seconds") > 0.0;
        counts.add("in a turn", i64::from(is_in_turn));
        for (reason, count) in metrics.closes() {
            counts.add(&closed(&reason), count as i64);
        }
        for (reason, count) in metrics.rejections() {
            counts.add(&rejected(&reason), count as i64);
        }
        counts
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, name: &str, count: i64) {
        let value = self.get(name) + count;
        if value == 0 {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Some more of several.
    pub fn with(mut self, counts: &[(&str, i64)]) -> Self {
        counts.iter().for_each(|(name, count)| self.add(name, *count));
        self
    }

    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = self.clone();
        other.0.iter().for_each(|(name, count)| difference.add(name, -count));
        difference
    }

    /// All closes.
    pub fn closes(&self) -> i64 {
        self.0.iter().filter(|(name, _)| name.starts_with("closed ")).map(|(_, count)| count).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing that happens later takes it back.
    fn is_too_much(&self) -> bool {
        self.0.iter().any(|(name, count)| *count > 0 && !GAUGES.contains(&name.as_str()))
    }

    fn take(&mut self, name: &str) -> i64 {
        self.0.remove(name).unwrap_or(0)
    }
}

/// The name of a close reason.
pub fn closed(reason: &str) -> String {
    format!("closed {reason}")
}

/// The name of a rejection.
pub fn rejected(reason: &str) -> String {
    format!("rejected {reason}")
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        for (at, (name, count)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {count:+}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What may be counted beyond what is known exactly.
#[derive(Debug, Clone)]
pub enum Open {
    /// One of these; an event of the network decides which.
    OneOf(Vec<Counts>),
    /// A client that does not read is read for as long as the kernel takes replies.
    Flood(Flood),
    /// That client was reset: what is not sent is thrown away.
    FloodCut(Flood),
    /// So many bytes of raw text, in receives that nobody knows.
    Receives(i64),
}

/// What a client sent that does not read.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    pub bytes: i64,
    /// The length of each of its lines; `None` in raw framing.
    pub line: Option<i64>,
}

/// What a look at the counts says.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    NotYet,
    Wrong,
}

impl Open {
    pub fn nothing() -> Self {
        Self::OneOf(vec![Counts::default()])
    }

    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::OneOf(allowed) if allowed.iter().all(Counts::is_empty))
    }

    /// Compares what was counted with what is known.
    pub fn judge(&self, known: &Counts, counted: &Counts) -> Verdict {
        let extra = counted.minus(known);
        let (is_right, is_wrong) = match self {
            Self::OneOf(allowed) => (
                allowed.contains(&extra),
                allowed.iter().all(|allowed| extra.minus(allowed).is_too_much()),
            ),
            Self::Flood(flood) => (flood.is_held(extra), false),
            Self::FloodCut(flood) => (flood.is_cut(extra), false),
            Self::Receives(bytes) => (is_cut_into_receives(extra, *bytes), false),
        };
        match is_right {
            true => Verdict::Right,
            false if is_wrong => Verdict::Wrong,
            false => Verdict::NotYet,
        }
    }
}

impl Flood {
    /// Each reply is sent or pending.
    fn is_held(self, mut extra: Counts) -> bool {
        let made = extra.take("sent") + extra.take("pending");
        self.is_made_of_it(&mut extra, made) && extra.is_empty()
    }

    /// Gone: each reply was either sent or thrown away.
    fn is_cut(self, mut extra: Counts) -> bool {
        let made = extra.take("sent") + extra.take("discarded");
        self.is_made_of_it(&mut extra, made) && extra.is_empty()
    }

    /// Whether so many bytes of replies can be made of what was received.
    fn is_made_of_it(self, extra: &mut Counts, made: i64) -> bool {
        let [received, messages, replies] =
            ["received", "messages", "replies"].map(|name| extra.take(name));
        let all_answered = match self.line {
            // A receive's lines may wait, and one that is unfinished.
            Some(line) => messages * line == made && received - made <= 65_536 + line,
            None => received == made && is_number_of_receives(messages, received),
        };
        all_answered && messages == replies && made <= received && received <= self.bytes
    }
}

fn is_cut_into_receives(mut extra: Counts, bytes: i64) -> bool {
    let (messages, replies) = (extra.take("messages"), extra.take("replies"));
    messages == replies && is_number_of_receives(messages, bytes) && extra.is_empty()
}

fn is_number_of_receives(messages: i64, bytes: i64) -> bool {
    messages <= bytes && messages * MAX_MESSAGE_BYTES as i64 >= bytes
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(allowed) => {
                for (at, counts) in allowed.iter().enumerate() {
                    write!(f, "{}{counts}", if at == 0 { "" } else { "\n  or " })?;
                }
                Ok(())
            }
            Self::Flood(Flood { bytes, .. }) => {
                write!(f, "what a client that does not read leaves pending of {bytes} bytes")
            }
            Self::FloodCut(Flood { bytes, .. }) => {
                write!(f, "what was answered and thrown away of {bytes} bytes")
            }
            Self::Receives(bytes) => write!(f, "{bytes} raw bytes in any number of messages"),
        }
    }
}
