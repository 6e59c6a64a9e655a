//! Programs that answer for a listener: their processes, and all that happens to them. Workers
//! neither fork nor wait; they order processes from the keeper and get the pipes.

mod child;
mod keeper;
mod orphans;
mod pool;
mod processes;
mod program;
mod setup;
mod spawn;
mod standard_error;

pub(in crate::server) use keeper::{Keeper, KeeperThread, Order, ProcessId, SpawnError, Started};
pub use program::ProgramError;
pub(in crate::server) use program::{Program, Setup};
pub use setup::program_faults;

#[cfg(test)]
mod tests;
