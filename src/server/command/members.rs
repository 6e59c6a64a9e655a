//! Who is left of process groups whose leaders have ended. They are no children of ours, so that
//! nobody tells of them and they are looked for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::group_of;

/// For each of these groups that has one, a descriptor of a process that has not ended. One of
/// each is enough: when it has ended, the next one is found. Costs a system call for each
/// process that /proc shows.
///
/// # Errors
/// It cannot be read, or the system has no descriptor: who is left is not known.
pub(super) fn find(groups: &HashMap<Pid, usize>) -> io::Result<BTreeMap<usize, OwnedFd>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(process) = number.and_then(Pid::from_raw) else { continue };
        if let Some(&key) = group_of(process).and_then(|group| groups.get(&group))
            && !found.contains_key(&key)
            && let Some(descriptor) = watch(process, groups)?
        {
            found.insert(key, descriptor);
            if found.len() == groups.len() {
                break;
            }
        }
    }
    Ok(found)
}

/// `None` if it has ended.
fn watch(process: Pid, groups: &HashMap<Pid, usize>) -> io::Result<Option<OwnedFd>> {
    let descriptor = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // It may have become another process's number before, but not once this one is seen to live.
    let is_member = group_of(process).is_some_and(|group| groups.contains_key(&group));
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let has_ended = poll(&mut polled, Some(&Timespec::default()))? > 0;
    Ok((is_member && !has_ended).then_some(descriptor))
}
