//! The start: the one place that sees the whole config and hands each part what concerns it. A step
//! that fails undoes those before it.

mod commands;
mod conversations;
mod error;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mio::Poll;
use tracing::{info, warn};

use crate::accepting::Reserve;
use crate::config::{Address, Config, DEFAULT_MAX_CONNECTIONS, Listener, Shutdown};
use crate::metrics::Instruments;
use crate::responder::Responders;
use crate::sidecar::{self, Scrape, Sidecar};

use super::accept::{Acceptor, Gate, Trouble};
use super::admit::Admission;
use super::alarm::Alarm;
use super::command::{KeeperThread, ProgramGroups};
use super::failures::{Failures, GaveUp};
use super::lifecycle::Lifecycle;
use super::listen::{Bound, Listening, SocketFiles, listen, queue_limit};
use super::pace::Pace;
use super::pool::{Pool, Seat};
use super::view::{Readiness, View};
use super::worker::{ALARM, Post, Shared, WAKER, Worker, WorkerThread};

pub use error::StartError;

use conversations::{conversations, services, unless_zero};

/// A running server. Dropping it stops it as [`Server::drain`] does. It may be shared and sent
/// between threads; [`Server::start`] shows how it is used.
pub struct Server {
    pub(super) view: View,
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) acceptors: Vec<JoinHandle<()>>,
    pub(super) workers: Vec<WorkerThread>,
    pub(super) sidecar: Option<Sidecar>,
    pub(super) files: SocketFiles,
    pub(super) shutdown: Shutdown,
    pub(super) failures: Arc<Failures>,
    /// Ends every process that is left.
    pub(super) keeper: Option<KeeperThread>,
    addresses: Vec<Bound>,
    /// Kept until the workers have ended: what responders share goes in the thread that stops,
    /// which may wait for it.
    _responders: Responders,
}

impl Server {
    /// Starts with the built-in responders: binds every listener and the sidecar, starts the fixed
    /// pool and one accept thread a listener, and returns when clients are served.
    ///
    /// The library installs no signal handler, no logger and no global registry, and leaves the
    /// process's limits as they are.
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Examples
    /// ```
    /// use std::io::{Read, Write};
    ///
    /// let mut config = talkback::Config::default();
    /// config.listeners[0].address = "127.0.0.1:0".parse()?;
    /// config.metrics.address = None;
    /// let server = talkback::Server::start(&config)?;
    ///
    /// let address = server.addresses()[0].ip().expect("an IP listener");
    /// let mut client = std::net::TcpStream::connect(address)?;
    /// client.write_all("你好".as_bytes())?;
    /// let mut reply = [0; 6];
    /// client.read_exact(&mut reply)?;
    /// assert_eq!(&reply, "你好".as_bytes());
    /// drop(client);
    ///
    /// let summary = server.drain();
    /// assert_eq!((summary.served, summary.cut), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, &Responders::default())
    }

    /// Starts with responders of the caller's own beside the built-in ones.
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Examples
    /// See [`Responders`].
    pub fn start_with(config: &Config, responders: &Responders) -> Result<Self, StartError> {
        config.validate()?;
        let services = services(config, responders)?;
        let workers = config.workers.unwrap_or_else(usable_cpus);
        let max_connections = max_connections(config, workers)?;
        let files = SocketFiles::default();
        let instruments = instruments(config, workers)?;
        let programs = commands::find(config, &instruments)?;
        let listening = listen_all(config, &files)?;
        instruments.connections_limit.set(i64::try_from(max_connections).unwrap_or(i64::MAX));
        let failures = Arc::new(Failures::default());

        let origin = Instant::now();
        let lifecycle = Arc::new(Lifecycle::new(origin));
        let mut posts = posts(config, workers, origin, &instruments)?;
        let pool = Pool::new(posts.iter().map(|post| post.seat.clone()).collect());
        let addresses = listening.iter().map(|listening| listening.bound.clone()).collect();
        let sockets: Vec<_> =
            listening.into_iter().map(|listening| Arc::new(listening.socket)).collect();
        let view = View {
            instruments: instruments.clone(),
            lifecycle: lifecycle.clone(),
            pool,
            gates: gates(config, &sockets),
            readiness: Arc::new(Readiness::new(config, &instruments)),
        };
        let commands = commands::settle(config, programs, &mut posts, &instruments, &failures)?;
        for (post, own) in posts.iter_mut().zip(&commands.services) {
            post.conversations = conversations(config, &services, own);
        }
        let sidecar = view.serve(config)?;
        let mut server = Self {
            addresses,
            view,
            gates: Vec::new(),
            acceptors: Vec::new(),
            workers: Vec::new(),
            sidecar,
            files,
            shutdown: Shutdown { drain_delay: Duration::ZERO, ..config.shutdown.clone() },
            failures: failures.clone(),
            keeper: commands.keeper,
            _responders: responders.clone(),
        };
        let homes = posts.iter().filter_map(|post| post.home.as_ref());
        let shared_homes = homes.filter(|home| !home.is_empty());
        let shared = Arc::new(Shared {
            instruments: instruments.clone(),
            lifecycle,
            failures,
            occupied: AtomicUsize::new(workers),
            homes: shared_homes.map(|home| home.reporter()).collect(),
            close_level: config.log.connections,
        });
        // From here on a failure drops the server, which stops what runs.
        for (index, post) in posts.into_iter().enumerate() {
            let worker = Worker::new(shared.clone(), post, origin);
            server.workers.push(spawn_worker(index, worker)?);
        }
        commands::await_proofs(commands.proofs)?;
        let limits = &config.limits;
        let admission = Admission::new(max_connections, limits.max_connections_per_ip, instruments);
        server.accept(config, &sockets, &Arc::new(admission))?;
        server.view.readiness.begin();
        server.shutdown = config.shutdown.clone();
        Ok(server)
    }

    /// Where the listeners are bound, in the order of the config.
    #[must_use]
    pub fn addresses(&self) -> &[Bound] {
        &self.addresses
    }

    /// Where the sidecar is bound.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.sidecar.as_ref().map(Sidecar::address)
    }

    /// What `/metrics` would answer now, in the text format 0.0.4.
    #[must_use]
    pub fn metrics(&self) -> Vec<u8> {
        self.view.metrics()
    }

    /// Says what to do when the server gives up on itself: a third panic of its own threads within
    /// ten seconds, where connections are lost faster than they are worth. `act` runs once, in the
    /// thread that panicked last, at once if that has happened already; it should make the server's
    /// owner call [`Server::drain`], and must not wait for that itself. Only the first call has an
    /// effect. The drain that follows waits out no `drain_delay`.
    ///
    /// # Examples
    /// ```
    /// use std::sync::mpsc;
    ///
    /// # let mut config = talkback::Config::default();
    /// # config.listeners[0].address = "127.0.0.1:0".parse()?;
    /// # config.metrics.address = None;
    /// let server = talkback::Server::start(&config)?;
    /// let (stop, stopped) = mpsc::channel();
    /// let signalled = stop.clone();
    /// server.on_give_up(move |why| {
    ///     eprintln!("{why}");
    ///     // Who no longer waits is stopping already.
    ///     let _ = stop.send(());
    /// });
    /// // A signal's handler would do this.
    /// signalled.send(())?;
    /// stopped.recv()?;
    /// server.drain();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_give_up(&self, act: impl FnOnce(GaveUp) + Send + 'static) {
        self.failures.on_give_up(Box::new(act));
    }

    /// Tells the metrics where the program that logs counts the lines that its log's sink did not
    /// take. Only the first call has an effect.
    pub fn observe_log(&self, dropped: Arc<AtomicU64>) {
        self.view.instruments.observe_log(dropped);
    }

    /// The Unix sockets that were made, for a process that must end without a drain.
    #[must_use]
    pub fn socket_files(&self) -> SocketFiles {
        self.files.clone()
    }

    /// The process groups of the programs, for a process that must end without a drain.
    #[must_use]
    pub fn program_groups(&self) -> ProgramGroups {
        self.keeper.as_ref().map(KeeperThread::groups).unwrap_or_default()
    }

    fn accept(
        &mut self,
        config: &Config,
        sockets: &[Arc<OwnedFd>],
        admission: &Arc<Admission>,
    ) -> Result<(), StartError> {
        let full_message: Arc<str> = config.limits.full_message.as_str().into();
        for (index, listener) in config.listeners.iter().enumerate() {
            let reserve = Reserve::new(1).map_err(|source| StartError::System {
                what: format!("listener {}", listener.name),
                source,
            })?;
            let gate = self.view.gates[index].clone();
            let acceptor = Acceptor {
                gate: gate.clone(),
                socket: sockets[index].clone(),
                listener: index,
                backlog: listener.backlog,
                full_message: full_message.clone(),
                admission: admission.clone(),
                pool: self.view.pool.clone(),
                instruments: self.view.instruments.clone(),
                accept_wait: self.view.instruments.accept_wait_recorder(index),
                reserve,
                pace: Pace::new(
                    listener.max_accept_rate,
                    listener.max_accept_burst,
                    Instant::now(),
                ),
                failures: self.failures.clone(),
                trouble: Trouble::default(),
            };
            self.gates.push(gate);
            let name = format!("accept-{}", listener.name);
            self.acceptors.push(spawn(&name, move || acceptor.run())?);
        }
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// As many as this process may use: affinity and the quota of its control group count.
fn usable_cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A number that was asked for must fit the descriptors; the default gives way.
fn max_connections(config: &Config, workers: usize) -> Result<usize, StartError> {
    let wanted = config.limits.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let Some(limit) = limit else { return Ok(wanted) };
    if config.descriptors_needed(workers) <= limit {
        return Ok(wanted);
    }
    let fits = usize::try_from(config.connections_fitting(limit, workers)).unwrap_or(usize::MAX);
    if config.limits.max_connections.is_some() || fits == 0 {
        return Err(StartError::Descriptors { sum: config.descriptors_sum(workers), limit });
    }
    warn!(max_connections = fits, descriptors = limit, "max_connections lowered to what fits");
    Ok(fits)
}

fn listen_all(config: &Config, files: &SocketFiles) -> Result<Vec<Listening>, StartError> {
    let mut all = Vec::new();
    for listener in &config.listeners {
        let listening = listen(listener, &config.limits, files).map_err(|error| {
            let hint = error.hint();
            StartError::Listen {
                listener: listener.name.clone(),
                address: listener.address.to_string(),
                source: error.into_io(),
                hint,
            }
        })?;
        info!(listener = listener.name, address = %listening.bound, "listening");
        if let Some(limit) = queue_limit(&listening)
            && limit < listener.backlog
        {
            warn!(
                listener = listener.name,
                backlog = listener.backlog,
                limit,
                "the kernel clamped the backlog to net.core.somaxconn"
            );
        }
        all.push(listening);
    }
    Ok(all)
}

fn instruments(config: &Config, workers: usize) -> Result<Arc<Instruments>, StartError> {
    let listeners =
        config.listeners.iter().map(|listener| (listener.name.as_str(), is_tcp(listener)));
    let scrapes = Scrape::ALL.map(|scrape| (scrape.page.label(), scrape.code.label()));
    let rejections = sidecar::Rejection::ALL.map(sidecar::Rejection::label);
    let instruments =
        Instruments::new(listeners, workers, &scrapes, &rejections).map_err(|error| {
            StartError::System {
                what: "the metrics registry".to_owned(),
                source: io::Error::other(error),
            }
        })?;
    for (index, _) in config.listeners.iter().enumerate().filter(|(_, l)| l.command.is_some()) {
        // From the start on its series are there, whatever the processes do first.
        instruments.command(index);
    }
    Ok(Arc::new(instruments))
}

fn gates(config: &Config, sockets: &[Arc<OwnedFd>]) -> Arc<[Arc<Gate>]> {
    let gate = |(listener, socket): (&Listener, &Arc<OwnedFd>)| {
        Arc::new(Gate::new(&listener.name, socket.clone(), is_tcp(listener)))
    };
    config.listeners.iter().zip(sockets).map(gate).collect()
}

fn is_tcp(listener: &Listener) -> bool {
    matches!(listener.address, Address::Ip { .. })
}

fn posts(
    config: &Config,
    workers: usize,
    origin: Instant,
    instruments: &Arc<Instruments>,
) -> Result<Vec<Post>, StartError> {
    let post = || {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let inbox = config.limits.inbox_connections;
        let listeners = config.listeners.len();
        let (seat, inboxes) = Seat::new(waker, inbox, origin, listeners, instruments.clone());
        Ok(Post { seat, inboxes, poll, alarm, home: None, conversations: Vec::new() })
    };
    (0..workers)
        .map(|index| {
            post().map_err(|source| StartError::System { what: format!("worker {index}"), source })
        })
        .collect()
}

fn spawn_worker(index: usize, worker: Worker) -> Result<WorkerThread, StartError> {
    let (alive, ended) = bounded(0);
    let thread = spawn(&format!("worker-{index}"), move || {
        let _until_the_end = alive;
        worker.run();
    })?;
    Ok(WorkerThread { thread, ended })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| StartError::System { what: format!("thread {name}"), source })
}
