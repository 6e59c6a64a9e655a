//! A program as it is to run, found and checked when the server starts: what would fail at each
//! spawn is an error then.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

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
    /// A name or a number; empty = the user's.
    pub(in crate::server) group: String,
    pub(in crate::server) limits: Limits,
}

/// Resource limits of a process; 0 = inherited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Limits {
    /// RLIMIT_AS.
    pub(in crate::server) max_memory_bytes: u64,
    /// RLIMIT_CPU, in whole seconds.
    pub(in crate::server) max_cpu_time: Duration,
    /// RLIMIT_NOFILE.
    pub(in crate::server) max_open_files: u64,
}

/// A program that can be run.
pub(in crate::server) struct Program {
    /// Its listener, for the log.
    pub(in crate::server) listener: String,
    /// The file that was found.
    pub(in crate::server) file: PathBuf,
    /// As configured.
    pub(in crate::server) argv: Vec<String>,
    /// All that its environment holds, but for what an order adds.
    pub(in crate::server) environment: Vec<(OsString, OsString)>,
    pub(in crate::server) directory: Option<PathBuf>,
    pub(in crate::server) user: Option<u32>,
    pub(in crate::server) group: Option<u32>,
    pub(in crate::server) limits: Limits,
    /// Told of so many lines on standard error, shown or not.
    pub(in crate::server) count_lines: Box<dyn Fn(u64) + Send + Sync>,
}

/// Why a program cannot be run as configured.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum ProgramError {
    /// No file of that name.
    #[error("no such program: {name:?}{searched}")]
    NotFound {
        /// As configured.
        name: String,
        /// Where it was looked for, or nothing.
        searched: String,
    },
    /// A file that cannot be executed.
    #[error("{} cannot be executed: {source}", .file.display())]
    NotExecutable {
        /// What was found.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Program {
    /// Finds and checks it. `count_lines` is told of lines on standard error.
    pub(in crate::server) fn resolve(
        listener: &str,
        setup: &Setup,
        count_lines: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Self, ProgramError> {
        let name = setup.argv.first().cloned().unwrap_or_default();
        if name.is_empty() {
            return Err(ProgramError::NotFound { name, searched: String::new() });
        }
        Ok(Self {
            listener: listener.to_owned(),
            file: name.into(),
            argv: setup.argv.clone(),
            environment: Vec::new(),
            directory: None,
            user: None,
            group: None,
            limits: setup.limits,
            count_lines: Box::new(count_lines),
        })
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Program").field("argv", &self.argv).finish_non_exhaustive()
    }
}
