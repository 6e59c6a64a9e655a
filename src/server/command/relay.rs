//! The responder of a connection that has a process of its own: its messages go straight into the
//! process's standard input. What the process writes comes by way of the worker, see `relays`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Address;
use crate::metrics::CloseReason;
use crate::responder::{Answer, Client, Context, Reply, Responder, Ticket};

use super::conduit::{Conduit, State};
use super::keeper::Keeper;
use super::news::{News, Reporter};
use super::program::Program;

/// How long a process may take to start, with all those that were ordered before it.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The first of those that no service has (RFC 6335).
const NOBODYS_PORT: u16 = 49152;

/// What the connections of a listener have in common at one worker.
pub(in crate::server) struct Exchange {
    /// The listener's place in the config.
    pub(in crate::server) listener: usize,
    pub(in crate::server) program: Arc<Program>,
    pub(in crate::server) keeper: Keeper,
    pub(in crate::server) reporter: Reporter,
    /// What ends a message.
    pub(in crate::server) terminator: &'static str,
}

/// One connection's.
pub(in crate::server) struct Relay {
    exchange: Arc<Exchange>,
    environment: Vec<(String, String)>,
    conduit: Option<Arc<Conduit>>,
}

impl Relay {
    pub(in crate::server) fn new(exchange: Arc<Exchange>, client: &Client<'_>) -> Self {
        let environment = tell_of(client.peer, client.local);
        Self { exchange, environment, conduit: None }
    }

    fn tell(&self, news: impl FnOnce(Arc<Conduit>) -> News) {
        if let Some(conduit) = &self.conduit {
            // The worker is there: this is its thread.
            let _ = self.exchange.reporter.tell(news(conduit.clone()));
        }
    }
}

impl Responder for Relay {
    fn open(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let ticket = context.ticket();
        let exchange = &self.exchange;
        let conduit = Arc::new(Conduit {
            address: ticket.address(),
            listener: exchange.listener,
            state: Mutex::new(State { opening: Some(ticket), ..State::default() }),
            is_gone: AtomicBool::new(false),
        });
        self.conduit = Some(conduit.clone());
        self.tell(News::RelayOrdered);
        let environment = std::mem::take(&mut self.environment);
        exchange.reporter.order_relay(&exchange.keeper, conduit, &exchange.program, environment);
        Answer::LaterWithin(START_TIMEOUT)
    }

    fn respond(&mut self, text: &str, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let Some(conduit) = &self.conduit else { return Answer::Failed };
        let mut state = conduit.state.lock();
        // A program that reads no more may still have something to say.
        let Some(input) = &mut state.input else { return Answer::Silence };
        input.send(text.as_bytes(), self.exchange.terminator.as_bytes());
        if !input.is_waiting() {
            return Answer::Silence;
        }
        state.blocked = Some(context.ticket());
        drop(state);
        self.tell(News::RelayBlocked);
        // Bounded by the worker, which knows whether the process still reads or writes.
        Answer::LaterWithin(Duration::MAX)
    }

    fn finish(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let Some(conduit) = &self.conduit else { return Answer::Failed };
        let mut state = conduit.state.lock();
        state.input = None;
        state.finishing = Some(context.ticket());
        drop(state);
        self.tell(News::RelayFinishes);
        // Bounded by the worker, which knows whether the process still says something.
        Answer::LaterWithin(Duration::MAX)
    }

    fn end(&mut self, reason: &str) {
        let Some(conduit) = &self.conduit else { return };
        let mut state = conduit.state.lock();
        let has_timed_out = reason == CloseReason::ResponderTimeout.label();
        state.is_late = state.opening.is_some() && has_timed_out;
        state.is_over = true;
        conduit.is_gone.store(true, Ordering::Relaxed);
        state.input = None;
        let tickets = [state.opening.take(), state.blocked.take(), state.finishing.take()];
        tickets.into_iter().flatten().for_each(Ticket::forgo);
        // One that ends by itself is let, for a while.
        if let Some(process) = state.process.filter(|_| !state.has_said_all) {
            state.is_told = true;
            self.exchange.keeper.end(process);
        }
        drop(state);
        self.tell(News::RelayOver);
    }
}

/// For whom a program answers its self_test: nobody, who seems to have come over the loopback.
pub(in crate::server) fn tell_of_nobody(listens: &Address) -> Vec<(String, String)> {
    let Address::Ip(local) = listens else { return tell_of(None, None) };
    let host: IpAddr = match local {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let at = |port| Some(SocketAddr::new(host, port));
    tell_of(at(NOBODYS_PORT), at(local.port()))
}

/// What programs behind tcpserver and inetd expect in their environment.
fn tell_of(peer: Option<SocketAddr>, local: Option<SocketAddr>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("PROTO", if peer.is_some() { "TCP" } else { "UNIX" }.to_owned());
    if let Some(peer) = peer {
        let (ip, port) = (peer.ip().to_string(), peer.port().to_string());
        set("TCPREMOTEIP", ip.clone());
        set("TCPREMOTEPORT", port.clone());
        set("REMOTE_ADDR", ip);
        set("REMOTE_PORT", port);
    }
    if let Some(local) = local {
        set("TCPLOCALIP", local.ip().to_string());
        set("TCPLOCALPORT", local.port().to_string());
    }
    variables
}
