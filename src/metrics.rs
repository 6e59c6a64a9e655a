//! What is counted, and under which names. It knows nothing of where the numbers come from.

pub mod command;
mod families;
pub mod histogram;
pub mod instruments;
pub mod kernel;
pub mod listener;
pub mod names;
mod process;

pub use command::{CommandInstruments, CommandRecorders, ProcessGauge};
pub use histogram::Recorder;
pub use instruments::{Instruments, WorkerReading, WorkerRecorders};
pub use kernel::ListenReading;
pub use listener::{ListenerInstruments, ListenerRecorders, Tally};
pub use names::{AcceptError, CloseReason, CommandRefusal, ProcessEnd, ProcessState, Rejection};

/// Whether anything is observed and told at all. `--cfg unmeasured` turns it off, for a benchmark
/// that asks what it costs.
pub(crate) const MEASURED: bool = cfg!(not(unmeasured));
