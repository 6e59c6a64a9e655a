//! A real server and the model of it, side by side: what is expected grows with each action, and
//! the counts are compared before the next one.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use talkback::{Server, Summary};

use super::actions::{Action, Case, Setup, Source, Who};
use super::contract::{Conversation, Heard};
use super::counts::{Counts, Flood, Open, Verdict, closed};
use super::peer::{Peer, has_failed, note_failure, wait_for};
use super::servers::Servers;
use crate::harness::{Metrics, get};

/// Beside the clients' addresses.
const WITNESS: Source = 9;

/// The model of one case, and the sockets that it speaks of.
pub struct Stage {
    pub setup: Setup,
    pub address: SocketAddr,
    /// In the order of [`Who::ALL`]; before the server, so that nobody is left when it drains.
    pub clients: [Option<Client>; Who::ALL.len()],
    /// Holds up the end of the stop until everything else is compared.
    pub witness: Option<Peer>,
    running: Running,
    /// What other cases on this server came to.
    before: Counts,
    /// What is counted for certain.
    pub known: Counts,
    /// What may be counted beside it.
    pub open: Open,
    /// What was done, for the report.
    done: Vec<String>,
}

enum Running {
    Up(Box<Server>),
    Draining { drain: JoinHandle<Summary>, sidecar: SocketAddr },
    Down,
}

/// One client: its socket, and what the model knows of it.
pub struct Client {
    pub peer: Peer,
    pub source: Source,
    pub conversation: Conversation,
    pub phase: Phase,
    pub has_spoken: bool,
    pub is_half_closed: bool,
    /// What the server has sent and the client has not read.
    pub unread: Vec<u8>,
    pub flood: Option<Pending>,
}

/// Where a connection stands with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Talking,
    /// The server has sent its FIN and waits for the client's.
    Ended(&'static str),
    /// The server has closed it.
    Gone,
}

/// What a client sent that does not read, and the replies it is owed.
pub struct Pending {
    pub flood: Flood,
    pub heard: Heard,
}

pub type Outcome = Result<(), String>;

/// While a failure is cut down: what a race decided once it may decide otherwise the next time.
const TRIES: usize = 20;

/// Runs a case to its end; the error tells the whole story.
pub fn run(case: &Case, servers: &Servers) -> Outcome {
    let tries = if has_failed() { TRIES } else { 1 };
    (0..tries).try_for_each(|_| run_once(case, servers))
}

fn run_once(case: &Case, servers: &Servers) -> Outcome {
    let mut stage = Stage::start(case, servers)?;
    let outcome = stage.act(&case.actions).and_then(|()| stage.finish());
    outcome.map_err(|error| {
        note_failure();
        let done = stage.done.join("\n  ");
        format!("{}\n  {done}\n{error}", case.setup)
    })?;
    if let Running::Up(server) = stage.running {
        servers.give_back(&case.setup, *server);
    }
    Ok(())
}

impl Stage {
    fn start(case: &Case, servers: &Servers) -> Result<Self, String> {
        let is_to_stop = case.actions.iter().any(|action| matches!(action, Action::Stop));
        let server = servers.take(&case.setup, is_to_stop)?;
        let address = server.addresses()[0].ip().unwrap();
        let before = Counts::of_server(&server);
        let mut stage = Self {
            setup: case.setup.clone(),
            address,
            clients: [const { None }; Who::ALL.len()],
            witness: Some(Peer::connect(WITNESS, address)?),
            before,
            known: Counts::default(),
            running: Running::Up(Box::new(server)),
            open: Open::nothing(),
            done: Vec::new(),
        };
        stage.known.add("accepted", 1);
        stage.count_open(1);
        stage.settle()?;
        Ok(stage)
    }

    fn act(&mut self, actions: &[Action]) -> Outcome {
        for action in actions {
            let before = self.done.len();
            self.perform(*action)?;
            if self.done.len() > before {
                self.settle()?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Outcome {
        let mut everybody = Who::ALL.into_iter();
        match action {
            Action::Connect(who, source) => self.connect(who, source),
            Action::Say(who, word) => self.say(who, word),
            Action::Read(who) => self.read(who),
            Action::Leave(who, way) => self.leave(who, way),
            Action::SayAndLeave(who, word, way) => self.say_and_leave(who, word, way),
            Action::Flood(who) => self.flood(who),
            Action::AllConnect(source) => everybody.try_for_each(|who| self.connect(who, source)),
            Action::AllSay(word) => everybody.try_for_each(|who| self.say(who, word)),
            Action::AllLeave(way) => everybody.try_for_each(|who| self.leave(who, way)),
            Action::Stop => self.stop(),
        }
    }

    /// Everybody takes what is owed and closes; the witness last.
    fn finish(&mut self) -> Outcome {
        Who::ALL.into_iter().try_for_each(|who| self.read(who))?;
        self.settle()?;
        Who::ALL.into_iter().try_for_each(|who| self.close(who))?;
        self.settle()?;
        self.note("the witness closes");
        match std::mem::replace(&mut self.running, Running::Down) {
            Running::Draining { drain, .. } => {
                self.witness = None;
                let summary = drain.join().map_err(|_| "the stop panicked")?;
                let expected = self.known.closes() + 1;
                if (summary.served as i64, summary.cut) != (expected, 0) {
                    return Err(format!("{summary:?}, but {expected} were served"));
                }
                Ok(())
            }
            up => {
                self.running = up;
                self.witness = None;
                self.count_close("unused");
                self.settle()
            }
        }
    }

    /// Begins the stop; who talks gets what is owed and an orderly end.
    pub fn stop(&mut self) -> Outcome {
        let server = match std::mem::replace(&mut self.running, Running::Down) {
            Running::Up(server) => server,
            other => {
                self.running = other;
                return Ok(());
            }
        };
        self.note("the server is stopped");
        let sidecar = server.metrics_address().ok_or("there is no sidecar")?;
        let drain = thread::spawn(move || server.drain());
        self.running = Running::Draining { drain, sidecar };
        for client in self.clients.iter_mut().flatten() {
            if client.phase == Phase::Talking && client.flood.is_none() {
                client.peer.expect(&std::mem::take(&mut client.unread))?;
                client.peer.expect_end()?;
                client.phase = Phase::Ended("shutdown");
            }
        }
        self.witness.as_mut().ok_or("there is no witness")?.expect_end()?;
        self.known.add("draining", 1);
        Ok(())
    }

    pub fn is_stopping(&self) -> bool {
        !matches!(self.running, Running::Up(_))
    }

    pub fn client(&mut self, who: Who) -> Option<&mut Client> {
        self.clients[who as usize].as_mut()
    }

    /// One more or one less, with the worker that owns it.
    pub fn count_open(&mut self, connections: i64) {
        self.known.add("open", connections);
        self.known.add("owned by workers", connections);
    }

    pub fn count_close(&mut self, reason: &str) {
        self.known.add(&closed(reason), 1);
        self.count_open(-1);
    }

    /// What the server has heard and answered; the kernel takes all of it.
    pub fn count_answered(&mut self, heard: &Heard) {
        let messages = heard.replies.len() as i64;
        let sent = heard.replies.iter().map(Vec::len).sum::<usize>() as i64;
        for (name, count) in [("messages", messages), ("replies", messages), ("sent", sent)] {
            self.known.add(name, count);
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.done.push(what.into());
    }

    /// Waits until the counts are what the model expects, which is all that the action before
    /// leads to. A count that is beyond that never comes back.
    pub fn settle(&mut self) -> Outcome {
        let mut counted: Option<Counts> = None;
        let verdict = wait_for(|| {
            let before = std::mem::replace(&mut counted, self.counted());
            let verdict = self.open.judge(&self.known, counted.as_ref()?);
            // Where many counts would do, one may be seen half told; the next look shows it.
            let is_sure = self.open.is_nothing() || before == counted;
            match verdict {
                Verdict::Right if is_sure => Some(verdict),
                Verdict::Wrong => Some(verdict),
                _ => None,
            }
        });
        let counted = counted.ok_or("no metrics are served")?;
        if verdict != Some(Verdict::Right) {
            return Err(self.difference(&counted));
        }
        // A flood goes on as long as its client is there.
        if !matches!(self.open, Open::Flood(_)) {
            self.open = Open::nothing();
            self.known = counted;
        }
        Ok(())
    }

    /// What the server says of this case now.
    pub fn counted(&self) -> Option<Counts> {
        let counts = match &self.running {
            Running::Up(server) => Counts::of_server(server),
            Running::Draining { sidecar, .. } => {
                Counts::of(&Metrics::parse(&get(*sidecar, "/metrics")?.1))
            }
            Running::Down => return None,
        };
        Some(counts.minus(&self.before))
    }

    fn difference(&self, counted: &Counts) -> String {
        let (known, extra) = (&self.known, counted.minus(&self.known));
        format!("expected: {known}\nand beside it: {}\ncounted beside it: {extra}", self.open)
    }
}
