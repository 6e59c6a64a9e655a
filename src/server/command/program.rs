//! A program as it is to run, found and checked when the server starts: what would fail at every
//! spawn is an error then.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::server::accounts;

/// Where execvp(3) looks without a PATH.
const NO_PATH: &str = "/bin:/usr/bin";

/// The kernel reads no more of a script's first line (`BINPRM_BUF_SIZE`).
const FIRST_LINE_BYTES: u64 = 256;

/// How a program is wanted, as the config has it.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Setup {
    /// The program and its arguments; a name without a slash is looked for in the child's PATH.
    pub(in crate::server) argv: Vec<String>,
    /// `NAME` passes talkback's own value on, `NAME=value` sets one.
    pub(in crate::server) environment: Vec<String>,
    /// Empty = talkback's own.
    pub(in crate::server) directory: PathBuf,
    /// A name or a number; empty = talkback's own.
    pub(in crate::server) user: String,
    /// A name or a number; empty = the user's, or talkback's own.
    pub(in crate::server) group: String,
    /// RLIMIT_AS; 0 = inherited.
    pub(in crate::server) max_memory_bytes: u64,
    /// RLIMIT_CPU, in whole seconds; 0 = inherited.
    pub(in crate::server) max_cpu_time: Duration,
    /// RLIMIT_NOFILE; 0 = inherited.
    pub(in crate::server) max_open_files: u64,
}

/// A program that can be run.
#[derive(Clone)]
pub(in crate::server) struct Program {
    /// Its listener, for the log.
    pub(super) listener: String,
    /// The file that was found.
    pub(super) file: PathBuf,
    /// As configured.
    pub(super) argv: Vec<String>,
    /// All that its environment holds, but for what an order adds.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// `None` = talkback's own.
    pub(super) directory: Option<PathBuf>,
    /// As whom it runs, as the end of a sentence; empty = as talkback itself.
    pub(super) account: String,
    /// `None` = talkback's own.
    pub(super) user: Option<u32>,
    /// `None` = talkback's own.
    pub(super) group: Option<u32>,
    /// Whether it gives up talkback's supplementary groups.
    pub(super) drops_groups: bool,
    pub(super) limits: Vec<(Resource, Rlimit)>,
    /// Told of so many lines on standard error, shown or not.
    pub(super) count_lines: Arc<dyn Fn(u64) + Send + Sync>,
}

/// Why a program cannot be run as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No file of that name.
    #[error("there is no program {name:?}{searched}")]
    NotFound {
        /// As configured.
        name: String,
        /// Where it was looked for, as the end of a sentence.
        searched: String,
    },
    /// What was found cannot be executed.
    #[error("{} cannot be executed: {problem}", .file.display())]
    NotExecutable {
        /// What was found.
        file: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The working directory cannot be used.
    #[error("directory {}: {source}", .path.display())]
    Directory {
        /// As configured.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A user or group that this host does not have.
    #[error("{kind} {name:?} {problem}")]
    Account {
        /// `user` or `group`.
        kind: &'static str,
        /// As configured.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A limit above that of this process, which it can only lower.
    #[error("{key} = {wanted} is above the limit of this process, {most} (ulimit -H{flag})")]
    Limit {
        /// The config key.
        key: &'static str,
        /// As configured.
        wanted: u64,
        /// The hard limit.
        most: u64,
        /// The letter of the shell's ulimit.
        flag: char,
    },
}

impl Program {
    /// Finds and checks it. `count_lines` is told of lines on standard error.
    pub(in crate::server) fn resolve(
        listener: &str,
        setup: &Setup,
        count_lines: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Self, ProgramError> {
        Self::resolve_telling_all(listener, setup, count_lines)
            .map_err(|mut faults| faults.remove(0))
    }

    /// Like [`Self::resolve`]; a refusal has everything that stands in the way, at least one thing.
    pub(super) fn resolve_telling_all(
        listener: &str,
        setup: &Setup,
        count_lines: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Self, Vec<ProgramError>> {
        let mut faults = Vec::new();
        let environment = environment(&setup.environment);
        let directory = noted(directory(&setup.directory), &mut faults);
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(OsStr::new(NO_PATH), |(_, value)| value.as_os_str());
        let name = setup.argv.first().map_or("", String::as_str);
        // Where it would be looked for may depend on the directory.
        let file = directory.as_ref().and_then(|directory| {
            let directory = directory.as_deref().unwrap_or(Path::new("."));
            noted(find(name, path, directory), &mut faults)
        });
        let ids = user_and_group(&setup.user, &setup.group, &mut faults);
        let limits = noted(limits(setup), &mut faults);
        let (Some(directory), Some(file), Some((user, group)), Some(limits)) =
            (directory, file, ids, limits)
        else {
            return Err(faults);
        };
        Ok(Self {
            listener: listener.to_owned(),
            file,
            argv: setup.argv.clone(),
            environment,
            directory,
            account: account(setup),
            user,
            group,
            // Who has no right to change them runs as itself.
            drops_groups: user.or(group).is_some() && may(CapabilitySet::SETGID),
            limits,
            count_lines: Arc::new(count_lines),
        })
    }

    /// The same with more in its environment, which stands for what it has of the same name.
    pub(in crate::server) fn with(mut self, environment: Vec<(String, String)>) -> Self {
        let added = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.environment.extend(added);
        self
    }
}

fn account(setup: &Setup) -> String {
    match (setup.user.as_str(), setup.group.as_str()) {
        ("", "") => String::new(),
        ("", group) => format!(" as group {group}"),
        (user, "") => format!(" as user {user}"),
        (user, group) => format!(" as user {user} and group {group}"),
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Program").field("argv", &self.argv).finish_non_exhaustive()
    }
}

fn environment(entries: &[String]) -> Vec<(OsString, OsString)> {
    let variable = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => Some((name.into(), value.into())),
        None => Some((entry.into(), env::var_os(entry)?)),
    };
    entries.iter().filter_map(variable).collect()
}

fn directory(path: &Path) -> Result<Option<PathBuf>, ProgramError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let looked = fs::metadata(path).and_then(|found| match found.is_dir() {
        true => std::path::absolute(path),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    looked.map(Some).map_err(|source| ProgramError::Directory { path: path.to_owned(), source })
}

/// The file that execvp(3) would take, whose path then needs no search.
fn find(name: &str, path: &OsStr, directory: &Path) -> Result<PathBuf, ProgramError> {
    let absolute = |file: PathBuf| std::path::absolute(&file).unwrap_or(file);
    if name.contains('/') {
        let file = absolute(directory.join(name));
        return match check(&file) {
            Ok(()) => Ok(file),
            Err(Obstacle::Absent) => {
                let searched = format!(" ({})", file.display());
                Err(ProgramError::NotFound { name: name.to_owned(), searched })
            }
            Err(Obstacle::Problem(problem)) => Err(ProgramError::NotExecutable { file, problem }),
        };
    }
    let mut obstacle = None;
    // An empty part of it means the working directory.
    for part in env::split_paths(path).filter(|_| !name.is_empty()) {
        let file = absolute(directory.join(part).join(name));
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(Obstacle::Absent) => {}
            Err(Obstacle::Problem(problem)) => {
                obstacle.get_or_insert(ProgramError::NotExecutable { file, problem });
            }
        }
    }
    let searched = format!(" in {}, its PATH", path.display());
    Err(obstacle.unwrap_or(ProgramError::NotFound { name: name.to_owned(), searched }))
}

enum Obstacle {
    Absent,
    Problem(String),
}

/// What can be told without running it; the rights of another user cannot.
fn check(file: &Path) -> Result<(), Obstacle> {
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) => {
            let is_absent =
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            let problem = Obstacle::Problem(error.to_string());
            return Err(if is_absent { Obstacle::Absent } else { problem });
        }
    };
    if !found.is_file() {
        return Err(Obstacle::Problem("it is no file".to_owned()));
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Err(Obstacle::Problem("it has no x permission (chmod +x)".to_owned()));
    }
    match interpreter(file) {
        Some(interpreter) if !interpreter.exists() => {
            let shown = interpreter.display();
            Err(Obstacle::Problem(format!("its first line names {shown:?}, which is not there")))
        }
        _ => Ok(()),
    }
}

/// What the first line of a script names.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    // A program that may be executed but not read is fine.
    fs::File::open(file).ok()?.take(FIRST_LINE_BYTES).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // The kernel takes a CR for a part of the name.
    let named = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(Path::new(OsStr::from_bytes(named)).to_owned())
}

/// What could be had; else its fault is noted.
fn noted<T>(result: Result<T, ProgramError>, faults: &mut Vec<ProgramError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn no_account(kind: &'static str, name: &str, problem: impl Into<String>) -> ProgramError {
    ProgramError::Account { kind, name: name.to_owned(), problem: problem.into() }
}

const UNKNOWN: &str = "is unknown on this host";

type Ids = (Option<u32>, Option<u32>);

fn user_and_group(user: &str, group: &str, faults: &mut Vec<ProgramError>) -> Option<Ids> {
    let found = noted(known_user(user, group), faults);
    let group_id = noted(known_group(group), faults);
    let (found, group_id) = (found?, group_id?);
    let id = found.as_ref().map(|user| user.id);
    let group_id = group_id.or(found.and_then(|user| user.group));
    noted(may_become(user, id, group, group_id), faults).map(|()| (id, group_id))
}

fn known_user(user: &str, group: &str) -> Result<Option<accounts::User>, ProgramError> {
    if user.is_empty() {
        return Ok(None);
    }
    let found =
        accounts::user(user).map_err(|error| no_account("user", user, error.to_string()))?;
    let found = found.ok_or_else(|| no_account("user", user, UNKNOWN))?;
    if found.group.is_none() && group.is_empty() {
        let problem = "has no account on this host, and so no group: name one";
        return Err(no_account("user", user, problem));
    }
    Ok(Some(found))
}

fn known_group(group: &str) -> Result<Option<u32>, ProgramError> {
    if group.is_empty() {
        return Ok(None);
    }
    let found =
        accounts::group_id(group).map_err(|error| no_account("group", group, error.to_string()))?;
    found.map(Some).ok_or_else(|| no_account("group", group, UNKNOWN))
}

fn may_become(
    user: &str,
    id: Option<u32>,
    group: &str,
    group_id: Option<u32>,
) -> Result<(), ProgramError> {
    if id.is_some_and(|id| id != geteuid().as_raw()) && !may(CapabilitySet::SETUID) {
        let problem = "needs a talkback that runs as root (or with CAP_SETUID)";
        return Err(no_account("user", user, problem));
    }
    if group_id.is_some_and(|id| id != getegid().as_raw()) && !may(CapabilitySet::SETGID) {
        let (kind, name) = if group.is_empty() { ("user", user) } else { ("group", group) };
        let problem = "needs a talkback that runs as root (or with CAP_SETGID)";
        return Err(no_account(kind, name, problem));
    }
    Ok(())
}

/// Whether this process has that right; root in a container may lack it.
fn may(right: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(right))
}

/// What the child sets. It may lower its limits as any user, and raise none.
fn limits(setup: &Setup) -> Result<Vec<(Resource, Rlimit)>, ProgramError> {
    let seconds = setup.max_cpu_time.as_secs() + u64::from(setup.max_cpu_time.subsec_nanos() > 0);
    let mut limits = vec![(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })];
    for (key, resource, wanted, flag) in [
        ("max_memory_bytes", Resource::As, setup.max_memory_bytes, 'v'),
        ("max_cpu_time", Resource::Cpu, seconds, 't'),
        ("max_open_files", Resource::Nofile, setup.max_open_files, 'n'),
    ] {
        if wanted == 0 {
            continue;
        }
        let hard = getrlimit(resource).maximum;
        if let Some(most) = hard.filter(|most| wanted > *most) {
            return Err(ProgramError::Limit { key, wanted, most, flag });
        }
        // SIGXCPU comes at the soft limit, SIGKILL for who ignores it at the hard one.
        let spare = u64::from(matches!(resource, Resource::Cpu));
        let maximum = (wanted + spare).min(hard.unwrap_or(u64::MAX));
        limits.push((resource, Rlimit { current: Some(wanted), maximum: Some(maximum) }));
    }
    Ok(limits)
}
