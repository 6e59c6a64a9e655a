//! Conversations over loopback and socket pairs, with channels in place of standard input.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;

/// Input that stays open for as long as its other end does, as a terminal does.
struct Held {
    pieces: mpsc::Receiver<Vec<u8>>,
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.pieces.recv() {
            Ok(piece) => {
                buffer[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
            Err(mpsc::RecvError) => Ok(0),
        }
    }
}

fn held() -> (mpsc::Sender<Vec<u8>>, Held) {
    let (sender, pieces) = mpsc::channel();
    (sender, Held { pieces })
}

const BYTES: Manner = Manner { sending: Sending::Bytes, finish_lines: false };
const LINES: Manner = Manner { sending: Sending::LinesInTurn, finish_lines: false };

/// Holds a conversation with `serve` at the other end; what came out, and how it ended.
fn talk<I, S>(input: I, manner: Manner, serve: S) -> (String, Result<End, ConversationError>)
where
    I: Read + Send + 'static,
    S: FnOnce(UnixStream) + Send,
{
    let (client, server) = UnixStream::pair().expect("a pair");
    let mut output = Vec::new();
    let end = thread::scope(|scope| {
        scope.spawn(move || serve(server));
        converse(Stream::Unix(client), input, &mut output, manner)
    });
    (String::from_utf8(output).expect("the tests send text"), end)
}

fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    (client, listener.accept().expect("accepts").0)
}

/// Receives as the server of the notes does: at most 1,024 bytes, and `None` at the end.
fn recv(mut server: &UnixStream) -> Option<String> {
    let mut buffer = [0; 1024];
    let count = server.read(&mut buffer).expect("receives");
    (count > 0).then(|| String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// The server of the notes; what it received.
fn as_in_the_notes(mut server: &UnixStream) -> Vec<String> {
    let mut received = Vec::new();
    while let Some(text) = recv(server) {
        received.push(text.clone());
        if text == "exit" {
            break;
        }
        server.write_all(text.as_bytes()).expect("replies");
    }
    received
}

#[test]
fn input_is_half_closed_at_its_end_and_the_last_replies_still_come() {
    let (output, end) = talk(&b"hello\n"[..], BYTES, |mut server| {
        let mut all = String::new();
        server.read_to_string(&mut all).expect("reads to the half-close");
        write!(server, "you said {all}").expect("replies");
    });
    assert_eq!(output, "you said hello\n");
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
}

#[test]
fn bytes_leave_as_they_come_and_not_at_the_end_of_input() {
    let (input, pieces) = held();
    input.send(b"no newline".to_vec()).expect("the input is open");
    let (output, end) = talk(pieces, BYTES, |server| {
        assert_eq!(recv(&server).as_deref(), Some("no newline"));
        drop(input);
        assert_eq!(recv(&server), None);
    });
    assert_eq!(output, "");
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
}

#[test]
fn a_server_that_ends_first_ends_it_while_the_input_is_open() {
    let (input, pieces) = held();
    let (output, end) =
        talk(pieces, BYTES, |mut server| server.write_all(b"bye").expect("says bye"));
    assert_eq!(output, "bye");
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
    drop(input);
}

#[test]
fn a_server_that_ends_without_reading_ends_it_while_a_send_waits_for_room() {
    let (client, server) = loopback();
    server.shutdown(std::net::Shutdown::Write).expect("half-closes");
    let end = converse(Stream::Tcp(client), io::repeat(b'x'), io::sink(), BYTES);
    assert!(matches!(end, Ok(End::Server)), "{end:?}");

    let (client, server) = UnixStream::pair().expect("a pair");
    server.shutdown(std::net::Shutdown::Write).expect("half-closes");
    let end = converse(Stream::Unix(client), io::repeat(b'x'), io::sink(), BYTES);
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
}

#[test]
fn a_reset_is_told_after_what_came_before_it() {
    let (client, server) = loopback();
    (&server).write_all(b"half an ans").expect("replies");
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("sets linger");
    drop(server);
    let (_open, input) = held();
    let mut output = Vec::new();
    let end = converse(Stream::Tcp(client), input, &mut output, BYTES);
    assert_eq!(output, b"half an ans");
    assert!(matches!(end, Err(ConversationError::Reset)), "{end:?}");
}

#[test]
fn a_reset_that_a_send_was_told_of_is_not_taken_for_an_orderly_end() {
    // Which call the kernel tells is a race: both ways must come to the same.
    for _ in 0..200 {
        let (client, server) = loopback();
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("sets linger");
        let end = thread::scope(|scope| {
            scope.spawn(move || {
                let mut server = server;
                server.read_exact(&mut [0; 1000]).expect("receives");
            });
            converse(Stream::Tcp(client), io::repeat(b'x'), io::sink(), BYTES)
        });
        assert!(matches!(end, Err(ConversationError::Reset)), "{end:?}");
    }
}

#[test]
fn an_output_that_nobody_reads_any_more_ends_it_quietly() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let (client, mut server) = UnixStream::pair().expect("a pair");
    server.write_all(b"for nobody").expect("replies");
    let (_open, input) = held();
    let end = converse(Stream::Unix(client), input, writer, BYTES);
    assert!(matches!(end, Ok(End::Output)), "{end:?}");
}

#[test]
fn an_output_that_fails_otherwise_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let (client, mut server) = UnixStream::pair().expect("a pair");
    server.write_all(b"too much").expect("replies");
    let (_open, input) = held();
    let end = converse(Stream::Unix(client), input, full, BYTES);
    assert!(matches!(end, Err(ConversationError::Output(_))), "{end:?}");
}

#[test]
fn input_that_fails_is_an_error_once_its_replies_have_come() {
    let directory = std::fs::File::open("/").expect("a directory opens");
    let input = (&b"hello"[..]).chain(directory);
    let (output, end) = talk(input, BYTES, |server| {
        as_in_the_notes(&server);
    });
    assert_eq!(output, "hello");
    assert!(matches!(end, Err(ConversationError::Input(_))), "{end:?}");
}

#[test]
fn lines_in_turn_are_messages_of_their_own_and_exit_is_exactly_the_word() {
    let mut received = Vec::new();
    let input = "hello\n\n你好，世界\r\n\r\n🦀 émoji\nexit\nunsaid\n";
    let (output, end) = talk(input.as_bytes(), LINES, |server| received = as_in_the_notes(&server));
    assert_eq!(received, ["hello", "你好，世界", "🦀 émoji", "exit"]);
    assert_eq!(output, "hello你好，世界🦀 émoji");
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
}

#[test]
fn a_last_line_without_ending_is_sent_and_the_end_does_not_wait_for_its_reply() {
    let (output, end) = talk(&b"one\ntwo"[..], LINES, |mut server| {
        assert_eq!(recv(&server).as_deref(), Some("one"));
        server.write_all(b"1").expect("replies");
        assert_eq!(recv(&server).as_deref(), Some("two"));
        assert_eq!(recv(&server), None);
    });
    assert_eq!(output, "1");
    assert!(matches!(end, Ok(End::Server)), "{end:?}");
}

#[test]
fn a_line_of_any_length_goes_out_in_pieces() {
    let long = "x".repeat(2 * CHUNK_BYTES + 1);
    let mut received = 0;
    let (output, _) = talk(io::Cursor::new(format!("{long}\n")), LINES, |mut server| {
        while let Some(text) = recv(&server) {
            received += text.len();
            server.write_all(text.as_bytes()).expect("replies");
        }
    });
    assert_eq!(received, long.len());
    assert_eq!(output, long);
}

#[test]
fn on_a_terminal_a_reply_without_line_ending_gets_one() {
    let manner = Manner { finish_lines: true, ..LINES };
    let (input, pieces) = held();
    let (mut shown, screen) = io::pipe().expect("a pipe");
    let (client, mut server) = UnixStream::pair().expect("a pair");
    thread::scope(|scope| {
        scope.spawn(move || converse(Stream::Unix(client), pieces, screen, manner));
        // Once the newline is there, the reply was taken for whole: no need to time anything.
        server.write_all(b"name?").expect("asks");
        let mut first = [0; 6];
        shown.read_exact(&mut first).expect("shows it");
        assert_eq!(&first, b"name?\n");
        server.write_all(b"whole\ncut").expect("replies");
        drop(server);
        let mut rest = String::new();
        shown.read_to_string(&mut rest).expect("shows the rest");
        assert_eq!(rest, "whole\ncut\n");
    });
    drop(input);
}
