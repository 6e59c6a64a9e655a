//! What an accept loop must know to survive: whom an error of accept(2) concerns, and a reserve of
//! descriptors. The server's listeners and the sidecar's door stand on it.

mod reserve;

use rustix::io::Errno;

pub(crate) use reserve::Reserve;

/// Whom an error of accept(2) concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// One peer: go on at once.
    Peer,
    /// The process or the host has no descriptor left.
    Descriptors,
    /// The host in another way, or an error that should not be: wait before the next try.
    Host,
}

impl Cause {
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            // accept(2) passes on what the network thinks of the connection it was about to return.
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NETDOWN
            | Errno::OPNOTSUPP
            | Errno::PERM => Self::Peer,
            _ => Self::Host,
        }
    }
}
