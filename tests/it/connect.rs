//! `talkback connect` as a program: its streams, its exit codes and the one line of a failure.
//! The servers are std's listeners, and the one of the notes in Python.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Long enough for a loaded machine, and never waited for unless the program hangs.
const HANG: Duration = Duration::from_secs(60);

const NOTES_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notes/server.py");

fn connect(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
    command.arg("connect").args(arguments);
    command
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a program whose input, unless taken before, is closed now.
#[track_caller]
fn end(child: Child) -> Output {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    ended.recv_timeout(HANG).expect("the program ends").unwrap()
}

/// Gives the program its whole input.
#[track_caller]
fn filter(arguments: &[&str], input: &str) -> Output {
    let mut child = start(&mut connect(arguments));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    end(child)
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str) {
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(code), stdout),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Standard error of a failure: one line, no backtrace.
#[track_caller]
fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    text
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A server for one connection; `serve` runs on a thread of its own.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let (listener, address) = listen();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    address
}

fn echo(mut stream: TcpStream) {
    let mut copy = stream.try_clone().unwrap();
    std::io::copy(&mut stream, &mut copy).unwrap();
}

#[test]
fn a_filter_sends_its_input_and_prints_every_reply() {
    check(&filter(&[&server(echo)], "hello\n你好 🦀\nlast"), 0, "hello\n你好 🦀\nlast");
    check(&filter(&[&server(echo)], ""), 0, "");
}

#[test]
fn input_of_any_size_comes_back_whole() {
    let input = "0123456789abcde\n".repeat(1 << 18);
    let mut child = start(&mut connect(&[&server(echo)]));
    let mut stdin = child.stdin.take().unwrap();
    let copy = input.clone();
    let writer = thread::spawn(move || stdin.write_all(copy.as_bytes()));
    let output = end(child);
    writer.join().unwrap().unwrap();
    assert!(output.stdout == input.as_bytes(), "{} bytes came back", output.stdout.len());
    assert!(output.status.success());
}

#[test]
fn replies_after_the_half_close_are_printed() {
    let address = server(|mut stream| {
        let mut input = String::new();
        stream.read_to_string(&mut input).unwrap();
        writeln!(stream, "{} bytes", input.len()).unwrap();
    });
    check(&filter(&[&address], "hello\n"), 0, "6 bytes\n");
}

#[test]
fn lines_are_answered_while_the_input_stays_open() {
    let mut child = start(&mut connect(&[&server(echo)]));
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for line in ["one\n", "two\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        stdout.read_line(&mut reply).unwrap();
        assert_eq!(reply, line);
    }
    drop(stdin);
    check(&end(child), 0, "");
}

#[test]
fn a_server_that_ends_first_ends_the_program_while_its_input_is_open() {
    let address = server(|mut stream| stream.write_all(b"good bye").unwrap());
    let mut child = start(&mut connect(&[&address]));
    let _open = child.stdin.take();
    check(&end(child), 0, "good bye");
}

#[test]
fn on_a_terminal_a_reply_is_a_line_and_the_servers_end_ends_the_program() {
    let address = server(|mut stream| {
        let mut word = [0; 5];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
    });
    let terminal = "import os, pty, sys\n\
                    sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let program = env!("CARGO_BIN_EXE_talkback");
    let mut command = Command::new("python3");
    command.args(["-c", terminal, program, "connect", "--no-newline", &address]);
    let mut child = start(&mut command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    // The terminal shows what is typed, then the reply; it turns LF into CR LF.
    check(&end(child), 0, "hello\r\nhello\r\n");
}

#[test]
fn a_reset_is_one_line_and_exit_code_1() {
    let address = server(|mut stream| {
        stream.write_all(b"half").unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let mut child = start(&mut connect(&[&address]));
    let _open = child.stdin.take();
    let output = end(child);
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output);
    assert!(line.contains(&address) && line.contains("reset"), "{line}");
}

#[test]
fn a_refusal_is_one_line_and_exit_code_1() {
    // Bound and not listening: no one else can have the port, and it refuses.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    let output = filter(&[&address], "");
    check(&output, 1, "");
    let line = one_line(&output);
    assert!(line.contains(&address) && line.contains("nothing listens there"), "{line}");
}

#[test]
fn a_bad_address_is_a_usage_error_that_says_what_is_allowed() {
    for address in ["8889", "localhost", "localhost:0", "::1:8889", "unix:x", "0.0.0.0:8889"] {
        let output = filter(&[address], "");
        check(&output, 2, "");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(address), "{text}");
    }
    let output = filter(&["nonsense"], "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("HOST:PORT, [IPv6]:PORT, unix:/path or unix:@name"), "{text}");
}

#[test]
fn a_unix_socket_is_served_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut copy = stream.try_clone().unwrap();
        std::io::copy(&mut stream, &mut copy).unwrap();
    });
    check(&filter(&[&format!("unix:{}", path.display())], "hello\n"), 0, "hello\n");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_program_quietly() {
    // Sends for as long as it may, so that only the closed pipe can end the program.
    let address = server(|mut stream| while stream.write_all(b"line\n").is_ok() {});
    let mut child = start(&mut connect(&[&address]));
    let _open = child.stdin.take();
    let mut head = Command::new("head");
    head.arg("-1").stdin(child.stdout.take().unwrap()).stdout(Stdio::piped());
    let seen = head.spawn().unwrap().wait_with_output().unwrap();
    // The command holds the pipe's reading end as well.
    drop(head);
    assert_eq!(seen.stdout, b"line\n");
    let output = end(child);
    check(&output, 0, "");
    assert_eq!(output.stderr, b"");
}

/// Starts the server of the notes; its port, and the lines it prints for what it received.
fn server_of_the_notes() -> (Child, String, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new("python3");
    command.args([NOTES_SERVER, "127.0.0.1", "0"]).env("PYTHONUTF8", "1");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut received = BufReader::new(child.stdout.take().unwrap());
    let mut port = String::new();
    received.read_line(&mut port).unwrap();
    (child, format!("127.0.0.1:{}", port.trim()), received)
}

#[test]
fn the_server_of_the_notes_gets_each_line_as_a_message_and_exit_as_the_word() {
    let (mut child, address, mut received) = server_of_the_notes();
    let input = "hello\n\n你好，世界\n🦀👩‍👩‍👧 émoji\nexit\nunsaid\n";
    let output = filter(&["--no-newline", &address], input);
    check(&output, 0, "hello你好，世界🦀👩‍👩‍👧 émoji");
    let mut lines = String::new();
    received.read_to_string(&mut lines).unwrap();
    assert_eq!(lines, "hello\n你好，世界\n🦀👩‍👩‍👧 émoji\nexit\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_server_of_the_notes_sees_the_end_of_input_as_an_empty_receive() {
    let (mut child, address, mut received) = server_of_the_notes();
    check(&filter(&["--no-newline", &address], "你好"), 0, "你好");
    let mut lines = String::new();
    received.read_to_string(&mut lines).unwrap();
    assert_eq!(lines, "你好\n\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_that_only_stops_sending_has_ended_the_conversation() {
    let (listener, address) = listen();
    let child = start(&mut connect(&[&address]));
    let stream = listener.accept().unwrap().0;
    stream.shutdown(Shutdown::Write).unwrap();
    check(&end(child), 0, "");
}
