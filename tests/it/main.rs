//! The built program over real sockets.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod closing;
mod connect;
mod conversation;
mod descriptors;
mod drain;
mod harness;
mod idle;
mod ledger;
mod library;
mod limits;
mod listeners;
mod log;
mod program;
mod refused;
mod sidecar;
mod signals;
mod stalled;
mod stop;
mod stuck;
mod tables;
mod timeouts;
mod unix;
mod user_timeout;
mod utf8;
mod volume;
