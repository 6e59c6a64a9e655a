//! Programs that answer for a listener: their processes, and all that happens to them. Workers
//! neither fork nor wait; they order processes from the keeper and get the pipes.

mod keeper;
mod program;

pub(in crate::server) use keeper::{Keeper, KeeperThread, Order, ProcessId, SpawnError, Started};
pub(in crate::server) use program::{Program, ProgramError, Setup};
