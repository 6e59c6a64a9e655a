//! Programs that answer for a listener: their processes, and all that happens to them. Workers
//! neither fork nor wait; they order processes from the keeper and get the pipes.

mod ask;
mod child;
mod conduit;
mod home;
mod inquiries;
mod keeper;
mod life;
mod members;
mod news;
mod order;
mod orphans;
mod outbox;
mod pipes;
mod pool;
mod processes;
mod program;
mod proof;
mod relay;
mod relays;
mod setup;
mod shared;
mod spawn;
mod standard_error;
mod starts;
mod status;
mod tokens;

pub(in crate::server) use ask::{Ask, Desired};
pub(in crate::server) use home::Home;
pub(in crate::server) use inquiries::{Deliver, Inquiries};
pub(in crate::server) use keeper::{Keeper, KeeperThread};
pub(in crate::server) use news::Reporter;
pub use order::ProgramGroups;
pub(in crate::server) use outbox::Own;
pub(in crate::server) use pool::Limits as PoolLimits;
pub use program::ProgramError;
pub(in crate::server) use program::{Program, Setup};
pub use proof::CommandError;
pub(in crate::server) use proof::{Proof, Proven};
pub(in crate::server) use relay::{Exchange, Relay, tell_of_nobody};
pub(in crate::server) use relays::{Output, RelayPlan};
pub use setup::program_faults;
pub(in crate::server) use shared::Plan;

#[cfg(test)]
mod tests;
