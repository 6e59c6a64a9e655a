//! What a worker takes out of its second inbox: late answers, and texts that nobody asked for.

use crate::connection::Cause;
use crate::metrics::names::LateReplyRefusal;
use crate::responder::{Address, Late, LateReply, Push};
use crate::server::mail::Mail;

use super::{INBOX_ITEMS_A_TURN, Worker};

impl Worker {
    pub(super) fn take_mail(&mut self) {
        for _ in 0..INBOX_ITEMS_A_TURN {
            let Ok(mail) = self.inboxes.mail.try_recv() else { return };
            self.open_mail(mail);
        }
        self.seat.doorbell().keep_ringing();
    }

    pub(super) fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Late(reply) => self.take_reply(reply),
            Mail::Push(push) => self.take_push(&push),
        }
    }

    fn take_push(&mut self, push: &Push) {
        let Address { slot, generation, .. } = push.address;
        let checked = match self.connections.get(slot) {
            Some(entry) if entry.generation == generation => entry.connection.check_push(push),
            _ => Err(LateReplyRefusal::Stale),
        };
        match checked {
            Ok(()) => self.turn_upon(slot, Some(&Cause::Pushed(push.text.as_deref()))),
            Err(refusal) => self.shared.instruments.count_late_reply_refused(refusal),
        }
    }

    /// What a process wrote for a connection of this worker.
    pub(super) fn take_line(&mut self, address: Address, line: &[u8]) {
        if self.is_awaited(address) {
            self.turn_upon(address.slot, Some(&Cause::AnsweredLine(line)));
        } else {
            self.shared.instruments.count_late_reply_refused(LateReplyRefusal::Stale);
        }
    }

    fn is_awaited(&self, address: Address) -> bool {
        let entry = self.connections.get(address.slot);
        entry.is_some_and(|entry| {
            entry.generation == address.generation && entry.connection.awaits(address.message)
        })
    }

    pub(super) fn take_reply(&mut self, reply: LateReply) {
        let LateReply { address, late } = reply;
        let is_panic = matches!(late, Late::Panicked);
        if is_panic {
            self.services.panics.inc();
        }
        if self.is_awaited(address) {
            self.turn_upon(address.slot, Some(&Cause::Answered(late)));
        } else if !is_panic {
            self.shared.instruments.count_late_reply_refused(LateReplyRefusal::Stale);
        }
    }
}
