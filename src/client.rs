//! The other end of the wire: reaching a server and holding a conversation with it.
//! Nothing of the server is known here, and no terminal, exit code or argument either.
//!
//! # Examples
//! ```
//! use talkback::client::{Manner, connect, converse};
//!
//! # let mut config = talkback::Config::default();
//! # config.listeners[0].address = "127.0.0.1:0".parse()?;
//! # config.metrics.address = None;
//! let server = talkback::Server::start(&config)?;
//! let address = server.addresses()[0].to_string().parse()?;
//! let mut replies = Vec::new();
//! converse(connect(&address)?, &b"hello"[..], &mut replies, Manner::default())?;
//! assert_eq!(replies, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod converse;
mod stream;

pub use address::{Address, AddressError};
pub use converse::{ConversationError, End, Manner, Sending, converse};
pub use stream::{ConnectError, Stream, connect};
