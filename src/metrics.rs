//! What is counted, and under which names. It knows nothing of where the numbers come from.

pub mod instruments;
pub mod names;

pub use instruments::{Instruments, ListenerInstruments, Tally};
pub use names::{AcceptError, CloseReason, Rejection};
