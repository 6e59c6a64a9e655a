//! What a program has to show before the server is ready: that its first processes start, and that
//! it answers a message, if it is told to.

use std::process::ExitStatus;
use std::sync::Arc;
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

/// Waited for by the start.
pub(in crate::server) type Proven = Receiver<Outcome>;

/// What is still to be shown.
pub(in crate::server) struct Proof {
    /// Processes still to be started.
    starts: usize,
    test: Option<String>,
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
        let (until, status, outcome) = (None, None, None);
        (Self { starts, test, is_tested, timeout, until, status, outcome, told }, proven)
    }

    /// What the program is to read.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Arc<[u8]>> {
        self.until = Some(now + self.timeout);
        self.test.as_ref().map(|test| Arc::from(format!("{test}\n").as_bytes()))
    }

    /// When the time is over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn note_start(&mut self) {
        self.starts = self.starts.saturating_sub(1);
    }

    pub(super) fn note_reply(&mut self) {
        self.is_tested = true;
    }

    pub(super) fn note_end(&mut self, status: ExitStatus) {
        self.status = Some(status);
    }

    pub(super) fn fail_start(&mut self, problem: &str) {
        self.outcome.get_or_insert(Err(CommandError::Start { problem: problem.to_owned() }));
    }

    /// The message gets no answer.
    pub(super) fn fail(&mut self, failure: Failure) {
        let sent = self.test.clone().unwrap_or_default();
        let end = match (failure, self.status) {
            (Failure::ProcessEnded, Some(status)) => format!("ended ({status}) without an answer"),
            (Failure::ProcessEnded, None) => "wrote what is no answer".to_owned(),
            (Failure::ReplyTimeout, _) => "took longer than reply_timeout".to_owned(),
            _ => "could not take it".to_owned(),
        };
        self.outcome.get_or_insert(Err(CommandError::Ended { sent, end }));
    }

    /// `begun` is what has come of an answer.
    pub(super) fn check_time(&mut self, now: Instant, begun: &[u8]) {
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        self.until = None;
        let came = match (&self.test, begun) {
            (None, _) => {
                let problem = "it took longer than self_test_timeout".to_owned();
                self.outcome.get_or_insert(Err(CommandError::Start { problem }));
                return;
            }
            (Some(_), []) => "nothing came back".to_owned(),
            (Some(_), begun) => {
                format!("only {:?} came back, without an end of line", ClientText::new(begun))
            }
        };
        let sent = self.test.clone().unwrap_or_default();
        let seconds = self.timeout.as_secs_f64();
        self.outcome.get_or_insert(Err(CommandError::NoAnswer { sent, came, seconds }));
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
