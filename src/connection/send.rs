//! Replies on their way: gathered for one send, kept where the kernel does not take them.

use std::ops::Range;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::wire::{MAX_RECEIVE_BYTES, Message};

use super::{Connection, Turn};

/// What a worker keeps of the buffer in which replies are gathered.
const KEPT_BYTES: usize = 4 * MAX_RECEIVE_BYTES;

/// The replies of one turn, gathered so that they leave in one send. Echoes are a run of the
/// received chunk as long as they are contiguous there, and copied only when they are not.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The replies so far are these bytes of the chunk, if nothing is copied.
    run: Range<usize>,
    copied: Vec<u8>,
}

impl Default for Outgoing {
    /// Its buffer is there from the start, where untouched pages cost nothing. Made later, among
    /// the buffers of connections, it would keep the allocator from giving those back.
    fn default() -> Self {
        Self { run: 0..0, copied: Vec::with_capacity(KEPT_BYTES) }
    }
}

impl Outgoing {
    /// Bytes gathered.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.run.len() + self.copied.len()
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the echo of `message`, which `chunk` was cut into.
    pub(super) fn echo(&mut self, chunk: &[u8], message: &Message<'_>, terminator: &str) {
        if let Some(verbatim) = &message.verbatim {
            return self.echo_run(chunk, verbatim.clone());
        }
        let copied = self.copied(chunk);
        copied.extend_from_slice(message.text.as_bytes());
        copied.extend_from_slice(terminator.as_bytes());
    }

    /// Adds these bytes of the chunk, which are echoes as they stand.
    pub(super) fn echo_run(&mut self, chunk: &[u8], bytes: Range<usize>) {
        if !self.copied.is_empty() {
            self.copied.extend_from_slice(&chunk[bytes]);
        } else if self.run.is_empty() {
            self.run = bytes;
        } else if self.run.end == bytes.start {
            self.run.end = bytes.end;
        } else {
            self.copied(chunk).extend_from_slice(&chunk[bytes]);
        }
    }

    /// The replies so far as a buffer to add to.
    pub(super) fn copied(&mut self, chunk: &[u8]) -> &mut Vec<u8> {
        self.copied.extend_from_slice(&chunk[std::mem::take(&mut self.run)]);
        &mut self.copied
    }

    fn bytes<'a>(&'a self, chunk: &'a [u8]) -> &'a [u8] {
        if self.copied.is_empty() { &chunk[self.run.clone()] } else { &self.copied }
    }

    fn clear(&mut self) {
        self.run = 0..0;
        self.copied.clear();
        // One long reply must not keep its memory with the worker for ever.
        self.copied.shrink_to(KEPT_BYTES);
    }
}

/// Replies that the kernel has not taken, sent on by offset. Owns memory only while it holds some.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    at: usize,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds to the end; memory grows by doubling up to `most` bytes, and beyond by what is needed.
    pub(super) fn append(&mut self, parts: &[&[u8]], most: usize) {
        let added = parts.iter().map(|part| part.len()).sum::<usize>();
        // What was sent makes room before memory grows.
        if self.at > 0 && self.bytes.len() + added > self.bytes.capacity() {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        let length = self.bytes.len() + added;
        if length > self.bytes.capacity() {
            let wanted = length.max((2 * self.bytes.capacity()).min(most));
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    fn consume(&mut self, sent: usize) {
        self.at += sent;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

impl Connection {
    /// Gives the gathered replies to the kernel, behind what is pending already.
    // Else the way of an echo would pay for another caller.
    #[inline(always)]
    pub(super) fn send_gathered(&mut self, chunk: &[u8], turn: &mut Turn<'_>) -> Result<(), Errno> {
        if turn.outgoing.is_empty() {
            return Ok(());
        }
        let bytes = turn.outgoing.bytes(chunk);
        let result = if self.pending.is_empty() && self.readiness.writable {
            send(&self.socket, bytes, SendFlags::NOSIGNAL)
        } else {
            Ok(0)
        };
        let result = match result {
            Ok(sent) => {
                self.count_sent(sent, turn.tally);
                Ok(sent)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error),
        };
        let taken = *result.as_ref().unwrap_or(&0);
        if taken < bytes.len() {
            self.readiness.writable = false;
            // Kept in any case: where the connection failed, it counts as thrown away.
            self.pending.append(&[&bytes[taken..]], self.conversation.max_pending_bytes);
        }
        turn.outgoing.clear();
        result.map(|_| ())
    }

    /// Keeps the gathered replies behind what is pending already.
    pub(super) fn keep_gathered(&mut self, chunk: &[u8], turn: &mut Turn<'_>) {
        let bytes = turn.outgoing.bytes(chunk);
        self.pending.append(&[bytes], self.conversation.max_pending_bytes);
        turn.outgoing.clear();
    }

    /// Gives pending replies to the kernel, if it may take some.
    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) -> Result<(), Errno> {
        while self.readiness.writable && !self.pending.is_empty() {
            match send(&self.socket, &self.pending.bytes[self.pending.at..], SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.count_sent(sent, turn.tally);
                    self.pending.consume(sent);
                    self.readiness.writable = self.pending.is_empty();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readiness.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn count_sent(&mut self, sent: usize, tally: &mut crate::metrics::Tally) {
        self.sent_bytes += sent as u64;
        tally.sent_bytes += sent as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_replies_take_no_more_memory_than_the_bound_and_one_reply() {
        const MOST: usize = 1000;
        for reply in [1, 7, 300, 1000, 5000] {
            let mut pending = Pending::default();
            for _ in 0..50 {
                while pending.len() <= MOST {
                    pending.append(&[&vec![b'x'; reply]], MOST);
                }
                let held = pending.bytes.capacity();
                assert!(held <= MOST + reply, "{held} bytes for replies of {reply}");
                pending.consume(pending.len().min(401));
            }
        }
    }

    #[test]
    fn pending_replies_that_are_all_sent_leave_no_memory_behind() {
        let mut pending = Pending::default();
        pending.append(&[b"one", b"\n"], 1000);
        pending.consume(3);
        pending.consume(1);
        assert_eq!(pending.bytes.capacity(), 0);
    }
}
