//! Counts and sizes, to the last one.

use talkback::metrics::names;

use super::Histogram;
use crate::harness::{Client, Server};

const SIZES: &str = "talkback_message_bytes";
const RESPOND: &str = "talkback_respond_seconds";

fn lines() -> Server {
    Server::with_listener("framing = \"line\"\nmax_message_bytes = 100000")
}

#[test]
fn every_message_counts_with_its_size_without_its_ending() {
    let server = lines();
    let mut client = server.connect();
    // At a bound and one above it, as a line of either ending; an empty one is a message too.
    let sizes = [0, 1, 15, 16, 17, 64, 65, 70_000];
    for size in sizes {
        client.echo(&format!("{}\n", "x".repeat(size)));
        client.send(format!("{}\r\n", "x".repeat(size)));
        client.expect(format!("{}\n", "x".repeat(size)));
    }
    client.send("exit\n");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    let metrics = server.metrics();
    let histogram = Histogram::of(&metrics, SIZES);
    assert_eq!(histogram.count(), 2.0 * sizes.len() as f64);
    assert_eq!(histogram.sum(), 2.0 * sizes.iter().sum::<usize>() as f64);
    for (bound, at_most) in [("16", 4), ("64", 6), ("256", 7), ("65536", 7), ("262144", 8)] {
        assert_eq!(histogram.up_to(bound), 2.0 * f64::from(at_most), "{bound}\n{metrics}");
    }
    assert_eq!(histogram.count(), metrics.sum("talkback_messages_total"));
}

/// Many messages in one piece take another way through the server than one alone.
#[test]
fn pipelined_messages_count_one_by_one_and_their_replies_as_often_as_they_were_answered() {
    let server = lines();
    let text: String = (0..3000).map(|length| "x".repeat(length % 40) + "\n").collect();
    let reply = server.connect().exchange(text.as_bytes());
    assert_eq!(reply, text.as_bytes());
    server.eventually_closed(&[("peer_closed", 1)]);
    let metrics = server.metrics();
    let histogram = Histogram::of(&metrics, SIZES);
    assert_eq!(histogram.count(), 3000.0);
    assert_eq!(histogram.sum(), (text.len() - 3000) as f64);
    let short = (0..3000).filter(|length| length % 40 <= 16).count();
    assert_eq!(histogram.up_to("16"), short as f64);
    // What came together is answered together.
    let answered = Histogram::of(&metrics, RESPOND).count();
    assert!((1.0..=300.0).contains(&answered), "{metrics}");
}

#[test]
fn each_question_of_a_client_that_waits_for_its_reply_is_timed() {
    let server = lines();
    for questions in [0, 1, 30] {
        let mut client = server.connect();
        (0..questions).for_each(|_| client.echo("hello\n"));
    }
    server.eventually_closed(&[("unused", 1), ("peer_closed", 2)]);
    let metrics = server.metrics();
    let histogram = Histogram::of(&metrics, RESPOND);
    assert_eq!(histogram.count(), 31.0);
    assert!(histogram.sum() > 0.0 && histogram.up_to("1") == 31.0, "{metrics}");
}

/// Part of a character is no message, and of a message that ends with its connection the sizes
/// know as much as the replies.
#[test]
fn what_is_no_message_is_in_no_histogram() {
    let server = Server::with_listener("");
    let mut client = server.connect();
    let [first, rest @ ..] = "好".as_bytes() else { panic!("three bytes") };
    client.send([*first]);
    server.eventually("its first byte is there", |metrics| {
        metrics.sum("talkback_received_bytes_total") == 1.0
    });
    client.send(rest);
    client.expect("好");
    client.send("exit");
    client.expect_end();
    drop(client);
    server.eventually_closed(&[("exit", 1)]);
    let metrics = server.metrics();
    assert_eq!(Histogram::of(&metrics, SIZES).count(), 1.0);
    assert_eq!(Histogram::of(&metrics, SIZES).sum(), 3.0);
    assert_eq!(Histogram::of(&metrics, RESPOND).count(), 1.0);
}

#[test]
fn every_connection_is_in_its_histograms_once() {
    let server =
        Server::start("[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nmax_connections = 5\n");
    let served: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    server.eventually("five are in", |metrics| metrics.sum("talkback_connections") == 5.0);
    // A rejected one was accepted, and that is all.
    (0..3).for_each(|_| server.connect().expect_end());
    let metrics = server.metrics();
    let durations = "talkback_connection_duration_seconds";
    assert_eq!(Histogram::of(&metrics, durations).count(), 0.0);
    drop(served);
    server.eventually_closed(&[("unused", 5)]);
    let metrics = server.metrics();
    assert_eq!(Histogram::of(&metrics, durations).count(), 5.0);
    assert_eq!(Histogram::of(&metrics, "talkback_accept_wait_seconds").count(), 8.0);
    assert_eq!(Histogram::of_all(&metrics, "talkback_inbox_wait_seconds").count(), 5.0);
    assert_eq!(Histogram::of(&metrics, RESPOND).count(), 0.0);
}

const WAITS: &str = "0.00001 0.00002 0.00005 0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 \
                     0.1 0.2 0.5 1 2 5 10 +Inf";

#[test]
fn every_bucket_of_every_histogram_is_there_at_0_from_the_start() {
    let server = Server::with_program("");
    let metrics = server.metrics();
    let check = |histogram: Histogram<'_>, bounds: &str| {
        let bounds: Vec<_> = bounds.split_whitespace().collect();
        bounds.iter().for_each(|bound| assert_eq!(histogram.up_to(bound), 0.0, "{bound}"));
        let begin = format!("{}_bucket{{", histogram.name);
        let series = metrics.series().filter(|series| series.starts_with(&begin));
        assert_eq!(series.count(), bounds.len(), "{}", histogram.name);
        assert_eq!((histogram.count(), histogram.sum()), (0.0, 0.0), "{}", histogram.name);
    };
    check(Histogram::of(&metrics, RESPOND), WAITS);
    check(Histogram::of(&metrics, "talkback_tcp_rtt_seconds"), WAITS);
    check(Histogram::of_all(&metrics, "talkback_inbox_wait_seconds"), WAITS);
    check(
        Histogram::of(&metrics, "talkback_accept_wait_seconds"),
        "0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1 2 3 4 5 7 10 15 30 60 +Inf",
    );
    check(
        Histogram::of(&metrics, "talkback_connection_duration_seconds"),
        "0.001 0.01 0.1 0.5 1 5 10 30 60 300 900 3600 14400 86400 +Inf",
    );
    check(
        Histogram::of(&metrics, SIZES),
        "16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 +Inf",
    );
    check(Histogram::of(&metrics, "talkback_command_queue_wait_seconds"), WAITS);
    check(Histogram::of(&metrics, "talkback_command_reply_seconds"), WAITS);
    let known = names::ALL.iter().filter(|metric| metric.kind == names::Kind::Histogram);
    assert_eq!(known.count(), 8, "a histogram that this test does not know");
}

/// The buckets of each histogram ascend to its count, under load too.
#[test]
fn no_scrape_shows_a_histogram_that_contradicts_itself() {
    let server = lines();
    let text = "hello\n".repeat(20_000);
    let mut client = server.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(client.exchange(text.as_bytes()).len(), text.len()));
        for _ in 0..20 {
            let metrics = server.metrics();
            let histogram = Histogram::of(&metrics, SIZES);
            assert_eq!(histogram.up_to("16"), histogram.count(), "{metrics}");
            assert_eq!(histogram.up_to("+Inf"), histogram.count(), "{metrics}");
        }
    });
}
