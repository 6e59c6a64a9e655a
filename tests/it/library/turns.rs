//! What one turn and one receive may take: the limits that keep one client from holding a worker.

use std::sync::Mutex;

use talkback::Answer;
use talkback::wire::Framing;

use super::stalls::Stalling;
use super::{config, connect, eventually_closed, metrics, start_function};
use crate::harness::{Client, eventually};

/// The most messages that came from one client in a row, while the other had some as well.
#[track_caller]
fn longest_run(messages_per_turn: usize) -> usize {
    const MESSAGES: usize = 20;
    let mut config = config();
    config.limits.messages_per_turn = messages_per_turn;
    let order: &Mutex<Vec<char>> = Box::leak(Box::default());
    let mut stalling = Stalling::start_with(&config, |text| {
        order.lock().unwrap().extend(text.chars().next());
    });
    let mut clients = [connect(&stalling.server), connect(&stalling.server)];
    clients.iter_mut().for_each(|client| client.echo("here\n"));
    let _stalled = stalling.stall();
    order.lock().unwrap().clear();
    for (client, text) in clients.iter_mut().zip(["a\n", "b\n"]) {
        client.send(text.repeat(MESSAGES));
    }
    stalling.release();
    for (client, text) in clients.iter_mut().zip(["a\n", "b\n"]) {
        client.expect(text.repeat(MESSAGES));
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 2 * MESSAGES);
    let last_of_first = order.iter().rposition(|&c| c == order[0]).unwrap();
    order[..=last_of_first].chunk_by(|one, other| one == other).map(<[_]>::len).max().unwrap()
}

#[test]
fn a_client_gets_its_messages_a_turn_and_then_the_next_one_has_its_own() {
    assert_eq!(longest_run(1), 1);
    assert_eq!(longest_run(3), 3);
}

#[test]
fn turns_that_suffice_are_not_interrupted() {
    assert_eq!(longest_run(20), 20);
}

/// Replies of a megabyte to a client that reads none of them.
#[test]
fn a_client_that_does_not_read_is_not_read_beyond_the_bound_on_pending_bytes() {
    const MESSAGES: usize = 30;
    const REPLY: usize = 1 << 20;
    let mut config = config();
    config.limits.max_pending_bytes = 1;
    let server = start_function(&config, |_, reply, _| {
        reply.push(&"x".repeat(REPLY));
        Answer::Reply
    });
    let mut client = connect(&server);
    client.send("\n".repeat(MESSAGES));
    eventually("replies are pending", || metrics(&server).sum("talkback_pending_bytes") > 0.0);
    // A neighbour's conversation ends behind the turn that the client's bytes got.
    let mut neighbour = connect(&server);
    neighbour.send("\nexit\n");
    assert_eq!(neighbour.read_to_end().len(), REPLY + 1);
    drop(neighbour);
    eventually("it is gone", || metrics(&server).sum("talkback_connections") == 1.0);
    let then = metrics(&server);
    assert!(then.sum("talkback_messages_total") < 20.0, "{then}");
    assert!(then.sum("talkback_pending_bytes") <= (REPLY + 2) as f64, "{then}");
    client.finish();
    assert_eq!(client.read_to_end().len(), MESSAGES * (REPLY + 1));
    eventually_closed(&server, &[("exit", 1), ("peer_closed", 1)]);
    let end = metrics(&server);
    assert_eq!(end.sum("talkback_pending_bytes"), 0.0);
    assert_eq!(end.sum("talkback_discarded_bytes_total"), 0.0);
}

/// How many messages a raw server makes of one send of eight bytes, at least.
#[test]
fn a_raw_message_is_never_longer_than_one_receive_may_take() {
    let longest: &Mutex<usize> = Box::leak(Box::default());
    let mut config = config();
    config.listeners[0].framing = Framing::Raw;
    config.listeners[0].max_message_bytes = 5;
    let server = start_function(&config, |text, reply, _| {
        let mut longest = longest.lock().unwrap();
        *longest = text.len().max(*longest);
        super::echo(text, reply)
    });
    let mut client: Client = connect(&server);
    // Characters of two bytes: what is held of one counts to neither side of the bound.
    client.echo(&"é".repeat(500));
    drop(client);
    eventually_closed(&server, &[("peer_closed", 1)]);
    assert!(metrics(&server).sum("talkback_messages_total") >= 200.0);
    assert!((4..=6).contains(&*longest.lock().unwrap()));
}
