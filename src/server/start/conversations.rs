//! What the connections of each listener have in common: how they are answered, and within which
//! bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::commands::is_relayed;
use crate::config::{Config, Listener};
use crate::connection::{Conversation, Timeouts};
use crate::responder::rules::Rules;
use crate::responder::{Responders, Service};
use crate::wire::{Framing, MAX_RECEIVE_BYTES, Protocol};

/// How listeners are answered, by their places in the config.
pub(super) type Services = BTreeMap<usize, Service>;

/// What answers without a program.
pub(super) fn services(config: &Config, responders: &Responders) -> Result<Services, StartError> {
    let listeners = config.listeners.iter().enumerate();
    let plain = listeners.filter(|(_, listener)| listener.command.is_none());
    plain.map(|(index, listener)| Ok((index, service(listener, responders)?))).collect()
}

pub(super) fn conversations(
    config: &Config,
    services: &Services,
    commands: &Services,
) -> Vec<Arc<Conversation>> {
    let limits = &config.limits;
    let conversation = |(index, listener): (usize, &Listener)| {
        let service = services.get(&index).or_else(|| commands.get(&index));
        let service = service.expect("every listener has one");
        Arc::new(Conversation {
            listener: index,
            name: listener.name.clone(),
            protocol: Protocol {
                framing: listener.framing,
                invalid_utf8: listener.invalid_utf8,
                exit_word: listener.exit_word().as_bytes().into(),
                max_message_bytes: listener.max_message_bytes,
            },
            service: service.clone(),
            is_heard_out: is_relayed(listener),
            reply_timeout: listener.reply_timeout,
            receive_bytes: match listener.framing {
                Framing::Raw => listener.max_message_bytes.min(MAX_RECEIVE_BYTES),
                Framing::Line => MAX_RECEIVE_BYTES,
            },
            max_pending_bytes: limits.max_pending_bytes,
            messages_per_turn: limits.messages_per_turn,
            timeouts: Timeouts {
                idle: unless_zero(limits.idle_timeout),
                message: unless_zero(limits.message_timeout),
                send: unless_zero(limits.send_timeout),
                linger: unless_zero(limits.linger_timeout),
            },
        })
    };
    config.listeners.iter().enumerate().map(conversation).collect()
}

/// What answers a listener's clients: its own rules, or the responder that it names.
fn service(listener: &Listener, responders: &Responders) -> Result<Service, StartError> {
    if let Some(book) = &listener.rules {
        let rules = Rules::compile(book).expect("the config was validated");
        return Ok(Service::Custom(Arc::new(move |client| Box::new(rules.responder(client)))));
    }
    let named = responders.get(&listener.responder);
    named.cloned().ok_or_else(|| StartError::UnknownResponder {
        listener: listener.name.clone(),
        responder: listener.responder.clone(),
        known: responders.names().collect::<Vec<_>>().join(", "),
    })
}

/// A configured zero means never.
pub(super) fn unless_zero(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}
