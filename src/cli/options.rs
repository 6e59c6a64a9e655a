//! The flags that `serve` and `check` share.

use std::path::PathBuf;

use clap::Args;
use talkback::config::{self, ConfigError, Environment, Loaded, Overrides};

/// Where the configuration comes from, and what replaces parts of it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Options {
    /// The configuration [default: $TALKBACK_CONFIG, ./talkback.toml, /etc/talkback/talkback.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen here instead: 0.0.0.0:8889, [::]:8889, unix:/run/x.sock, unix:@name; may be repeated
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,
    /// Threads in the fixed pool: a number, or auto for the CPUs this process may use
    #[arg(short, long, value_name = "N")]
    pub(crate) workers: Option<String>,
    /// Serve /metrics and the other pages here instead; "" for no sidecar
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<String>,
    /// With a program: a process for each client, whose input and output are the conversation
    #[arg(long, requires = "program")]
    pub(crate) per_connection: bool,
    /// A program, and its arguments, that answers each line of every client with a line
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
}

impl Options {
    /// The configuration that these flags choose in the environment of this process.
    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        let Self { config, listen, workers, metrics, per_connection, program } = self.clone();
        let overrides = Overrides {
            config,
            listen,
            workers,
            metrics,
            program,
            per_connection,
            ..Overrides::default()
        };
        config::load(&overrides, &Environment::of_process())
    }
}
