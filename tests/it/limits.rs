//! The bounds on connections: who is turned away, with what words, and when there is room again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, PATIENCE, Server};

const FULL: &str = "full, 请稍后再来\n";

#[track_caller]
fn server(limits: &str) -> Server {
    Server::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nfull_message = {FULL:?}\n{limits}"
    ))
}

/// A client with that address of its own; all of 127.0.0.0/8 is this host.
#[track_caller]
fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&server.into(), PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream: socket.into() }
}

#[track_caller]
fn check_rejections(server: &Server, reason: &str, count: u64) {
    let expected = [(reason.to_owned(), count)].into();
    server.eventually("the rejections are counted", |metrics| {
        // A client that the test has just let go of may be counted and not yet gone.
        metrics.rejections() == expected && metrics.adds_up()
    });
}

#[test]
fn one_too_many_reads_the_message_and_the_end() {
    let server = server("max_connections = 2");
    let mut clients = [server.connect(), server.connect()];
    clients.iter_mut().for_each(|client| client.echo("hello"));
    let mut refused = server.connect();
    assert_eq!(String::from_utf8(refused.read_to_end()).unwrap(), FULL);
    check_rejections(&server, "max_connections", 1);
    clients.iter_mut().for_each(|client| client.echo("still here"));
    assert_eq!(server.metrics().get("talkback_connections_limit"), 2.0);
    assert_eq!(server.metrics().sum("talkback_connections"), 2.0);
}

#[test]
fn without_a_message_one_too_many_reads_the_end() {
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nmax_connections = 1";
    let server = Server::start(config);
    let mut client = server.connect();
    client.echo("hello");
    server.connect().expect_end();
    check_rejections(&server, "max_connections", 1);
}

#[test]
fn the_place_of_a_connection_is_free_when_it_is_closed() {
    let server = server("max_connections = 1");
    for _ in 0..20 {
        let mut client = server.connect();
        client.echo("hello");
        drop(client);
        server.eventually("it is gone", |metrics| metrics.sum("talkback_connections") == 0.0);
    }
    server.eventually_closed(&[("peer_closed", 20)]);
    assert!(server.metrics().rejections().is_empty());
}

#[test]
fn a_place_is_taken_until_the_lingering_close_is_over() {
    let server = server("max_connections = 1\nlinger_timeout = \"300ms\"");
    let mut lingering = server.connect();
    lingering.send("exit");
    // Our FIN is here; the client keeps its side open.
    lingering.expect_end();
    assert_eq!(server.connect().read_to_end(), FULL.as_bytes());
    server.eventually_closed(&[("exit", 1)]);
    server.connect().echo("hello");
    check_rejections(&server, "max_connections", 1);
}

#[test]
fn all_listeners_count_together() {
    let listener = |name| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n");
    let limits = "[limits]\nmax_connections = 1";
    let server = Server::start(&(listener("one") + &listener("other") + limits));
    let mut client = Client::connect(server.address_of(0));
    client.echo("hello");
    Client::connect(server.address_of(1)).expect_end();
    let series =
        "talkback_connections_rejected_total{listener=\"other\",reason=\"max_connections\"}";
    server.eventually("the other listener counts it", |metrics| metrics.get(series) == 1.0);
}

#[test]
fn an_address_has_its_own_bound() {
    let server = server("max_connections_per_ip = 2");
    let [one, other] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    let mut clients = [one, one, other, other].map(|source| connect_from(source, server.address()));
    clients.iter_mut().for_each(|client| client.echo("hello"));
    for source in [one, other] {
        let mut refused = connect_from(source, server.address());
        assert_eq!(refused.read_to_end(), FULL.as_bytes());
    }
    check_rejections(&server, "max_connections_per_ip", 2);
    let [gone, _stay @ ..] = clients;
    drop(gone);
    server.eventually("one is gone", |metrics| metrics.sum("talkback_connections") == 3.0);
    // Its address has room again, the other one has none.
    connect_from(one, server.address()).echo("hello");
    assert_eq!(connect_from(other, server.address()).read_to_end(), FULL.as_bytes());
    check_rejections(&server, "max_connections_per_ip", 3);
}

#[test]
fn an_ipv4_client_counts_by_its_address_on_an_ipv6_listener_too() {
    let server = Server::start(
        "[[listener]]\nname = \"four\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"six\"\naddress = \"[::ffff:127.0.0.1]:0\"\nv6only = false\n\
         [limits]\nmax_connections_per_ip = 1",
    );
    let port = server.address_of(1).port();
    let six = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut client = Client::connect(server.address_of(0));
    client.echo("hello");
    Client::connect(six).expect_end();
    check_rejections(&server, "max_connections_per_ip", 1);
    connect_from(Ipv4Addr::new(127, 0, 0, 2), six).echo("hello");
}

#[test]
fn an_address_gets_its_place_back() {
    let server = server("max_connections_per_ip = 1");
    for _ in 0..20 {
        let mut client = server.connect();
        client.echo("hello");
        client.send("exit");
        client.expect_end();
        drop(client);
        server.eventually("it is gone", |metrics| metrics.sum("talkback_connections") == 0.0);
    }
    assert!(server.metrics().rejections().is_empty());
}

#[test]
fn clients_of_a_unix_socket_have_no_address_to_count_by() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("talkback.sock");
    let _server = Server::start(&format!(
        "[[listener]]\naddress = \"unix:{}\"\n[limits]\nmax_connections_per_ip = 1",
        path.display()
    ));
    let mut clients = [(); 5].map(|()| UnixStream::connect(&path).unwrap());
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"hello").unwrap();
        let mut reply = [0; 5];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"hello");
    }
}

#[test]
fn a_unix_socket_client_counts_among_all_and_reads_the_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("talkback.sock");
    let server = Server::start(&format!(
        "[[listener]]\naddress = \"unix:{}\"\n[limits]\nmax_connections = 1\n\
         full_message = {FULL:?}",
        path.display()
    ));
    let _first = UnixStream::connect(&path).unwrap();
    let mut refused = UnixStream::connect(&path).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = String::new();
    refused.read_to_string(&mut message).unwrap();
    assert_eq!(message, FULL);
    check_rejections(&server, "max_connections", 1);
}

#[test]
fn a_flood_beyond_the_bound_is_accounted_for_to_the_last_one() {
    let server = server("max_connections = 10");
    let held: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    server.eventually("ten are in", |metrics| metrics.sum("talkback_connections") == 10.0);
    for _ in 0..500 {
        assert_eq!(server.connect().read_to_end(), FULL.as_bytes());
    }
    check_rejections(&server, "max_connections", 500);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_connections_accepted_total"), 510.0);
    assert_eq!(metrics.sum("talkback_sent_bytes_total"), 0.0);
    drop(held);
    server.eventually_closed(&[("unused", 10)]);
}
