//! What a worker takes out of its second inbox: late answers, texts that nobody asked for, and
//! messages for the programs that live with it.

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
    }

    pub(super) fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Late(reply) => self.take_reply(reply),
            Mail::Push(push) => self.take_push(&push),
            Mail::Request { listener, inquiry } => self.take_request(listener, inquiry),
        }
    }

    fn take_push(&mut self, push: &Push) {
        let Address { slot, generation, .. } = push.address;
        let pushed = match self.connections.get_mut(slot) {
            Some(entry) if entry.generation == generation => {
                let tally = &mut self.tallies[entry.connection.conversation().listener];
                entry.connection.push(push.text.as_deref(), tally)
            }
            _ => Err(LateReplyRefusal::Stale),
        };
        match pushed {
            Ok(()) => self.turn(slot),
            Err(refusal) => self.shared.instruments.count_late_reply_refused(refusal),
        }
    }

    pub(super) fn take_reply(&mut self, reply: LateReply) {
        let address = reply.address;
        let is_panic = matches!(reply.late, Late::Panicked);
        if is_panic {
            self.services.panics.inc();
        }
        let is_taken = match self.connections.get_mut(address.slot) {
            Some(entry) if entry.generation == address.generation => {
                let tally = &mut self.tallies[entry.connection.conversation().listener];
                entry.connection.answer_late(reply, tally)
            }
            _ => false,
        };
        if is_taken {
            self.turn(address.slot);
        } else if !is_panic {
            self.shared.instruments.count_late_reply_refused(LateReplyRefusal::Stale);
        }
    }
}
