//! One process from its start until nothing of it is left: its signals, its end, its last words.
//! What is done when, the keeper says.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, test_kill_process_group,
    waitid,
};
use tracing::debug;

use super::order::{Ended, ProcessId};
use super::program::Program;
use super::standard_error::{Found, StandardError};
use crate::sys::group_of;

/// A process that we started.
pub(super) struct Child {
    pub(super) id: ProcessId,
    pub(super) phase: Phase,
    /// It was sent SIGTERM.
    pub(super) is_told: bool,
    /// One that ends by itself leaves the others of its group time to say what they have to say.
    pub(super) is_survived: bool,
    program: Arc<Program>,
    pid: Pid,
    /// Its own; once it is reaped, that of somebody who is left of its group.
    pidfd: OwnedFd,
    /// How it ended, once it is reaped.
    status: ExitStatus,
    /// Taken when it is told.
    ended: Option<Ended>,
    /// `None` = nobody can write to it any more.
    standard_error: Option<StandardError>,
    /// Whether the keeper's epoll set tells of it.
    is_watched: bool,
}

/// How far it is. Only from [`Phase::Over`] on its number may be another group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Its group was sent SIGTERM.
    Ending,
    /// Its group was sent SIGKILL.
    Killed,
    /// It has ended, is reaped, and others of its group may be there, which have time too.
    Left,
    /// Reaped. Its standard error may hold something, or somebody who left its group.
    Over,
}

impl Child {
    pub(super) fn new(
        id: ProcessId,
        program: Arc<Program>,
        (pid, pidfd): (Pid, OwnedFd),
        standard_error: OwnedFd,
        ended: Ended,
        is_survived: bool,
    ) -> Self {
        Self {
            id,
            phase: Phase::Running,
            is_told: false,
            is_survived,
            program,
            pid,
            pidfd,
            status: ExitStatus::default(),
            ended: Some(ended),
            standard_error: Some(StandardError::new(standard_error)),
            is_watched: false,
        }
    }

    /// Has the keeper's epoll set tell of its end and of its standard error.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        end: Token,
        said: Token,
    ) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.pidfd.as_raw_fd()), end, Interest::READABLE)?;
        self.watch(registry, said)
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// Its own number, and its group's.
    pub(super) fn leader(&self) -> Pid {
        self.pid
    }

    /// Whether it can still say something.
    pub(super) fn may_speak(&self) -> bool {
        self.standard_error.is_some()
    }

    /// Signals the whole group. Nobody can join it from outside its session.
    pub(super) fn signal(&self, signal: Signal) {
        let is_ours = match self.phase {
            // The number is its own until it is reaped.
            Phase::Running | Phase::Ending | Phase::Killed => self.peek() != End::Unknown,
            Phase::Left => !self.is_last(),
            Phase::Over => false,
        };
        if is_ours {
            // It fails where all of the group have changed their user, which only root's can.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Whether nobody else is in its group, not even a zombie. To be asked once it is reaped.
    pub(super) fn is_last(&self) -> bool {
        // The group keeps the number as long as it has a member; whoever was given it since leads
        // a group of his own.
        let is_given_again = group_of(self.pid).is_some();
        is_given_again || test_kill_process_group(self.pid) == Err(Errno::SRCH)
    }

    /// How it ended, if it has; it stays a zombie.
    pub(super) fn peek(&self) -> End {
        self.wait(WaitIdOptions::NOWAIT)
    }

    fn wait(&self, option: WaitIdOptions) -> End {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | option;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => End::NotYet,
            Ok(Some(status)) => End::With(exit_status(&status)),
            Err(_) => End::Unknown,
        }
    }

    /// Reaps it; whoever else is in its group lives on.
    pub(super) fn reap(&mut self) {
        if let End::With(status) = self.wait(WaitIdOptions::empty()) {
            self.status = status;
        }
        // Else SIGCHLD is ignored, and the kernel has kept nothing.
        self.phase = Phase::Left;
    }

    /// Has the keeper's epoll set tell of the end of somebody who is left of its group.
    pub(super) fn watch_member(
        &mut self,
        registry: &Registry,
        member: OwnedFd,
        token: Token,
    ) -> io::Result<()> {
        self.pidfd = member;
        registry.register(&mut SourceFd(&self.pidfd.as_raw_fd()), token, Interest::READABLE)
    }

    /// Kills what is left of its group, reaps it, and tells whom it concerns.
    pub(super) fn bury(&mut self) {
        // Before it is reaped: afterwards the number may be that of another group.
        self.signal(Signal::KILL);
        if self.phase != Phase::Left {
            self.reap();
        }
        self.phase = Phase::Over;
        if let Some(ended) = self.ended.take() {
            let (listener, pid, status) = (&self.program.listener, self.id.pid(), self.status);
            debug!(listener, pid, %status, "process ended");
            ended(self.id, status);
        }
    }

    /// Logs a share of what it said, and says whether there may be more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Found {
        let Some(standard_error) = &mut self.standard_error else { return Found::End };
        let found = standard_error.read(&self.program, self.id.pid(), buffer);
        if found == Found::End {
            // Closed, it leaves the epoll set too.
            self.standard_error = None;
        }
        found
    }

    /// Logs what is there, up to what a pipe holds, and the unfinished line; then closes.
    pub(super) fn hear_out(&mut self, buffer: &mut [u8]) {
        self.read(buffer);
        if let Some(mut standard_error) = self.standard_error.take() {
            standard_error.finish(&self.program, self.id.pid());
        }
    }

    /// Has the epoll set tell of what it says from now on.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if !self.is_watched
            && let Some(standard_error) = &mut self.standard_error
        {
            registry.register(standard_error, token, Interest::READABLE)?;
            self.is_watched = true;
        }
        Ok(())
    }

    /// Has the epoll set say nothing of it for now: each of its writes would wake the keeper.
    pub(super) fn ignore(&mut self, registry: &Registry) -> io::Result<()> {
        if self.is_watched
            && let Some(standard_error) = &mut self.standard_error
        {
            registry.deregister(standard_error)?;
            self.is_watched = false;
        }
        Ok(())
    }
}

/// Whether a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    NotYet,
    With(ExitStatus),
    /// It was reaped behind our back, as happens where SIGCHLD is ignored.
    Unknown,
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal | if status.dumped() { 0x80 } else { 0 },
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}
