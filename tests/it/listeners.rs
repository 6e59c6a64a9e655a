//! TCP listeners: addresses, backlog, and starts that the system refuses.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::{Client, Server};
use crate::refused::{as_it_is, check_refused, check_refused_by};

fn listener(address: impl std::fmt::Display, keys: &str) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n{keys}\n")
}

/// A conversation, and how the log names its peer.
#[track_caller]
fn check_peer(server: &Server, address: SocketAddr, expected_ip: &str) {
    let before = server.close_lines().len();
    let mut client = Client::connect(address);
    client.echo("hello");
    let port = client.stream.local_addr().unwrap().port();
    drop(client);
    let lines = server.await_close_lines(before + 1);
    assert_eq!(lines[before]["peer"], format!("{expected_ip}:{port}"));
}

/// Some hosts are built without IPv6.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Without IPv6 a listener on it is refused in the same words as any other.
#[track_caller]
fn check_without_ipv6() {
    check_refused(&listener("[::]:0", ""), &["listener \"main\"", "[::]:0"]);
}

#[test]
fn an_ipv4_listener_serves_ipv4() {
    let server = Server::with_listener("");
    check_peer(&server, server.address(), "127.0.0.1");
}

#[test]
fn an_ipv6_listener_serves_ipv6() {
    if !has_ipv6() {
        return check_without_ipv6();
    }
    let server = Server::start(&listener("[::1]:0", ""));
    check_peer(&server, server.address(), "[::1]");
}

#[test]
fn an_ipv6_listener_leaves_ipv4_to_others_unless_told() {
    if !has_ipv6() {
        return check_without_ipv6();
    }
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let server = Server::start(&listener(format!("[::]:{port}"), ""));
    check_peer(&server, SocketAddr::new("::1".parse().unwrap(), port), "[::1]");
    drop(server);
    let both = listener(format!("[::]:{port}"), "v6only = false");
    check_refused(&both, &["in use"]);
}

#[test]
fn an_ipv4_client_of_a_dual_listener_is_an_ipv4_client() {
    if !has_ipv6() {
        return check_without_ipv6();
    }
    let server = Server::start(&listener("[::]:0", "v6only = false"));
    let port = server.address().port();
    check_peer(&server, SocketAddr::new("127.0.0.1".parse().unwrap(), port), "127.0.0.1");
    check_peer(&server, SocketAddr::new("::1".parse().unwrap(), port), "[::1]");
}

#[test]
fn several_listeners_serve_at_once_and_are_counted_apart() {
    let names = ["one", "two", "three-3"];
    let config: String =
        names.iter().map(|name| listener("127.0.0.1:0", &format!("name = \"{name}\""))).collect();
    let server = Server::start(&config);
    let mut clients: Vec<_> = Vec::new();
    for index in 0..names.len() {
        for _ in 0..=index {
            let mut client = Client::connect(server.address_of(index));
            client.echo("hello");
            clients.push(client);
        }
    }
    let metrics = server.metrics();
    for (index, name) in names.iter().enumerate() {
        let open = metrics.get(&format!("talkback_connections{{listener=\"{name}\"}}"));
        assert_eq!(open, index as f64 + 1.0, "{name}");
    }
    drop(clients);
    server.eventually_closed(&[("peer_closed", 6)]);
    let lines = server.await_close_lines(6);
    let of_two = lines.iter().filter(|line| line["listener"] == "two").count();
    assert_eq!(of_two, 2);
}

#[test]
fn a_port_in_use_is_refused_with_what_where_why_and_what_to_do() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    check_refused(
        &listener(address, "name = \"front\""),
        &[
            "talkback: listener \"front\": cannot listen on",
            &address.to_string(),
            "Address already in use",
            "stop it, or choose another address",
        ],
    );
    let sidecar = format!("[metrics]\naddress = \"{address}\"");
    let config = format!("{}{sidecar}", listener("127.0.0.1:0", ""));
    check_refused(&config, &["metrics.address", &address.to_string(), "Address already in use"]);
    // The other program keeps its port.
    TcpListener::bind(address).unwrap_err();
}

#[test]
fn a_restart_takes_its_address_back_at_once() {
    // An address of its own, so that no other test's client is given the port in between.
    let mut server = Server::start(&listener("127.77.0.1:0", ""));
    let address = server.address();
    let mut client = server.connect();
    client.echo("hello");
    server.signal(Signal::TERM);
    // The server's end closes first, so it is the one that keeps the address in TIME_WAIT.
    client.expect_end();
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start(&listener(address, ""));
    server.connect().echo("hello again");
}

#[test]
fn an_address_that_this_host_does_not_have_is_refused() {
    check_refused(
        &listener("192.0.2.1:8889", ""),
        &["listener \"main\"", "192.0.2.1:8889", "this host has no such address"],
    );
}

#[test]
fn an_address_that_is_none_is_a_config_error() {
    let place = "talkback.toml:2:11: listener[0].address";
    check_refused_by(&listener("localhost:8889", ""), as_it_is, 2, &[place, "localhost:8889"]);
    check_refused_by(&listener("127.0.0.1", ""), as_it_is, 2, &[place, "the port is missing"]);
    check_refused_by(&listener("127.0.0.1:99999", ""), as_it_is, 2, &[place, "127.0.0.1:99999"]);
}

/// Starts the program as a user without rights; the tests may run as root.
fn as_nobody(command: &mut Command) -> &mut Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    // Neither the build's directory nor the test's need be open to others.
    let dir = command.get_current_dir().unwrap().to_owned();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let program = dir.join("talkback");
    // By a process of its own: a descriptor that is open for writing here would be inherited by a
    // child that another test starts just now, and then the copy is "busy" (ETXTBSY).
    let copied = Command::new("cp").arg(command.get_program()).arg(&program).status().unwrap();
    assert!(copied.success());
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *command = Command::new(program);
    command.args(arguments).current_dir(dir).uid(65_534).gid(65_534);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

#[test]
fn an_address_without_permission_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let path = dir.path().join("talkback.sock");
    let hint = "CAP_NET_BIND_SERVICE, a Unix socket a directory to write to";
    let unix = format!("unix:{}", path.display());
    check_refused_by(&listener(&unix, ""), as_nobody, 1, &[&unix, "Permission denied", hint]);

    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u16 = first_free.unwrap().trim().parse().unwrap();
    // Some containers open every port to everybody; then there is none to be refused.
    if let Some(port) = first_free.checked_sub(1).filter(|port| *port > 0) {
        let address = format!("127.0.0.1:{port}");
        let parts = [&address, "Permission denied", hint];
        check_refused_by(&listener(&address, ""), as_nobody, 1, &parts);
    }
}

/// The connections that a listener of this backlog takes while nobody accepts.
fn queued(address: SocketAddr, tries: usize) -> Vec<Socket> {
    let mut queued = Vec::new();
    for _ in 0..tries {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}"),
        }
        queued.push(socket);
    }
    // A handshake on this host is done before one that began later elsewhere.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = Client::connect(elsewhere.local_addr().unwrap());
    elsewhere.accept().unwrap();
    queued.retain(|socket| socket.peer_addr().is_ok());
    queued
}

#[test]
fn the_backlog_is_what_was_configured() {
    for backlog in [1, 4, 200] {
        let server = Server::with_listener(&format!("backlog = {backlog}"));
        server.pause();
        // The kernel takes one more than it is told.
        let waiting = queued(server.address(), backlog + 10);
        assert_eq!(waiting.len(), backlog + 1);
        server.signal(Signal::CONT);
        server.eventually("those that waited are accepted", |metrics| {
            metrics.sum("talkback_connections_accepted_total") >= waiting.len() as f64
        });
    }
}

#[test]
fn a_backlog_that_the_kernel_clamps_is_said() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let somaxconn: u64 = somaxconn.trim().parse().unwrap();
    let server = Server::with_listener("backlog = 65535");
    let clamp = server.logged("the kernel clamped the backlog to net.core.somaxconn");
    if somaxconn >= 65_535 {
        assert!(clamp.is_none(), "{clamp:?}");
    } else {
        let clamp = clamp.unwrap();
        assert_eq!((clamp["limit"].as_u64(), &clamp["level"]), (Some(somaxconn), &"WARN".into()));
    }
    let within = Server::with_listener("backlog = 16");
    assert!(within.logged("the kernel clamped the backlog to net.core.somaxconn").is_none());
}

#[test]
fn nobody_is_let_in_by_a_server_that_could_not_start() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mine = TcpListener::bind("127.77.0.2:0").unwrap().local_addr().unwrap();
    let config = listener(mine, "name = \"mine\"")
        + &listener(other.local_addr().unwrap(), "name = \"taken\"");
    check_refused(&config, &["listener \"taken\""]);
    let refused = std::net::TcpStream::connect(mine).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
