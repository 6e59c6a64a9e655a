//! A chat room. What a line says goes to everybody, under a number; `/nick NAME` takes a name,
//! `/who` tells who is here, `/quit` leaves.
//!
//!     cargo run --example chat [ADDRESS]
//!
//! One thread owns the room, so that there is no lock and one order for all. A worker never waits
//! for it, nor for another worker: what a member says goes to the room over a channel, with a ticket
//! by which the room says that it was passed on. Until then that member's next lines wait, so that
//! the channel holds at most one line of each. To the members the room sends through their workers'
//! inboxes. A worker that has no room in its inbox makes the room wait, not a worker.
//!
//! A member that does not read what it is sent holds up nobody. Above `max_pending_bytes` its lines
//! are left out, and a gap in the numbers shows it how many; takes it nothing at all for
//! `send_timeout`, it is disconnected.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use talkback::wire::Framing;
use talkback::{
    Answer, Config, Context, Late, Reply, Responder, Responders, SendError, Sender, Server, Ticket,
};

/// How long the room waits for a place in a worker's inbox.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// What the room is told. Of each connection it is told in order.
enum Event {
    Joined { id: u64, to: Sender },
    Said { id: u64, text: String, ticket: Ticket },
    Left { id: u64 },
}

/// A connection's side of the room.
struct Member {
    id: u64,
    room: mpsc::Sender<Event>,
}

impl Member {
    /// Never waits. A room that is gone has nobody to tell.
    fn tell(&self, event: Event) {
        let _ = self.room.send(event);
    }
}

impl Responder for Member {
    fn open(&mut self, reply: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        self.tell(Event::Joined { id: self.id, to: context.sender() });
        reply.push("welcome; /nick NAME, /who, /quit");
        Answer::Reply
    }

    fn respond(&mut self, text: &str, _: &mut Reply<'_>, context: &mut Context<'_>) -> Answer {
        if text == "/quit" {
            return Answer::Close;
        }
        let (text, ticket) = (text.to_owned(), context.ticket());
        self.tell(Event::Said { id: self.id, text, ticket });
        Answer::Later
    }

    fn end(&mut self, _reason: &str) {
        self.tell(Event::Left { id: self.id });
    }
}

/// The room, with its one thread.
#[derive(Default)]
struct Room {
    members: BTreeMap<u64, (String, Sender)>,
    lines: u64,
}

impl Room {
    /// Goes on until nobody is left who could tell it anything.
    fn run(mut self, events: &mpsc::Receiver<Event>) {
        for event in events {
            match event {
                Event::Joined { id, to } => {
                    let name = format!("guest-{id}");
                    self.members.insert(id, (name.clone(), to));
                    self.broadcast(&format!("* {name} has joined"));
                }
                Event::Said { id, text, ticket } => {
                    let late = self.take(id, &text);
                    resolve(ticket, late);
                }
                Event::Left { id } => {
                    if let Some((name, _)) = self.members.remove(&id) {
                        self.broadcast(&format!("* {name} has left"));
                    }
                }
            }
        }
    }

    /// What a member said, and what it alone is answered.
    fn take(&mut self, id: u64, text: &str) -> Late {
        let Some((name, _)) = self.members.get_mut(&id) else { return Late::Close };
        if text == "/who" {
            let names: Vec<_> = self.members.values().map(|(name, _)| name.as_str()).collect();
            return Late::Reply(names.join(", "));
        }
        let Some(wanted) = text.strip_prefix("/nick ") else {
            let line = format!("{name}: {text}");
            self.broadcast(&line);
            return Late::Silence;
        };
        // Whoever comes later is called guest-N.
        let is_name = (1..=32).contains(&wanted.len()) && !wanted.starts_with("guest-");
        if !is_name || wanted.contains(char::is_control) {
            return Late::Reply("no name to have".to_owned());
        }
        if self.members.values().any(|(name, _)| name == wanted) {
            return Late::Reply(format!("{wanted} is taken"));
        }
        if let Some((name, _)) = self.members.get_mut(&id) {
            let before = std::mem::replace(name, wanted.to_owned());
            self.broadcast(&format!("* {before} is now {wanted}"));
        }
        Late::Silence
    }

    /// One text for all, and no copy of it for each.
    fn broadcast(&mut self, text: &str) {
        self.lines += 1;
        let line: Arc<str> = format!("{} {text}", self.lines).into();
        for (_, to) in self.members.values() {
            // Whom it cannot reach will leave, or see the gap.
            let _ = in_time(|| match to.send(line.clone()) {
                Err(SendError::Full) => None,
                sent => Some(sent),
            });
        }
    }
}

/// Uses the ticket, again where its worker's inbox is full.
fn resolve(ticket: Ticket, late: Late) {
    let mut answer = Some((ticket, late));
    let _ = in_time(|| {
        let (ticket, late) = answer.take()?;
        let refused = ticket.resolve(late).err();
        answer = refused.map(|refused| (refused.ticket, refused.late));
        answer.is_none().then_some(())
    });
}

/// Tries until there is a result, for a while: the room's thread may wait.
fn in_time<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if let Some(result) = attempt() {
            return Some(result);
        }
        thread::sleep(PAUSE);
    }
    None
}

fn main() -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more to a second Ctrl-C.
        let _ = stop.send(());
    })?;

    let (room, events) = mpsc::channel();
    let thread = thread::Builder::new().name("room".to_owned());
    let thread = thread.spawn(move || Room::default().run(&events))?;
    let ids = AtomicU64::new(1);
    let responders = Responders::default().with("chat", move |_client| Member {
        id: ids.fetch_add(1, Ordering::Relaxed),
        room: room.clone(),
    });
    let mut config = Config::default();
    let listener = &mut config.listeners[0];
    listener.address = std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:7002").parse()?;
    listener.framing = Framing::Line;
    listener.responder = "chat".to_owned();
    config.metrics.address = None;
    let server = Server::start_with(&config, &responders)?;
    // The factory holds an end of the room's channel; without this the room would never end.
    drop(responders);
    println!("a chat room on {}", server.addresses()[0]);

    stopped.recv()?;
    println!("served {} connections", server.drain().served);
    thread.join().map_err(|_| "the room panicked")?;
    Ok(())
}
