//! Threads and what they share: acceptors, the fixed pool of workers, the stop. The parts know
//! nothing of the config but what `start` hands them.

mod accept;
mod admit;
mod doorbell;
mod drain;
mod handshakes;
mod lifecycle;
mod listen;
mod pool;
mod start;
mod timers;
mod worker;

pub use drain::Summary;
pub use listen::{Bound, SocketFiles};
pub use start::{Server, StartError};
