//! What the processes of a shared program write: each line is the reply to who was asked first, or
//! ends its process.

use std::time::Instant;

use rustix::io::Errno;
use tracing::warn;

use crate::client_text::ClientText;
use crate::server::command::outbox::Outbox;
use crate::server::command::pipes::{TooLong, read_into};
use crate::server::command::pool::{Doing, Key, Line};

use super::{Asker, Desk, SharedProgram};

impl SharedProgram {
    pub(super) fn read(&mut self, key: Key, until_empty: bool, desk: &mut Desk<'_>) {
        loop {
            let Some(running) = self.running(key) else { return };
            let Some(output) = &running.output else { return };
            let length = match read_into(output, desk.buffer) {
                Ok(0) => {
                    running.output = None;
                    return self.pool.hung_up(desk.now, key);
                }
                Ok(length) => length,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    running.output = None;
                    return self.pool.hung_up(desk.now, key);
                }
            };
            let mut lines = std::mem::take(&mut running.lines);
            if self.plan.is_trial {
                if let Some(proof) = &mut self.proof {
                    proof.note_output();
                }
                return self.deafen(key);
            }
            let is_all = length < desk.buffer.len() && !until_empty;
            let mut at = 0;
            let most = self.plan.max_reply_bytes;
            while let Some(line) = lines.next(&desk.buffer[..length], &mut at, most) {
                if !self.take_line(key, line, desk.outbox, desk.now) {
                    return;
                }
            }
            if let Some(running) = self.running(key) {
                running.lines = lines;
            }
            if is_all {
                return;
            }
        }
    }

    /// The beginning of a line from a process that owes nothing would become part of the next
    /// reply.
    pub(super) fn check_idle(&mut self, key: Key, desk: &mut Desk<'_>) {
        if let Some(running) = self.running(key)
            && !running.lines.begun().is_empty()
            && self.pool.doing(key) == Some(Doing::Waits)
        {
            let lines = self.running(key).map(|running| std::mem::take(&mut running.lines));
            let begun = lines.unwrap_or_default();
            self.take_line(key, Ok(begun.begun()), desk.outbox, desk.now);
        }
    }

    /// Whether the process is read on.
    fn take_line(
        &mut self,
        key: Key,
        line: Result<&[u8], TooLong>,
        outbox: &mut Outbox,
        now: Instant,
    ) -> bool {
        let Ok(line) = line else {
            let pid = self.pid(key);
            let (listener, most) = (&self.plan.name, self.plan.max_reply_bytes);
            warn!(listener, pid, most, "a reply is longer than max_reply_bytes");
            self.pool.violated(now, key);
            self.deafen(key);
            return false;
        };
        match self.pool.line(now, key) {
            Line::Reply(Asker::Client(ticket, _), took) => {
                self.recorders.observe_reply(took);
                self.keep_unsent(outbox.answer_line(ticket, line), now);
            }
            Line::Reply(Asker::Proof, _) => {
                let has_read = self.running(key).is_some_and(|it| it.input.unread() == 0);
                if let Some(proof) = &mut self.proof {
                    proof.note_reply(line, has_read, now);
                }
            }
            Line::Unasked => {
                let pid = self.pid(key);
                let (listener, text) = (&self.plan.name, ClientText::new(line));
                warn!(listener, pid, %text, "a process wrote a line that nobody asked for");
                if let Some(proof) = &mut self.proof {
                    proof.note_unasked(line);
                }
                self.deafen(key);
                return false;
            }
            Line::Unheard => {
                self.deafen(key);
                return false;
            }
        }
        self.show(key);
        true
    }

    /// What the process writes from now on concerns nobody.
    fn deafen(&mut self, key: Key) {
        if let Some(running) = self.running(key) {
            running.output = None;
        }
    }

    pub(super) fn pid(&mut self, key: Key) -> Option<u32> {
        self.running(key).map(|running| running.id.pid())
    }
}
