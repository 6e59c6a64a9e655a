//! The spawn itself: fork, exec, pipes. It takes as long as the system takes for it, which is why
//! it happens on the keeper's thread.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::ioctl_fionbio;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::program::Program;
use crate::sys;

/// A process, and our ends of what leads to it: non-blocking, close-on-exec.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: Pid,
    /// Readable when the process has ended.
    pub(super) pidfd: OwnedFd,
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) standard_error: OwnedFd,
}

/// Starts a process. Returns when it executes the program.
///
/// # Errors
/// Those of the system: a limit on processes, memory or descriptors, or the program cannot be
/// executed after all.
pub(super) fn spawn(program: &Program, environment: &[(String, String)]) -> io::Result<Spawned> {
    let mut command = Command::new(&program.file);
    command.args(program.argv.get(1..).unwrap_or_default());
    if let Some(name) = program.argv.first() {
        command.arg0(name);
    }
    command.env_clear();
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    if let Some(group) = program.group {
        command.gid(group);
    }
    if let Some(user) = program.user {
        command.uid(user);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let drops_groups = program.user.or(program.group).is_some();
    sys::prepare_child(&mut command, sys::Child { drops_groups, limits: program.limits.clone() });

    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(standard_error)) = pipes else {
        unreachable!("the three are piped");
    };
    let (input, output) = (OwnedFd::from(input), OwnedFd::from(output));
    let standard_error = OwnedFd::from(standard_error);
    let rest = || -> rustix::io::Result<OwnedFd> {
        // Each end of a pipe has a mode of its own: the child's ends go on blocking.
        for end in [&input, &output, &standard_error] {
            ioctl_fionbio(end, true)?;
        }
        pidfd_open(pid, PidfdFlags::empty())
    };
    match rest() {
        Ok(pidfd) => Ok(Spawned { pid, pidfd, input, output, standard_error }),
        Err(error) => {
            discard(pid);
            Err(error.into())
        }
    }
}

/// Ends a process that was just started and that nobody can keep, and waits until it is gone.
pub(super) fn discard(pid: Pid) {
    // It is a zombie at the worst, so that the number is still its own.
    let _ = kill_process_group(pid, Signal::KILL);
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
}
