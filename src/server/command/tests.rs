//! Real processes. Tests that look at the whole process, or change it, run in one of their own.

mod ends;
mod failures;
mod groups;
mod surroundings;
mod words;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::order::{Order, ProcessId, Progress, SpawnError, Watch};
use super::pipes::pipes;
use super::{Keeper, KeeperThread, Program, Setup};

/// Nothing here takes that long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Orders of connections that may wait.
const MAX_WAITING: usize = 20;

/// A keeper, and what it tells.
struct Stage {
    keeper: Keeper,
    thread: KeeperThread,
    lines: Arc<AtomicU64>,
}

/// A process of a stage.
struct Running {
    keeper: Keeper,
    process: ProcessId,
    input: Option<OwnedFd>,
    output: OwnedFd,
    ended: Receiver<(ProcessId, ExitStatus)>,
}

impl Stage {
    fn new() -> Self {
        let (keeper, thread) = Keeper::start(MAX_WAITING, || true).unwrap();
        Self { keeper, thread, lines: Arc::default() }
    }

    /// Ends with the process only.
    fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    fn program(&self, setup: &Setup) -> Arc<Program> {
        let lines = self.lines.clone();
        let count = move |more| {
            lines.fetch_add(more, Ordering::Relaxed);
        };
        Arc::new(Program::resolve("main", setup, count).unwrap())
    }

    #[track_caller]
    fn spawn(&self, setup: &Setup) -> Running {
        self.try_spawn(&self.program(setup), &[]).expect("it starts")
    }

    #[track_caller]
    fn try_spawn(
        &self,
        program: &Arc<Program>,
        environment: &[(&str, &str)],
    ) -> Result<Running, SpawnError> {
        let (told, outcome) = unbounded();
        let (end, ended) = unbounded();
        let (ours, theirs) = pipes()?;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.keeper.spawn(Order {
            program: program.clone(),
            environment: environment.iter().map(owned).collect(),
            ends: Box::new(|| Some(theirs)),
            ordered: Instant::now(),
            connection: None,
            started: Box::new(move |outcome| told.send(outcome).unwrap()),
            ended: Box::new(move |process, status| {
                // The test may be over before the process is.
                let _ = end.send((process, status));
            }),
        });
        let outcome = outcome.recv_timeout(PATIENCE).expect("the keeper tells of every order");
        let (keeper, process) = (self.keeper.clone(), outcome?);
        Ok(Running { keeper, process, input: Some(ours.input), output: ours.output, ended })
    }

    /// What such a program says on standard output until it ends.
    #[track_caller]
    fn says(&self, setup: &Setup) -> String {
        self.spawn(setup).rest()
    }
}

impl Running {
    /// Reads until a line ends.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            assert_eq!(self.read(&mut byte), 1, "after {:?}", String::from_utf8_lossy(&line));
            line.push(byte[0]);
        }
        line.pop();
        String::from_utf8(line).unwrap()
    }

    /// Reads until nobody can write to it any more.
    #[track_caller]
    fn rest(&mut self) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.read(&mut buffer) {
                0 => return String::from_utf8(text).unwrap(),
                length => text.extend_from_slice(&buffer[..length]),
            }
        }
    }

    #[track_caller]
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        await_readable(&self.output);
        rustix::io::read(&self.output, buffer).unwrap()
    }

    /// Has it ended.
    fn end(&self) {
        self.keeper.end(self.process);
    }

    /// Waits for its end.
    #[track_caller]
    fn status(&self) -> ExitStatus {
        let (process, status) = self.ended.recv_timeout(PATIENCE).expect("its end is told");
        assert_eq!(process, self.process);
        status
    }
}

fn shell(script: &str) -> Setup {
    program(&["sh", "-c", script])
}

fn program(argv: &[&str]) -> Setup {
    Setup {
        argv: argv.iter().map(|&part| part.to_owned()).collect(),
        environment: vec!["PATH".to_owned()],
        ..Setup::default()
    }
}

/// Two seconds, as long as nothing keeps the machine busy for the rest of this.
#[track_caller]
fn check_took_the_grace(began: Instant) {
    let took = began.elapsed();
    assert!(took >= GRACE && took < GRACE * 2, "{took:?}");
}

#[track_caller]
fn await_readable(file: &impl AsFd) {
    let mut polled = [PollFd::new(file, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut polled, Some(&patience)).unwrap(), 1, "nothing comes");
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Set where a test is the only one of its process.
const ALONE: &str = "TALKBACK_TEST_ALONE";

/// Whether the test is alone in this process; if not, runs it in one where it is, behind `before`.
#[track_caller]
fn is_alone(test: &str, before: &[&str]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let (status, output) = run_alone(test, before);
    assert!(status.success(), "{status}\n{output}");
    false
}

fn run_alone(test: &str, before: &[&str]) -> (ExitStatus, String) {
    let mut child = alone(test, before).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    let stderr: &mut dyn Read = &mut child.stderr.take().unwrap();
    stderr.read_to_string(&mut output).unwrap();
    (child.wait().unwrap(), output)
}

/// The command that runs a test of this module in a process of its own.
fn alone(test: &str, before: &[&str]) -> Command {
    let myself = std::env::current_exe().unwrap();
    let mut command = match before.split_first() {
        None => Command::new(myself),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(myself);
            command
        }
    };
    let name = format!("server::command::tests::{test}");
    command.args([&name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1");
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command
}

/// The processes whose parent is this one.
fn children() -> io::Result<Vec<String>> {
    let own = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc")?.flatten();
    let stats = processes.filter_map(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
        let state_and_parent = &stat.rsplit_once(") ")?.1[1..];
        state_and_parent.starts_with(&own).then_some(stat)
    });
    Ok(stats.collect())
}
