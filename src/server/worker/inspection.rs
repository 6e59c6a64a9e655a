//! A worker's answer to an inspection: from its own state, between two turns, a part at a time.

use std::time::Instant;

use crate::server::inspect::Survey;
use crate::server::question::Found;

use super::{Entry, Worker};

/// Slots looked at between two waits: a small part of a millisecond.
const SLOTS_A_TURN: usize = 2048;

impl Worker {
    /// Goes on with the question under way, or takes the next one.
    pub(super) fn answer_questions(&mut self, now: Instant) {
        let next = || self.inboxes.questions.try_recv().ok().map(Survey::new);
        let Some(mut survey) = self.survey.take().or_else(next) else { return };
        if survey.is_late(now) {
            return self.seat.doorbell().keep_ringing();
        }
        let end = self.connections.capacity().min(survey.next + SLOTS_A_TURN);
        for slot in survey.next..end {
            if let Some(entry) = self.connections.get(slot) {
                survey.note(slot, &entry.found());
            }
        }
        survey.next = end;
        if end < self.connections.capacity() {
            self.survey = Some(survey);
        } else {
            survey.conclude(|slot| self.connections.get(slot).map(Entry::found));
            // Another question may have come meanwhile.
            self.seat.doorbell().keep_ringing();
        }
    }
}

impl Entry {
    fn found(&self) -> Found {
        let snapshot = self.connection.snapshot(self.is_queued);
        Found { generation: self.generation, snapshot }
    }
}
