//! Listening sockets: bound, with the options that accepted sockets inherit, and unlinked at the
//! end.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::config::{Address, Limits, Listener};
use crate::sys;

use super::accounts;

/// Unsent bytes above which the kernel takes no more: a client that never reads would otherwise
/// make it hold 4 MB.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// Each further try was made necessary by another process that held the lock meanwhile.
const LOCK_TRIES: usize = 5;

/// Where a listener is really bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bound {
    /// With the port that was picked, if it was 0.
    Ip(SocketAddr),
    /// A Unix socket's file.
    UnixPath(PathBuf),
    /// A name in the abstract namespace.
    UnixAbstract(String),
}

impl Bound {
    /// The IP address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::UnixPath(_) | Self::UnixAbstract(_) => None,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::UnixPath(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl ListenError {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Io(error) => hint(error),
            Self::Alive | Self::Locked(_) => "stop that server, or choose another path",
            Self::NotASocket | Self::NotALock { .. } => "move it away, or choose another path",
            Self::UnknownGroup(_) => "make the group, or name another",
        }
    }

    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: OwnedFd,
    pub(super) bound: Bound,
}

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else answers there.
    #[error("a running server listens on this socket")]
    Alive,
    /// Another process holds the lock.
    #[error("another process holds the lock {0}")]
    Locked(PathBuf),
    /// A file that is no socket; it is never touched.
    #[error("a file that is not a socket is in the way; it was left as it is")]
    NotASocket,
    /// Something that no server left as its lock; it is never touched.
    #[error(
        "{what} is in the way at {}, where the lock goes; it was left as it is",
        .path.display()
    )]
    NotALock {
        /// Where the lock goes.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// `unix_group` names nobody.
    #[error("unix_group {0:?} is unknown on this host")]
    UnknownGroup(String),
}

/// Unix sockets that this server made. They are unlinked when the last handle is dropped, or at
/// once by [`SocketFiles::remove`] where the process ends without that.
#[derive(Debug, Clone, Default)]
pub struct SocketFiles {
    files: Arc<Mutex<Vec<SocketFile>>>,
}

impl SocketFiles {
    /// Unlinks them now.
    pub fn remove(&self) {
        self.files.lock().clear();
    }

    fn add(&self, file: SocketFile) {
        self.files.lock().push(file);
    }
}

/// A socket's file and its lock, which outlives it. Dropping it unlinks the file, if it is still
/// the one we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    _lock: Lock,
}

/// The right to make and unlink a socket's file. Its own file, which is always empty, goes with it.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: fs::File,
}

impl Lock {
    /// Whether the name still leads to the file that is held, and nobody has written to it.
    fn has_its_name(&self) -> bool {
        let (named, held) = (fs::symlink_metadata(&self.path), self.file.metadata());
        let (Ok(named), Ok(held)) = (named, held) else { return false };
        obstacle(&named).is_none() && inode(&named) == inode(&held)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| inode(&found) == self.inode) {
            // It may be gone between the look and this; then there is nothing to do.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.has_its_name() {
            // While it is held: who opened it before finds that its name is gone, and makes
            // another. It means nothing once it is not held, so that an error matters to nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds and listens.
pub(super) fn listen(
    listener: &Listener,
    limits: &Limits,
    files: &SocketFiles,
) -> Result<Listening, ListenError> {
    match &listener.address {
        Address::Ip(address) => listen_ip(listener, *address, limits),
        Address::UnixPath(path) => listen_unix(listener, path, files),
        Address::UnixAbstract(name) => {
            let socket = unix_socket()?;
            socket.bind(&SockAddr::unix(format!("\0{name}"))?)?;
            socket.listen(backlog(listener))?;
            Ok(Listening { socket: socket.into(), bound: Bound::UnixAbstract(name.clone()) })
        }
    }
}

fn listen_ip(
    listener: &Listener,
    address: SocketAddr,
    limits: &Limits,
) -> Result<Listening, ListenError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(listener.v6only)?;
    }
    // Set once here, inherited by every accepted socket, so that they cost a connection nothing.
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    if !limits.keepalive_idle.is_zero() {
        let keepalive = TcpKeepalive::new()
            .with_time(limits.keepalive_idle)
            .with_interval(limits.keepalive_interval)
            .with_retries(limits.keepalive_probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if let Some(user_timeout) = limits.user_timeout() {
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(listener))?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listening { socket: socket.into(), bound: Bound::Ip(bound) })
}

/// A stale file is replaced under a lock, so that two servers that start at once do not both take
/// the other's new socket for stale.
fn listen_unix(
    listener: &Listener,
    path: &Path,
    files: &SocketFiles,
) -> Result<Listening, ListenError> {
    let lock = lock(lock_path(path))?;
    let address = SockAddr::unix(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket),
        Ok(_) if is_stale(&address)? => fs::remove_file(path)?,
        Ok(_) => return Err(ListenError::Alive),
    }
    let socket = unix_socket()?;
    socket.bind(&address)?;
    let inode = inode(&fs::symlink_metadata(path)?);
    files.add(SocketFile { path: path.to_owned(), inode, _lock: lock });
    // Before listen(2), so that nobody connects who may not.
    if let Some(mode) = listener.unix_mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    if let Some(group) = &listener.unix_group {
        std::os::unix::fs::chown(path, None, Some(group_id(group)?))?;
    }
    socket.listen(backlog(listener))?;
    Ok(Listening { socket: socket.into(), bound: Bound::UnixPath(path.to_owned()) })
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    lock_path.into()
}

/// Takes the lock. Its file is unlinked at the end of its holder, so the one that was locked may
/// not be the one that has the name any more.
fn lock(path: PathBuf) -> Result<Lock, ListenError> {
    // What may take the place of a lock after the look must not be followed or waited for either.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(false).custom_flags(flags.bits().cast_signed());
    for _ in 0..LOCK_TRIES {
        // Before it is opened, which means something to the other end of a FIFO, and to a device.
        if let Some(what) = fs::symlink_metadata(&path).ok().as_ref().and_then(obstacle) {
            return Err(ListenError::NotALock { path, what });
        }
        let file = options.open(&path)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                rustix::io::Errno::AGAIN => ListenError::Locked(path),
                error => ListenError::Io(error.into()),
            });
        }
        let lock = Lock { path: path.clone(), file };
        if lock.has_its_name() {
            return Ok(lock);
        }
    }
    Err(ListenError::Locked(path))
}

/// What is there, unless it may be a lock.
fn obstacle(found: &fs::Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    if kind.is_file() {
        (found.len() > 0).then_some("a file with content")
    } else if kind.is_symlink() {
        Some("a symbolic link")
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Whether nobody listens on that socket.
fn is_stale(address: &SockAddr) -> io::Result<bool> {
    let socket = unix_socket()?;
    // Else it would wait for a place in the queue of a server that is alive, but busy.
    socket.set_nonblocking(true)?;
    let connected = socket.connect(address);
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

fn inode(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn unix_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM, None)
}

fn group_id(group: &str) -> Result<u32, ListenError> {
    accounts::group_id(group)?.ok_or_else(|| ListenError::UnknownGroup(group.to_owned()))
}

fn backlog(listener: &Listener) -> i32 {
    i32::try_from(listener.backlog).unwrap_or(i32::MAX)
}

/// What listen(2) made of a backlog that is too long, where that is known. A Unix socket does not
/// tell, but listen(2) has just held it against the same bound.
pub(super) fn queue_limit(listening: &Listening) -> Option<u32> {
    if matches!(listening.bound, Bound::Ip(_)) {
        return sys::tcp_info(listening.socket.as_fd()).ok().map(|info| info.sacked);
    }
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// What to do about a bind that failed.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: stop it, or choose another address (port 0 picks one)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, a Unix socket a directory to write to"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; 0.0.0.0 and [::] stand for all of its own"
        }
        io::ErrorKind::NotFound => "make the directory first",
        _ => "choose another address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[track_caller]
    fn check(limits: &Limits) {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener { address, ..Listener::default() };
        let listening = listen(&listener, limits, &SocketFiles::default()).expect("it listens");
        let socket = socket2::SockRef::from(&listening.socket);
        let is_asked = !limits.keepalive_idle.is_zero();
        assert_eq!(socket.keepalive().expect("a socket"), is_asked, "{limits:?}");
        if is_asked {
            let idle = socket.tcp_keepalive_time().expect("a TCP socket");
            let interval = socket.tcp_keepalive_interval().expect("a TCP socket");
            let probes = socket.tcp_keepalive_retries().expect("a TCP socket");
            let wanted =
                (limits.keepalive_idle, limits.keepalive_interval, limits.keepalive_probes);
            assert_eq!((idle, interval, probes), wanted);
        }
        let user_timeout = socket.tcp_user_timeout().expect("a TCP socket");
        assert_eq!(user_timeout, limits.user_timeout(), "{limits:?}");
    }

    #[test]
    fn the_kernel_takes_every_clock_that_the_configuration_allows() {
        let (second, most) = (Duration::from_secs(1), Duration::from_secs(32_767));
        let longest = Duration::from_secs(595 * 3600);
        let default = Limits::default();
        check(&default);
        check(&Limits { keepalive_idle: Duration::ZERO, ..default.clone() });
        check(&Limits {
            keepalive_idle: second,
            keepalive_interval: second,
            keepalive_probes: 1,
            ..default.clone()
        });
        check(&Limits {
            keepalive_idle: most,
            keepalive_interval: most,
            keepalive_probes: 127,
            ..default.clone()
        });
        check(&Limits { send_timeout: longest, ..default.clone() });
        check(&Limits { send_timeout: Duration::ZERO, ..default });
    }
}
