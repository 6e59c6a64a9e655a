//! Descriptors kept for scrapes. When the process has none left, one is given up so that a scrape
//! can be accepted: the hour in which an operator most needs the metrics is not the one to hide
//! them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

/// How many are kept. One is enough for a scrape; more make it unlikely that other threads, which
/// take any descriptor that is let go, leave none.
const KEPT: usize = 4;

/// Descriptors of nothing: duplicates of one unconnected socket.
pub(super) struct Reserve {
    blank: OwnedFd,
    kept: Vec<OwnedFd>,
}

impl Reserve {
    pub(super) fn new() -> io::Result<Reserve> {
        let blank = OwnedFd::from(UnixDatagram::unbound()?);
        let mut reserve = Reserve { blank, kept: Vec::with_capacity(KEPT) };
        while reserve.kept.len() < KEPT {
            reserve.kept.push(reserve.blank.try_clone()?);
        }
        Ok(reserve)
    }

    /// Lets one go; false if there is none.
    pub(super) fn spend(&mut self) -> bool {
        self.kept.pop().is_some()
    }

    /// Closes a socket. If the reserve is short, its descriptor goes there in one step, so that no
    /// other thread can take it in between.
    pub(super) fn close(&mut self, socket: OwnedFd) {
        let mut socket = socket;
        if self.kept.len() < KEPT
            && rustix::io::dup3(&self.blank, &mut socket, rustix::io::DupFlags::CLOEXEC).is_ok()
        {
            self.kept.push(socket);
        }
    }

    /// Fills up as far as the process has descriptors again.
    pub(super) fn fill(&mut self) {
        while self.kept.len() < KEPT
            && let Ok(spare) = self.blank.try_clone()
        {
            self.kept.push(spare);
        }
    }

    /// Whether one has been let go and not been made good.
    pub(super) fn is_short(&self) -> bool {
        self.kept.len() < KEPT
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_closed_socket_fills_the_reserve_with_its_own_descriptor() {
        let mut reserve = Reserve::new().unwrap();
        assert!(reserve.spend() && reserve.is_short());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        reserve.close(ours.into());
        assert_eq!(reserve.kept.last().map(AsRawFd::as_raw_fd), Some(number));
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the socket itself is closed");
        assert!(!reserve.is_short());
    }

    #[test]
    fn what_was_spent_is_filled_up_and_no_more() {
        let mut reserve = Reserve::new().unwrap();
        for _ in 0..KEPT {
            assert!(reserve.spend());
        }
        assert!(!reserve.spend());
        reserve.fill();
        assert_eq!(reserve.kept.len(), KEPT);
    }
}
