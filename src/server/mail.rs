//! What a worker's second inbox holds: everything that concerns its connections and does not come
//! from the kernel.

use crate::responder::{LateReply, Push};

/// Something for one worker.
#[derive(Debug)]
pub(super) enum Mail {
    /// An answer that came later.
    Late(LateReply),
    /// A text that nobody asked for.
    Push(Push),
}
