//! The spawn itself: pipes, the process. It takes as long as the system takes for it, which is why
//! it happens on the keeper's thread.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::process::{Gid, Pid, Signal, Uid, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::order::SpawnError;
use super::pipes::Ends;
use super::program::Program;
use crate::sys::{self, Spawner, Step};

/// A process, and what tells of it.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: Pid,
    /// Readable when the process has ended.
    pub(super) pidfd: OwnedFd,
    /// Our end: non-blocking, close-on-exec.
    pub(super) standard_error: OwnedFd,
}

/// Where a child finds its ends of the pipes: low numbers, which the keeper has from its start on,
/// so that few of the server's descriptors are copied for it. Never below 3, where the child puts
/// them itself.
pub(super) struct Berths {
    places: [OwnedFd; 3],
    /// What is in them between two spawns.
    blank: OwnedFd,
    spawner: Spawner,
}

impl Berths {
    /// # Errors
    /// If the system has no descriptors for it.
    pub(super) fn new() -> io::Result<Self> {
        let blank = eventfd(0, EventfdFlags::CLOEXEC)?;
        let place = || fcntl_dupfd_cloexec(&blank, 3);
        Ok(Self { places: [place()?, place()?, place()?], blank, spawner: Spawner::new() })
    }

    /// Starts a process, with copies of `ends`. Returns when it executes the program.
    ///
    /// # Errors
    /// Those of the system: a limit on processes, memory or descriptors, or the program cannot be
    /// executed after all.
    pub(super) fn spawn(
        &mut self,
        program: &Program,
        added: &[(String, String)],
        ends: &Ends,
    ) -> Result<Spawned, SpawnError> {
        let spawned = self.place_and_spawn(program, added, ends);
        for place in &mut self.places {
            // Nothing can fail where both are open.
            let _ = dup3(&self.blank, place, DupFlags::CLOEXEC);
        }
        spawned
    }

    fn place_and_spawn(
        &mut self,
        program: &Program,
        added: &[(String, String)],
        ends: &Ends,
    ) -> Result<Spawned, SpawnError> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let file = text(program.file.as_os_str().as_bytes())?;
        let arguments = program.argv.iter().map(|part| text(part.as_bytes()));
        let directory = program.directory.as_ref();
        let directory = directory.map(|path| text(path.as_os_str().as_bytes())).transpose()?;
        let (standard_error, their_error) = io::pipe()?;
        let standard_error = OwnedFd::from(standard_error);
        ioctl_fionbio(&standard_error, true).map_err(io::Error::from)?;
        let theirs = [ends.input.as_fd(), ends.output.as_fd(), their_error.as_fd()];
        for (place, end) in self.places.iter_mut().zip(theirs) {
            dup3(end, place, DupFlags::CLOEXEC).map_err(io::Error::from)?;
        }
        let child = sys::Child {
            file: &file,
            arguments: &arguments.collect::<Result<Vec<_>, _>>()?,
            environment: &environment(program, added)?,
            directory: directory.as_deref(),
            standard: self.places.each_ref().map(AsFd::as_fd),
            user: program.user.map(Uid::from_raw),
            group: program.group.map(Gid::from_raw),
            drops_groups: program.drops_groups,
            limits: &program.limits,
        };
        let made = self.spawner.spawn(&child);
        let (pid, pidfd) = made.map_err(|(step, source)| {
            let what = what_failed(step, program, &source);
            SpawnError::Step { what, source }
        })?;
        Ok(Spawned { pid, pidfd, standard_error })
    }
}

/// What it could not do, and as whom: the rights of another user show only when it is tried.
fn what_failed(step: Step, program: &Program, source: &io::Error) -> String {
    let account = &program.account;
    match step {
        Step::Begin => "cannot make a process".to_owned(),
        Step::Account => format!("cannot run{account}"),
        Step::Directory => {
            let directory = program.directory.as_deref().unwrap_or(Path::new(""));
            format!("cannot enter {}{account}", directory.display())
        }
        Step::Limits => "cannot set its limits".to_owned(),
        Step::Execute => {
            // A shell runs such a file all the same, so that its author never missed the line.
            let is_unknown = Errno::from_io_error(source) == Some(Errno::NOEXEC);
            let hint =
                if is_unknown { " (a script begins with #! and its interpreter)" } else { "" };
            format!("cannot execute {}{account}{hint}", program.file.display())
        }
    }
}

/// What an order adds stands for what the program has of the same name.
fn environment(program: &Program, added: &[(String, String)]) -> io::Result<Vec<CString>> {
    let own = program.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let added = added.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
    let variables: BTreeMap<_, _> = own.chain(added).collect();
    let text = |(name, value): (&OsStr, &OsStr)| {
        let text: OsString = [name, OsStr::new("="), value].into_iter().collect();
        Ok(CString::new(text.into_vec())?)
    };
    variables.into_iter().map(text).collect()
}

/// Ends a process that was just started and that nobody can keep, and waits until it is gone.
pub(super) fn discard(pid: Pid) {
    // It is a zombie at the worst, so that the number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
}
