//! Rules over real sockets: what the examples do not use, and how each ending is counted.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use crate::harness::{Client, Server, eventually};

/// A listener for lines with these rules, of which an answer ends with LF.
#[track_caller]
fn serve(rules: &str) -> Server {
    let rules = rules.replace("[[rule]]", "[[listener.rules.rule]]");
    Server::with_listener(&format!(
        "framing = \"line\"\nresponder = \"rules\"\n[listener.rules]\n{rules}"
    ))
}

/// The client gets this for what it says, then the server's end.
#[track_caller]
fn check_last(server: &Server, said: &str, expected: impl AsRef<[u8]>) {
    let mut client = server.connect();
    client.send(said);
    client.expect(expected);
    client.expect_end();
}

#[test]
fn a_client_is_greeted_before_it_says_anything() {
    let server = serve("greeting = \"hello {peer}\"\ndefault = \"{count}\"\n");
    let mut client = server.connect();
    let peer = client.stream.local_addr().unwrap();
    client.expect(format!("hello {peer}\n"));
    client.send("a\nb\n");
    client.expect("1\n2\n");
    client.finish();
    client.expect_end();
    server.eventually_closed(&[("peer_closed", 1)]);
    assert_eq!(server.metrics().sum("talkback_messages_total"), 2.0);
}

#[test]
fn a_reply_of_several_lines_has_the_terminator_behind_each() {
    let server = serve("terminator = \"\\r\\n\"\ndefault = \"\"\"\na\nb\n\"\"\"\n");
    let mut client = server.connect();
    client.send("x\ny\n");
    client.expect("a\r\nb\r\na\r\nb\r\n");
}

#[test]
fn in_raw_framing_a_reply_is_sent_as_it_is_written() {
    let server = Server::with_listener(
        "responder = \"rules\"\nrules.default = [\"<{message}>\", \"a\\nb\", \"\"]\n",
    );
    let mut client = server.connect();
    let said = [("hello\n", "<hello\n>"), ("x", "a\nb"), ("exit", ""), ("é", "<é>")];
    for (count, (said, expected)) in (1..).zip(said) {
        client.send(said);
        client.expect(expected);
        // Nothing is to be seen of an empty reply, and what arrives together is one message.
        server.eventually("it is answered", |metrics| {
            metrics.sum("talkback_messages_total") == f64::from(count)
        });
    }
}

#[test]
fn lists_states_and_times_are_each_connections_own() {
    let server = serve(
        "state = { said = \"nothing\" }\n\
         [[rule]]\nequals = \"once\"\ntimes = 1\nsend = \"yes\"\n\
         [[rule]]\nequals = \"next\"\nsend = [\"one\", \"two\", \"three\"]\n\
         [[rule]]\nprefix = \"say \"\nset = { said = \"${1}\" }\nsend = \"was: {said}\"\n\
         [[rule]]\nequals = \"said?\"\nsend = \"{said}\"\n\
         [[rule]]\nsend = \"no\"\n",
    );
    let mut clients = [server.connect(), server.connect()];
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(format!("say {index}\nonce\nonce\nnext\nnext\n"));
        client.expect(format!("was: {index}\nyes\nno\none\ntwo\n"));
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.send("said?\nnext\nnext\nexit\n");
        client.expect(format!("{index}\nthree\none\nno\n"));
    }
}

#[test]
fn a_delay_holds_what_the_client_says_next_and_nobody_else() {
    let server = serve(
        "[[rule]]\nequals = \"slow\"\ndelay = \"300ms\"\nsend = \"slow\"\n\
         [[rule]]\nsend = \"{message}\"\n",
    );
    let (mut slow, mut other) = (server.connect(), server.connect());
    other.echo("ready\n");
    let began = Instant::now();
    slow.send("a\nslow\nb\nslow\nc\n");
    slow.expect("a\n");
    other.echo("meanwhile\n");
    slow.expect("slow\nb\n");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    slow.expect("slow\nc\n");
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

#[test]
fn a_delayed_answer_to_a_client_that_is_gone_is_forgotten() {
    const DELAY: Duration = Duration::from_secs(2);
    let server = serve("[[rule]]\ndelay = \"2s\"\nsend = \"late\"\n");
    let asked = Instant::now();
    let mut client = server.connect();
    client.send("a\n");
    server.eventually("it was asked", |metrics| metrics.sum("talkback_messages_total") == 1.0);
    client.reset();
    server.eventually_closed(&[("peer_reset", 1)]);
    // Nobody is left to be served: a worker that wakes does so for the dead.
    let sleeps = || -> Vec<u64> {
        let worker = |(_, status): (u32, String)| {
            let (_, behind) = status.split_once("\nvoluntary_ctxt_switches:")?;
            let is_worker = status.starts_with("Name:\tworker-");
            is_worker.then(|| behind.lines().next()?.trim().parse().ok())?
        };
        server.threads("status").filter_map(worker).collect()
    };
    let before = sleeps();
    assert!(!before.is_empty() && asked.elapsed() < DELAY, "too slow to tell");
    eventually("their time is over", || asked.elapsed() > DELAY + Duration::from_millis(200));
    assert_eq!(sleeps(), before);
}

#[test]
fn a_client_that_is_always_ahead_of_its_answers_does_not_hold_up_a_stop() {
    let mut server = serve("[[rule]]\ndelay = \"10ms\"\nsend = \"{message}\"\n");
    let client = server.connect();
    (&client.stream).write_all(b"1\n2\n").unwrap();
    let mut replies = BufReader::new(&client.stream).lines();
    let mut began = None;
    for number in 1.. {
        // Not a reset: all that was received has its reply.
        let Some(reply) = replies.next().transpose().unwrap() else { break };
        assert_eq!(reply, number.to_string());
        if number == 5 {
            server.signal(rustix::process::Signal::TERM);
            began = Some(Instant::now());
        }
        // One that has been told the end may still send.
        let _ = (&client.stream).write_all(format!("{}\n", number + 2).as_bytes());
    }
    let took = began.unwrap().elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(replies);
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_delayed_answer() {
    let server = serve("[[rule]]\ndelay = \"100ms\"\njitter = \"50ms\"\nsend = \"late\"\n");
    let mut client = server.connect();
    assert_eq!(client.exchange(b"a\nb\n"), b"late\nlate\n");
    server.eventually_closed(&[("peer_closed", 1)]);
}

#[test]
fn a_rule_that_closes_does_so_behind_the_replies_before() {
    let server = serve(
        "[[rule]]\nequals = \"bye\"\nsend = \"good bye\"\nclose = true\n\
         [[rule]]\nequals = \"go\"\nclose = true\n\
         [[rule]]\nequals = \"later\"\ndelay = \"50ms\"\nsend = \"now\"\nclose = true\n\
         [[rule]]\nsend = \"{message}\"\n",
    );
    check_last(&server, "a\nbye\nb\n", "a\ngood bye\n");
    check_last(&server, "a\ngo\nb\n", "a\n");
    check_last(&server, "a\nlater\nb\n", "a\nnow\n");
    server.eventually_closed(&[("responder_closed", 3)]);
}

#[test]
fn half_an_answer_is_the_last_that_a_client_gets() {
    let server = serve("[[rule]]\nsend = \"abcdef\"\nfault = \"half\"\n");
    check_last(&server, "x\ny\n", "abc");
    server.eventually_closed(&[("responder_closed", 1)]);
}

#[test]
fn a_simulated_reset_is_one() {
    let server = serve("[[rule]]\nequals = \"x\"\nfault = \"reset\"\n[[rule]]\nsend = \"ok\"\n");
    let mut client = server.connect();
    client.send("a\n");
    client.expect("ok\n");
    client.send("x\n");
    client.expect_reset();
    server.eventually_closed(&[("responder_closed", 1)]);
}

#[test]
fn garbage_is_no_text_and_as_long_as_the_answer() {
    let server = serve(
        "default = \"ok\"\n[[rule]]\nequals = \"x\"\nsend = \"abcdefgh\"\nfault = \"garbage\"\n",
    );
    let mut client = server.connect();
    client.send("x\ny\n");
    client.finish();
    let bytes = client.read_to_end();
    let (garbage, rest) = bytes.split_at(8);
    assert!(str::from_utf8(garbage).is_err() && !garbage.contains(&b'\n'), "{garbage:?}");
    assert_eq!(rest, b"\nok\n");
}

#[test]
fn a_stalled_connection_stays_open_until_a_timeout_ends_it() {
    let rules = "[listener.rules]\ndefault = \"ok\"\n\
                 [[listener.rules.rule]]\nequals = \"x\"\nfault = \"stall\"\n";
    let server = Server::start(&format!(
        "[limits]\nidle_timeout = \"1s\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
         responder = \"rules\"\n{rules}"
    ));
    let mut client = server.connect();
    client.send("a\nx\nb\nc\n");
    client.expect("ok\n");
    client.expect_end();
    server.eventually_closed(&[("idle_timeout", 1)]);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("talkback_messages_total"), 4.0);
    assert_eq!(metrics.sum("talkback_replies_total"), 1.0);
}

#[test]
fn a_fault_by_chance_leaves_the_other_answers_as_they_are() {
    let server = serve("[[rule]]\nsend = \"ok\"\nfault = \"reset\"\nprobability = 0.5\n");
    let ask = |_: &u32| {
        let mut client = server.connect();
        client.send("x\n");
        let mut reply = [0; 3];
        std::io::Read::read_exact(&mut client.stream, &mut reply).is_ok_and(|()| reply == *b"ok\n")
    };
    let answered = (0..200).filter(ask).count();
    // Beyond these lies less than one run in 10^9.
    assert!((55..=145).contains(&answered), "{answered}");
    let resets = 200 - answered as u64;
    let closes = [("peer_closed", answered as u64), ("responder_closed", resets)];
    server.eventually_closed(&closes);
}

#[test]
fn rules_go_along_where_a_flag_moves_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let keys = "address = \"127.0.0.1:1\"\nframing = \"line\"\nresponder = \"rules\"\n\
                rules.default = \"{peer} {message}\"\n";
    let server = Server::start_by(&format!("[[listener]]\n{keys}"), |command| {
        command
            .args(["--listen", "127.0.0.1:0", "--listen"])
            .arg(format!("unix:{}", path.display()))
    });
    let mut client = server.connect();
    let peer = client.stream.local_addr().unwrap();
    client.send("a\n");
    client.expect(format!("{peer} a\n"));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, b"b\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(std::io::read_to_string(stream).unwrap(), "unix b\n");
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let server = serve(
        "state = { me = \"\" }\n\
         [[rule]]\nmatches = '^i am (?<me>[0-9]+)$'\nset = { me = \"${me}\" }\n\
         [[rule]]\nprefix = \"ask \"\nsend = \"{me}: ${1}\"\n",
    );
    let address = server.address();
    std::thread::scope(|scope| {
        for me in 0..32 {
            scope.spawn(move || {
                let questions: String = (0..500).map(|index| format!("ask {index}\n")).collect();
                let answers: String = (0..500).map(|index| format!("{me}: {index}\n")).collect();
                let said = format!("i am {me}\n{questions}");
                let got = Client::connect(address).exchange(said.as_bytes());
                assert_eq!(String::from_utf8(got).unwrap(), answers);
            });
        }
    });
    server.eventually_closed(&[("peer_closed", 32)]);
}
