//! Unix sockets: files that are ours, and those that are not.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{PATIENCE, Server};
use crate::refused::check_refused;

/// A directory of its own, and the path of a socket to be in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talkback.sock");
    (dir, path)
}

fn config(path: &Path, keys: &str) -> String {
    format!("[[listener]]\naddress = \"unix:{}\"\n{keys}\n", path.display())
}

#[track_caller]
fn check_served(mut client: UnixStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all("hello 你好".as_bytes()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "hello 你好");
}

#[track_caller]
fn check_empty(dir: &tempfile::TempDir) {
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} is left");
}

#[test]
fn a_socket_is_made_and_removed_with_its_lock() {
    let (dir, path) = place();
    let mut server = Server::start(&config(&path, ""));
    check_served(UnixStream::connect(&path).unwrap());
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.await_close_lines(1)[0]["peer"], "unix");
    assert_eq!(server.stop(), Some(0));
    check_empty(&dir);
}

#[test]
fn a_stale_socket_is_replaced() {
    let (dir, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut server = Server::start(&config(&path, ""));
    check_served(UnixStream::connect(&path).unwrap());
    assert_eq!(server.stop(), Some(0));
    check_empty(&dir);
}

#[test]
fn what_a_killed_server_left_is_replaced() {
    let (dir, path) = place();
    let mut killed = Server::start(&config(&path, ""));
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    let mut server = Server::start(&config(&path, ""));
    check_served(UnixStream::connect(&path).unwrap());
    assert_eq!(server.stop(), Some(0));
    check_empty(&dir);
}

#[test]
fn a_live_socket_of_another_program_is_left_alone() {
    let (dir, path) = place();
    let other = UnixListener::bind(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    check_refused(
        &config(&path, ""),
        &[&format!("unix:{}", path.display()), "a running server listens on this socket", "stop"],
    );
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    // The look itself was a connection.
    other.accept().unwrap();
    UnixStream::connect(&path).unwrap();
    other.accept().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a lock is left");
}

#[test]
fn a_live_socket_of_a_talkback_is_left_alone() {
    let (dir, path) = place();
    let mut first = Server::start(&config(&path, ""));
    let lock = format!("{}.lock", path.display());
    check_refused(&config(&path, ""), &["another process holds the lock", &lock, "stop"]);
    check_served(UnixStream::connect(&path).unwrap());
    first.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(first.stop(), Some(0));
    check_empty(&dir);
}

#[test]
fn a_file_that_is_no_socket_is_never_touched() {
    let (dir, path) = place();
    let parts = ["a file that is not a socket is in the way", "move it away"];
    fs::write(&path, "dear to someone").unwrap();
    check_refused(&config(&path, ""), &parts);
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear to someone");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    check_refused(&config(&path, ""), &parts);
    fs::remove_dir(&path).unwrap();

    // Not even if it leads to a stale socket.
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    symlink(&stale, &path).unwrap();
    check_refused(&config(&path, ""), &parts);
    assert!(fs::symlink_metadata(&stale).unwrap().file_type().is_socket());
    fs::remove_file(&stale).unwrap();
    fs::remove_file(&path).unwrap();
    check_empty(&dir);
}

/// Where the lock of a socket goes.
fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("sock.lock")
}

#[track_caller]
fn check_lock_in_the_way(path: &Path, what: &str) {
    let lock = lock_of(path);
    let before = fs::symlink_metadata(&lock).unwrap();
    let sentence = format!("{what} is in the way at {}", lock.display());
    check_refused(&config(path, ""), &[&sentence, "left as it is", "move it away"]);
    let after = fs::symlink_metadata(&lock).unwrap();
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()), "{what}");
    assert!(!path.exists(), "a socket is left beside {what}");
}

#[test]
fn a_link_where_the_lock_goes_is_refused_and_not_followed() {
    let (dir, path) = place();
    let target = dir.path().join("target");
    symlink(&target, lock_of(&path)).unwrap();
    check_lock_in_the_way(&path, "a symbolic link");
    assert!(!target.exists(), "a file was made elsewhere");
    fs::write(&target, "").unwrap();
    check_lock_in_the_way(&path, "a symbolic link");
    assert!(target.exists());
}

#[test]
fn a_fifo_where_the_lock_goes_is_refused_at_once() {
    let (_dir, path) = place();
    let (kind, mode) = (rustix::fs::FileType::Fifo, 0o600.into());
    rustix::fs::mknodat(rustix::fs::CWD, lock_of(&path), kind, mode, 0).unwrap();
    check_lock_in_the_way(&path, "a FIFO");
    // Also with a reader, to whom opening it would mean something.
    let mut options = fs::OpenOptions::new();
    let _reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(lock_of(&path)).unwrap();
    check_lock_in_the_way(&path, "a FIFO");
}

#[test]
fn what_else_cannot_be_a_lock_is_refused_and_left() {
    let (_dir, path) = place();
    fs::create_dir(lock_of(&path)).unwrap();
    check_lock_in_the_way(&path, "a directory");
    fs::remove_dir(lock_of(&path)).unwrap();

    let _other = UnixListener::bind(lock_of(&path)).unwrap();
    check_lock_in_the_way(&path, "a socket");
}

#[test]
fn a_file_with_content_is_not_taken_for_a_lock() {
    let (_dir, path) = place();
    fs::write(lock_of(&path), "dear to someone").unwrap();
    check_lock_in_the_way(&path, "a file with content");
    assert_eq!(fs::read_to_string(lock_of(&path)).unwrap(), "dear to someone");
}

#[test]
fn what_took_our_locks_place_is_not_removed() {
    for text in ["", "someone else's"] {
        let (_dir, path) = place();
        let mut server = Server::start(&config(&path, ""));
        // Kept beside it, so that its inode cannot be given to the other file.
        fs::rename(lock_of(&path), path.with_extension("kept")).unwrap();
        fs::write(lock_of(&path), text).unwrap();
        assert_eq!(server.stop(), Some(0));
        assert_eq!(fs::read_to_string(lock_of(&path)).unwrap(), text);
    }
}

#[test]
fn a_lock_that_someone_wrote_to_is_not_removed() {
    let (_dir, path) = place();
    let mut server = Server::start(&config(&path, ""));
    fs::write(lock_of(&path), "someone else's").unwrap();
    assert_eq!(server.stop(), Some(0));
    assert_eq!(fs::read_to_string(lock_of(&path)).unwrap(), "someone else's");
}

/// A socket with a queue of one, which is full.
fn busy_listener(path: &Path) -> (Socket, Vec<Socket>) {
    let address = SockAddr::unix(path).unwrap();
    let other = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    other.bind(&address).unwrap();
    other.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => waiting.push(socket),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return (other, waiting);
            }
        }
    }
}

#[test]
fn a_live_socket_with_a_full_queue_is_left_alone_at_once() {
    let (_dir, path) = place();
    let (other, waiting) = busy_listener(&path);
    check_refused(&config(&path, ""), &["a running server listens on this socket", "stop"]);
    for _ in waiting {
        other.accept().unwrap();
    }
    other.set_nonblocking(true).unwrap();
    assert_eq!(other.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody was added");
}

#[test]
fn a_file_that_took_our_sockets_place_is_not_removed() {
    let (_dir, path) = place();
    let mut server = Server::start(&config(&path, ""));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "someone else's").unwrap();
    assert_eq!(server.stop(), Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "someone else's");
}

#[test]
fn a_start_that_fails_later_leaves_no_socket() {
    let (dir, path) = place();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken =
        format!("[[listener]]\nname = \"taken\"\naddress = \"{}\"\n", other.local_addr().unwrap());
    check_refused(&(config(&path, "") + &taken), &["listener \"taken\""]);
    check_empty(&dir);
}

#[test]
fn a_directory_that_is_not_there_is_refused() {
    let (_dir, path) = place();
    check_refused(&config(&path.join("socket"), ""), &["make the directory first"]);
}

#[test]
fn the_mode_is_applied() {
    for mode in ["0600", "0666", "0620"] {
        let (_dir, path) = place();
        let _server = Server::start(&config(&path, &format!("unix_mode = \"{mode}\"")));
        let found = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(format!("{found:04o}"), mode);
    }
}

/// A group that this user may give a file to.
fn group() -> u32 {
    let own = rustix::process::getegid().as_raw();
    let others = rustix::process::getgroups().unwrap();
    let other = others.iter().map(|group| group.as_raw()).find(|group| *group != own);
    if rustix::process::geteuid().is_root() { 65_533 } else { other.unwrap_or(own) }
}

#[test]
fn the_group_is_applied() {
    let (_dir, path) = place();
    let group = group();
    let _server = Server::start(&config(&path, &format!("unix_group = \"{group}\"")));
    assert_eq!(fs::metadata(&path).unwrap().gid(), group);
}

#[test]
fn a_group_is_found_by_its_name() {
    let own = rustix::process::getegid().as_raw().to_string();
    let groups = fs::read_to_string("/etc/group").unwrap();
    let named = groups.lines().find(|line| line.split(':').nth(2) == Some(&own));
    let (_dir, path) = place();
    // A user of a container may have a group without a name.
    if let Some(named) = named {
        let name = named.split(':').next().unwrap();
        let _server = Server::start(&config(&path, &format!("unix_group = \"{name}\"")));
        assert_eq!(fs::metadata(&path).unwrap().gid().to_string(), own);
    }
}

#[test]
fn a_group_that_nobody_knows_is_refused() {
    let (dir, path) = place();
    let keys = "unix_group = \"no-such-group-here\"";
    check_refused(&config(&path, keys), &["no-such-group-here", "unknown", "make the group"]);
    check_empty(&dir);
}

#[test]
fn an_abstract_socket_serves_and_makes_no_file() {
    let name = format!("talkback-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let config = format!("[[listener]]\naddress = \"unix:@{name}\"\n");
    let mut server = Server::start(&config);
    check_served(UnixStream::connect_addr(&address).unwrap());
    check_refused(&config, &[&format!("unix:@{name}"), "in use"]);
    assert_eq!(server.stop(), Some(0));
    let refused = UnixStream::connect_addr(&address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_backlog_of_a_unix_socket_is_what_was_configured() {
    let (_dir, path) = place();
    let server = Server::start(&config(&path, "backlog = 4"));
    server.pause();
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&SockAddr::unix(&path).unwrap()).map(|()| socket)
    };
    // The kernel takes one more than it is told.
    let waiting: Vec<_> = (0..5).map(|_| connect().unwrap()).collect();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::WouldBlock);
    server.signal(Signal::CONT);
    server.eventually("those that waited are served", |metrics| {
        metrics.sum("talkback_connections") == waiting.len() as f64
    });
}

#[test]
fn a_backlog_of_a_unix_socket_that_the_kernel_clamps_is_said() {
    let message = "the kernel clamped the backlog to net.core.somaxconn";
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let somaxconn: u64 = somaxconn.trim().parse().unwrap();
    let (_dir, path) = place();
    let clamp = Server::start(&config(&path, "backlog = 65535")).logged(message);
    if somaxconn >= 65_535 {
        assert!(clamp.is_none(), "{clamp:?}");
    } else {
        let clamp = clamp.unwrap();
        assert_eq!((clamp["limit"].as_u64(), &clamp["level"]), (Some(somaxconn), &"WARN".into()));
    }
    let (_dir, path) = place();
    assert!(Server::start(&config(&path, "backlog = 16")).logged(message).is_none());
}
