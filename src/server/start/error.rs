//! Why a server did not start, in words that say what, where and what to do.

use std::io;

use crate::config::ConfigError;
use crate::server::command::CommandError;
use crate::sidecar::SidecarError;

/// Why a server did not start. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The config contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener names a responder that nobody brought.
    #[error("listener {listener:?}: no responder is named {responder:?}; there are {known}")]
    UnknownResponder {
        /// The listener's name.
        listener: String,
        /// What it names.
        responder: String,
        /// What there is.
        known: String,
    },
    /// A listener's program does not serve.
    #[error("listener {listener:?}: {source}")]
    Command {
        /// The listener's name.
        listener: String,
        /// Why not.
        source: CommandError,
    },
    /// A listener could not be had.
    #[error("listener {listener:?}: cannot listen on {address}: {source}; {hint}")]
    Listen {
        /// The listener's name.
        listener: String,
        /// Its address as configured.
        address: String,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The sidecar's address could not be had.
    #[error("metrics.address: {0}")]
    Sidecar(#[from] SidecarError),
    /// `max_connections` does not fit the descriptors that the process may open.
    #[error(
        "limits.max_connections needs {sum} descriptors, but this process may open {limit}; \
         raise the limit (ulimit -n, LimitNOFILE=) or lower max_connections"
    )]
    Descriptors {
        /// The sum, written out.
        sum: String,
        /// The soft limit of RLIMIT_NOFILE.
        limit: u64,
    },
    /// The system gave no thread, no epoll set or the like.
    #[error("cannot start {what}: {source}")]
    System {
        /// For what.
        what: String,
        /// Why.
        source: io::Error,
    },
}
