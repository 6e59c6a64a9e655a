//! The built program over real sockets.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod connect;
mod harness;
