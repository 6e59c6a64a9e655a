//! The responder of a connection that has a process of its own: its messages go straight into the
//! process's standard input. What the process writes comes by way of the worker, see `relays`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::Address;
use crate::metrics::CommandInstruments;
use crate::metrics::names::{CommandRefusal, ProcessEnd};
use crate::responder::{Answer, Client, Context, Reply, Responder, Ticket};

use super::conduit::{Conduit, Note, Notes};
use super::keeper::Keeper;
use super::life::Life;
use super::news::{News, Reporter};
use super::order::{Order, ProcessId, SpawnError};
use super::pipes::pipes;
use super::program::Program;
use super::status::{by_itself, is_ours};

/// The first of those that no service has (RFC 6335).
const NOBODYS_PORT: u16 = 49152;

/// What the connections of a listener have in common at one worker.
pub(in crate::server) struct Exchange {
    /// The listener's place in the config.
    pub(in crate::server) listener: usize,
    /// The listener's name.
    pub(in crate::server) name: String,
    pub(in crate::server) program: Arc<Program>,
    pub(in crate::server) instruments: Arc<CommandInstruments>,
    pub(in crate::server) keeper: Keeper,
    pub(in crate::server) reporter: Reporter,
    pub(in crate::server) notes: Notes,
    /// What ends a message.
    pub(in crate::server) terminator: &'static str,
}

/// One connection's.
pub(in crate::server) struct Relay {
    exchange: Arc<Exchange>,
    environment: Vec<(String, String)>,
    conduit: Option<Arc<Conduit>>,
}

impl Exchange {
    /// Has a process started for that connection. Until it runs the pipe holds what it is written,
    /// so that the worker need not be woken for its start; and if there is none, the pipe tells.
    fn order(self: &Arc<Self>, conduit: &Arc<Conduit>, environment: Vec<(String, String)>) {
        let (waiting, starting) = (conduit.clone(), conduit.clone());
        let [first, last] = [(); 2].map(|()| (self.clone(), conduit.clone()));
        self.keeper.spawn(Order {
            program: self.program.clone(),
            environment,
            ends: Box::new(move || waiting.take_ends()),
            ordered: Instant::now(),
            connection: Some(Box::new(move || starting.life.progress())),
            started: Box::new(move |result| first.0.started(&first.1, result)),
            ended: Box::new(move |process, status| {
                let (exchange, conduit) = last;
                exchange.ended(conduit, process, status);
            }),
        });
    }

    /// The process that was ordered runs, or does not.
    fn started(&self, conduit: &Conduit, result: Result<ProcessId, SpawnError>) {
        let life = &conduit.life;
        match result {
            Ok(process) => {
                self.instruments.started();
                if life.start(process) {
                    self.keeper.end(process);
                }
            }
            Err(error) => {
                life.fail();
                // Nobody may have taken them, and our end of them tells the worker.
                conduit.close_ends();
                if !matches!(error, SpawnError::Unwanted) {
                    self.note_failure(&error, !life.is_told());
                }
            }
        }
    }

    /// `is_awaited`: its connection has not been refused before.
    fn note_failure(&self, error: &SpawnError, is_awaited: bool) {
        self.instruments.start_failed();
        if is_awaited {
            self.instruments.refused(CommandRefusal::StartFailed);
        }
        warn!(listener = self.name, %error, "a process could not be started");
    }

    fn ended(&self, conduit: Arc<Conduit>, process: ProcessId, status: ExitStatus) {
        let life = &conduit.life;
        // At a stop also those are ended whom nobody has told yet.
        let is_over = life.is_left() || life.is_told();
        let reason = match by_itself(status) {
            // One that crashes or succeeds meanwhile has still done so by itself. With a failure
            // ends also who cleans up at SIGTERM, or minds a pipe that nobody reads.
            ProcessEnd::Signalled if is_over && is_ours(status) => ProcessEnd::ConnectionClosed,
            ProcessEnd::Failed if life.is_told() => ProcessEnd::ConnectionClosed,
            reason => reason,
        };
        self.instruments.ended(reason);
        if life.end() {
            // Where the worker has ended, nobody waits for it any more.
            self.reporter.tell(News::RelayEnded(conduit));
        }
        if matches!(reason, ProcessEnd::Failed | ProcessEnd::Signalled) {
            // Its client may have had no word of why.
            info!(listener = self.name, pid = process.pid(), %status, "a process ended");
        }
    }
}

impl Relay {
    pub(in crate::server) fn new(exchange: Arc<Exchange>, client: &Client<'_>) -> Self {
        let environment = tell_of(client.peer, client.local);
        Self { exchange, environment, conduit: None }
    }

    fn tell(&self, note: impl FnOnce(Arc<Conduit>) -> Note) {
        if let Some(conduit) = &self.conduit {
            self.exchange.notes.leave(note(conduit.clone()));
        }
    }
}

impl Responder for Relay {
    fn open(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let exchange = &self.exchange;
        let pipes = match pipes() {
            Ok(pipes) => pipes,
            Err(error) => {
                exchange.note_failure(&error.into(), true);
                return Answer::Failed;
            }
        };
        let ticket = context.ticket();
        let life = Life::new(exchange.instruments.process());
        let (conduit, output) = Conduit::new(ticket.address(), exchange.listener, life, pipes);
        ticket.forgo();
        let conduit = Arc::new(conduit);
        exchange.order(&conduit, std::mem::take(&mut self.environment));
        self.conduit = Some(conduit);
        self.tell(|conduit| Note::Ordered(conduit, output));
        Answer::Silence
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
        self.tell(Note::Blocked);
        // Bounded by the worker, which knows whether the process still reads or writes.
        Answer::LaterWithin(Duration::MAX)
    }

    fn finish(&mut self, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        let Some(conduit) = &self.conduit else { return Answer::Failed };
        let mut state = conduit.state.lock();
        state.input = None;
        state.finishing = Some(context.ticket());
        drop(state);
        self.tell(Note::Finishes);
        // Bounded by the worker, which knows whether the process still says something.
        Answer::LaterWithin(Duration::MAX)
    }

    fn end(&mut self, _: &str) {
        let Some(conduit) = &self.conduit else { return };
        let mut state = conduit.state.lock();
        state.input = None;
        let tickets = [state.blocked.take(), state.finishing.take()];
        tickets.into_iter().flatten().for_each(Ticket::forgo);
        // One that ends by itself is let, for a while.
        let is_told = !state.has_said_all;
        drop(state);
        match conduit.life.leave(is_told) {
            Some(process) => self.exchange.keeper.end(process),
            None => conduit.close_ends(),
        }
        self.tell(Note::Over);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Instruments;
    use crate::responder;
    use crate::server::command::Setup;
    use crate::server::command::pipes::read_into;

    /// Its connection waits for nothing else.
    #[test]
    fn an_order_that_is_refused_at_once_is_told_by_the_pipe() {
        let setup = Setup { argv: vec!["cat".to_owned()], ..Setup::default() };
        let (keeper, _thread) = Keeper::start(0, || true).unwrap();
        let instruments = Instruments::new([("main", true)], 0, &[], &[]).unwrap().command(0);
        let exchange = Arc::new(Exchange {
            listener: 0,
            name: "main".to_owned(),
            program: Arc::new(Program::resolve("main", &setup, |_| {}).unwrap()),
            instruments: instruments.clone(),
            keeper,
            reporter: Reporter::new(|| {}).0,
            notes: Notes::default(),
            terminator: "",
        });
        let address = responder::Address { slot: 0, generation: 1, message: 0 };
        let life = Life::new(instruments.process());
        let (conduit, output) = Conduit::new(address, 0, life, pipes().unwrap());
        let conduit = Arc::new(conduit);
        exchange.order(&conduit, Vec::new());
        assert!(conduit.life.has_failed());
        assert_eq!(read_into(&output, &mut [0; 8]), Ok(0));
    }
}
