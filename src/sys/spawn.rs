//! How a process is made: the child between its clone(2) and its execve(2), on borrowed memory.
//! Whatever runs there takes no lock and allocates nothing.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, WaitId, WaitIdOptions, chdir, dumpable_behavior,
    getpid, getppid, set_dumpable_behavior, set_parent_process_death_signal, setrlimit, setsid,
    waitid,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// A process as it is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child<'a> {
    /// What it executes; nothing is searched.
    pub(crate) file: &'a CStr,
    /// With the name that it goes by.
    pub(crate) arguments: &'a [CString],
    /// All of its environment.
    pub(crate) environment: &'a [CString],
    pub(crate) directory: Option<&'a CStr>,
    /// Its standard input, output and error, none of them below 3. The lower they are, the fewer
    /// descriptors are copied for it.
    pub(crate) standard: [BorrowedFd<'a>; 3],
    pub(crate) user: Option<Uid>,
    pub(crate) group: Option<Gid>,
    /// Whether it gives up our supplementary groups.
    pub(crate) drops_groups: bool,
    pub(crate) limits: &'a [(Resource, Rlimit)],
}

/// What a [`Child`] does before it runs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// It is made, and its descriptors and signals are arranged.
    Begin,
    Account,
    Directory,
    Limits,
    Execute,
}

impl Step {
    const ALL: [Self; 5] =
        [Self::Begin, Self::Account, Self::Directory, Self::Limits, Self::Execute];
}

/// A [`Child`] with what it needs made ready, for it must not allocate.
struct Birth<'a> {
    child: &'a Child<'a>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// No descriptor from here on concerns it.
    end: RawFd,
    parent: Pid,
    /// The signals that are not at their default.
    altered: &'a [libc::c_int],
    /// What it failed with before it executed the program; 0 = nothing.
    failed: AtomicI32,
    /// The [`Step`] that it has reached.
    step: AtomicU8,
}

impl Birth<'_> {
    fn reach(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
    }
}

/// Enough for the few frames of [`be_born`] without optimization.
const STACK_BYTES: usize = 64 * 1024;

/// How long the signals that are not at their default are taken for known: to ask for all of them
/// takes 12 µs, a fifth of what the start of a process costs us.
const SIGNALS_KNOWN: Duration = Duration::from_millis(100);

/// Makes processes, one after another.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// What a child stands on until it executes.
    stack: Box<[u128]>,
    /// The signals that are ignored or have a handler,
    altered: Vec<libc::c_int>,
    /// until when that is taken for true.
    known_until: Option<Instant>,
}

impl Spawner {
    pub(crate) fn new() -> Self {
        let stack = vec![0; STACK_BYTES / mem::size_of::<u128>()].into();
        Self { stack, altered: Vec::new(), known_until: None }
    }

    /// Starts a process that leads a session and a process group of its own, with every signal at
    /// its default, no descriptor beyond standard error, and SIGTERM should the calling thread end
    /// before it. Returns its number and a descriptor of it when it executes the program.
    ///
    /// The way of posix_spawn(3), which itself has no limits, no user and no death signal: the
    /// child borrows our memory until it executes, so that no page tables are copied. With 1 GiB of
    /// memory a fork(2) takes 76 ms, and makes other threads wait for page faults as long. Our
    /// descriptors it borrows until it has a table of its own, with the first few: to copy 15,000
    /// of them and close the copies takes 1.5 ms.
    ///
    /// # Errors
    /// Those of clone(2), of whatever the child does, and of execve(2), with where it failed.
    pub(crate) fn spawn(&mut self, child: &Child<'_>) -> Result<(Pid, OwnedFd), (Step, io::Error)> {
        self.learn_signals();
        let birth = Birth {
            child,
            arguments: pointers(child.arguments),
            environment: pointers(child.environment),
            end: child.standard.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(0) + 1,
            parent: getpid(),
            altered: &self.altered,
            failed: AtomicI32::new(0),
            step: AtomicU8::new(Step::Begin as u8),
        };
        let mut pidfd: libc::c_int = -1;
        let dumpable = dumpable_behavior();
        // Else a handler of ours might run in the child, on our memory.
        let blocked = block_signals(&self.altered);
        // SAFETY: `be_born` runs on a stack of its own while this thread waits (CLONE_VFORK), so
        // that all it points to lives; other threads go on, which is why it takes no lock and
        // allocates nothing. It changes nothing that is ours but `failed`, `step` and errno, and no
        // descriptor before it has a table of its own.
        let pid = unsafe {
            libc::clone(
                be_born,
                self.stack.as_mut_ptr_range().end.cast(),
                libc::CLONE_VM
                    | libc::CLONE_VFORK
                    | libc::CLONE_FILES
                    | libc::CLONE_PIDFD
                    | libc::SIGCHLD,
                (&raw const birth).cast_mut().cast(),
                &raw mut pidfd,
            )
        };
        let error = io::Error::last_os_error();
        restore_signals(&blocked);
        if let Ok(dumpable) = dumpable
            && (child.user.is_some() || child.group.is_some())
        {
            // The change of user took it from the memory that both had, so that nobody of that user
            // could look into ours; it would take /proc/self from us, too.
            let _ = set_dumpable_behavior(dumpable);
        }
        let Some(pid) = Pid::from_raw(pid.max(0)) else { return Err((Step::Begin, error)) };
        // SAFETY: the kernel has just made it, close-on-exec, and nobody else knows of it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        match birth.failed.load(Ordering::Relaxed) {
            0 => Ok((pid, pidfd)),
            failed => {
                // It has ended or is about to.
                while let Err(Errno::INTR) =
                    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
                {}
                let step = Step::ALL[usize::from(birth.step.load(Ordering::Relaxed))];
                Err((step, io::Error::from_raw_os_error(failed)))
            }
        }
    }

    fn learn_signals(&mut self) {
        let now = Instant::now();
        if self.known_until.is_none_or(|until| until < now) {
            self.altered = altered_signals();
            self.known_until = Some(now + SIGNALS_KNOWN);
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// The child, up to its execve(2); what it returns is its exit status.
extern "C" fn be_born(birth: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a `Birth` that lives until we execute or end.
    let birth = unsafe { &*birth.cast_const().cast::<Birth<'_>>() };
    let error = match prepare_myself(birth) {
        Err(error) => error.raw_os_error(),
        Ok(()) => {
            birth.reach(Step::Execute);
            // SAFETY: the lists end with a null pointer and, as the texts do, live in `spawn`.
            unsafe {
                libc::execve(
                    birth.child.file.as_ptr(),
                    birth.arguments.as_ptr(),
                    birth.environment.as_ptr(),
                );
            }
            last_errno().raw_os_error()
        }
    };
    birth.failed.store(error, Ordering::Relaxed);
    127
}

/// Runs in the child, on the memory of its parent.
fn prepare_myself(birth: &Birth<'_>) -> rustix::io::Result<()> {
    let child = birth.child;
    setsid()?;
    reset_signals(birth.altered);
    part_descriptors(birth.end)?;
    for (number, descriptor) in (0..).zip(&child.standard) {
        // SAFETY: the descriptors are the child's own copies. None of ours is below 3.
        if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
            return Err(last_errno());
        }
    }
    // Before the limits, for it may need a descriptor.
    close_on_exec_from(libc::STDERR_FILENO + 1)?;
    birth.reach(Step::Account);
    if child.drops_groups {
        set_thread_groups(&[])?;
    }
    if let Some(group) = child.group {
        set_thread_gid(group)?;
    }
    if let Some(user) = child.user {
        set_thread_uid(user)?;
    }
    birth.reach(Step::Directory);
    if let Some(directory) = child.directory {
        chdir(directory)?;
    }
    birth.reach(Step::Limits);
    for (resource, limit) in child.limits {
        setrlimit(*resource, *limit)?;
    }
    // After the change of user, which would undo it.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // The parent may have died before.
    if getppid() == Some(birth.parent) { Ok(()) } else { Err(Errno::SRCH) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The signals that are ignored or have a handler.
fn altered_signals() -> Vec<libc::c_int> {
    let is_altered = |signal: &libc::c_int| {
        // SAFETY: nothing is changed, and what is asked for is written to a live value. Of the
        // signals that the C library keeps for itself it tells nothing.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(*signal, ptr::null(), &raw mut action) == 0
                && action.sa_sigaction != libc::SIG_DFL
        }
    };
    (1..=libc::SIGRTMAX()).filter(is_altered).collect()
}

/// Blocks signals in the calling thread, and returns those that were blocked before.
fn block_signals(altered: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: both sets are live values, of plain integers.
    unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        if !altered.contains(&libc::SIGCHLD) {
            // At its default the kernel drops it, unless it is blocked where a child ends: then it
            // wakes a thread of ours for nothing.
            libc::sigdelset(&raw mut all, libc::SIGCHLD);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(blocked: &libc::sigset_t) {
    // SAFETY: the set is a live value.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(blocked), ptr::null_mut());
    }
}

/// Every signal at its default, and none blocked: execve(2) leaves ignored signals ignored, as
/// SIGHUP is under nohup.
fn reset_signals(altered: &[libc::c_int]) {
    // SAFETY: no handler is installed.
    unsafe {
        for signal in altered {
            libc::signal(*signal, libc::SIG_DFL);
        }
        let mut none = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Gives the child a table of descriptors of its own, with those below `end`.
fn part_descriptors(end: RawFd) -> rustix::io::Result<()> {
    // SAFETY: what is closed is closed in the new table, which nobody else uses.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
    };
    // Linux before 5.9 does not know the call, and a sandbox may refuse it. Else all are copied.
    // SAFETY: the new table has the same descriptors.
    let is_parted = result == 0 || unsafe { libc::unshare(libc::CLONE_FILES) } == 0;
    if is_parted { Ok(()) } else { Err(last_errno()) }
}

/// Marks every descriptor from `first` on close-on-exec.
fn close_on_exec_from(first: RawFd) -> rustix::io::Result<()> {
    // SAFETY: no descriptor is closed. The numbers are positive and fit.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    // Linux before 5.11 does not know the call or its flag, and a sandbox may refuse it.
    if result == 0 { Ok(()) } else { close_on_exec_by_list(first) }
}

/// The same for each that /proc lists.
fn close_on_exec_by_list(first: RawFd) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = open(c"/proc/self/fd", flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(list, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
        let Some(number) = name.filter(|number: &RawFd| *number >= first) else { continue };
        // SAFETY: this thread is the only one of the child, so that what was listed is still open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    /// Whether a child has the descriptor of its parent that is not close-on-exec.
    fn inherits(mark: fn(RawFd) -> rustix::io::Result<()>) -> bool {
        let file = File::open("/dev/null").expect("it is there");
        // Beyond those that a shell opens for itself.
        let leak = rustix::io::fcntl_dupfd_cloexec(file, 100).expect("a number is free");
        fcntl_setfd(&leak, FdFlags::empty()).expect("it is open");
        let mut command = Command::new("test");
        command.arg("-e").arg(format!("/proc/self/fd/{}", leak.as_raw_fd()));
        // SAFETY: each function here only makes system calls, or does nothing.
        unsafe { command.pre_exec(move || mark(3).map_err(io::Error::from)) };
        command.status().expect("test(1) runs").success()
    }

    #[test]
    fn a_child_begins_with_every_signal_at_its_default_and_none_blocked() {
        // SAFETY: no other test sends or awaits it, and no handler is installed.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let before = block_signals(&[]);
        let (output, theirs) = io::pipe().expect("a pipe");
        let null = File::open("/dev/null").expect("it is there");
        let (null, theirs) = (null.as_fd(), OwnedFd::from(theirs));
        let cat = Child {
            file: c"/bin/cat",
            arguments: &[c"cat".into(), c"/proc/self/status".into()],
            environment: &[],
            directory: None,
            standard: [null, theirs.as_fd(), null],
            user: None,
            group: None,
            drops_groups: false,
            limits: &[],
        };
        let cat = Spawner::new().spawn(&cat);
        restore_signals(&before);
        let (_, pidfd) = cat.expect("cat starts");
        drop(theirs);
        let status = io::read_to_string(output).expect("text");
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("it is our child");
        // The C library keeps 32 and 33 for itself, and lets nobody change them.
        let its_own = 0b11 << 31;
        for field in ["SigPnd:\t", "SigBlk:\t", "SigIgn:\t", "SigCgt:\t"] {
            let set = status.split_once(field).map(|(_, rest)| &rest[..16]).expect("a set");
            let set = u64::from_str_radix(set, 16).expect("hexadecimal");
            assert_eq!(set & !its_own, 0, "{field}{set:x}");
        }
    }

    /// The signals that this thread has blocked, as a set of bits.
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is there");
        let set = status.split_once("SigBlk:\t").map(|(_, rest)| &rest[..16]).expect("a set");
        u64::from_str_radix(set, 16).expect("hexadecimal")
    }

    #[test]
    fn the_end_of_a_child_is_let_through_where_nobody_waits_for_it() {
        let bit = 1 << (libc::SIGCHLD - 1);
        let before = block_signals(&[]);
        let without = blocked();
        block_signals(&[libc::SIGCHLD]);
        let with = blocked();
        restore_signals(&before);
        assert_eq!(with, without | bit);
        assert_eq!(without & bit, 0);
        // Whoever has it blocked may be waiting for it.
        let before = block_signals(&[libc::SIGCHLD]);
        block_signals(&[]);
        let kept = blocked();
        restore_signals(&before);
        assert_eq!(kept & bit, bit);
    }

    #[test]
    fn either_way_of_marking_them_keeps_descriptors_from_a_child() {
        assert!(inherits(|_| Ok(())), "the test shows nothing");
        assert!(!inherits(close_on_exec_from));
        assert!(!inherits(close_on_exec_by_list));
    }
}
