//! The log of the program: text or JSON, limited by kind of event, on standard error, which nobody
//! waits for.

mod limit;
mod sink;
mod text;

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::Arc;
use std::thread;

use talkback::ClientText;
use talkback::config::{Log, LogFormat, LogLevel};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use limit::{Limit, LimitLayer, SUPPRESSED};
use text::{TextFields, escape_json};

pub(super) use sink::Sink;

/// Takes the events of the whole process to the sink, panics among them. To be called once, by the
/// main thread.
pub(super) fn set_up(log: &Log, sink: &Sink) {
    let waking = sink.clone();
    let limit =
        Arc::new(Limit::new(log.max_lines_per_second, move || waking.request_announcement()));
    let announcing = limit.clone();
    sink.announce_by(move || announcing.announce());

    let is_json = matches!(log.format, LogFormat::Json);
    let lines = fmt::layer()
        .with_writer(Lines { sink: sink.clone(), is_json })
        .with_target(false)
        .with_ansi(!is_json && io::stderr().is_terminal())
        .log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.fmt_fields(TextFields).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(LimitLayer(limit))
        // Last: nobody below is asked about an event that is not shown.
        .with(level_filter(log.level))
        .init();
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // It may quote a client.
        let text = ClientText::new(panic.payload_as_str().unwrap_or("no text"));
        tracing::error!(thread = thread.name(), place, %text, "panic");
    }));
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Where finished lines go.
struct Lines {
    sink: Sink,
    is_json: bool,
}

/// The way of one line.
struct Line<'a> {
    lines: &'a Lines,
    is_announcement: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, is_announcement: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, is_announcement: metadata.target() == SUPPRESSED }
    }
}

impl Write for Line<'_> {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let push = if self.is_announcement { Sink::push_announcement } else { Sink::push };
        match line.strip_suffix(b"\n").map(str::from_utf8) {
            Some(Ok(text)) if self.lines.is_json => {
                push(&self.lines.sink, format!("{}\n", escape_json(text)).as_bytes());
            }
            _ => push(&self.lines.sink, line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
