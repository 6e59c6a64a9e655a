//! The sidecar: an HTTP endpoint that tells Prometheus what the server does. tiny_http makes every
//! page; the door in front of it bounds who gets there, so that no scraper and no stranger costs
//! more than a fixed number of places, threads and bytes. It knows nothing of the server: what it
//! shows is passed in as a [`Watch`].

mod access;
mod client;
mod door;
mod head;
mod pages;
mod places;
mod press;
mod query;
mod scrape;
mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::Waker;
use socket2::{Domain, Protocol, Socket, Type};

use door::{Door, Signals};

pub use access::Access;
#[cfg(any(test, fuzzing))]
pub(crate) use head::trial as head_trial;
pub use query::{Query, Sort};
pub use scrape::{Code, Page, Rejection, Scrape};

/// The kernel's queue of scrapes not yet accepted. A flood that fills it makes the kernel drop good
/// scrapes too, which then come back after a second at best; so it is long, and emptied fast.
const BACKLOG: i32 = 4096;

/// How long the kernel keeps what a client does not take after the door has closed, which would
/// else be minutes: TCP_USER_TIMEOUT, inherited by what is accepted. Longer than [`Bounds::send`],
/// so that it is the door that cuts a connection, and counts it.
const KERNEL_PATIENCE: Duration = Duration::from_secs(15);

/// What the sidecar shows, and whom it tells. The closures run in the sidecar's own threads; they
/// must not wait for anything that may itself wait for a scrape.
pub struct Watch {
    /// The page of `/metrics` as of now, in the text format 0.0.4. A page of more than 4 MiB is not
    /// served.
    pub metrics: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// The page of `/connections` as of now, in JSON. It may take some tenths of a second; other
    /// pages wait meanwhile.
    pub connections: Box<dyn Fn(Query) -> Vec<u8> + Send + Sync>,
    /// Who may see that page.
    pub access: Access,
    /// Why no new connections are welcome, in a line, if they are not.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Told of every request answered with a page, just before it is answered.
    pub answered: Box<dyn Fn(Scrape) + Send + Sync>,
    /// Told of every connection turned away or cut.
    pub rejected: Box<dyn Fn(Rejection) + Send + Sync>,
}

#[cfg(test)]
impl Watch {
    /// One that shows these metrics and is told nothing.
    fn of(metrics: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Watch {
        Watch {
            metrics: Box::new(metrics),
            connections: Box::new(|_| Vec::new()),
            access: Access::default(),
            ready: Box::new(|| Ok(())),
            answered: Box::new(|_| ()),
            rejected: Box::new(|_| ()),
        }
    }
}

/// Why the sidecar could not start.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {source}; {}", hint(source))]
    Bind {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is needed behind the address could not be had.
    #[error("cannot start the metrics endpoint: {0}")]
    Start(#[source] io::Error),
}

/// What the door allows. The defaults are the product's; tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: usize,
    head_bytes: usize,
    /// From accept to the whole head.
    head: Duration,
    /// From the whole head to the whole answer.
    answer: Duration,
    /// For the first answer of a tiny_http just started. It may fail to accept without a sign, when
    /// descriptors are few, and service is to be back within a second of there being enough.
    probe: Duration,
    /// For the client to take its answer.
    send: Duration,
    /// For the client to close after that.
    linger: Duration,
    /// After an error of the host.
    pause: Duration,
    /// For a client to take 64 KiB of its answer, before a newcomer may have its place.
    stall: Duration,
    /// For a single scraper to send its request, before it may have to go for a crowd.
    grace: Duration,
    /// For the answers under way when a stop begins.
    stop: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            // With the one that was just accepted, for which one of them has to go: 32.
            connections: 31,
            head_bytes: 8 << 10,
            head: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            probe: Duration::from_millis(500),
            send: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            pause: Duration::from_millis(100),
            stall: Duration::from_millis(2),
            grace: Duration::from_millis(100),
            stop: Duration::from_millis(500),
        }
    }
}

/// The running sidecar. Dropping it stops it.
pub struct Sidecar {
    address: SocketAddr,
    signals: Arc<Signals>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Listens on `address` and serves the pages of `watch` from threads of its own, three in
    /// number once started.
    ///
    /// # Errors
    ///
    /// [`SidecarError::Bind`] if the address is taken, forbidden or not of this host;
    /// [`SidecarError::Start`] if descriptors or threads are lacking.
    pub fn start(address: SocketAddr, watch: Watch) -> Result<Sidecar, SidecarError> {
        Sidecar::start_within(address, watch, Bounds::default())
    }

    fn start_within(
        address: SocketAddr,
        watch: Watch,
        bounds: Bounds,
    ) -> Result<Sidecar, SidecarError> {
        let bind = |source| SidecarError::Bind { address, source };
        let listener = listen(address).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let signals = Arc::new(Signals::default());
        let (door, waker) = Door::new(listener, Arc::new(watch), bounds, Arc::clone(&signals))
            .map_err(SidecarError::Start)?;
        let thread = thread::Builder::new()
            .name("metrics-door".to_owned())
            .spawn(move || door.run())
            .map_err(SidecarError::Start)?;
        Ok(Sidecar { address, signals, waker, thread: Some(thread) })
    }

    /// The address really bound: port 0 is resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the address, gives answers under way half a second, and joins the threads. Half-sent
    /// requests do not delay it. A page that hangs is waited for as long again; then its thread is
    /// left behind.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.signals.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the metrics endpoint cannot be told to stop");
        } else if thread.join().is_err() {
            tracing::error!("the thread of the metrics endpoint had panicked");
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_user_timeout(Some(KERNEL_PATIENCE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What to do about an address that cannot be listened on, by key and flag: two servers on one host
/// meet here first, for the address has a default.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program, perhaps another talkback, listens there: set [metrics] address \
             (--metrics) to another one, or to \"\" for none"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: set [metrics] address (--metrics) to \
             another one, or to \"\" for none"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address: set [metrics] address (--metrics) to one of its own, \
             or to \"\" for none"
        }
        _ => "set [metrics] address (--metrics) to another one, or to \"\" for none",
    }
}

#[cfg(test)]
mod tests;
