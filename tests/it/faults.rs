//! System calls of one thread of the server that fail as if the host did it, or last, by strace.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::harness::{Server, eventually};

/// Ten minutes, which is longer than any test lasts.
const NEVER_BEGINS: &str = "epoll_wait:delay_enter=600000000";

/// Ends with its value; from then on nothing fails or lasts any more.
pub struct Faults {
    strace: Child,
    dir: tempfile::TempDir,
}

/// The number of the server's thread of that name.
#[track_caller]
fn thread_of(server: &Server, name: &str) -> u32 {
    let mut found = None;
    // A thread names itself, which it may not have come to.
    eventually(format_args!("there is a thread {name}"), || {
        found = server.threads("comm").find(|(_, comm)| comm.trim() == name);
        found.is_some()
    });
    found.unwrap().0
}

impl Faults {
    /// From now on calls of the thread fail as each of `faults` says, in strace's words:
    /// `accept4:error=EMFILE:when=1..20`. The first is the call that it waits in, which must fail.
    #[track_caller]
    pub fn inject(server: &Server, thread: &str, faults: &[&str]) -> Self {
        let mut faults = Self::attach(server, thread, faults);
        // Until then the thread may still be in a call that began before.
        faults.await_trace("the first call has failed", |faults| !faults.times().is_empty());
        faults
    }

    /// The thread goes to sleep in epoll and stays there, whatever wakes it.
    #[track_caller]
    pub fn hold_asleep(server: &Server, thread: &str) -> Self {
        let mut faults = Self::attach(server, thread, &[NEVER_BEGINS]);
        // Strace tells of a call that it holds, with the line still open.
        faults.await_trace("it is asleep", |faults| faults.trace().contains("epoll_wait("));
        faults
    }

    #[track_caller]
    fn attach(server: &Server, thread: &str, faults: &[&str]) -> Self {
        let thread = thread_of(server, thread);
        let dir = tempfile::tempdir().unwrap();
        let calls: Vec<_> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        let mut command = Command::new("strace");
        command.arg("-p").arg(thread.to_string()).args(["-qq", "-ttt", "-o"]);
        command.arg(dir.path().join("trace")).arg("-e").arg(format!("trace={}", calls.join(",")));
        for fault in faults {
            command.arg("-e").arg(format!("inject={fault}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { strace: command.spawn().unwrap(), dir }
    }

    #[track_caller]
    fn await_trace(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        eventually(what, || {
            let ended = self.strace.try_wait().unwrap();
            // It may also have ended with the thread, of what it did to it.
            let is_so = is_so(self);
            let may_attach = is_so || ended.is_none();
            assert!(may_attach, "strace may not attach (kernel.yama.ptrace_scope): {ended:?}");
            is_so
        });
    }

    fn trace(&self) -> String {
        fs::read_to_string(self.dir.path().join("trace")).unwrap_or_default()
    }

    /// When each of the calls that were made to fail so far did so, in seconds.
    pub fn times(&self) -> Vec<f64> {
        let trace = self.trace();
        let injected = trace.lines().filter(|line| line.ends_with("(INJECTED)"));
        injected.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // It lets the thread go when it is asked to end; killed, it would leave it stopped.
        if let Ok(pid) = i32::try_from(self.strace.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may have ended with its thread.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.strace.wait();
    }
}
