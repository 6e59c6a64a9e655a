//! Answers of programs on their way: to the worker's own connections by its own hand, without a
//! pass through its inbox; to those of other workers through theirs.

use std::ops::Range;
use std::sync::Arc;

use crate::responder::{Address, Late, Mailbox, Ticket};

/// What is kept of the memory for lines.
const KEPT_BYTES: usize = 64 * 1024;

/// An answer for one of the worker's own connections.
#[derive(Debug)]
pub(in crate::server) enum Own {
    /// What a process wrote: this part of [`OwnAnswers::lines`].
    Line(Range<usize>),
    /// Any other.
    Late(Late),
}

/// The answers of the programs that live with one worker.
pub(in crate::server) struct Outbox {
    /// The worker's own.
    mailbox: Arc<dyn Mailbox>,
    to_own: OwnAnswers,
}

/// Those for the worker's own connections.
#[derive(Debug, Default)]
pub(in crate::server) struct OwnAnswers {
    /// With the message that each answers.
    pub(in crate::server) answers: Vec<(Address, Own)>,
    /// The text of those that are lines.
    pub(in crate::server) lines: Vec<u8>,
}

impl Outbox {
    pub(super) fn new(mailbox: Arc<dyn Mailbox>) -> Self {
        Self { mailbox, to_own: OwnAnswers::default() }
    }

    /// Answers in any way.
    ///
    /// # Errors
    /// The inbox of another worker is full; to be tried again.
    pub(super) fn answer(&mut self, ticket: Ticket, late: Late) -> Result<(), (Ticket, Late)> {
        if ticket.is_for(&self.mailbox) {
            self.to_own.answers.push((ticket.address(), Own::Late(late)));
            ticket.forgo();
            return Ok(());
        }
        ticket.resolve(late).map_err(|refused| (refused.ticket, refused.late))
    }

    /// Answers with a line, whose end is added.
    ///
    /// # Errors
    /// See [`Outbox::answer`].
    pub(super) fn answer_line(
        &mut self,
        ticket: Ticket,
        line: &[u8],
    ) -> Result<(), (Ticket, Late)> {
        if !ticket.is_for(&self.mailbox) {
            return self.answer(ticket, Late::Bytes([line, b"\n"].concat()));
        }
        let OwnAnswers { answers, lines } = &mut self.to_own;
        let start = lines.len();
        lines.extend_from_slice(line);
        lines.push(b'\n');
        answers.push((ticket.address(), Own::Line(start..lines.len())));
        ticket.forgo();
        Ok(())
    }

    /// Whether nothing is there for the worker's own connections.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.to_own.answers.is_empty()
    }

    /// All of that.
    pub(in crate::server) fn take(&mut self) -> OwnAnswers {
        std::mem::take(&mut self.to_own)
    }

    /// Gives the memory of what was taken back.
    pub(in crate::server) fn put_back(&mut self, mut memory: OwnAnswers) {
        if self.is_empty() {
            memory.answers.clear();
            memory.lines.clear();
            memory.lines.shrink_to(KEPT_BYTES);
            self.to_own = memory;
        }
    }
}
