//! Start and stop of a server as a value: what a failed start says and leaves, and what two
//! servers in one process share.

use std::net::{SocketAddr, TcpListener, TcpStream};

use talkback::config::Address;
use talkback::{Config, Responders, Server, StartError};

use super::{config, connect, echo, eventually_closed, metrics, start_function};
use crate::harness::Metrics;

fn echo_config() -> Config {
    let mut config = config();
    config.listeners[0].responder = "echo".to_owned();
    config
}

#[track_caller]
fn failed(config: &Config) -> StartError {
    Server::start(config).expect_err("it cannot start")
}

#[test]
fn an_unknown_responder_is_named_with_those_there_are() {
    let responders = Responders::default().with("mine", |_| super::from_fn(|_, _, _| panic!()));
    let error = Server::start_with(&config(), &responders).expect_err("there is no `ours`");
    assert_eq!(
        error.to_string(),
        "listener \"main\": no responder is named \"ours\"; there are discard, echo, mine"
    );
}

#[test]
fn every_contradiction_in_a_config_made_in_code_is_told() {
    let mut config = echo_config();
    config.workers = Some(0);
    config.limits.inbox_connections = 0;
    let error = failed(&config);
    assert!(matches!(error, StartError::Config(_)), "{error:?}");
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("workers: 0 is out of range"), "{text}");
    assert!(lines[1].starts_with("limits.inbox_connections: 0 is out of range"), "{text}");
}

#[test]
fn a_port_in_use_says_which_where_why_and_what_to_do() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut config = echo_config();
    config.listeners[0].address = Address::Ip(address);
    let text = failed(&config).to_string();
    let start = format!("listener \"main\": cannot listen on {address}: Address already in use");
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("another program listens there: stop it, or choose another"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = echo_config();
    config.listeners[0].address = Address::Ip(free);
    config.metrics.address = Some(taken);
    let text = failed(&config).to_string();
    let start = format!("metrics.address: cannot listen on {taken} for metrics: Address already");
    assert!(text.starts_with(&start), "{text}");
    assert!(TcpStream::connect(free).is_err());
    config.metrics.address = None;
    let server = Server::start(&config).unwrap();
    connect(&server).echo("a\n");
}

#[test]
fn two_servers_in_one_process_count_for_themselves() {
    let one = Server::start(&echo_config()).unwrap();
    let other = start_function(&config(), |text, reply, _| echo(text, reply));
    let mut clients = [connect(&one), connect(&one), connect(&other)];
    clients.iter_mut().for_each(|client| client.echo("a\n"));
    assert_eq!(metrics(&one).sum("talkback_connections"), 2.0);
    assert_eq!(metrics(&other).sum("talkback_connections"), 1.0);
    let summary = other.drain();
    assert_eq!((summary.served, summary.cut), (1, 0));
    clients[2].expect_end();
    clients[0].echo("still here\n");
    drop(clients);
    eventually_closed(&one, &[("peer_closed", 2)]);
}

#[test]
fn dropping_a_server_stops_it_in_order() {
    let server = Server::start(&echo_config()).unwrap();
    let address = server.addresses()[0].ip().unwrap();
    let mut client = connect(&server);
    client.echo("a\n");
    // What was sent before the stop is owed an answer.
    client.send("b\n");
    drop(server);
    assert_eq!(client.read_to_end(), b"b\n");
    assert!(TcpStream::connect(address).is_err());
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_drain_tells_how_many_were_served() {
    let server = Server::start(&echo_config()).unwrap();
    for _ in 0..5 {
        connect(&server).echo("a\n");
    }
    eventually_closed(&server, &[("peer_closed", 5)]);
    let mut last = connect(&server);
    last.echo("a\n");
    let summary = server.drain();
    assert_eq!((summary.served, summary.cut), (6, 0));
    last.expect_end();
}

#[test]
fn the_library_and_its_sidecar_show_the_same_metrics() {
    let mut config = echo_config();
    config.metrics.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let server = Server::start(&config).unwrap();
    let scraped = crate::harness::get(server.metrics_address().unwrap(), "/metrics").unwrap().1;
    let (scraped, own) = (Metrics::parse(&scraped), metrics(&server));
    assert!(own.series().eq(scraped.series()));
    assert_eq!(own.get("talkback_scrapes_total{code=\"200\",path=\"/metrics\"}"), 1.0);
}

#[test]
fn every_listener_has_its_own_address_name_and_counters() {
    let mut config = echo_config();
    let mut second = config.listeners[0].clone();
    second.name = "second".to_owned();
    config.listeners.push(second);
    let server = Server::start(&config).unwrap();
    let address = server.addresses()[1].ip().unwrap();
    assert_ne!(server.addresses()[0].ip(), Some(address));
    let mut client = crate::harness::Client::connect(address);
    client.echo("a\n");
    let metrics = metrics(&server);
    assert_eq!(metrics.get("talkback_connections{listener=\"main\"}"), 0.0);
    assert_eq!(metrics.get("talkback_connections{listener=\"second\"}"), 1.0);
}
