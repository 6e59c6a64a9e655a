//! A program that dies as soon as it has started: who is told, and how it comes back.

use super::*;

#[test]
fn a_program_that_dies_at_once_opens_the_circuit_and_readiness_says_why() {
    let keys = "restart_delay = \"10ms\"\nmax_restart_delay = \"40ms\"\nmax_processes = 2";
    let broken = Broken::new();
    let server = shared(&broken.program(), keys);
    await_open(&server, DIES, "exit status: 3");
    // One that asks while another process is tried may see that one die.
    let answer = |text: &str| server.connect().exchange(text.as_bytes());
    eventually("who asks is refused", || answer("x\n") == b"busy\n");
    let metrics = server.metrics();
    assert!(refused(&metrics, "circuit_open") > 0.0);
    assert!(ends(&metrics, "failed") >= 5.0);
    broken.mend();
    // The first reply of the one that is tried closes it.
    eventually("it answers", || answer("y\n") == b"y\n");
    await_closed(&server);
}

#[test]
fn an_open_circuit_closes_without_being_asked_when_a_process_lives() {
    let keys = "restart_delay = \"1ms\"\nmax_restart_delay = \"40ms\"";
    let broken = Broken::new();
    let server = shared(&broken.program(), keys);
    await_open(&server, DIES, "exit status: 3");
    broken.mend();
    // A balancer that goes by /readyz sends nobody meanwhile.
    await_closed(&server);
    let metrics = server.metrics();
    assert_eq!((of_main(&metrics, "reply_seconds_count"), processes(&metrics, "idle")), (0.0, 1.0));
    assert_eq!(metrics.sum("talkback_command_refused_total"), 0.0);
    let mut client = server.connect();
    client.echo("x\n");
}

const DIES: &str = " dies before it answers (";

/// Neither does it die, nor is a word of the process that did meanwhile left.
#[test]
fn a_program_whose_file_has_gone_is_named_by_readiness_and_in_the_log() {
    let keys = "restart_delay = \"10ms\"\nmax_restart_delay = \"40ms\"\nmax_processes = 1";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app");
    std::os::unix::fs::symlink("/bin/cat", &file).unwrap();
    let server = shared(&format!("[{file:?}]"), keys);
    let mut client = server.connect();
    client.echo("x\n");
    fs::remove_file(&file).unwrap();
    kill(first_started(&server));
    let cause = format!("{} cannot be started: cannot execute ", file.display());
    await_open(&server, &cause, "No such file or directory");
    std::os::unix::fs::symlink("/bin/cat", &file).unwrap();
    eventually("it answers", || server.connect().exchange(b"y\n") == b"y\n");
    await_closed(&server);
}

fn first_started(server: &Server) -> u32 {
    let event = server.logged("process started").expect("a process");
    event["pid"].as_u64().unwrap().try_into().unwrap()
}

/// A program that says why it cannot live, until it is mended.
struct Broken {
    dir: tempfile::TempDir,
}

impl Broken {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn flag(&self) -> std::path::PathBuf {
        self.dir.path().join("works")
    }

    fn program(&self) -> String {
        let flag = self.flag();
        let check = format!("test -e {} || {{ echo no flag >&2; exit 3; }}", flag.display());
        sh(&format!("{check}; while read x; do echo $x; done"))
    }

    fn mend(&self) {
        fs::write(self.flag(), "").unwrap();
    }
}

/// The circuit opens, and who has to know is told what is `wrong` and the `cause`: by the metric,
/// by /readyz, and by the log, where before it stands what the processes said.
#[track_caller]
fn await_open(server: &Server, wrong: &str, cause: &str) {
    server.eventually("the circuit is open", |metrics| of_main(metrics, "circuit_open") == 1.0);
    let (status, why) = server.get("/readyz");
    assert_eq!(status, 503);
    let trouble = why.strip_prefix("listener main: ").expect(&why);
    let trouble = trouble.strip_suffix("; it is tried again, see the log\n").expect(&why);
    assert!(trouble.starts_with("its program /") && trouble.contains(wrong), "{why}");
    assert!(trouble.contains(cause), "{why}");
    let opened = "messages are refused until a process lives";
    eventually("it is logged", || server.logged(opened).is_some());
    let log = server.log();
    let at = log.iter().position(|event| event["message"] == opened).unwrap();
    assert_eq!((&log[at]["level"], &log[at]["listener"]), (&"WARN".into(), &"main".into()));
    assert!(log[at]["next_try_seconds"].as_f64() > Some(0.0));
    assert!(log[at]["max_restart_delay_seconds"].as_f64() >= log[at]["next_try_seconds"].as_f64());
    assert_eq!(log[at]["why"], trouble);
    let Some(status) = cause.strip_prefix("exit status") else { return };
    let before = |message: &str, key: &str| {
        let mut before = log[..at].iter().rev();
        before.find(|event| event["message"] == message).expect(message)[key].clone()
    };
    assert_eq!(before("a process ended", "status"), format!("exit status{status}"));
    assert_eq!(before("standard error", "text"), "no flag");
}

#[track_caller]
fn await_closed(server: &Server) {
    server.eventually("the circuit is closed", |metrics| of_main(metrics, "circuit_open") == 0.0);
    assert_eq!(server.get("/readyz"), (200, "ready\n".to_owned()));
    let closed = "messages are answered again: a process lives";
    eventually("it is logged", || server.logged(closed).is_some());
}
