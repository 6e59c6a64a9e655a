//! What the exit status of a process says of its end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::metrics::names::ProcessEnd;

/// How it ended, if nobody told it to.
pub(super) fn by_itself(status: ExitStatus) -> ProcessEnd {
    match status.code() {
        Some(0) => ProcessEnd::Exited,
        Some(_) => ProcessEnd::Failed,
        None => ProcessEnd::Signalled,
    }
}

/// Whether it ended by what it is told to end with: a signal of the keeper, or the pipe that nobody
/// reads any more.
pub(super) fn is_ours(status: ExitStatus) -> bool {
    let ours = [Signal::TERM, Signal::KILL, Signal::PIPE].map(Signal::as_raw);
    status.signal().is_some_and(|signal| ours.contains(&signal))
}
