//! `/connections`: each field against what clients did, each state, every order; and many of them.

mod asked;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::crowd::Crowd;
use crate::harness::{Client, Server, eventually, get};
use crate::stuck::stuck_client;

/// One look at who is connected, found to be consistent.
#[derive(Debug)]
pub struct Page(Value);

impl Page {
    #[track_caller]
    pub fn get(sidecar: SocketAddr, query: &str) -> Self {
        let (status, body) = get(sidecar, &format!("/connections{query}")).unwrap();
        assert_eq!(status, 200, "{body}");
        let page = Self(serde_json::from_str(&body).unwrap());
        page.check();
        page
    }

    /// The same, once every worker answers in time: on a loaded host one may be late.
    #[track_caller]
    pub fn answered(sidecar: SocketAddr, query: &str) -> Self {
        let mut page = None;
        eventually("every worker answers", || {
            let found = Self::get(sidecar, query);
            let is_answered = found.stalled().is_empty();
            page = Some(found);
            is_answered
        });
        page.unwrap()
    }

    #[track_caller]
    fn check(&self) {
        let workers = self.0["workers"].as_array().unwrap();
        let numbers: Vec<_> = workers.iter().map(|worker| &worker["worker"]).collect();
        assert_eq!(numbers, (0..workers.len()).collect::<Vec<_>>(), "{self:?}");
        let (answered, unanswered): (Vec<_>, Vec<_>) =
            workers.iter().partition(|worker| worker["answered"] == true);
        let of = |worker: &&Value| worker["connections"].as_u64().unwrap();
        assert_eq!(self.total(), answered.iter().map(of).sum::<u64>(), "{self:?}");
        let stalled: Vec<_> = unanswered.iter().map(|worker| &worker["worker"]).collect();
        assert_eq!(stalled, self.stalled(), "{self:?}");
        let shown = self.rows().len() as u64;
        assert!(shown <= self.total().min(self.0["limit"].as_u64().unwrap()), "{self:?}");
        let sort = self.0["sort"].as_str().unwrap();
        assert!(self.rows().is_sorted_by_key(|row| -measure(row, sort)), "{sort}: {self:?}");
        let ids: BTreeSet<_> = self.rows().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), self.rows().len(), "{self:?}");
        for row in self.rows() {
            let id = row["id"].as_str().unwrap();
            assert!(id.starts_with(&format!("{}-", row["worker"])), "{row}");
            assert!(measure(row, "age") >= measure(row, "idle"), "{row}");
            assert!(!stalled.contains(&&row["worker"]), "{self:?}");
        }
    }

    pub fn total(&self) -> u64 {
        self.0["total"].as_u64().unwrap()
    }

    pub fn is_draining(&self) -> bool {
        self.0["draining"].as_bool().unwrap()
    }

    pub fn stalled(&self) -> Vec<usize> {
        let stalled = self.0["stalled"].as_array().unwrap();
        stalled.iter().map(|worker| worker.as_u64().unwrap() as usize).collect()
    }

    /// What is told of one worker.
    pub fn worker(&self, number: usize) -> &Value {
        &self.0["workers"][number]
    }

    /// The connections that are shown.
    pub fn rows(&self) -> &[Value] {
        self.0["connections"].as_array().unwrap()
    }

    /// The connection of that client, if it is shown.
    pub fn find(&self, client: &Client) -> Option<&Value> {
        let peer = client.stream.local_addr().unwrap().to_string();
        self.rows().iter().find(|row| row["peer"] == peer)
    }

    #[track_caller]
    pub fn of(&self, client: &Client) -> &Value {
        self.find(client).unwrap_or_else(|| panic!("it is not shown: {self:?}"))
    }
}

/// What connections are put in order by.
fn measure(row: &Value, sort: &str) -> f64 {
    let field = |name: &str| row[name].as_f64().unwrap();
    match sort {
        "age" | "idle" => field(&format!("{sort}_seconds")),
        "messages" => field(sort),
        "bytes" => field("received_bytes") + field("sent_bytes"),
        one_way => field(&format!("{one_way}_bytes")),
    }
}

/// The page of a server of the program, every worker heard.
#[track_caller]
fn page(server: &Server, query: &str) -> Page {
    Page::answered(server.metrics_address(), query)
}

/// Waits until the connection of that client is in that state.
#[track_caller]
fn eventually_is(server: &Server, client: &Client, state: &str) -> Page {
    let mut last = page(server, "");
    eventually(format_args!("it is {state}"), || {
        last = page(server, "");
        last.find(client).is_some_and(|row| row["state"] == state)
    });
    last
}

#[test]
fn every_field_is_what_the_client_did() {
    let server = Server::start(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"lines\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n",
    );
    let connecting = Instant::now();
    let mut client = Client::connect(server.address_of(1));
    client.echo("a\n");
    let connected = Instant::now();
    eventually("half a second has passed", || connected.elapsed() > Duration::from_millis(500));
    let sending = Instant::now();
    client.send("b\r\nhalf");
    client.expect("b\n");
    let asked = connected.elapsed();
    let silent = server.connect();
    let mut page = page(&server, "");
    eventually("the second is adopted", || {
        page = Page::answered(server.metrics_address(), "");
        page.total() == 2
    });
    let (age, idle) = (connecting.elapsed(), sending.elapsed());
    assert_eq!((page.rows().len(), page.is_draining()), (2, false));
    let row = page.of(&client);
    for (field, expected) in
        [("messages", 2), ("received_bytes", 9), ("sent_bytes", 4), ("pending_bytes", 0)]
    {
        assert_eq!(row[field], expected, "{field}: {row}");
    }
    assert_eq!((&row["listener"], &row["state"]), (&"lines".into(), &"reading".into()));
    let seconds = |name: &str| row[name].as_f64().unwrap();
    let (least, most) = (asked.as_secs_f64(), age.as_secs_f64());
    // Accepted before its first reply. A microsecond may have been cut off.
    assert!((least - 1e-6..=most).contains(&seconds("age_seconds")), "{least}..{most}: {row}");
    assert!(seconds("idle_seconds") <= idle.as_secs_f64(), "{idle:?}: {row}");
    let other = page.of(&silent);
    assert_eq!((&other["listener"], &other["state"]), (&"main".into(), &"reading".into()));
    assert_eq!((&other["messages"], &other["received_bytes"]), (&0.into(), &0.into()));
    for worker in 0..2 {
        let of_worker = format!("talkback_worker_connections{{worker=\"{worker}\"}}");
        let counted = server.metrics().get(&of_worker);
        assert_eq!(page.worker(worker)["connections"].as_f64(), Some(counted));
    }
}

#[test]
fn a_connection_keeps_its_id_and_no_other_gets_it() {
    let server = Server::with_listener("");
    let mut ids = BTreeSet::new();
    for round in 1..=3 {
        let mut client = server.connect();
        client.echo("a");
        let first = page(&server, "").of(&client)["id"].clone();
        client.echo("b");
        assert_eq!(page(&server, "").of(&client)["id"], first);
        ids.insert(first.as_str().unwrap().to_owned());
        drop(client);
        server.eventually_closed(&[("peer_closed", round)]);
        assert_eq!(page(&server, "").total(), 0);
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn replies_that_a_client_does_not_read_are_pending() {
    let server = Server::with_listener("framing = \"line\"");
    let client = stuck_client(&server, server.address());
    // The kernel may still take some.
    let mut last = (page(&server, "?sort=pending&limit=1"), server.metrics());
    eventually("both tell the same", || {
        last = (page(&server, "?sort=pending&limit=1"), server.metrics());
        last.0.of(&client)["pending_bytes"].as_f64() == Some(last.1.sum("talkback_pending_bytes"))
    });
    let (page, metrics) = last;
    let row = page.of(&client);
    assert_eq!(row["state"], "sending");
    for way in ["received", "sent"] {
        let counted = metrics.sum(&format!("talkback_{way}_bytes_total"));
        assert_eq!(row[format!("{way}_bytes")].as_f64(), Some(counted), "{way}: {row}");
    }
    assert!(row["received_bytes"].as_u64() > row["sent_bytes"].as_u64(), "{row}");
}

#[test]
fn one_with_work_left_for_its_next_turn_is_answering() {
    let server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\nresponder = \"discard\"\n\
         [limits]\nmessages_per_turn = 1\n",
    );
    let client = server.connect();
    let mut flood = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        // Until the socket is shut down under it.
        scope.spawn(move || while flood.write_all(&[b'\n'; 4096]).is_ok() {});
        eventually_is(&server, &client, "answering");
        client.stream.shutdown(Shutdown::Both).unwrap();
    });
}

#[test]
fn one_that_said_exit_and_does_not_close_is_lingering() {
    let server =
        Server::start("[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nlinger_timeout = \"1h\"");
    let mut client = server.connect();
    client.send("exit");
    client.expect_end();
    let page = eventually_is(&server, &client, "lingering");
    assert_eq!(page.of(&client)["received_bytes"], 4);
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
}

#[test]
fn one_that_said_exit_and_is_owed_replies_is_closing_and_shown_in_a_drain_too() {
    let mut server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         [limits]\nmax_pending_bytes = 67108864\n",
    );
    let mut client = stuck_client(&server, server.address());
    // It is read all the same, as little is pending by this bound.
    client.send("\nexit\n");
    assert!(!eventually_is(&server, &client, "closing").is_draining());
    server.signal(Signal::TERM);
    let mut last = None;
    eventually("the drain shows", || {
        let page = page(&server, "");
        let is_draining = page.is_draining();
        last = Some(page);
        is_draining
    });
    let page = last.unwrap();
    assert_eq!((page.total(), &page.of(&client)["state"]), (1, &"closing".into()));
    client.read_to_end();
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

/// The one row that there is.
#[track_caller]
fn check_peer(server: &Server, peer: &str, listener: &str) {
    let page = page(server, "");
    let [row] = page.rows() else { panic!("{page:?}") };
    assert_eq!((&row["peer"], &row["listener"]), (&peer.into(), &listener.into()));
}

#[test]
fn a_peer_is_named_as_in_the_log() {
    let name = format!("talkback-connections-{}", std::process::id());
    // Some hosts are built without IPv6.
    let six = if TcpListener::bind("[::1]:0").is_ok() { "[::]:0" } else { "127.0.0.1:0" };
    let only = if six == "[::]:0" { "v6only = false\n" } else { "" };
    let server = Server::start(&format!(
        "[[listener]]\nname = \"six\"\naddress = \"{six}\"\n{only}\
         [[listener]]\nname = \"local\"\naddress = \"unix:@{name}\"\n"
    ));
    let port = server.address().port();
    let mut closed = 0;
    let mut hosts = vec!["127.0.0.1"];
    hosts.extend((six == "[::]:0").then_some("[::1]"));
    for host in hosts {
        let mut client = Client::connect(format!("{host}:{port}").parse().unwrap());
        client.echo("hello");
        let own = client.stream.local_addr().unwrap();
        check_peer(&server, &format!("{host}:{}", own.port()), "six");
        drop(client);
        closed += 1;
        server.eventually_closed(&[("peer_closed", closed)]);
    }
    let address = UnixAddress::from_abstract_name(name).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.write_all(b"hello").unwrap();
    let adopted = "talkback_messages_total{listener=\"local\"}";
    server.eventually("it was served", |metrics| metrics.get(adopted) == 1.0);
    check_peer(&server, "unix", "local");
}

#[test]
fn in_each_order_the_largest_come_first_and_the_limit_cuts() {
    let server = Server::start(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         [[listener]]\nname = \"mute\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         responder = \"discard\"\n",
    );
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    // The first is the oldest and says least often; the one in the middle says most.
    for (index, client) in clients.iter_mut().enumerate() {
        for _ in 0..=index {
            client.echo("a\n");
        }
    }
    clients[3].echo(&("b".repeat(1000) + "\n"));
    let mut mute = Client::connect(server.address_of(1));
    mute.send("c".repeat(1500) + "\n");
    let received = "talkback_received_bytes_total{listener=\"mute\"}";
    server.eventually("all is received", |metrics| metrics.get(received) == 1501.0);
    // Workers answer between turns, so that what was said before is over.
    assert_eq!(page(&server, "").total(), 7);
    clients[2].echo("a\n");
    for (sort, first) in [
        ("age", &clients[0]),
        ("messages", &clients[5]),
        ("received", &mute),
        ("sent", &clients[3]),
        ("bytes", &clients[3]),
    ] {
        let all = page(&server, &format!("?sort={sort}"));
        assert_eq!((all.total(), all.rows().len()), (7, 7));
        let one = page(&server, &format!("?limit=1&sort={sort}"));
        assert_eq!((one.total(), one.rows().len()), (7, 1));
        for page in [&all, &one] {
            assert_eq!(page.rows()[0]["id"], page.of(first)["id"], "{sort}: {page:?}");
        }
    }
    // Who spoke last comes last.
    let idle = page(&server, "?sort=idle");
    assert_eq!(idle.rows()[6]["id"], idle.of(&clients[2])["id"], "{idle:?}");
    assert_eq!(page(&server, "?sort=pending").rows().len(), 7);
    assert_eq!(page(&server, "?limit=3").rows().len(), 3);
}

#[test]
fn of_five_thousand_connections_ten_are_shown() {
    let mut crowd = Crowd::of_at_most(5_000);
    let size = crowd.size() as u64;
    let config =
        format!("workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n{}", crowd.limits(9));
    let server = Server::start(&config);
    let mut busy = server.connect();
    crowd.connect(server.address());
    server.eventually("all are there", |metrics| {
        metrics.sum("talkback_connections") == (size + 1) as f64
    });
    busy.echo("hello");
    let mut page = page(&server, "?sort=bytes&limit=10");
    // Some may have been in an inbox.
    eventually("all are adopted", || {
        page = Page::answered(server.metrics_address(), "?sort=bytes&limit=10");
        page.total() == size + 1
    });
    assert_eq!(page.rows().len(), 10);
    assert_eq!(page.rows()[0]["id"], page.of(&busy)["id"]);
    let oldest = Page::answered(server.metrics_address(), "?limit=10");
    assert_eq!(oldest.rows()[0]["id"], oldest.of(&busy)["id"]);
    let most = Page::answered(server.metrics_address(), "?limit=1000");
    assert_eq!(most.rows().len() as u64, (size + 1).min(1000));
}

#[test]
fn a_sleeping_worker_hears_every_question() {
    let server = Server::start("workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n");
    // Without a connection nothing but the question wakes it.
    for _ in 0..200 {
        assert_eq!(page(&server, "").total(), 0);
    }
}
