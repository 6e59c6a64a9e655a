//! The status page in a real browser: what it shows of a server under load, in trouble, and gone.

mod load;
mod programs;
mod script;

use std::fs;
use std::path::Path;
use std::time::Instant;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use talkback::metrics::names;

use crate::browser::Tab;
use crate::harness::{Server, eventually};
use crate::stuck::stuck_client;
use load::Load;

/// Set it and the README's picture of the page is drawn anew.
const WRITE: &str = "TALKBACK_WRITE_PICTURES";

fn number(text: &str) -> f64 {
    text.replace(',', "").parse().unwrap_or(f64::NAN)
}

/// Whether the page is wider than the screen.
fn scrolls_sideways(tab: &Tab) -> bool {
    let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    tab.run(wide).as_bool().unwrap()
}

/// The luminance of the page's ground, from 0 to 765.
fn brightness(tab: &Tab) -> i64 {
    let sum = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)\
               .slice(0, 3).reduce((sum, part) => sum + Number(part), 0)";
    tab.run(sum).as_i64().unwrap()
}

#[test]
fn under_load_the_numbers_move_and_the_console_stays_empty() {
    let mut load = Load::start();
    let for_readme = std::env::var_os(WRITE).is_some();
    let _deaf = for_readme.then(|| stuck_client(&load.server, load.server.address_of(1)));
    let tab = Tab::open(load.server.metrics_address());
    tab.eventually("reply-rate", || load.step(), |rate| number(rate) > 0.0);
    tab.eventually(
        "reply-p50",
        || load.step(),
        |wait| wait.ends_with("µs") || wait.ends_with("ms"),
    );
    tab.eventually("queue-p99", || load.step(), |wait| wait.ends_with("ms"));
    tab.eventually("socket-open", || load.step(), |open| number(open) > 3.0);
    let peer = load.peer();
    tab.eventually("busiest", || load.step(), |rows| rows.contains(&peer));
    tab.eventually("oldest", || load.step(), |rows| rows.contains("unix"));
    for text in ["main", "lines", "local", "python"] {
        assert!(tab.text("listeners").contains(text));
    }
    tab.eventually("programs", || load.step(), |rows| rows.contains("python"));
    for reason in ["exit", "peer_reset", "invalid_utf8"] {
        tab.eventually("closes", || load.step(), |rows| rows.contains(reason));
    }
    tab.eventually(
        "refusals",
        || load.step(),
        |rows| rows.contains("client rejected: max_connections_per_ip"),
    );
    for chart in ["messages", "connections", "bytes", "respond", "inbox", "accept"] {
        let path =
            format!("return document.querySelector('#chart-{chart} .line').getAttribute('d')");
        eventually(format_args!("the chart of {chart} has a line"), || {
            load.step();
            tab.run(&path).as_str().unwrap().contains('L')
        });
    }

    tab.run(
        "const chart = document.querySelector('#chart-messages svg');
         const { right, top } = chart.getBoundingClientRect();
         const place = { clientX: right - 10, clientY: top + 20 };
         chart.dispatchEvent(new PointerEvent('pointermove', place));",
    );
    assert!(tab.text("chart-messages").starts_with("Messages / s at "));
    tab.run(
        "document.querySelector('#chart-messages svg')\
         .dispatchEvent(new PointerEvent('pointerleave'));",
    );
    assert!(brightness(&tab) > 600 && !scrolls_sideways(&tab));
    tab.emulate("dark", 360, 780);
    assert!(brightness(&tab) < 150 && !scrolls_sideways(&tab));
    // On a phone the reasons come before the charts, and of connections only the first.
    let places = "const top = (id) => document.getElementById(id).getBoundingClientRect().top;
        return [top('chain') < top('ends'), top('ends') < top('connections'),
                top('connections') < top('charts')]";
    assert_eq!(tab.run(places), serde_json::json!([true, true, true]));
    let rows = "return [...document.querySelectorAll('#oldest tbody tr')]
                .filter((row) => row.offsetHeight > 0).length";
    assert_eq!(tab.run(rows), 3);
    assert!(!tab.text("chain").contains("max_accept_rate"));
    tab.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    assert!(!scrolls_sideways(&tab));
    tab.run("document.querySelectorAll('details').forEach((d) => { d.open = false; })");
    tab.emulate("light", 1240, 900);
    if for_readme {
        talk_for_a_minute(&mut load);
    }
    draw(&tab, for_readme);
    assert_eq!(tab.log(), [""; 0]);
}

#[test]
fn the_script_leaves_no_name_in_the_browsers_global_scope() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    tab.eventually("state", || (), |state| state == "serving");
    let page = server.get("/").1;
    let script = page.split("<script type=\"module\">").nth(1).unwrap();
    let mut declared = Vec::new();
    for line in script.lines() {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let [keyword, name, ..] = line.splitn(3, [' ', '(']).collect::<Vec<_>>()[..] else {
            continue;
        };
        if ["class", "function", "const", "let"].contains(&keyword) {
            declared.push(name);
        }
    }
    assert!(declared.contains(&"poll") && declared.len() > 50, "{declared:?}");
    let leaked = format!("return {declared:?}.filter((name) => Object.hasOwn(globalThis, name))");
    assert_eq!(tab.run(&leaked), serde_json::json!([]));
}

#[test]
fn a_full_accept_queue_and_its_drops_are_told() {
    // The acceptor waits for the next second's token with the kernel's queue behind it.
    let server = Server::with_listener("backlog = 4\nmax_accept_rate = 1");
    let tab = Tab::open(server.metrics_address());
    let mut clients = Vec::new();
    let mut come = || {
        // Enough for any wait: those that the kernel drops try again by themselves.
        if clients.len() == 200 {
            return;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // It is under way, or never gets an answer: the queue may be full.
        let _ = socket.connect(&server.address().into());
        clients.push(socket);
    };
    (0..12).for_each(|_| come());
    tab.eventually("problems", &mut come, |told| {
        told.contains("The accept queue of listener main is full: 5, limit 4 + 1.")
            && told.contains("to listener main just now: its accept queue was full.")
            && told.contains("max_accept_rate keeps newcomers of listener main waiting")
    });
    assert!(tab.text("queue-held").starts_with("held "));
    assert!(tab.text("queue-limit") == "limit 4 + 1, main");
    let level = "return document.querySelector('[data-part=queue]').dataset.level";
    assert_eq!(tab.run(level), "bad");
    assert_eq!(tab.text("state"), "trouble");
    assert!(number(&tab.text("queue-drops")) > 0.0);
}

#[test]
fn a_stop_shows_while_it_lasts_and_when_the_server_is_gone() {
    let mut server = Server::with_listener("framing = \"line\"");
    let holds = stuck_client(&server, server.address());
    let tab = Tab::open(server.metrics_address());
    tab.eventually("state", || (), |state| state == "serving");
    let peer = holds.stream.local_addr().unwrap().to_string();
    tab.eventually("connections", || (), |told| told.contains("Most pending"));
    tab.eventually("pending", || (), |rows| rows.contains(&peer) && rows.contains("sending"));
    tab.eventually(
        "problems",
        || (),
        |told| told.starts_with("A client does not take its replies: ") && told.contains(&peer),
    );
    let reply = "return document.querySelector('[data-part=reply]').dataset.level";
    assert_eq!(tab.run(reply), "warn");
    server.signal(Signal::TERM);
    tab.eventually("state", || (), |state| state == "draining");
    tab.eventually("problems", || (), |told| told.contains("1 connection still open"));
    // An ordinary deployment is no trouble.
    let socket = "return document.querySelector('[data-part=socket]').dataset.level";
    assert_eq!(tab.run(socket), "note");
    assert_eq!(tab.log(), [""; 0]);
    holds.reset();
    assert_eq!(server.wait().code(), Some(0));
    tab.eventually("problems", || (), |told| told.starts_with("Stopped: it was draining"));
    assert_eq!(tab.text("state"), "stopped");
    tab.run("document.getElementById('past').open = true");
    assert!(tab.text("past").contains("A client does not take its replies"));
    let greyed = "return Number(getComputedStyle(document.querySelector('main section + section')).\
                  opacity)";
    assert!(tab.run(greyed).as_f64().unwrap() < 1.0);
}

#[test]
fn a_page_that_nobody_sees_asks_nothing() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    tab.eventually("state", || (), |state| state == "serving");
    // What only the page asks for, three times in a round.
    let asked =
        || server.metrics().get("talkback_scrapes_total{code=\"200\",path=\"/connections\"}");
    tab.run(
        "window.seen = false; window.late = false; setTimeout(() => { window.late = true; }, 2300);
         Object.defineProperty(document, 'hidden', { get: () => !window.seen });
         document.dispatchEvent(new Event('visibilitychange'));",
    );
    let before = asked();
    eventually("two seconds are over", || tab.run("return window.late").as_bool().unwrap());
    // One round was under way or planned.
    assert!(asked() <= before + 3.0, "{before} and then {}", asked());
    let hidden = asked();
    tab.run("window.seen = true; document.dispatchEvent(new Event('visibilitychange'));");
    eventually("it asks again", || asked() > hidden + 3.0);
    assert_eq!(tab.log(), [""; 0]);
}

#[test]
fn a_page_that_has_lost_the_server_finds_it_again() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    tab.eventually("state", || (), |state| state == "serving");
    assert!(!tab.text("connections").contains("Most pending"));
    let name = name_of(&server);
    let title = || tab.run("return document.title").as_str().unwrap().to_owned();
    assert_eq!(title(), format!("{name} – talkback"));
    assert_eq!(tab.text("host"), format!("{name}, pid {}", server.pid()));
    tab.run("window.way = window.fetch; window.fetch = () => Promise.reject(new Error('lost'));");
    tab.eventually("state", || (), |state| state == "no answer");
    assert!(title().starts_with(&format!("! {name} – talkback: No answer since ")));
    tab.run("window.fetch = window.way;");
    tab.eventually("state", || (), |state| state == "serving");
    tab.run("document.getElementById('past').open = true");
    assert!(tab.text("past").contains(" No answer since "));
    assert_eq!(tab.run("return document.body.className"), "");
    assert_eq!(tab.log(), [""; 0]);
}

#[test]
fn where_connections_are_not_told_the_page_says_why_and_goes_on() {
    let server = Server::start(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [metrics]\naddress = \"127.0.0.1:0\"\nconnections = \"never\"\n",
    );
    let mut client = server.connect();
    let tab = Tab::open(server.metrics_address());
    tab.eventually(
        "connections",
        || (),
        |told| told.contains("metrics.connections = \"never\" turns /connections off"),
    );
    tab.eventually("reply-rate", || client.echo("hello"), |rate| number(rate) > 0.0);
    assert_eq!(tab.log(), [""; 0]);
    // It does not ask what would be refused.
    let asked = "talkback_scrapes_total{code=\"403\",path=\"/connections\"}";
    assert_eq!(server.metrics().get(asked), 0.0);
}

/// The names in the page's script are those of metrics that exist.
#[test]
fn every_metric_that_the_page_names_exists() {
    let server = Server::with_listener("");
    let page = server.get("/").1;
    let exposition = Server::with_program("").get("/metrics").1;
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let mut known = 0;
    for name in metric_names(&page) {
        let listed = names::ALL.iter().any(|metric| metric.name == name);
        assert!(listed || name.starts_with("process_"), "{name} is not in the list of metrics");
        assert!(served.contains(&name), "{name} is not on /metrics");
        known += 1;
    }
    assert!(known > 30, "{known}");
}

/// What stands in quotes and looks like a metric.
fn metric_names(page: &str) -> impl Iterator<Item = &str> {
    page.split('"').filter(|text| {
        let is_ours = text.starts_with("talkback_") || text.starts_with("process_");
        is_ours && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

/// What the page calls a server: its host, or the address where that has no plain name.
fn name_of(server: &Server) -> String {
    let told: serde_json::Value = serde_json::from_str(&server.get("/connections").1).unwrap();
    match told["host"].as_str().unwrap() {
        "" => server.metrics_address().to_string(),
        host => host.to_owned(),
    }
}

/// Now more, and now fewer talk.
fn talk_for_a_minute(load: &mut Load) {
    let began = Instant::now();
    let mut steps = 0.0;
    // Each wait is shorter than the patience of one.
    for part in 1..=4 {
        eventually("a part of the minute is over", || {
            let now = began.elapsed().as_secs_f64();
            if steps < 25.0 * now + 40.0 * (now / 4.0).sin() {
                load.step();
                steps += 1.0;
            }
            now > 13.0 * f64::from(part)
        });
    }
}

/// A picture of most of the page.
fn draw(tab: &Tab, for_readme: bool) {
    let end = "return Math.round(document.getElementById('busiest')\
               .getBoundingClientRect().bottom + scrollY)";
    let height = u32::try_from(tab.run(end).as_u64().unwrap()).unwrap() + 17;
    let picture = tab.picture(1240, height);
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 400_000, "{}", picture.len());
    if for_readme {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures/status-page.png");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, picture).unwrap();
    }
}
