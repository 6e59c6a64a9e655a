//! `talkback serve`: the server as a service. Logging, limits and signals are set up here, for the
//! library touches nothing that belongs to the whole process.

use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use nix::sys::signal::SigSet;
use parking_lot::{Condvar, Mutex};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;
use talkback::config::{ConfigError, Effect};
use talkback::server::{GaveUp, ProgramGroups, SocketFiles};
use talkback::{Server, StartError};
use tracing::{info, warn};

use super::log::{self, Sink};
use super::options::Options;
use super::{EXIT_CONFIG, EXIT_FAILED, EXIT_GAVE_UP, check};

/// Serves until a signal, then drains. A failure is one line on standard error, behind all others.
pub(crate) fn run(options: &Options) -> ExitCode {
    // Before there is a second thread.
    if let Err(error) = stop_signals().thread_block() {
        let _ = writeln!(io::stderr(), "talkback: cannot hold signals back: {error}");
        return ExitCode::from(EXIT_FAILED);
    }
    let sink = match Sink::start() {
        Ok(sink) => sink,
        Err(error) => {
            // Whoever does not read it still has the exit code.
            let _ = writeln!(io::stderr(), "talkback: cannot start the log: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = serve(options, &sink).map_or_else(|error| report(&error, &sink), |()| 0);
    sink.flush();
    ExitCode::from(code)
}

/// Says why the server did not run, or did not go on; the exit code.
fn report(error: &anyhow::Error, sink: &Sink) -> u8 {
    let is_config =
        error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(StartError::Config(_)));
    if is_config {
        // A line each, which begins with the place, as compilers have it.
        sink.say(&error.to_string());
        return EXIT_CONFIG;
    }
    if error.is::<GaveUp>() {
        sink.say(&format!("talkback: {error}"));
        return EXIT_GAVE_UP;
    }
    // The text of a failed start names its cause already.
    let text = match error.downcast_ref::<StartError>() {
        Some(error) => error.to_string(),
        None => format!("{error:#}"),
    };
    sink.say(&format!("talkback: {text}"));
    EXIT_FAILED
}

fn serve(options: &Options, sink: &Sink) -> anyhow::Result<()> {
    let loaded = options.load()?;
    let config = &loaded.config;
    log::set_up(&config.log, sink);
    raise_descriptor_limit();
    let (stop, stopped) = Stop::new();
    listen_to_signals(&stop).context("cannot install the signal handlers")?;
    stop_signals().thread_unblock().context("cannot take signals")?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = process::id(),
        config = loaded.source.to_string(),
        "starting"
    );
    let mut warnings = config.warnings(&check::this_host(check::read_somaxconn));
    warnings.extend(check::variables_that_are_not_set(&loaded));
    for warning in warnings {
        // The server itself tells what it makes of the others.
        if warning.effect == Effect::Runs {
            warn!("{warning}");
        }
    }
    let server = Server::start(config)?;
    server.observe_log(sink.dropped());
    stop.know(Leftovers { files: server.socket_files(), groups: server.program_groups() });
    let (give_up, gave_up) = bounded(1);
    server.on_give_up(move |reason| {
        // It happens once, so there is room, until nobody is there any more.
        let _ = give_up.try_send(reason);
    });
    info!("ready");
    let mut reason = None;
    select! {
        recv(stopped) -> signal => {
            // The handlers live as long as the process, so the channel does not close before.
            let signal = signal.context("the signal handlers are gone")?;
            info!(signal = signal.name(), "stop requested; a second signal stops at once");
        }
        recv(gave_up) -> told => reason = told.ok(),
    }
    server.drain();
    // It may also come to that while it drains.
    reason.or_else(|| gave_up.try_recv().ok()).map_or(Ok(()), |reason| Err(reason.into()))
}

/// A start takes milliseconds. A second signal waits for the end of one, so that no socket is left
/// behind, but not for one that hangs.
const LONGEST_START: Duration = Duration::from_millis(500);

/// A signal that stops the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// 128 and the signal's number, as shells have it.
    fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Takes the first signal to the main thread and acts on the second itself: the main thread may be
/// waiting for a drain.
struct Stop {
    /// Room for one: the second finds it full, or taken.
    requests: Sender<Signal>,
    is_requested: AtomicBool,
    /// What a forced end has to clean up; `None` while the server starts.
    leftovers: Mutex<Option<Leftovers>>,
    has_started: Condvar,
}

/// What would outlive a process that ends at once.
struct Leftovers {
    files: SocketFiles,
    groups: ProgramGroups,
}

impl Stop {
    fn new() -> (Arc<Self>, Receiver<Signal>) {
        let (requests, stopped) = bounded(1);
        let (is_requested, leftovers) = (AtomicBool::new(false), Mutex::new(None));
        let has_started = Condvar::new();
        (Arc::new(Self { requests, is_requested, leftovers, has_started }), stopped)
    }

    /// The start is over, and this is what it has made.
    fn know(&self, leftovers: Leftovers) {
        *self.leftovers.lock() = Some(leftovers);
        self.has_started.notify_all();
    }

    fn request(&self, signal: Signal) {
        if !self.is_requested.swap(true, Ordering::SeqCst) {
            // Only the first comes here, so there is room; nobody listens only at the very end.
            let _ = self.requests.try_send(signal);
            return;
        }
        // Nobody else removes what a start that is under way has made. One that fails does so
        // itself, and ends the process.
        let mut made = self.leftovers.lock();
        self.has_started.wait_while_for(&mut made, |made| made.is_none(), LONGEST_START);
        if let Some(Leftovers { files, groups }) = &*made {
            files.remove();
            groups.kill();
        }
        // Not a word, nor a wait for those that are queued: standard error may be what hangs.
        process::exit(signal.exit_code());
    }
}

/// Those that are held back until their handlers stand: between the moment at which the kernel is
/// given a handler and the one at which signal-hook knows what it does, one would be lost.
fn stop_signals() -> SigSet {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
    [SIGINT, SIGTERM, SIGHUP].into_iter().collect()
}

/// SIGINT through ctrlc; SIGTERM and SIGHUP beside it, for ctrlc would take a SIGHUP for a stop.
fn listen_to_signals(stop: &Arc<Stop>) -> anyhow::Result<()> {
    let interrupted = stop.clone();
    ctrlc::set_handler(move || interrupted.request(Signal::Interrupt))?;
    let mut signals = Signals::new([SIGTERM, SIGHUP])?;
    let terminated = stop.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGTERM => terminated.request(Signal::Terminate),
                _ => info!("SIGHUP: there is no reload yet; the configuration stays as it is"),
            }
        }
    })?;
    Ok(())
}

/// The soft limit is there for programs that use select(2); the hard one is what the operator
/// allows.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
}
