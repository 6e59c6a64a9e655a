//! Threads and what they share: acceptors, the fixed pool of workers, the stop. The parts know
//! nothing of the config but what `start` hands them.

mod accept;
mod accounts;
mod admit;
mod alarm;
mod command;
mod doorbell;
mod drain;
mod errands;
mod failures;
mod handshakes;
mod inspect;
mod lifecycle;
mod listen;
mod mail;
mod pace;
mod pool;
mod question;
mod reclaim;
mod start;
mod timers;
mod view;
mod worker;

pub use command::{CommandError, ProgramError, ProgramGroups, program_faults};
pub use drain::Summary;
pub use failures::GaveUp;
pub use listen::{Bound, SocketFiles};
pub use start::{Server, StartError};
