//! What each action does to the sockets, and what the model then expects.

use std::time::Duration;

use talkback::wire::Framing;

use super::actions::{Setup, Source, Way, Who, Word};
use super::contract::{Conversation, Heard, MAX_MESSAGE_BYTES};
use super::counts::{Counts, Flood, Open, closed, rejected};
use super::peer::{Peer, shown, wait_at_most};
use super::servers::FULL_MESSAGE;
use super::stage::{Client, Outcome, Pending, Phase, Stage};

/// More than the kernel takes for a client that does not read, on both sides of it, and no whole
/// number of lines.
const FLOOD_BYTES: usize = 1 << 20;

const FLOOD_LINE_BYTES: usize = 500;

/// So long the kernel may take until it takes no more.
const LONGEST_FILLING: Duration = Duration::from_millis(500);

/// Lines that differ, so that none is lost or comes twice unnoticed.
fn flood_text() -> Vec<u8> {
    let lines = (0..).map(|number| format!("{number:0width$}\n", width = FLOOD_LINE_BYTES - 1));
    let lines = lines.take(FLOOD_BYTES.div_ceil(FLOOD_LINE_BYTES));
    let mut text = String::from_iter(lines).into_bytes();
    text.truncate(FLOOD_BYTES);
    text
}

impl Stage {
    pub fn connect(&mut self, who: Who, source: Source) -> Outcome {
        if self.client(who).is_some() || self.is_stopping() {
            return Ok(());
        }
        let from = |client: &&Client| client.source == source && client.phase != Phase::Gone;
        let of_source = self.clients.iter().flatten().filter(from).count();
        let Setup { max_connections, max_connections_per_ip: per_ip, .. } = self.setup;
        let reason = match self.known.get("open") > max_connections as i64 {
            true => Some("max_connections"),
            false if per_ip > 0 && of_source >= per_ip => Some("max_connections_per_ip"),
            false => None,
        };
        self.note(format!("{who:?} connects from 127.0.0.{source}"));
        let mut peer = Peer::connect(source, self.address)?;
        self.known.add("accepted", 1);
        if let Some(reason) = reason {
            self.known.add(&rejected(reason), 1);
            let message = if self.setup.has_full_message { FULL_MESSAGE } else { "" };
            peer.expect(message.as_bytes())?;
            peer.expect_end()?;
            return Ok(());
        }
        self.count_open(1);
        let conversation = Conversation::new(self.setup.framing, self.setup.invalid_utf8);
        self.clients[who as usize] = Some(Client {
            peer,
            source,
            conversation,
            phase: Phase::Talking,
            has_spoken: false,
            is_half_closed: false,
            unread: Vec::new(),
            flood: None,
        });
        Ok(())
    }

    pub fn say(&mut self, who: Who, word: Word) -> Outcome {
        if !self.can_speak(who) {
            return Ok(());
        }
        let bytes = word.bytes();
        if self.open.is_nothing() {
            return self.utter(who, &bytes);
        }
        // While a flood is counted only about, the client itself has to see that it was heard: what
        // it says next might reach the server together with this.
        let Some(client) = self.client(who) else { return Ok(()) };
        let heard = client.conversation.clone().hear(&bytes);
        if client.phase != Phase::Talking || (heard.replies.is_empty() && heard.end.is_none()) {
            return Ok(());
        }
        self.utter(who, &bytes)?;
        let Some(client) = self.client(who) else { return Ok(()) };
        if heard.end.is_none() {
            return client.peer.see(&client.unread);
        }
        client.peer.expect(&std::mem::take(&mut client.unread))?;
        client.peer.expect_end()
    }

    /// Sends, and expects what a server does that reads it.
    fn utter(&mut self, who: Who, bytes: &[u8]) -> Outcome {
        self.note(format!("{who:?} says {}", shown(bytes)));
        let Some(client) = self.client(who) else { return Ok(()) };
        client.peer.send(bytes)?;
        client.has_spoken = true;
        let mut heard = Heard::default();
        if client.phase == Phase::Talking {
            heard = client.conversation.hear(bytes);
            client.take(&heard);
        }
        self.known.add("received", bytes.len() as i64);
        self.count_answered(&heard);
        Ok(())
    }

    pub fn leave(&mut self, who: Who, way: Way) -> Outcome {
        match way {
            Way::HalfClose => self.half_close(who),
            Way::Close => self.close(who),
            Way::Reset => self.reset(who),
        }
    }

    fn half_close(&mut self, who: Who) -> Outcome {
        let Some(client) = self.client(who) else { return Ok(()) };
        if client.is_half_closed {
            return Ok(());
        }
        client.peer.finish()?;
        client.is_half_closed = true;
        let is_read = client.flood.is_none();
        self.note(format!("{who:?} half-closes"));
        if is_read {
            self.expect_end_of_input(who);
        }
        Ok(())
    }

    /// The server reads the client's FIN, answers what it finishes, and closes.
    fn expect_end_of_input(&mut self, who: Who) {
        let Some(client) = self.client(who) else { return };
        let (heard, reason) = client.end_of_input();
        client.take(&heard);
        client.phase = Phase::Gone;
        self.count_answered(&heard);
        self.count_close(reason);
    }

    /// The whole socket: a reset, where something is unread.
    pub fn close(&mut self, who: Who) -> Outcome {
        let Some(client) = self.client(who) else { return Ok(()) };
        if client.flood.is_some() {
            return self.cut_flood(who, Way::Close);
        }
        // The kernel resets for what has arrived, not for what is on its way.
        client.peer.see(&client.unread)?;
        match (client.phase, client.unread.is_empty()) {
            (Phase::Gone, _) => {}
            (_, true) => self.expect_end_of_input(who),
            (_, false) => self.expect_reset(who),
        }
        self.let_go(who, Way::Close)
    }

    pub fn reset(&mut self, who: Who) -> Outcome {
        let Some(client) = self.client(who) else { return Ok(()) };
        if client.flood.is_some() {
            return self.cut_flood(who, Way::Reset);
        }
        self.expect_reset(who);
        self.let_go(who, Way::Reset)
    }

    fn expect_reset(&mut self, who: Who) {
        let Some(client) = self.client(who) else { return };
        if client.phase != Phase::Gone {
            let reason = client.reason_of_reset();
            self.count_close(reason);
        }
    }

    /// The client's socket is closed by close(2) or by a reset.
    fn let_go(&mut self, who: Who, way: Way) -> Outcome {
        self.note(format!("{who:?} {}", if way == Way::Reset { "resets" } else { "closes" }));
        match self.clients[who as usize].take() {
            Some(client) if way == Way::Reset => client.peer.reset(),
            _ => Ok(()),
        }
    }

    pub fn say_and_leave(&mut self, who: Who, word: Word, way: Way) -> Outcome {
        if !self.can_speak(who) {
            return Ok(());
        }
        let bytes = word.bytes();
        if way == Way::HalfClose {
            self.utter(who, &bytes)?;
            return self.leave(who, way);
        }
        // Behind a flood that is not counted yet, nobody could tell what is counted of this.
        if !self.open.is_nothing() {
            return Ok(());
        }
        let Some(client) = self.client(who) else { return Ok(()) };
        client.peer.see(&client.unread)?;
        let outcomes = client.race(&bytes, way);
        client.peer.send(&bytes)?;
        self.open = Open::OneOf(outcomes);
        self.note(format!("{who:?} says {} and", shown(&bytes)));
        self.count_open(-1);
        self.let_go(who, way)
    }

    pub fn flood(&mut self, who: Who) -> Outcome {
        let is_possible = !self.is_stopping()
            && self.open.is_nothing()
            && self.can_speak(who)
            && self.client(who).is_some_and(|client| {
                client.phase == Phase::Talking && !client.conversation.is_unfinished()
            });
        if !is_possible {
            return Ok(());
        }
        self.note(format!("{who:?} sends {FLOOD_BYTES} bytes and reads nothing"));
        let text = flood_text();
        let is_line = self.setup.framing == Framing::Line;
        let line = is_line.then_some(FLOOD_LINE_BYTES as i64);
        let flood = Flood { bytes: text.len() as i64, line };
        let Some(client) = self.client(who) else { return Ok(()) };
        client.peer.send(&text)?;
        client.has_spoken = true;
        let heard = client.conversation.hear(&text);
        client.flood = Some(Pending { flood, heard });
        self.open = Open::Flood(flood);
        // Nearly always it comes to that. A kernel that must drop what the client does not take
        // may stop the client's own bytes as well, before anything is pending.
        let is_paused = || self.counted().filter(|counted| counted.get("pending") > 0);
        wait_at_most(LONGEST_FILLING, is_paused);
        Ok(())
    }

    pub fn read(&mut self, who: Who) -> Outcome {
        let is_stopping = self.is_stopping();
        let Some(client) = self.client(who) else { return Ok(()) };
        let unread = std::mem::take(&mut client.unread);
        let Some(pending) = client.flood.take() else {
            if unread.is_empty() && client.phase == Phase::Talking {
                return Ok(());
            }
            client.peer.expect(&unread)?;
            if client.phase != Phase::Talking {
                client.peer.expect_end()?;
            }
            self.note(format!("{who:?} reads what it is owed"));
            return Ok(());
        };
        client.peer.expect(&unread)?;
        self.note(format!("{who:?} reads after all"));
        if is_stopping { self.read_the_owed(who, pending) } else { self.read_all(who, pending) }
    }

    /// The server goes on reading, and answers everything.
    fn read_all(&mut self, who: Who, pending: Pending) -> Outcome {
        let Pending { flood, heard } = pending;
        let Some(client) = self.client(who) else { return Ok(()) };
        client.peer.expect(&heard.replies.concat())?;
        let is_half_closed = client.is_half_closed;
        self.known.add("received", flood.bytes);
        self.open = self.count_flood_answered(flood, flood.bytes, &heard);
        if is_half_closed {
            self.expect_end_of_input(who);
        }
        Ok(())
    }

    /// A stop was under way: the client gets what was owed, which is some of it, and the end.
    fn read_the_owed(&mut self, who: Who, pending: Pending) -> Outcome {
        let Pending { flood, mut heard } = pending;
        let Some(client) = self.client(who) else { return Ok(()) };
        let got = client.peer.read_to_end()?;
        let whole = heard.replies.concat();
        let are_whole = flood.line.is_none_or(|line| (got.len() as i64) % line == 0);
        if got.len() >= FLOOD_BYTES || !whole.starts_with(&got) || !are_whole {
            return Err(format!("{} bytes that are not the first replies", got.len()));
        }
        heard.replies.truncate(got.len() / FLOOD_LINE_BYTES);
        client.phase = Phase::Ended("shutdown");
        let is_half_closed = client.is_half_closed;
        // What it does not answer the server discards.
        self.known.add("received", flood.bytes);
        self.open = self.count_flood_answered(flood, got.len() as i64, &heard);
        if is_half_closed {
            self.expect_end_of_input(who);
        }
        Ok(())
    }

    fn count_flood_answered(&mut self, flood: Flood, sent: i64, heard: &Heard) -> Open {
        if flood.line.is_some() {
            self.count_answered(heard);
            return Open::nothing();
        }
        self.known.add("sent", sent);
        Open::Receives(sent)
    }

    /// The client goes with replies unread; what the server still holds is lost.
    fn cut_flood(&mut self, who: Who, way: Way) -> Outcome {
        let Some(pending) = self.client(who).and_then(|client| client.flood.take()) else {
            return Ok(());
        };
        self.open = Open::FloodCut(pending.flood);
        self.count_close("peer_reset");
        self.let_go(who, way)
    }

    fn can_speak(&mut self, who: Who) -> bool {
        self.client(who).is_some_and(|client| !client.is_half_closed && client.flood.is_none())
    }
}

impl Client {
    /// Replies are on their way to it, and perhaps the end.
    fn take(&mut self, heard: &Heard) {
        self.unread.extend(heard.replies.iter().flatten());
        if let Some(reason) = heard.end {
            self.phase = Phase::Ended(reason);
        }
    }

    /// What the server answers to the client's FIN, and its close reason then.
    fn end_of_input(&mut self) -> (Heard, &'static str) {
        let heard = match self.phase {
            Phase::Talking => self.conversation.finish(),
            Phase::Ended(reason) => Heard { end: Some(reason), ..Heard::default() },
            Phase::Gone => Heard::default(),
        };
        let reason = heard.end.unwrap_or(if self.has_spoken { "peer_closed" } else { "unused" });
        (heard, reason)
    }

    /// The close reason, where the client's reset comes next.
    fn reason_of_reset(&self) -> &'static str {
        match self.phase {
            // Nothing changes the reason any more.
            Phase::Ended(reason) => reason,
            _ if self.has_spoken => "peer_reset",
            _ => "unused",
        }
    }

    /// Everything that may be counted where the client's close or reset follows its word at once.
    fn race(&mut self, bytes: &[u8], way: Way) -> Vec<Counts> {
        let received = bytes.len();
        let is_reset = way == Way::Reset || !self.unread.is_empty();
        let mut outcomes = Vec::new();
        // A reset is not held up by what was sent before it, and may overtake that.
        if is_reset {
            outcomes.push(counts(0, &[], 0, self.reason_of_reset()));
        }
        if let Phase::Ended(reason) = self.phase {
            outcomes.push(counts(received, &[], 0, reason));
            return outcomes;
        }
        let mut heard = self.conversation.hear(bytes);
        // Of those the server's kernel learns that the client is gone.
        let at_once = heard.replies.len();
        self.has_spoken = true;
        let mut reason = heard.end;
        if reason.is_none() && !is_reset {
            let (rest, end) = self.end_of_input();
            heard.replies.extend(rest.replies);
            reason = Some(end);
        }
        let lengths: Vec<i64> = heard.replies.iter().map(|reply| reply.len() as i64).collect();
        // The server was faster: it has sent everything before it sees that nobody is there.
        if let Some(reason) = reason {
            outcomes.push(counts(received, &lengths, lengths.len(), reason));
        }
        if at_once == 0 && reason.is_some() {
            return outcomes;
        }
        // It was not: some replies are sent, others fail, and behind a failure nothing is answered.
        for made in at_once.min(1)..=lengths.len() {
            for sent in usize::from(!is_reset)..=made {
                for receives in made.max(1)..=received.div_ceil(MAX_MESSAGE_BYTES).max(made) {
                    let received = received.min(receives * MAX_MESSAGE_BYTES);
                    let counts = counts(received, &lengths[..made], sent, "peer_reset");
                    outcomes.push(counts);
                }
            }
        }
        outcomes
    }
}

/// So many bytes received, those replies made, and so many of them sent.
fn counts(received: usize, replies: &[i64], sent: usize, reason: &str) -> Counts {
    let made = replies.len() as i64;
    Counts::default().with(&[
        ("received", received as i64),
        ("messages", made),
        ("replies", made),
        ("sent", replies[..sent].iter().sum()),
        ("discarded", replies[sent..].iter().sum()),
        (&closed(reason), 1),
    ])
}
