//! Descriptors kept back. When the process has none left, one is given up so that a newcomer can be
//! accepted: to be turned away at once instead of hanging, or to be shown the metrics in the hour
//! in which an operator most needs them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

/// Descriptors of nothing: duplicates of one unconnected socket.
#[derive(Debug)]
pub(crate) struct Reserve {
    blank: OwnedFd,
    kept: Vec<OwnedFd>,
    size: usize,
}

impl Reserve {
    /// Keeps `size` descriptors, and one more to duplicate.
    pub(crate) fn new(size: usize) -> io::Result<Reserve> {
        let blank = OwnedFd::from(UnixDatagram::unbound()?);
        let mut reserve = Reserve { blank, kept: Vec::with_capacity(size), size };
        while reserve.is_short() {
            reserve.kept.push(reserve.blank.try_clone()?);
        }
        Ok(reserve)
    }

    /// Lets one go; false if there is none.
    pub(crate) fn spend(&mut self) -> bool {
        self.kept.pop().is_some()
    }

    /// Closes a socket. If the reserve is short, its descriptor goes there in one step, so that no
    /// other thread can take it in between.
    pub(crate) fn close(&mut self, socket: OwnedFd) {
        let mut socket = socket;
        if self.is_short()
            && rustix::io::dup3(&self.blank, &mut socket, rustix::io::DupFlags::CLOEXEC).is_ok()
        {
            self.kept.push(socket);
        }
    }

    /// Fills up as far as the process has descriptors again.
    pub(crate) fn fill(&mut self) {
        while self.is_short()
            && let Ok(spare) = self.blank.try_clone()
        {
            self.kept.push(spare);
        }
    }

    /// Whether one has been let go and not been made good.
    pub(crate) fn is_short(&self) -> bool {
        self.kept.len() < self.size
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const KEPT: usize = 3;

    #[test]
    fn a_closed_socket_fills_the_reserve_with_its_own_descriptor() {
        let mut reserve = Reserve::new(KEPT).unwrap();
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
        let mut reserve = Reserve::new(KEPT).unwrap();
        for _ in 0..KEPT {
            assert!(reserve.spend());
        }
        assert!(!reserve.spend());
        reserve.fill();
        assert_eq!(reserve.kept.len(), KEPT);
    }
}
