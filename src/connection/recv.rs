//! Bytes from the kernel, and what the framer and the responder make of them.

use std::ops::Range;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tracing::debug;

use crate::client_text::ClientText;
use crate::metrics::CloseReason;
use crate::responder::Service;
use crate::wire::{Framer, MAX_HELD, MAX_RECEIVE_BYTES, Protocol, Step};

use super::ask::Question;
use super::{Budget, Connection, Turn, peer_name};

/// What one receive came to.
pub(super) enum Received {
    /// Bytes, with those held from before in front of them: their place in the buffer.
    Bytes(Range<usize>),
    /// The peer's FIN.
    EndOfInput,
    /// Nothing there now.
    WouldBlock,
    /// A stop is under way and the last receive is done.
    StopDue,
    Failed(Errno),
}

/// Why answering stopped.
pub(super) enum Stop {
    /// Everything received is answered.
    UsedUp,
    /// By the turn's budget, the bound on pending bytes, or a reply that comes later.
    Held,
    /// The connection is not read any more.
    End(CloseReason),
    /// The same by what the client said, which its responder may owe something before.
    Leave(CloseReason),
    /// The responder wants a reset.
    Cut,
    /// The responder panicked.
    Panicked,
    Failed(Errno),
}

impl Connection {
    /// At most one system call, none if the last one showed that nothing is there.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
        budget: &mut Budget,
    ) -> Received {
        if self.last_receive == Some(0) {
            return Received::StopDue;
        }
        if !self.readiness.readable {
            return self.nothing_there();
        }
        let held = self.framer.held();
        let start = MAX_HELD - held.len();
        buffer[start..MAX_HELD].copy_from_slice(held);
        let left = self.last_receive.map_or(MAX_RECEIVE_BYTES, |left| left as usize);
        let room = self.conversation.receive_bytes.min(left);
        match receive_into(&self.socket, &mut buffer[MAX_HELD..MAX_HELD + room]) {
            Ok(0) => {
                self.has_input_ended = true;
                Received::EndOfInput
            }
            Ok(length) => {
                // A short receive has drained the socket, unless it stopped at an urgent mark or a
                // FIN or reset stands behind it: no further event would tell of those.
                if length < room && !self.readiness.until_empty && self.last_receive.is_none() {
                    self.readiness.readable = false;
                }
                if let Some(left) = &mut self.last_receive {
                    *left = left.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
                }
                self.received_bytes += length as u64;
                turn.tally.received_bytes += length as u64;
                budget.bytes = budget.bytes.saturating_sub(length);
                Received::Bytes(start..MAX_HELD + length)
            }
            Err(Errno::AGAIN) => {
                self.readiness.readable = false;
                self.readiness.until_empty = false;
                self.nothing_there()
            }
            Err(error) => Received::Failed(error),
        }
    }

    /// Whether a client from whom nothing is received any more has ended its side: it has a reason
    /// of its own.
    #[cold]
    pub(super) fn has_said_all(&mut self) -> bool {
        let peeked = recv(&self.socket, &mut [0; 1][..], RecvFlags::PEEK);
        let has_ended = !self.is_finished && matches!(peeked, Ok((0, _)));
        self.has_input_ended |= has_ended;
        has_ended
    }

    fn nothing_there(&self) -> Received {
        if self.last_receive.is_some() { Received::StopDue } else { Received::WouldBlock }
    }

    /// Answers a chunk just received; what it must leave is copied out of the worker's buffer.
    pub(super) fn answer_chunk(
        &mut self,
        chunk: &[u8],
        turn: &mut Turn<'_>,
        budget: &mut Budget,
    ) -> Stop {
        let mut at = 0;
        let stop = self.answer(chunk, &mut at, turn, budget);
        if matches!(stop, Stop::Held) {
            self.rest = chunk[at..].into();
            self.rest_at = 0;
        }
        stop
    }

    /// Goes on with what an earlier turn left.
    pub(super) fn answer_rest(&mut self, turn: &mut Turn<'_>, budget: &mut Budget) -> Stop {
        let rest = std::mem::take(&mut self.rest);
        // The end of input can hold too, and leaves no rest behind.
        let mut at = std::mem::take(&mut self.rest_at) as usize;
        let stop = self.answer(&rest, &mut at, turn, budget);
        if matches!(stop, Stop::Held) && at < rest.len() {
            self.rest = rest;
            self.rest_at = u32::try_from(at).expect("a rest is at most one receive");
        }
        stop
    }

    /// The end of input: an unfinished message is finished.
    pub(super) fn answer_end(&mut self, turn: &mut Turn<'_>, budget: &mut Budget) -> Stop {
        self.answer(&[], &mut 0, turn, budget)
    }

    /// Answers the messages of `chunk` from `at` on, and sends the replies in as few sends as the
    /// bound on pending bytes allows.
    fn answer(
        &mut self,
        chunk: &[u8],
        at: &mut usize,
        turn: &mut Turn<'_>,
        budget: &mut Budget,
    ) -> Stop {
        let stop = loop {
            let stop = self.gather(chunk, at, turn, budget);
            if let Err(error) = self.send_gathered(chunk, turn) {
                break Stop::Failed(error);
            }
            // If the kernel took everything, the bound was not one.
            let goes_on = matches!(stop, Stop::Held)
                && self.pending.is_empty()
                && self.awaited.is_none()
                && budget.messages > 0;
            if !goes_on {
                break stop;
            }
        };
        self.is_stopped = matches!(stop, Stop::Held);
        if self.is_stopped {
            // What may be a long line is not kept beside the rest behind it.
            self.framer.forget_given();
        }
        stop
    }

    /// Gathers replies until the chunk is used up or something holds.
    fn gather(
        &mut self,
        chunk: &[u8],
        at: &mut usize,
        turn: &mut Turn<'_>,
        budget: &mut Budget,
    ) -> Stop {
        let conversation = &*self.conversation;
        let protocol = &conversation.protocol;
        let mut takes_runs = matches!(conversation.service, Service::Echo);
        loop {
            let unsent = self.pending.len() + turn.outgoing.len();
            if budget.messages == 0 || unsent > conversation.max_pending_bytes {
                return Stop::Held;
            }
            if takes_runs && !self.framer.is_unfinished() {
                let room = conversation.max_pending_bytes - unsent;
                let framer = &mut self.framer;
                match turn.echo_next_run(framer, protocol, chunk, at, budget.messages, room) {
                    Some(messages) => {
                        budget.messages -= messages;
                        self.messages += messages as u64;
                        if *at == chunk.len() && !self.has_input_ended {
                            return Stop::UsedUp;
                        }
                        continue;
                    }
                    // What ended the run would end most tries after it, each at the cost of a pass.
                    None => takes_runs = false,
                }
            }
            let step = match self.framer.next(protocol, chunk, at) {
                Step::More if self.has_input_ended => self.framer.finish(protocol),
                step => step,
            };
            let message = match step {
                Step::Message(message) => message,
                Step::More if self.has_input_ended => {
                    let asked = self.ask_to_finish(turn);
                    return asked.unwrap_or(Stop::End(end_of_input(self.received_bytes)));
                }
                Step::More => return Stop::UsedUp,
                Step::Exit => return Stop::Leave(CloseReason::Exit),
                Step::InvalidUtf8 => return self.refuse(CloseReason::InvalidUtf8, chunk, *at),
                Step::TooLong => return self.refuse(CloseReason::MessageTooLong, chunk, *at),
            };
            budget.messages -= 1;
            self.messages += 1;
            turn.count_message(message.text.len());
            let terminator = protocol.terminator();
            match (&conversation.service, &mut self.responder) {
                (Service::Echo, _) => {
                    turn.outgoing.echo(chunk, &message, terminator);
                    turn.tally.replies += 1;
                }
                (Service::Discard, _) | (Service::Custom(_), None) => {}
                (Service::Custom(_), Some(responder)) => {
                    let text = &message.text;
                    let respond: Question<'_> =
                        &mut |responder, reply, context| responder.respond(text, reply, context);
                    let asked =
                        turn.ask(&mut **responder, chunk, self.messages, terminator, respond);
                    let heeded = asked.heed(&mut self.awaited, self.messages, conversation);
                    if let Some(stop) = heeded {
                        return stop;
                    }
                }
            }
        }
    }
}

impl Connection {
    /// Ends the reading by what the client said. Its beginning tells an operator what kind of
    /// client that is.
    #[cold]
    fn refuse(&self, reason: CloseReason, chunk: &[u8], at: usize) -> Stop {
        debug!(
            listener = self.conversation.name,
            peer = peer_name(self.peer),
            reason = reason.label(),
            text = %ClientText::new(self.framer.refused(chunk, at)),
            "message refused"
        );
        Stop::Leave(reason)
    }
}

impl Turn<'_> {
    fn count_message(&mut self, bytes: usize) {
        self.tally.messages += 1;
        self.recorders.message_bytes.observe(bytes as u64);
    }

    /// Echoes as many messages as lie behind each other as their own echoes, and tells how many.
    fn echo_next_run(
        &mut self,
        framer: &mut Framer,
        protocol: &Protocol,
        chunk: &[u8],
        at: &mut usize,
        most: usize,
        room: usize,
    ) -> Option<usize> {
        let sizes = &mut self.recorders.message_bytes;
        let run = framer.next_run(protocol, chunk, at, most, room, |size| sizes.hold(size as u64));
        let Some(run) = run else {
            sizes.forget_held();
            return None;
        };
        sizes.count_held();
        self.tally.messages += run.messages as u64;
        self.tally.replies += run.messages as u64;
        self.outgoing.echo_run(chunk, run.bytes);
        Some(run.messages)
    }
}

/// One recv(2); an interrupted one is tried again.
pub(super) fn receive_into(
    socket: &std::os::fd::OwnedFd,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn end_of_input(received_bytes: u64) -> CloseReason {
    if received_bytes == 0 { CloseReason::Unused } else { CloseReason::PeerClosed }
}
