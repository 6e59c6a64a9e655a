//! Flag over environment over file over default, and where the file is looked for. The environment
//! is a value, so that tests need not touch that of the process.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::document::{self, Document};
use super::reference::Key;
use super::section::Files;
use super::validate::shortened;
use super::{
    Address, CommandMode, Config, ConfigError, Fault, Listener, LogLevel, Origin, Origins, address,
    command,
};
use crate::wire::Framing;

/// Behind it stands the program on a command line.
const PROGRAM: Origin = Origin::Flag("--");
/// Where a file is looked for that nobody names.
const SEARCHED: [&str; 2] = ["./talkback.toml", "/etc/talkback/talkback.toml"];
/// No configuration is so long; a device or a log named by mistake is not read to its end.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What flags chose, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--listen ADDRESS`, any number of them; they replace the file's listeners.
    pub listen: Vec<String>,
    /// `--workers N`, or `auto`
    pub workers: Option<String>,
    /// `--metrics ADDRESS`: `metrics.address`; empty = no sidecar.
    pub metrics: Option<String>,
    /// `-- PROGRAM ARGUMENTS`: what answers on every listener; empty = what the file says.
    pub program: Vec<String>,
    /// `--per-connection`: each client has a process of its own.
    pub per_connection: bool,
    /// Responders of the program's own, by the names that a listener may have under `responder`
    /// beside the built-in ones, see [`Responders::names`](crate::Responders::names).
    pub responders: Vec<String>,
}

/// The variables that count. An empty one counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `TALKBACK_CONFIG`: the file.
    pub config: Option<OsString>,
    /// `TALKBACK_LISTEN`: addresses with commas between them; they replace the file's listeners.
    pub listen: Option<OsString>,
    /// `TALKBACK_WORKERS`: a number or `auto`.
    pub workers: Option<OsString>,
    /// `TALKBACK_METRICS`: `metrics.address`.
    pub metrics: Option<OsString>,
    /// `TALKBACK_LOG`: `log.level`.
    pub log: Option<OsString>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            config: std::env::var_os("TALKBACK_CONFIG"),
            listen: std::env::var_os("TALKBACK_LISTEN"),
            workers: std::env::var_os("TALKBACK_WORKERS"),
            metrics: std::env::var_os("TALKBACK_METRICS"),
            log: std::env::var_os("TALKBACK_LOG"),
        }
    }
}

/// A configuration that keeps every rule, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each value came from.
    pub origins: Origins,
    /// Where the file was.
    pub source: Source,
}

/// Where the file was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// There was none.
    BuiltIn,
    /// Here.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => out.write_str("built-in defaults"),
            Self::File(path) => write!(out, "{}", path.display()),
        }
    }
}

/// Reads the file that flag or environment names, or else the first of `./talkback.toml` and
/// `/etc/talkback/talkback.toml` that is there, and lays environment and flags over it.
///
/// # Errors
///
/// [`ConfigError::Unreadable`] if the file cannot be read, or is named and not there;
/// [`ConfigError::Invalid`] with everything that is wrong in file, environment and flags. The file
/// is checked as it stands, also where a flag replaces part of it.
///
/// # Examples
/// ```
/// use talkback::config::{Environment, Overrides, load};
///
/// let overrides = Overrides {
///     config: Some("config/talkback.toml".into()),
///     workers: Some("2".to_owned()),
///     ..Overrides::default()
/// };
/// let config = load(&overrides, &Environment::default())?.config;
/// assert_eq!((config.workers, config.listeners[0].name.as_str()), (Some(2), "main"));
/// # Ok::<(), talkback::config::ConfigError>(())
/// ```
///
/// A file may name a responder of your own where its name is known:
/// ```no_run
/// use talkback::config::{Environment, Overrides, load};
/// use talkback::{Responders, Server};
///
/// let responders = Responders::default().with_map("shout", |text| text.to_uppercase());
/// let overrides = Overrides {
///     responders: responders.names().map(str::to_owned).collect(),
///     ..Overrides::default()
/// };
/// let loaded = load(&overrides, &Environment::default())?;
/// let server = Server::start_with(&loaded.config, &responders)?;
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Loaded, ConfigError> {
    load_from(overrides, environment, &SEARCHED.map(PathBuf::from))
}

fn load_from(
    overrides: &Overrides,
    environment: &Environment,
    searched: &[PathBuf],
) -> Result<Loaded, ConfigError> {
    let (source, bytes) = find(overrides, environment, searched)?;
    assemble(source, &bytes, overrides, environment, &contents)
}

/// What the file's bytes come to under environment and flags.
pub(super) fn assemble(
    source: Source,
    bytes: &[u8],
    overrides: &Overrides,
    environment: &Environment,
    files: Files<'_>,
) -> Result<Loaded, ConfigError> {
    let document = match &source {
        Source::BuiltIn => document::read(b"", Path::new(""), files, &[]),
        Source::File(path) => document::read(bytes, path, files, &overrides.responders),
    };
    let mut layers = Layers(document);
    layers.workers(overrides, environment);
    layers.listeners(overrides, environment);
    layers.program(overrides);
    layers.metrics(overrides, environment);
    layers.log_level(environment);
    let Document { config, origins, mut faults } = layers.0;
    if faults.is_empty() {
        faults.extend(config.faults(&origins));
    }
    if !faults.is_empty() {
        return Err(ConfigError::Invalid(faults));
    }
    Ok(Loaded { config, origins, source })
}

fn set(variable: &Option<OsString>) -> Option<&OsString> {
    variable.as_ref().filter(|value| !value.is_empty())
}

/// The file that counts, and what is in it.
fn find(
    overrides: &Overrides,
    environment: &Environment,
    searched: &[PathBuf],
) -> Result<(Source, Vec<u8>), ConfigError> {
    let by_flag = overrides.config.clone().map(|path| (path, Origin::Flag("--config")));
    let by_variable = set(&environment.config)
        .map(|path| (PathBuf::from(path), Origin::Environment("TALKBACK_CONFIG")));
    let named = by_flag.or(by_variable);
    if let Some((path, origin)) = named {
        let named_by = Some(origin);
        return match contents(&path) {
            Ok(bytes) => Ok((Source::File(path), bytes)),
            Err(source) => Err(ConfigError::Unreadable { path, named_by, source }),
        };
    }
    for path in searched {
        match contents(path) {
            Ok(bytes) => return Ok((Source::File(path.clone()), bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ConfigError::Unreadable { path: path.clone(), named_by: None, source });
            }
        }
    }
    Ok((Source::BuiltIn, Vec::new()))
}

pub(super) fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let problem = format!("it is longer than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// The file's values, over which environment and flags are laid.
struct Layers(Document);

impl Layers {
    fn fault(&mut self, origin: &Origin, key: &str, problem: String) {
        let fault = Fault { origin: Some(origin.clone()), key: key.to_owned(), problem };
        self.0.faults.push(fault);
    }

    fn not_allowed(&mut self, origin: &Origin, key: &str, text: &str, problem: &str) {
        let allowed = &Key::find(key).expect("the reference has the key").allowed;
        let text = shortened(&format!("{text:?}"));
        self.fault(origin, key, format!("{text} {problem}; allowed: {allowed}"));
    }

    /// The variable's text; one that is not UTF-8 is a fault.
    fn variable(
        &mut self,
        value: &Option<OsString>,
        name: &'static str,
        key: &str,
    ) -> Option<(String, Origin)> {
        let origin = Origin::Environment(name);
        match set(value)?.to_str() {
            Some(text) => Some((text.to_owned(), origin)),
            None => {
                self.fault(&origin, key, "its value is not UTF-8".to_owned());
                None
            }
        }
    }

    fn workers(&mut self, overrides: &Overrides, environment: &Environment) {
        let key = "workers";
        let flag = overrides.workers.clone().map(|text| (text, Origin::Flag("--workers")));
        let chosen = flag.or_else(|| self.variable(&environment.workers, "TALKBACK_WORKERS", key));
        let Some((text, origin)) = chosen else { return };
        let known = Key::find(key).expect("the reference has the key");
        let (min, max) = known.bounds().expect("the reference has its bounds");
        let number = digits(&text)
            .and_then(|digits| digits.parse::<u64>().ok())
            .filter(|number| (min..=max).contains(number));
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(workers) => self.0.config.workers = Some(workers),
            None if text == "auto" => self.0.config.workers = None,
            None => return self.not_allowed(&origin, key, &text, "is no number of workers"),
        }
        self.0.origins.set(key.to_owned(), origin);
    }

    fn metrics(&mut self, overrides: &Overrides, environment: &Environment) {
        let key = "metrics.address";
        let flag = overrides.metrics.clone().map(|text| (text, Origin::Flag("--metrics")));
        let chosen = flag.or_else(|| self.variable(&environment.metrics, "TALKBACK_METRICS", key));
        let Some((text, origin)) = chosen else { return };
        let Some(read) = address::of_the_sidecar(&text) else {
            return self.not_allowed(&origin, key, &text, address::NOT_OF_THE_SIDECAR);
        };
        self.0.config.metrics.address = read;
        self.0.origins.set(key.to_owned(), origin);
    }

    fn log_level(&mut self, environment: &Environment) {
        let key = "log.level";
        let Some((text, origin)) = self.variable(&environment.log, "TALKBACK_LOG", key) else {
            return;
        };
        match LogLevel::from_word(&text) {
            Some(level) => {
                self.0.config.log.level = level;
                self.0.origins.set(key.to_owned(), origin);
            }
            None => self.not_allowed(&origin, key, &text, "is not known"),
        }
    }

    fn listeners(&mut self, overrides: &Overrides, environment: &Environment) {
        let (written, origin): (Vec<String>, Origin) = if !overrides.listen.is_empty() {
            (overrides.listen.clone(), Origin::Flag("--listen"))
        } else {
            let variable = self.variable(&environment.listen, "TALKBACK_LISTEN", "listener");
            let Some((text, origin)) = variable else { return };
            (text.split(',').map(|address| address.trim().to_owned()).collect(), origin)
        };
        let first = self.0.config.listeners.first().cloned().unwrap_or_default();
        let mut listeners = Vec::new();
        for (index, written) in written.iter().enumerate() {
            match written.parse::<Address>() {
                Ok(address) => listeners.push(moved(&first, index, address)),
                Err(error) => {
                    self.fault(&origin, &format!("listener[{index}].address"), error.to_string());
                }
            }
        }
        self.0.origins.replace_listeners(listeners.len(), &origin);
        self.0.config.listeners = listeners;
    }

    /// A program on the command line answers on every listener. One that is shared needs lines.
    fn program(&mut self, overrides: &Overrides) {
        if overrides.program.is_empty() {
            return;
        }
        let (mode, mode_from) = match overrides.per_connection {
            true => (CommandMode::PerConnection, Origin::Flag("--per-connection")),
            false => (CommandMode::Shared, PROGRAM),
        };
        for (index, listener) in self.0.config.listeners.iter_mut().enumerate() {
            let command = listener.command.take().unwrap_or_default();
            listener.command = Some(command.replaced(overrides.program.clone(), mode));
            listener.responder = command::RESPONDER.to_owned();
            listener.rules = None;
            let mut set = |key: &str, origin: &Origin| {
                self.0.origins.set(format!("listener[{index}].{key}"), origin.clone());
            };
            if mode == CommandMode::Shared {
                listener.framing = Framing::Line;
                set("framing", &PROGRAM);
            }
            set("responder", &PROGRAM);
            set("command", &PROGRAM);
            set("command.program", &PROGRAM);
            set("command.mode", &mode_from);
        }
    }
}

/// `parse` alone would take a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

/// The first listener at another address. What belongs only to its own kind of address stays
/// behind.
fn moved(first: &Listener, index: usize, address: Address) -> Listener {
    let mut listener = Listener { name: format!("listen-{}", index + 1), address, ..first.clone() };
    if !listener.address.is_ipv6() {
        listener.v6only = Listener::default().v6only;
    }
    if !listener.address.is_unix_path() {
        listener.unix_mode = None;
        listener.unix_group = None;
    }
    listener
}

#[cfg(test)]
mod tests;
