//! What the public types can be used for: held to by the compiler, wherever they are changed.

use std::error::Error;
use std::fmt::Debug;
use std::hash::Hash;

use talkback::client::ConversationError;
use talkback::config::{AddressError, ConfigError};
use talkback::offload::{Offload, Offloaded};
use talkback::server::{Bound, GaveUp, SocketFiles};
use talkback::{
    Answer, Client, Config, Context, Late, Refused, Reply, Responder, Responders, SendError,
    Sender, Server, StartError, Summary, Ticket, from_fn,
};

fn shared<T: Send + Sync + 'static>() {}
fn shown<T: Debug>() {}
fn plain<T: Debug + Clone + PartialEq + Eq + Hash + Send + Sync>() {}
fn error<T: Error + Send + Sync + 'static>() {}

#[test]
fn what_a_program_keeps_may_be_sent_and_shared() {
    shared::<Server>();
    shared::<Config>();
    shared::<Responders>();
    shared::<Offload>();
    shared::<Offloaded>();
    shared::<Ticket>();
    shared::<Sender>();
    shared::<Late>();
    shared::<SocketFiles>();
    shared::<Box<dyn Fn(&Client<'_>) -> Box<dyn Responder> + Send + Sync>>();
}

#[test]
fn values_compare_and_everything_is_shown() {
    plain::<Answer>();
    plain::<Client<'_>>();
    plain::<Bound>();
    plain::<Summary>();
    plain::<SendError>();
    plain::<Late>();
    shown::<Server>();
    shown::<Responders>();
    shown::<Reply<'_>>();
    shown::<Context<'_>>();
    shown::<Offload>();
    shown::<Offloaded>();
}

#[test]
fn errors_go_up_by_a_question_mark() {
    error::<StartError>();
    error::<ConfigError>();
    error::<AddressError>();
    error::<ConversationError>();
    error::<GaveUp>();
    error::<SendError>();
    error::<Refused>();
}

#[test]
fn a_factory_may_choose_among_responders() {
    let responders = Responders::default().with_map("map", str::to_owned).with(
        String::from("either"),
        |client| -> Box<dyn Responder> {
            match client.peer {
                Some(_) => Box::new(from_fn(|_, _, _| Answer::Silence)),
                None => Box::new(from_fn(|_, _, _| Answer::Close)),
            }
        },
    );
    assert_eq!(responders.names().collect::<Vec<_>>(), ["discard", "echo", "either", "map"]);
}
