//! Thousands of clients at once, and descriptors enough for them.

use std::net::SocketAddr;

use parking_lot::RwLockWriteGuard;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::Client;
use crate::quiet::alone;

/// What a server or the tests around may need beside the crowd.
const DESCRIPTORS_BESIDE: u64 = 4000;

/// The clients' descriptors are those of the tests. The limit after that.
pub fn raise_descriptor_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}

/// Clients that say nothing.
pub struct Crowd {
    size: usize,
    clients: Vec<Client>,
    /// The kernel's memory for sockets is the host's.
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Crowd {
    /// Room for as many as are wanted, or as this host has descriptors for.
    pub fn of_at_most(wanted: usize) -> Self {
        let alone = alone();
        let room = raise_descriptor_limit().saturating_sub(DESCRIPTORS_BESIDE).max(100);
        let size = usize::try_from(room).unwrap_or(usize::MAX).min(wanted);
        if size < wanted {
            println!("{size} of {wanted} silent clients: the limit on descriptors allows no more");
        }
        Self { size, clients: Vec::new(), _alone: alone }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// The limits of a server that takes the crowd and so many others. On a busy host a crowd comes
    /// faster than workers take it over; it must not be refused for that.
    pub fn limits(&self, others: usize) -> String {
        let all = self.size + others;
        format!("[limits]\nmax_connections = {all}\ninbox_connections = {all}\n")
    }

    #[track_caller]
    pub fn connect(&mut self, address: SocketAddr) {
        self.clients = (0..self.size).map(|_| Client::connect(address)).collect();
    }

    /// Connects them until there are so many, by the hundred, so that no inbox is ever full.
    #[track_caller]
    pub fn connect_at_ease(&mut self, address: SocketAddr, size: usize) {
        while self.clients.len() < size {
            let some = (size - self.clients.len()).min(500);
            self.clients.extend((0..some).map(|_| Client::connect(address)));
            // One a worker: what is answered came behind all of these.
            let mut last = [(); 2].map(|()| Client::connect(address));
            last.iter_mut().for_each(|client| client.echo("hello"));
        }
    }
}
