//! What a worker's second inbox holds: everything that concerns its connections, or the programs
//! that live with it, and does not come from the kernel.

use crate::responder::{LateReply, Push};
use crate::server::command::Inquiry;

/// Something for one worker.
#[derive(Debug)]
pub(super) enum Mail {
    /// An answer that came later.
    Late(LateReply),
    /// A text that nobody asked for.
    Push(Push),
    /// A message for the program of that listener, which lives here.
    Request {
        /// The listener's place in the config.
        listener: usize,
        /// The message.
        inquiry: Inquiry,
    },
}
