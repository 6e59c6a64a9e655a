//! The other end of the wire: reaching a server and holding a conversation with it.
//! Nothing of the server is known here, and no terminal, exit code or argument either.

mod address;
mod converse;
mod stream;

pub use address::{Address, AddressError};
pub use converse::{ConversationError, End, Manner, Sending, converse};
pub use stream::{ConnectError, Stream, connect};
