//! The built program over real sockets.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod closing;
mod connect;
mod conversation;
mod harness;
mod utf8;
mod volume;
