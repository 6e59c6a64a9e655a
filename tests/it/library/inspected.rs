//! What `/connections` shows of responders that answer late, or not at all for a while.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use talkback::{Answer, Config};

use super::stalls::Stalling;
use super::{connect, echo, from_fn, start, with_workers};
use crate::connections::Page;
use crate::harness::{Client, PATIENCE, eventually};
use crate::quiet::alone;

/// With a sidecar, and so many workers.
fn with_sidecar(workers: usize) -> Config {
    let mut config = with_workers(workers);
    config.metrics.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config
}

#[test]
fn one_whose_reply_comes_later_is_awaiting_it_also_in_a_drain() {
    let (sender, tickets) = channel();
    let server = start(&with_sidecar(1), move || {
        let sender = sender.clone();
        from_fn(move |_, _, context| {
            sender.send(context.ticket()).unwrap();
            Answer::LaterWithin(PATIENCE)
        })
    });
    let sidecar = server.metrics_address().unwrap();
    let mut client = connect(&server);
    client.send("later\nexit\n");
    let ticket = tickets.recv_timeout(PATIENCE).unwrap();
    let page = Page::answered(sidecar, "");
    let row = page.of(&client);
    assert_eq!((&row["state"], &row["messages"]), (&"awaiting_reply".into(), &1.into()));
    assert!(!page.is_draining());
    let address = server.addresses()[0].ip().unwrap();
    let stop = thread::spawn(move || server.drain());
    eventually("nothing is accepted", || std::net::TcpStream::connect(address).is_err());
    let page = Page::answered(sidecar, "");
    assert!(page.is_draining() && page.find(&client).is_some(), "{page:?}");
    ticket.answer("at last".to_owned()).unwrap();
    assert_eq!(client.read_to_end(), b"at last\n");
    drop(client);
    assert_eq!(stop.join().unwrap().cut, 0);
}

#[test]
fn a_stalled_worker_is_named_in_time_and_the_others_connections_are_shown() {
    let _alone = alone();
    let mut stalling = Stalling::start(&with_sidecar(2));
    let sidecar = stalling.server.metrics_address().unwrap();
    let mut clients: Vec<Client> = (0..6).map(|_| connect(&stalling.server)).collect();
    clients.iter_mut().for_each(|client| client.echo("a\n"));
    let before = Page::answered(sidecar, "");
    assert_eq!(before.total(), 6);
    let mut culprit = stalling.stall();
    for round in 0..3 {
        let began = Instant::now();
        let page = Page::get(sidecar, "");
        let took = began.elapsed();
        // The first waits for it; then it is known.
        let least = Duration::from_millis(if round == 0 { 200 } else { 0 });
        assert!(took >= least && took < Duration::from_millis(500), "{round}: {took:?}");
        let &[stalled] = page.stalled().as_slice() else { panic!("{page:?}") };
        let had = |worker: usize| before.worker(worker)["connections"].as_u64().unwrap();
        let (now_stalled, others) = (had(stalled) + 1, had(1 - stalled));
        let (stalled, other) = (page.worker(stalled), page.worker(1 - stalled));
        assert_eq!(
            (&stalled["answered"], &stalled["connections"]),
            (&false.into(), &now_stalled.into())
        );
        assert_eq!((&other["answered"], &other["connections"]), (&true.into(), &others.into()));
        assert_eq!((page.total(), page.rows().len() as u64), (others, others));
        for client in &clients {
            let is_others = before.of(client)["worker"] == other["worker"];
            assert_eq!(page.find(client).is_some(), is_others);
        }
    }
    stalling.release();
    culprit.expect("stall\n");
    let after = Page::answered(sidecar, "");
    assert_eq!((after.total(), after.rows().len()), (7, 7));
    assert_eq!(after.of(&culprit)["messages"], 1);
}

#[test]
fn a_pool_that_is_stalled_altogether_is_named_and_other_pages_are_served() {
    let mut stalling = Stalling::start(&with_sidecar(2));
    let sidecar = stalling.server.metrics_address().unwrap();
    let mut culprits = [stalling.stall(), stalling.stall()];
    for sort in ["age", "bytes", "idle"] {
        let page = Page::get(sidecar, &format!("?sort={sort}"));
        assert_eq!((page.stalled(), page.total()), (vec![0, 1], 0));
        assert_eq!(crate::harness::get(sidecar, "/metrics").unwrap().0, 200);
    }
    stalling.release();
    culprits.iter_mut().for_each(|client| client.expect("stall\n"));
    assert_eq!(Page::answered(sidecar, "").total(), 2);
}

#[test]
fn clients_that_talk_all_the_while_hold_up_no_answer() {
    let server = start(&with_sidecar(1), || from_fn(|text, reply, _| echo(text, reply)));
    let sidecar = server.metrics_address().unwrap();
    let mut clients: Vec<Client> = (0..10).map(|_| connect(&server)).collect();
    for round in 1..=20 {
        clients.iter_mut().for_each(|client| client.echo("a\n"));
        let page = Page::answered(sidecar, "?sort=messages");
        assert_eq!(page.total(), 10);
        for row in page.rows() {
            assert_eq!(
                (&row["messages"], &row["received_bytes"]),
                (&round.into(), &(2 * round).into())
            );
        }
    }
}
