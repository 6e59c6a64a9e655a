//! Urgent data is data, in its place: recv(2) stops in front of it, and nobody must wait behind it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use rustix::process::Signal;
use socket2::SockRef;

use super::{LINE, start};
use crate::harness::{Client, PATIENCE, Server};
use crate::stuck::{self, stuck_client};

/// One send; the last byte of an urgent one is what the kernel marks.
enum Piece {
    Plain(&'static [u8]),
    Urgent(&'static [u8]),
}

use Piece::{Plain, Urgent};

impl Piece {
    fn bytes(&self) -> &'static [u8] {
        let (Plain(bytes) | Urgent(bytes)) = self;
        bytes
    }
}

#[track_caller]
fn send(client: &mut Client, pieces: &[Piece]) {
    for piece in pieces {
        match piece {
            Plain(bytes) => client.send(bytes),
            Urgent(bytes) => urge(client, bytes),
        }
    }
}

#[track_caller]
fn urge(client: &Client, bytes: &[u8]) {
    assert_eq!(SockRef::from(&client.stream).send_out_of_band(bytes).unwrap(), bytes.len());
}

/// Where urgent data may stand; whole lines, and their echo in line framing.
const POSITIONS: &[(&[Piece], &str)] = &[
    (&[Urgent(b"!"), Plain(b"before\n")], "!before\n"),
    (&[Plain(b"wit"), Urgent(b"!"), Plain(b"hin\n")], "wit!hin\n"),
    (&[Plain(b"behind\n"), Urgent(b"!"), Plain(b"\n")], "behind\n!\n"),
    (&[Plain(b"the end"), Urgent(b"\n")], "the end\n"),
    (&[Plain(b"the end"), Urgent(b"\n"), Plain(b"and on\n")], "the end\nand on\n"),
    (&[Plain(b"CR"), Urgent(b"\r"), Plain(b"\n")], "CR\n"),
    (&[Urgent(b"\n")], "\n"),
    (&[Urgent(b"all of it\n")], "all of it\n"),
    (&[Urgent(b"1"), Urgent(b"2"), Urgent(b"3"), Urgent(b"\n")], "123\n"),
    (&[Plain(b"a"), Urgent(b"1"), Plain(b"b"), Urgent(b"2"), Plain(b"c\n")], "a1b2c\n"),
    (&[Plain(b"\xE4"), Urgent(b"\xBD"), Plain(b"\xA0\n")], "你\n"),
    (&[Urgent(b"\xF0"), Urgent(b"\x9F"), Urgent(b"\x99"), Urgent(b"\x82"), Plain(b"\n")], "🙂\n"),
];

/// The positions one by one, on a new connection and on one that has been waited for.
#[track_caller]
fn check_positions(keys: &str, reply: impl Fn(&[Piece], &str) -> Vec<u8>) {
    let server = start(keys, "");
    for (pieces, echo) in POSITIONS {
        let mut client = server.connect();
        for _ in 0..5 {
            send(&mut client, pieces);
            client.expect(reply(pieces, echo));
        }
        client.finish();
        client.expect_end();
    }
    let mut client = server.connect();
    for (pieces, echo) in POSITIONS {
        send(&mut client, pieces);
        client.expect(reply(pieces, echo));
    }
    drop(client);
    server.eventually_closed(&[("peer_closed", POSITIONS.len() as u64 + 1)]);
}

#[test]
fn an_urgent_byte_is_a_byte_of_its_line_wherever_it_stands() {
    check_positions(LINE, |_, echo| echo.as_bytes().to_vec());
}

#[test]
fn an_urgent_byte_of_raw_text_comes_back_in_its_place() {
    check_positions("", |pieces, _| pieces.iter().flat_map(Piece::bytes).copied().collect());
}

#[test]
fn an_urgent_byte_in_front_of_the_fin_is_answered() {
    for (keys, reply) in [("", "abc!"), (LINE, "abc!\n")] {
        let server = start(keys, "");
        for _ in 0..20 {
            let mut client = server.connect();
            send(&mut client, &[Plain(b"abc"), Urgent(b"!")]);
            client.finish();
            assert_eq!(client.read_to_end(), reply.as_bytes());
        }
        server.eventually_closed(&[("peer_closed", 20)]);
    }
}

#[test]
fn an_urgent_byte_may_be_the_last_of_the_exit_word() {
    let server = start(LINE, "");
    let mut client = server.connect();
    send(&mut client, &[Plain(b"a\nexi"), Urgent(b"t"), Plain(b"\n")]);
    assert_eq!(client.read_to_end(), b"a\n");
    // Discarded like any other byte behind the exit word.
    send(&mut client, &[Urgent(b"!"), Plain(b"more"), Urgent(b"!")]);
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    assert_eq!(server.metrics().sum("talkback_received_bytes_total"), 13.0);
}

#[test]
fn thousands_of_urgent_bytes_without_a_pause_are_all_in_their_places() {
    for keys in ["", LINE] {
        let server = start(keys, "messages_per_turn = 3");
        let mut client = server.connect();
        let mut out = Client { stream: client.stream.try_clone().unwrap() };
        let replies = std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..1000 {
                    send(&mut out, &[Plain(b"ab"), Urgent(b"!"), Urgent(b"?"), Plain(b"cd\n")]);
                }
                out.finish();
            });
            client.read_to_end()
        });
        assert!(replies == "ab!?cd\n".repeat(1000).as_bytes(), "{} bytes", replies.len());
        server.eventually_closed(&[("peer_closed", 1)]);
    }
}

#[test]
fn urgent_data_to_a_server_that_does_not_read_is_answered_when_it_reads_again() {
    let server = start(LINE, "");
    let mut client = stuck_client(&server, server.address());
    client.stream.set_nonblocking(true).unwrap();
    // The server's kernel may have no room for it; the mark goes ahead all the same.
    let is_taken = SockRef::from(&client.stream).send_out_of_band(b"!").is_ok();
    client.stream.set_nonblocking(false).unwrap();
    client.finish();
    let replies = client.read_to_end();
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
    let received = server.metrics().sum("talkback_received_bytes_total") as usize;
    let mut expected = stuck::LINE.repeat(received / stuck::LINE.len() + 1).into_bytes();
    if is_taken {
        expected.truncate(received - 1);
        expected.push(b'!');
    } else {
        expected.truncate(received);
    }
    expected.extend((expected.last() != Some(&b'\n')).then_some(b'\n'));
    assert!(replies == expected, "{} of {}, {is_taken}", replies.len(), expected.len());
}

#[test]
fn lines_with_urgent_bytes_that_came_with_the_stop_are_answered() {
    for _ in 0..5 {
        let mut server = start(LINE, "");
        let mut client = server.connect();
        client.echo("before\n");
        server.pause();
        send(&mut client, &[Plain(b"one\ntw"), Urgent(b"o"), Plain(b"\n"), Urgent(b"three\n")]);
        send(&mut client, &[Plain(b"unfinished"), Urgent(b"!")]);
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        assert_eq!(client.read_to_end(), b"one\ntwo\nthree\n");
        drop(client);
        assert_eq!(server.wait().code(), Some(0));
        assert_eq!(server.close_lines()[0]["reason"], "shutdown");
    }
}

/// Linux 5.15 gave Unix sockets urgent data; its mark stops recv(2) there as well.
#[test]
fn urgent_data_of_a_unix_socket_strands_nothing_behind_it() {
    let name = format!("talkback-urgent-{}", std::process::id());
    let config = format!("[[listener]]\naddress = \"unix:@{name}\"\n{LINE}\n");
    let server = Server::start(&config);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    if SockRef::from(&stream).send_out_of_band(b"!").is_err() {
        eprintln!("skipped: this kernel has no urgent data on Unix sockets");
        return;
    }
    let stream = std::net::TcpStream::from(std::os::fd::OwnedFd::from(stream));
    let mut client = Client { stream };
    send(&mut client, &[Plain(b"\n")]);
    client.expect("!\n");
    for (pieces, echo) in POSITIONS {
        send(&mut client, pieces);
        client.expect(echo);
    }
    drop(client);
    server.eventually_closed(&[("peer_closed", 1)]);
}
