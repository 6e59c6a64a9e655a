//! The servers that cases run on. One that was not stopped serves the next case with its limits
//! too, and counts on: a stop takes longer than everything else.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use talkback::{Config, Server};

use super::actions::Setup;
use super::contract::MAX_MESSAGE_BYTES;

pub const FULL_MESSAGE: &str = "full\n";

/// Servers at rest, which no case uses now.
#[derive(Default)]
pub struct Servers {
    at_rest: RefCell<Vec<(Setup, Server)>>,
}

impl Servers {
    /// One with that setup.
    pub fn take(&self, setup: &Setup, is_to_stop: bool) -> Result<Server, String> {
        let mut at_rest = self.at_rest.borrow_mut();
        let found = at_rest.iter().position(|(its, _)| its == setup);
        match found.filter(|_| !is_to_stop) {
            Some(at) => Ok(at_rest.swap_remove(at).1),
            None => Server::start(&config(setup, is_to_stop)).map_err(|error| error.to_string()),
        }
    }

    /// Takes back one that has counted right, and that nobody is connected to.
    pub fn give_back(&self, setup: &Setup, server: Server) {
        self.at_rest.borrow_mut().push((setup.clone(), server));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        thread::scope(|scope| {
            for (_, server) in self.at_rest.take() {
                scope.spawn(|| server.drain());
            }
        });
    }
}

fn config(setup: &Setup, has_sidecar: bool) -> Config {
    let mut config = Config::default();
    config.workers = Some(setup.workers);
    let listener = &mut config.listeners[0];
    listener.address = "127.0.0.1:0".parse().unwrap();
    listener.framing = setup.framing;
    listener.invalid_utf8 = setup.invalid_utf8;
    listener.max_message_bytes = MAX_MESSAGE_BYTES;
    // While it stops, a server has no other way to tell its counts.
    config.metrics.address = has_sidecar.then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    // And the witness.
    config.limits.max_connections = Some(setup.max_connections + 1);
    config.limits.max_connections_per_ip = setup.max_connections_per_ip;
    if setup.has_full_message {
        config.limits.full_message = FULL_MESSAGE.to_owned();
    }
    config.limits.messages_per_turn = setup.messages_per_turn;
    config.limits.max_pending_bytes = setup.max_pending_bytes;
    // A connection ends by what its client does, and by nothing else.
    config.limits.linger_timeout = Duration::ZERO;
    config.limits.message_timeout = Duration::ZERO;
    config.limits.idle_timeout = Duration::ZERO;
    config.limits.send_timeout = Duration::from_secs(60);
    config.shutdown.drain_timeout = Duration::from_secs(60);
    config
}
