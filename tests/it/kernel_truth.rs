//! What only the kernel knows of a connection, and tells: how it waited before accept(2), what was
//! dropped there, and how its path was.

mod path;
mod queue;
mod stopped;
mod syscalls;

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, Metrics, PATIENCE};

/// A client that is on its way in, whether or not there is room for it.
fn knock(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    socket
}

/// The same client as one that waits for what it wants.
fn wait_for(socket: Socket) -> Client {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream: socket.into() }
}

/// Observations of a histogram that are above one of its bounds, of that listener.
#[track_caller]
fn above(metrics: &Metrics, histogram: &str, listener: &str, bound: &str) -> f64 {
    let labels = format!("listener=\"{listener}\"");
    metrics.get(&format!("{histogram}_count{{{labels}}}"))
        - metrics.get(&format!("{histogram}_bucket{{{labels},le=\"{bound}\"}}"))
}
