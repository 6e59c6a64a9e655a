//! One conversation: input goes out on a thread of its own, replies come back on the caller's.
//! Neither waits for the other unless asked to, so that no amount of pipelining can lock them.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use thiserror::Error;

use super::Stream;

/// What one read takes at most, and the longest line that leaves in one piece.
const CHUNK_BYTES: usize = 64 * 1024;

/// A reply without a line ending is taken to be whole when nothing followed it for so long.
const REPLY_PAUSE: Duration = Duration::from_millis(50);

/// How a conversation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// How the input is cut.
    pub sending: Sending,
    /// Writes a newline behind a reply that has none. For people; it changes what the server said.
    pub finish_lines: bool,
}

/// How the input is cut into what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sending {
    /// Bytes leave unchanged, as they come.
    #[default]
    Bytes,
    /// Each line leaves without its ending (LF or CRLF), and only after something came back since
    /// the line before, because TCP would join what leaves in a row. Empty lines have nothing to
    /// send. A line of more than 64 KiB leaves in several such pieces.
    LinesInTurn,
}

/// How a conversation ended, where nothing was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed, of its own accord or after our half-close.
    Server,
    /// Nobody reads the output any more.
    Output,
}

/// What broke a conversation off. Everything received before it has been written to the output.
#[derive(Debug, Error)]
pub enum ConversationError {
    /// The server, or something on the way, cut the connection: replies may be missing.
    #[error("the connection was reset by the server; replies may be missing")]
    Reset,
    /// Receiving failed in another way.
    #[error("receiving failed: {0}")]
    Receive(io::Error),
    /// Sending failed, though the server had not ended the connection.
    #[error("sending failed: {0}")]
    Send(io::Error),
    /// The input could not be read to its end; what had been read was sent and answered.
    #[error("reading the input failed: {0}")]
    Input(io::Error),
    /// The output took no more.
    #[error("writing the output failed: {0}")]
    Output(io::Error),
    /// No thread for the input.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Sends `input` until it ends and then half-closes; writes what comes to `output`, chunk by chunk,
/// until the server ends the connection.
///
/// When the server ends first, the thread that reads `input` may be left behind in a blocking read:
/// the conversation is over all the same, and a program that has no other use for its input exits.
///
/// # Errors
/// When anything but the server's orderly end, or the end of the output's reader, ended it.
pub fn converse<I, O>(
    stream: Stream,
    input: I,
    output: O,
    manner: Manner,
) -> Result<End, ConversationError>
where
    I: Read + Send + 'static,
    O: Write,
{
    let outgoing = Arc::new(Outgoing { stream, failure: Mutex::new(None) });
    let (replied, replies) = bounded(1);
    let sender = Arc::clone(&outgoing);
    thread::Builder::new()
        .name("client-input".to_owned())
        .spawn(move || sender.run(input, manner.sending, &replies))
        .map_err(ConversationError::Thread)?;
    let finish_lines = manner.finish_lines;
    let stream = &outgoing.stream;
    let end = Incoming { stream, output, finish_lines, unfinished: false, replied }.run()?;
    match outgoing.stop() {
        Some(failure) if end == End::Server => Err(failure),
        _ => Ok(end),
    }
}

/// The way from the server to the output.
struct Incoming<'a, O> {
    stream: &'a Stream,
    output: O,
    finish_lines: bool,
    /// What was last written wants a newline. Never set without `finish_lines`.
    unfinished: bool,
    /// Full where the sender has not yet looked at an earlier reply; gone once receiving is over.
    replied: Sender<()>,
}

impl<O: Write> Incoming<'_, O> {
    fn run(mut self) -> Result<End, ConversationError> {
        match self.copy() {
            Ok(()) => Ok(End::Server),
            Err(ConversationError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
                Ok(End::Output)
            }
            Err(error) => Err(error),
        }
    }

    fn copy(&mut self) -> Result<(), ConversationError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = self.receive(&mut buffer)?;
            if count == 0 {
                return self.finish_line();
            }
            self.write(&buffer[..count])?;
            // Refused where the sender has not yet looked at an earlier one, or is done: both well.
            let _ = self.replied.try_send(());
        }
    }

    /// How many bytes came; 0 = the server has ended the connection in order.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, ConversationError> {
        loop {
            if self.finish_lines {
                let pause = self.unfinished.then_some(REPLY_PAUSE);
                self.stream.set_read_timeout(pause).map_err(ConversationError::Receive)?;
            }
            let mut stream = self.stream;
            match stream.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock if self.unfinished => self.finish_line()?,
                    ErrorKind::ConnectionReset => {
                        self.finish_line()?;
                        return Err(ConversationError::Reset);
                    }
                    _ => return Err(ConversationError::Receive(error)),
                },
            }
        }
    }

    fn finish_line(&mut self) -> Result<(), ConversationError> {
        if self.unfinished { self.write(b"\n") } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ConversationError> {
        self.unfinished = self.finish_lines && !bytes.ends_with(b"\n");
        let written = self.output.write_all(bytes).and_then(|()| self.output.flush());
        written.map_err(ConversationError::Output)
    }
}

/// The way from the input to the server.
struct Outgoing {
    stream: Stream,
    /// Locked while a send is under way. The kernel reports a reset to one call only: where that is
    /// a send, the receive beside it sees what looks like an orderly end, and has to look here.
    failure: Mutex<Option<ConversationError>>,
}

impl Outgoing {
    fn run<I: Read>(&self, input: I, sending: Sending, replies: &Receiver<()>) {
        let read = match sending {
            Sending::Bytes => self.send_bytes(input),
            Sending::LinesInTurn => self.send_lines(input, replies),
        };
        if let Err(error) = read {
            *self.failure.lock() = Some(ConversationError::Input(error));
        }
        // Fails where the connection is gone already, which the receiving side tells.
        let _ = self.stream.finish();
    }

    fn send_bytes<I: Read>(&self, mut input: I) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) if self.send(&buffer[..count]) => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits before a send, not after it: the input's end is seen, and passed on by the half-close,
    /// also where the last line is never answered.
    fn send_lines<I: Read>(&self, input: I, replies: &Receiver<()>) -> io::Result<()> {
        let mut input = BufReader::new(input);
        let mut piece = Vec::new();
        let mut owed = false;
        loop {
            piece.clear();
            let count = (&mut input).take(CHUNK_BYTES as u64).read_until(b'\n', &mut piece)?;
            if count == 0 {
                return Ok(());
            }
            let line = without_ending(&piece);
            if line.is_empty() {
                continue;
            }
            if owed && replies.recv().is_err() {
                return Ok(());
            }
            // What the server said of its own accord answers no line of ours.
            let _ = replies.try_recv();
            if !self.send(line) {
                return Ok(());
            }
            owed = true;
        }
    }

    /// Whether there is any use in sending more.
    fn send(&self, bytes: &[u8]) -> bool {
        let mut failure = self.failure.lock();
        let mut stream = &self.stream;
        match stream.write_all(bytes) {
            Ok(()) => true,
            // The server ended first, or receiving did: no failure, but the conversation is over.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                *failure = Some(ConversationError::Reset);
                false
            }
            Err(error) => {
                *failure = Some(ConversationError::Send(error));
                false
            }
        }
    }

    /// Ends a send that may still wait for room, and tells what sending or reading input failed of.
    fn stop(&self) -> Option<ConversationError> {
        // Fails where the connection is gone already; then no send waits either.
        let _ = self.stream.finish();
        self.failure.lock().take()
    }
}

fn without_ending(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

#[cfg(test)]
mod tests;
