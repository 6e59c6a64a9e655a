//! What the exit status of a process says of its end.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use crate::metrics::names::ProcessEnd;

use super::pool::Why;

/// How it ended, if nobody told it to.
pub(super) fn by_itself(status: ExitStatus) -> ProcessEnd {
    match status.code() {
        Some(0) => ProcessEnd::Exited,
        Some(_) => ProcessEnd::Failed,
        None => ProcessEnd::Signalled,
    }
}

/// What is wrong with a program of whom a process ended like this without having answered, behind
/// its name; `None` where nothing is.
pub(super) fn trouble(why: Option<Why>, status: ExitStatus) -> Option<String> {
    match why {
        None | Some(Why::HungUp) => Some(format!("dies before it answers ({status})")),
        Some(Why::LivedOn) => Some("closes its output before it answers".to_owned()),
        Some(Why::Timeout) => Some("does not answer within reply_timeout".to_owned()),
        Some(Why::Protocol) => Some("writes what nobody asked for".to_owned()),
        Some(Why::Idle | Why::MaxRequests | Why::Stopped) => None,
    }
}

/// Whether it ended by what it is told to end with: a signal of the keeper, or the pipe that nobody
/// reads any more.
pub(super) fn is_ours(status: ExitStatus) -> bool {
    let ours = [Signal::TERM, Signal::KILL, Signal::PIPE].map(Signal::as_raw);
    status.signal().is_some_and(|signal| ours.contains(&signal))
}
