//! Who is let in: the bounds on open connections, as values that give themselves back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::metrics::{Instruments, Rejection};

/// Counts open connections against their bounds. Only accept and close come here.
#[derive(Debug)]
pub(super) struct Admission {
    max_connections: usize,
    open: AtomicUsize,
    /// 0 = no bound, and no table.
    max_per_ip: usize,
    /// Addresses with open connections, so never more than those.
    per_ip: Mutex<HashMap<Source, usize>>,
    instruments: Arc<Instruments>,
}

/// What counts as one client address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    /// The /64, which is what one host is given.
    V6([u8; 8]),
}

impl Source {
    fn of(peer: SocketAddr) -> Self {
        match peer.ip() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let octets = address.octets();
                Self::V6(std::array::from_fn(|index| octets[index]))
            }
        }
    }
}

/// The right of one connection to be open; dropped behind its socket.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    /// As small as the source leaves room for: an idle connection holds one.
    listener: u32,
    source: Option<Source>,
}

impl Admission {
    pub(super) fn new(
        max_connections: usize,
        max_per_ip: usize,
        instruments: Arc<Instruments>,
    ) -> Self {
        Self {
            max_connections,
            open: AtomicUsize::new(0),
            max_per_ip,
            per_ip: Mutex::default(),
            instruments,
        }
    }

    /// Lets a connection in, or says which bound it meets. A Unix socket's peer has no address.
    pub(super) fn admit(
        self: &Arc<Self>,
        listener: usize,
        peer: Option<SocketAddr>,
    ) -> Result<Slot, Rejection> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejection::MaxConnections);
        }
        let source = peer.filter(|_| self.max_per_ip > 0).map(Source::of);
        if let Some(source) = source {
            let mut per_ip = self.per_ip.lock();
            let count = per_ip.entry(source).or_default();
            if *count >= self.max_per_ip {
                drop(per_ip);
                self.open.fetch_sub(1, Ordering::Relaxed);
                return Err(Rejection::MaxConnectionsPerIp);
            }
            *count += 1;
        }
        self.instruments.listener(listener).connections.inc();
        let listener = u32::try_from(listener).unwrap_or(u32::MAX);
        Ok(Slot { admission: self.clone(), listener, source })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.open.fetch_sub(1, Ordering::Relaxed);
        admission.instruments.listener(self.listener as usize).connections.dec();
        let Some(source) = self.source else { return };
        if let Entry::Occupied(mut count) = admission.per_ip.lock().entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_connections: usize, max_per_ip: usize) -> Arc<Admission> {
        let instruments = Instruments::new(["main"], 1, &[], &[]).unwrap();
        Arc::new(Admission::new(max_connections, max_per_ip, Arc::new(instruments)))
    }

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn a_slot_gives_itself_back() {
        let admission = admission(1, 0);
        let slot = admission.admit(0, None).unwrap();
        assert_eq!(admission.admit(0, None).unwrap_err(), Rejection::MaxConnections);
        drop(slot);
        assert!(admission.admit(0, None).is_ok());
    }

    #[test]
    fn an_address_is_bounded_and_forgotten_with_its_last_connection() {
        let admission = admission(10, 2);
        let slots = [(); 2].map(|()| admission.admit(0, peer("192.0.2.1")).unwrap());
        let refused = admission.admit(0, peer("192.0.2.1")).unwrap_err();
        assert_eq!(refused, Rejection::MaxConnectionsPerIp);
        assert!(admission.admit(0, peer("192.0.2.2")).is_ok());
        assert!(admission.admit(0, None).is_ok());
        drop(slots);
        assert!(admission.per_ip.lock().is_empty());
        assert_eq!(admission.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn ipv6_counts_by_64_bits() {
        let admission = admission(10, 1);
        let _one = admission.admit(0, peer("2001:db8::1")).unwrap();
        assert!(admission.admit(0, peer("2001:db8::ffff:2")).is_err());
        assert!(admission.admit(0, peer("2001:db8:0:1::1")).is_ok());
    }
}
