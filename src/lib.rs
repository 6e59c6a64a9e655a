//! talkback: a multithreaded TCP text server that you configure instead of write.
//!
//! Clients connect over TCP or a Unix socket, send UTF-8 messages and get a reply to each, until
//! they say `exit` or close. One blocking accept thread a listener hands connections to a fixed
//! pool of workers; each worker owns its connections and serves whichever has input, so that idle
//! clients cannot exhaust the pool. Every connection accepted ends with exactly one reason, which
//! is counted.
//!
//! [`Server::start`] runs a [`Config`]; [`Server::start_with`] adds responders of your own:
//!
//! - [`Responders::with_map`] takes a function from text to text;
//! - [`from_fn`] makes a responder of a closure, which keeps the state of its connection;
//! - [`Responder`] is the trait behind both: greeting, answers, last answer, end;
//! - a [`Ticket`] answers later, from any thread, a [`Sender`] sends what nobody asked for;
//! - [`offload()`](offload()) asks responders that block on threads of their own.
//!
//! The directory `examples/` has a key-value store, a chat room and a phone book in SQLite. The
//! program `talkback` is a thin shell around the library: it brings flags, signals and the log.
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use talkback::wire::Framing;
//! use talkback::{Answer, Config, Responders, Server, from_fn};
//!
//! let responders = Responders::default().with("sum", |_client| {
//!     let mut sum = 0;
//!     from_fn(move |text, reply, _context| {
//!         sum += text.parse::<i64>().unwrap_or(0);
//!         reply.push(&sum.to_string());
//!         Answer::Reply
//!     })
//! });
//! let mut config = Config::default();
//! config.listeners[0].address = "127.0.0.1:0".parse()?;
//! config.listeners[0].framing = Framing::Line;
//! config.listeners[0].responder = "sum".to_owned();
//! config.metrics.address = None;
//! let server = Server::start_with(&config, &responders)?;
//!
//! let mut client = TcpStream::connect(server.addresses()[0].ip().expect("an IP listener"))?;
//! client.write_all(b"1\n2\n3\n")?;
//! let mut replies = [0; 6];
//! client.read_exact(&mut replies)?;
//! assert_eq!(&replies, b"1\n3\n6\n");
//! # drop(client);
//! # server.drain();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
#[doc(hidden)]
pub mod metrics;
mod nearest;
pub mod offload;
pub mod responder;
pub mod server;
#[doc(hidden)]
pub mod sidecar;
mod sys;
pub mod wire;

pub use client_text::ClientText;
pub use config::Config;
pub use offload::offload;
pub use responder::{
    Answer, Client, Context, Late, Refused, Reply, Responder, Responders, SendError, Sender,
    Ticket, from_fn,
};
pub use server::{Server, StartError, Summary};

/// The README's examples are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
