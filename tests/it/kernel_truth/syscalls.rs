//! What the kernel's truth costs: one system call at accept and one at the close, none a message.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::harness::Server;

/// strace on every thread of a server.
struct Trace {
    strace: Child,
    /// It would end if nobody could hear it.
    _says: BufReader<ChildStderr>,
    directory: tempfile::TempDir,
}

impl Trace {
    /// Returns when it watches all of them.
    #[track_caller]
    fn of(server: &Server, calls: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-p"]).arg(server.pid().to_string());
        command.arg("-o").arg(directory.path().join("trace")).args(["-e", calls]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().unwrap();
        let mut says = BufReader::new(strace.stderr.take().unwrap());
        let mut said = String::new();
        says.read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "{said:?} (kernel.yama.ptrace_scope?)");
        Self { strace, _says: says, directory }
    }

    /// The calls seen until now, a line each; those that were interrupted by another thread's are
    /// told at their beginning.
    #[track_caller]
    fn end(mut self) -> Vec<String> {
        self.let_go();
        let text = fs::read_to_string(self.directory.path().join("trace")).unwrap();
        let lines = text.lines().filter(|line| !line.contains("resumed>"));
        lines.map(str::to_owned).collect()
    }

    fn let_go(&mut self) {
        // Asked to end it lets the server go; killed, it would leave it stopped.
        if let Ok(pid) = i32::try_from(self.strace.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may have ended before.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.strace.wait();
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.let_go();
    }
}

const CLIENTS: usize = 7;

/// What so many clients with so many messages each cost in calls that ask the kernel.
#[track_caller]
fn check(messages: usize) {
    let server = Server::with_listener("");
    let trace = Trace::of(&server, "trace=getsockopt,ioctl");
    for _ in 0..CLIENTS {
        let mut client = server.connect();
        for _ in 0..messages {
            client.echo("hello");
        }
        client.send("exit");
        client.expect_end();
    }
    server.await_close_lines(CLIENTS);
    let calls = trace.end();
    let about = |what: &str| calls.iter().filter(|call| call.contains(what)).count();
    let all = calls.join("\n");
    assert_eq!(about("TCP_INFO"), 2 * CLIENTS, "{messages} messages each\n{all}");
    // What else is asked, a scrape asks: of the listener.
    assert_eq!(about("getsockopt("), about("TCP_INFO"), "{messages} messages each\n{all}");
}

#[test]
fn the_kernel_is_asked_once_at_accept_and_once_at_the_close_and_never_for_a_message() {
    check(0);
    check(50);
}
