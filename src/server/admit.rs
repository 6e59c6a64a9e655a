//! Who is let in: the bounds on open connections, as values that give themselves back.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(loom))]
use parking_lot::{Mutex, MutexGuard};

use crate::metrics::{Instruments, Rejection};

/// Counts open connections against their bounds. Only accept and close come here.
#[derive(Debug)]
pub(super) struct Admission {
    max_connections: usize,
    open: AtomicUsize,
    /// 0 = no bound, and no table.
    max_per_ip: usize,
    /// Addresses with open connections, so never more than those; its memory too is given back.
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
        let source = peer.filter(|_| self.max_per_ip > 0).map(Source::of);
        let mut per_ip = source.map(|source| (source, self.table()));
        if let Some((source, per_ip)) = &per_ip
            && per_ip.get(source).is_some_and(|count| *count >= self.max_per_ip)
        {
            return Err(Rejection::MaxConnectionsPerIp);
        }
        // Nobody is counted, not even for a moment, who is not let in: the last place would be
        // refused to somebody for one who does not get it.
        let more = |open| (open < self.max_connections).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Err(Rejection::MaxConnections);
        }
        if let Some((source, per_ip)) = &mut per_ip {
            *per_ip.entry(*source).or_default() += 1;
        }
        drop(per_ip);
        self.instruments.listener(listener).connections.inc();
        let listener = u32::try_from(listener).unwrap_or(u32::MAX);
        Ok(Slot { admission: self.clone(), listener, source })
    }
}

impl Admission {
    fn table(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        #[cfg(loom)]
        return self.per_ip.lock().expect("nobody panics with it");
        #[cfg(not(loom))]
        self.per_ip.lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = self.source {
            forget_one(&mut admission.table(), source);
        }
        // Last: who sees the gauge fall finds room, also under the address's own bound.
        admission.instruments.listener(self.listener as usize).connections.dec();
    }
}

/// Addresses below which the table's memory is not worth the work.
const FEW: usize = 1024;

/// One connection fewer of that address. A flood leaves a table of its own size: below an eighth it
/// shrinks to a quarter, so that the work is spread over those that went, and the next find room.
fn forget_one(per_ip: &mut HashMap<Source, usize>, source: Source) {
    let Entry::Occupied(mut count) = per_ip.entry(source) else { return };
    *count.get_mut() -= 1;
    if *count.get() > 0 {
        return;
    }
    count.remove();
    if per_ip.capacity() > FEW && per_ip.len() < per_ip.capacity() / 8 {
        per_ip.shrink_to(per_ip.capacity() / 4);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn admission(max_connections: usize, max_per_ip: usize) -> Arc<Admission> {
        let instruments =
            Instruments::new([("main", true)], 1, &[], &[]).expect("names that are all different");
        Arc::new(Admission::new(max_connections, max_per_ip, Arc::new(instruments)))
    }

    fn peer(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().expect("an address"), 1))
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

    fn numbered(number: u32) -> Option<SocketAddr> {
        Some(SocketAddr::new(IpAddr::from(number.to_be_bytes()), 1))
    }

    #[test]
    fn addresses_that_come_and_go_by_the_hundred_thousand_leave_a_table_of_few() {
        const OPEN: u32 = 100;
        let admission = admission(OPEN as usize, 1);
        let mut slots = std::collections::VecDeque::new();
        for number in 0..100_000 {
            slots.push_back(admission.admit(0, numbered(number)).unwrap());
            // Refused by either bound, it must leave nothing.
            assert!(admission.admit(0, numbered(number)).is_err());
            if slots.len() == OPEN as usize {
                assert!(admission.admit(0, numbered(number + 1)).is_err());
                slots.pop_front();
            }
            let per_ip = admission.per_ip.lock();
            assert_eq!(per_ip.len(), slots.len());
            assert!(per_ip.capacity() <= FEW, "{}", per_ip.capacity());
        }
    }

    #[test]
    fn a_table_that_was_large_gives_its_memory_back() {
        let admission = admission(100_000, 1);
        let mut slots: Vec<_> =
            (0..100_000).map(|number| admission.admit(0, numbered(number)).unwrap()).collect();
        assert!(admission.per_ip.lock().capacity() >= 100_000);
        while slots.pop().is_some() {
            let per_ip = admission.per_ip.lock();
            assert_eq!(per_ip.len(), slots.len());
            // An eighth, and what the map rounds up to.
            assert!(per_ip.capacity() <= (32 * per_ip.len()).max(2 * FEW), "{}", per_ip.capacity());
        }
    }

    #[test]
    fn ipv6_counts_by_64_bits() {
        let admission = admission(10, 1);
        let _one = admission.admit(0, peer("2001:db8::1")).unwrap();
        assert!(admission.admit(0, peer("2001:db8::ffff:2")).is_err());
        assert!(admission.admit(0, peer("2001:db8:0:1::1")).is_ok());
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use loom::thread;

    /// Some who come and go at once, and what became of them.
    fn check(clients: usize, max_connections: usize, most_preemptions: usize) {
        // Its counters are not what is tried here, and making them anew takes its time.
        let instruments = Arc::new(Instruments::new([("main", true)], 1, &[], &[]).unwrap());
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(most_preemptions);
        model.check(move || {
            let admission = Admission::new(max_connections, 0, instruments.clone());
            let admission = Arc::new(admission);
            let inside = loom::sync::Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..clients)
                .map(|_| {
                    let (admission, inside) = (admission.clone(), inside.clone());
                    thread::spawn(move || {
                        let Ok(slot) = admission.admit(0, None) else { return false };
                        let before = inside.fetch_add(1, Ordering::Relaxed);
                        assert!(before < max_connections, "one too many is inside");
                        inside.fetch_sub(1, Ordering::Relaxed);
                        drop(slot);
                        true
                    })
                })
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            let let_in = results.filter(|is_in| *is_in).count();
            assert!(let_in >= max_connections, "a place was left, and nobody got it");
            // Nothing is lost and nothing is left: all places are free again.
            let slots: Vec<_> = (0..max_connections).map(|_| admission.admit(0, None)).collect();
            assert!(slots.iter().all(Result::is_ok));
            assert!(admission.admit(0, None).is_err());
        });
    }

    /// One address at its own bound takes nobody else's place, not even for a moment.
    #[test]
    fn who_is_refused_by_the_bound_of_an_address_takes_no_place() {
        let instruments = Arc::new(Instruments::new([("main", true)], 1, &[], &[]).unwrap());
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let admission = Arc::new(Admission::new(2, 1, instruments.clone()));
            let peer = |last| Some(SocketAddr::new(IpAddr::from([192, 0, 2, last]), 1));
            let _first = admission.admit(0, peer(1)).unwrap();
            let flood = {
                let admission = admission.clone();
                thread::spawn(move || {
                    let refused = admission.admit(0, peer(1)).map(drop);
                    assert_eq!(refused, Err(Rejection::MaxConnectionsPerIp));
                })
            };
            assert!(admission.admit(0, peer(2)).is_ok(), "a place is left");
            flood.join().unwrap();
        });
    }

    #[test]
    fn a_slot_is_never_given_twice_nor_lost() {
        check(2, 1, 3);
        check(3, 2, 1);
    }
}
