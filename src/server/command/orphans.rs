//! Processes that nobody waits for any more. The kernel gives them to process 1, which talkback is
//! in a container of its own.

use std::fs;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};

/// Whether orphans come to this process.
pub(super) fn come_here() -> bool {
    getpid().is_init()
}

/// Reaps the orphans that have ended, but none that is `ours`.
pub(super) fn reap(is_ours: impl Fn(u32) -> bool) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if !matches!(waitid(WaitId::All, options | WaitIdOptions::NOWAIT), Ok(Some(_))) {
        return;
    }
    let Some(own) = stat("self") else { return };
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(stat) = process.file_name().to_str().and_then(stat) else { continue };
        // What a program that embeds this library has started itself is of its own session.
        let is_orphan = stat.is_zombie && stat.parent == own.pid && stat.session != own.session;
        if is_orphan
            && !is_ours(stat.pid.cast_unsigned())
            && let Some(pid) = Pid::from_raw(stat.pid)
        {
            // It fails where somebody else has reaped it.
            let _ = waitid(WaitId::Pid(pid), options);
        }
    }
}

/// Whether a process runs or wants to, and does not wait for anything. Nobody knows where /proc
/// does not show it.
pub(super) fn is_running(pid: u32) -> bool {
    stat(&pid.to_string()).is_some_and(|stat| stat.is_running)
}

/// What is used of /proc/PID/stat (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    is_running: bool,
    is_zombie: bool,
    parent: i32,
    session: i32,
}

fn stat(process: &str) -> Option<Stat> {
    if process != "self" && !process.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Stat> {
    // The name stands in brackets, and may hold anything.
    let (pid, rest) = stat.split_once(" (")?;
    let mut fields = rest.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let (is_running, is_zombie) = (state == "R", state == "Z");
    Some(Stat { pid: pid.parse().ok()?, is_running, is_zombie, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let expected = Stat { pid: 7, is_running: false, is_zombie: true, parent: 1, session: 3 };
        assert_eq!(parse("7 (a) Z 9 (b)) Z 1 2 3 0 -1 4 5"), Some(expected));
        assert_eq!(parse("7 (a"), None);
        assert!(stat("self").is_some_and(|own| !own.is_zombie));
        assert_eq!(stat("sys"), None);
    }
}
