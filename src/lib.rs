//! talkback: a multithreaded TCP text server that you configure instead of write.
//!
//! Clients connect over TCP or a Unix socket, send UTF-8 messages and get a reply to each, until
//! they say `exit` or close. One blocking accept thread a listener hands connections to a fixed
//! pool of workers; each worker owns its connections and serves whichever has input, so that idle
//! clients cannot exhaust the pool. Every connection accepted ends with exactly one reason, which
//! is counted.
//!
//! [`Server::start`] runs a [`Config`]; [`Server::start_with`] adds responders of your own. The
//! program `talkback` is a thin shell around them: it brings flags, signals and the log.

#[cfg(not(target_os = "linux"))]
compile_error!("talkback runs on Linux 5.4 or later: it is built on epoll and Linux's TCP options");

mod accepting;
pub mod client;
mod client_text;
pub mod config;
mod connection;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod metrics;
mod nearest;
pub mod offload;
pub mod responder;
pub mod server;
pub mod sidecar;
mod sys;
pub mod wire;

pub use client_text::ClientText;
pub use config::Config;
pub use offload::offload;
pub use responder::{
    Answer, Client, Context, Late, Reply, Responder, Responders, SendError, Sender, Ticket, from_fn,
};
pub use server::{Server, StartError, Summary};

/// The README's examples are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
