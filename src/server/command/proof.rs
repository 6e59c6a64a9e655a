//! What a program has to show before the server is ready: that its first processes start, and that
//! it answers a message, if it is told to.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::pool::Failure;
use super::program::ProgramError;
use crate::client_text::ClientText;

/// Why a listener's program does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It cannot be run as configured.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The system did not start it.
    #[error("its program cannot be started: {problem}")]
    Start {
        /// What the system said.
        problem: String,
    },
    /// It did not answer the self test in time.
    #[error(
        "self_test {sent:?} was sent to its program, and within {seconds} s {came}; a program that \
         keeps its output in a buffer must be told not to (python3 -u, stdbuf -oL), or to flush \
         after each line"
    )]
    NoAnswer {
        /// The message.
        sent: String,
        /// What came, as part of a sentence.
        came: String,
        /// How long it had.
        seconds: f64,
    },
    /// It wrote something else than one line for one message.
    #[error(
        "self_test {sent:?} was sent to its program, which wrote {came}; a program that clients \
         share writes one line for each message, and none at its start"
    )]
    Unasked {
        /// The message.
        sent: String,
        /// What came, as part of a sentence.
        came: String,
    },
    /// It ended instead of answering the self test.
    #[error("self_test {sent:?} was sent to its program, which {end}")]
    Ended {
        /// The message.
        sent: String,
        /// How it ended, as the end of a sentence.
        end: String,
    },
}

type Outcome = Result<(), CommandError>;

/// A line more that comes so soon after the answer shows that the first one was none.
const QUIET: Duration = Duration::from_millis(100);

/// Waited for by the start.
pub(in crate::server) type Proven = Receiver<Outcome>;

/// What is still to be shown.
pub(in crate::server) struct Proof {
    /// Processes still to be started.
    starts: usize,
    test: Option<String>,
    /// What came for it, and when.
    answer: Option<(Vec<u8>, Instant)>,
    is_tested: bool,
    timeout: Duration,
    until: Option<Instant>,
    status: Option<ExitStatus>,
    outcome: Option<Outcome>,
    told: Sender<Outcome>,
}

impl Proof {
    /// That so many processes start, and that the answer to `test` comes within `timeout`.
    pub(in crate::server) fn new(starts: usize, test: &str, timeout: Duration) -> (Self, Proven) {
        let (told, proven) = bounded(1);
        let test = (!test.is_empty()).then(|| test.to_owned());
        let is_tested = test.is_none();
        let (answer, until, status, outcome) = (None, None, None, None);
        (Self { starts, test, answer, is_tested, timeout, until, status, outcome, told }, proven)
    }

    /// What the program is to read.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.until = Some(now + self.timeout);
        self.test.as_ref().map(|test| format!("{test}\n").into_bytes())
    }

    /// When to look at the time.
    pub(super) fn until(&self) -> Option<Instant> {
        self.quiet_until().or(self.until)
    }

    fn quiet_until(&self) -> Option<Instant> {
        self.answer.as_ref().filter(|_| !self.is_tested).map(|(_, at)| *at + QUIET)
    }

    pub(super) fn note_start(&mut self) {
        self.starts = self.starts.saturating_sub(1);
    }

    /// A process that one connection has to itself may say what it likes, before it is asked and
    /// without ends of lines; whatever comes shows that it does not keep it in a buffer.
    pub(super) fn note_output(&mut self) {
        self.is_tested = true;
    }

    /// The line that is the answer, if the process `has_read` the message and says no more.
    pub(super) fn note_reply(&mut self, line: &[u8], has_read: bool, now: Instant) {
        if has_read {
            self.answer = Some((line.to_vec(), now));
        } else {
            self.fail_unasked(format!("{:?} before it had read it", ClientText::new(line)));
        }
    }

    /// A line that nobody asked for.
    pub(super) fn note_unasked(&mut self, line: &[u8]) {
        let line = ClientText::new(line);
        self.fail_unasked(match &self.answer {
            Some((first, _)) => format!("{:?} and then {line:?}", ClientText::new(first)),
            None => format!("{line:?}"),
        });
    }

    fn fail_unasked(&mut self, came: String) {
        if let Some(sent) = self.test.clone() {
            self.outcome.get_or_insert(Err(CommandError::Unasked { sent, came }));
        }
    }

    pub(super) fn note_end(&mut self, status: ExitStatus) {
        self.status = Some(status);
    }

    pub(super) fn fail_start(&mut self, problem: &str) {
        self.outcome.get_or_insert(Err(CommandError::Start { problem: problem.to_owned() }));
    }

    /// Whether it is this that bounds the wait for an answer.
    pub(super) fn is_asking(&self) -> bool {
        self.test.is_some()
    }

    /// The message gets no answer.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.is_tested {
            return;
        }
        let sent = self.test.clone().unwrap_or_default();
        let end = match (failure, self.status) {
            (Failure::ProcessEnded, Some(status)) => format!("ended ({status}) without an answer"),
            (Failure::CircuitOpen, Some(status)) => {
                format!("ended ({status}) before it could be asked, whenever it was started")
            }
            (Failure::ProcessEnded, None) => "wrote what is no answer".to_owned(),
            _ => "could not take it".to_owned(),
        };
        self.outcome.get_or_insert(Err(CommandError::Ended { sent, end }));
    }

    /// `begun` is what has come of an answer.
    pub(super) fn check_time(&mut self, now: Instant, begun: &[u8]) {
        if let Some(until) = self.quiet_until() {
            self.is_tested = now >= until;
            return;
        }
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        self.until = None;
        if self.is_tested {
            let problem = "it took longer than self_test_timeout".to_owned();
            self.outcome.get_or_insert(Err(CommandError::Start { problem }));
        } else {
            self.fail_late(begun);
        }
    }

    fn fail_late(&mut self, begun: &[u8]) {
        let came = match begun {
            [] => "nothing came back".to_owned(),
            begun => format!("only {:?} came back, without an end of line", ClientText::new(begun)),
        };
        let sent = self.test.clone().unwrap_or_default();
        let seconds = self.timeout.as_secs_f64();
        self.outcome.get_or_insert(Err(match self.status {
            Some(status) if begun.is_empty() => {
                let end = format!("ended ({status}) and has not answered within {seconds} s");
                CommandError::Ended { sent, end }
            }
            _ => CommandError::NoAnswer { sent, came, seconds },
        }));
    }

    /// Tells the start, once there is something to tell.
    pub(super) fn is_concluded(&mut self) -> bool {
        if self.outcome.is_none() && self.starts == 0 && self.is_tested {
            self.outcome = Some(Ok(()));
        }
        let Some(outcome) = self.outcome.take() else { return false };
        // The start may have failed elsewhere meanwhile.
        let _ = self.told.send(outcome);
        true
    }
}
