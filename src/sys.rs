//! The only unsafe code: the system calls that no crate in use offers. Nothing here decides
//! anything.
#![allow(unsafe_code)]

mod spawn;

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::process::Pid;

pub(crate) use spawn::{Child, Spawner, Step};

/// What is used of the kernel's `struct tcp_info` (linux/tcp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    /// Whether it listens.
    pub(crate) is_listening: bool,
    /// On a listening socket: connections that wait to be accepted, now.
    pub(crate) unacked: u32,
    /// On a listening socket: how many may wait, after the clamp to `net.core.somaxconn`.
    pub(crate) sacked: u32,
    /// Bytes the peer is ready to take; 0 where the kernel is older than 5.4.
    pub(crate) send_window: u32,
    /// Since data was last sent, in the kernel's ticks. Before any was, since the handshake was
    /// done.
    pub(crate) last_data_sent: Duration,
    /// The smoothed round trip time; 0 before any was measured.
    pub(crate) rtt: Duration,
    /// Segments sent again, on this connection.
    pub(crate) retransmits: u32,
}

/// A state of TCP (net/tcp_states.h).
const TCP_LISTEN: u8 = 10;

/// getsockopt(2) with `TCP_INFO`.
///
/// # Errors
/// Those of getsockopt(2); a Unix socket has none to give.
pub(crate) fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // SAFETY: `tcp_info` is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(mem::size_of::<libc::tcp_info>())
        .expect("tcp_info is a few hundred bytes");
    // SAFETY: the pointer and the length describe `info`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(TcpInfo {
        is_listening: info.tcpi_state == TCP_LISTEN,
        unacked: info.tcpi_unacked,
        sacked: info.tcpi_sacked,
        send_window: info.tcpi_snd_wnd,
        last_data_sent: Duration::from_millis(info.tcpi_last_data_sent.into()),
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
        retransmits: info.tcpi_total_retrans,
    })
}

/// `SO_MEMINFO` (asm-generic/socket.h, Linux 4.12), and the words that it has.
const SO_MEMINFO: libc::c_int = 55;
const MEMINFO_WORDS: usize = 9;

/// Packets that the kernel dropped on this socket; on a listening one also handshakes that it could
/// not queue. Wraps. The word `SK_MEMINFO_DROPS` (linux/sock_diag.h).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut length =
        libc::socklen_t::try_from(mem::size_of_val(&words)).expect("nine words are a few bytes");
    // SAFETY: the pointer and the length describe `words`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            (&raw mut words).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(words[8]) } else { Err(io::Error::last_os_error()) }
}

/// ioctl(2) with `SIOCOUTQ` (tcp(7), unix(7)): bytes sent that the peer has not acknowledged, our
/// FIN counting as one.
///
/// # Errors
/// Those of ioctl(2).
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to a live value.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// `SO_BINDTOIFINDEX` (asm-generic/socket.h, Linux 5.0).
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Binds a socket to the interface of that index, which need not exist. On a listening socket it
/// counts for new handshakes only. Needs no privilege from Linux 5.7 on.
///
/// # Errors
/// Those of setsockopt(2); before Linux 5.7 EPERM without CAP_NET_RAW.
pub(crate) fn bind_to_interface(socket: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    let length =
        libc::socklen_t::try_from(mem::size_of::<i32>()).expect("an integer is a few bytes");
    // SAFETY: the pointer and the length describe `index`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that is free between the allocator's blocks in use back to the system
/// (malloc_trim(3)); other allocators than glibc's have ways of their own.
pub(crate) fn give_memory_back() {
    // SAFETY: it changes nothing that the program could see, and is safe among threads.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The process group of a process, if that is there, be it a zombie. Those of the kernel, and those
/// outside a container, are in none that could be named; rustix takes that for impossible.
pub(crate) fn group_of(process: Pid) -> Option<Pid> {
    // SAFETY: it takes and returns plain numbers.
    let group = unsafe { libc::getpgid(process.as_raw_pid()) };
    Pid::from_raw(group.max(0))
}

/// Puts the calling thread under `SCHED_BATCH`: the kernel then does not let it preempt another
/// thread when it wakes (sched(7)).
///
/// # Errors
/// Those of sched_setscheduler(2), as where a sandbox forbids it.
pub(crate) fn schedule_as_batch() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value; 0 names the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
