//! From a listener's `[listener.command]` to a program that can be run.

use super::{Program, ProgramError, Setup};
use crate::config::{Command, Config};

impl Setup {
    /// What the config says of the program itself.
    pub(in crate::server) fn of(command: &Command) -> Self {
        Self {
            argv: command.program.clone(),
            environment: command.environment.clone(),
            directory: command.directory.clone().into(),
            user: command.user.clone(),
            group: command.group.clone(),
            max_memory_bytes: command.max_memory_bytes,
            max_cpu_time: command.max_cpu_time,
            max_open_files: command.max_open_files,
        }
    }
}

impl ProgramError {
    /// The key of `[listener.command]` that is to blame.
    fn key(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::NotExecutable { .. } => "program",
            Self::Directory { .. } => "directory",
            Self::Account { kind, .. } => kind,
            Self::Limit { key, .. } => key,
        }
    }
}

/// Why the programs of this config cannot be run on this host and by this process, each with the
/// full name of the key that is to blame: what [`Server::start`](crate::Server::start) would refuse
/// it for. Nothing is run.
///
/// # Examples
/// ```
/// use talkback::config::{Command, Config};
///
/// let mut config = Config::default();
/// let mut command = Command::default();
/// command.program = vec!["no-such-program".to_owned()];
/// config.listeners[0].command = Some(command);
/// let (key, error) = &talkback::server::program_faults(&config)[0];
/// assert_eq!(key, "listener[0].command.program");
/// assert!(error.to_string().starts_with("there is no program \"no-such-program\""));
/// ```
#[must_use]
pub fn program_faults(config: &Config) -> Vec<(String, ProgramError)> {
    let mut faults = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(command) = &listener.command else { continue };
        let resolved = Program::resolve_telling_all(&listener.name, &Setup::of(command), |_| ());
        let key = |error: &ProgramError| format!("listener[{index}].command.{}", error.key());
        let errors = resolved.err().unwrap_or_default();
        faults.extend(errors.into_iter().map(|error| (key(&error), error)));
    }
    faults
}
