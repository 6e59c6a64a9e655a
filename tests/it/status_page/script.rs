//! The page's own arithmetic, run in the browser that will run it: the same files, inside of one
//! function.

use serde_json::{Value, json};

use crate::browser::Tab;
use crate::harness::Server;

const SOURCES: &str = concat!(
    include_str!("../../../src/sidecar/status/parse.js"),
    include_str!("../../../src/sidecar/status/rates.js"),
    include_str!("../../../src/sidecar/status/format.js"),
    include_str!("../../../src/sidecar/status/figures.js"),
    include_str!("../../../src/sidecar/status/findings.js"),
    include_str!("../../../src/sidecar/status/charts.js"),
    include_str!("../../../src/sidecar/status/tables.js"),
);

/// What `expression` is, after the statements before it.
#[track_caller]
fn check(tab: &Tab, before: &str, expression: &str, expected: &Value) {
    let value = tab.run(&format!("{SOURCES}\n{before}\nreturn ({expression});"));
    assert_eq!(value, *expected, "{expression}");
}

#[test]
fn the_script_reads_counts_and_judges_as_prometheus_does() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    the_text_format_is_read(&tab);
    a_quantile_is_linear_within_its_bucket(&tab);
    no_rate_is_negative_after_a_restart(&tab);
    numbers_are_written_for_people(&tab);
    scales_hold_their_values(&tab);
    what_is_wrong_is_said(&tab);
    text_stays_text(&tab);
    assert_eq!(tab.log(), [""; 0]);
}

fn the_text_format_is_read(tab: &Tab) {
    let text = r##"const s = new Snapshot([
        "# HELP a Some.", "# TYPE a counter", "", "a{x=\"1\",y=\"b\"} 3", "a{x=\"10\"} 4e1",
        "a{x=\"9\"} 0.5 1700000000000", "b +Inf", "c{le=\"}\\\"\\\\\\n\"} 1", "d inf",
        "h_bucket{l=\"m\",le=\"0.5\"} 1", "h_bucket{l=\"m\",le=\"+Inf\"} 4",
        "h_bucket{l=\"n\",le=\"0.5\"} 2", "h_bucket{l=\"n\",le=\"+Inf\"} 2",
        "broken{x=\"1\" 3", "1 2", "lonely",
    ].join("\n"));"##;
    check(tab, text, r#"s.sum("a")"#, &json!(43.5));
    check(tab, text, r#"s.sum("a", { x: "1" })"#, &json!(3));
    check(tab, text, r#"s.sum("a", { x: "2" })"#, &json!(null));
    check(tab, text, r#"s.labelValues("a", "x")"#, &json!(["1", "9", "10"]));
    check(tab, text, r#"[s.sum("b"), s.sum("d")].map(String)"#, &json!(["Infinity", "Infinity"]));
    check(tab, text, r#"s.all("c")[0].labels.get("le")"#, &json!("}\"\\\n"));
    check(tab, text, r#"s.buckets("h").map(({ count }) => count)"#, &json!([3, 6]));
    check(tab, text, r#"s.buckets("h", { l: "n" })[0]"#, &json!({"bound": 0.5, "count": 2}));
    for none in ["broken", "lonely", "1"] {
        check(tab, text, &format!("s.all(\"{none}\")"), &json!([]));
    }
}

fn a_quantile_is_linear_within_its_bucket(tab: &Tab) {
    let buckets = "const b = (...counts) => counts.map((count, at) => {
        return { bound: [1, 2, 4, Infinity][at], count };
    });";
    for (expression, expected) in [
        ("quantile(0.5, b(0, 10, 10, 10))", json!(1.5)),
        ("quantile(0.5, b(10, 10, 10, 10))", json!(0.5)),
        ("quantile(0.99, b(0, 0, 100, 100))", json!(3.98)),
        ("quantile(0.9, b(5, 5, 5, 10))", json!(4)),
        ("quantile(0.5, b(0, 0, 0, 0))", json!(null)),
        ("quantile(0.5, [])", json!(null)),
        ("bucketIncrease(b(1, 2, 3, 4), b(1, 3, 5, 9)).map((x) => x.count)", json!([0, 1, 2, 5])),
        ("bucketIncrease(b(9, 9, 9, 9), b(1, 2, 2, 2)).map((x) => x.count)", json!([1, 2, 2, 2])),
    ] {
        check(tab, buckets, expression, &expected);
    }
}

fn no_rate_is_negative_after_a_restart(tab: &Tab) {
    let story = r#"
        const h = new Timeline();
        const at = (second, count, start) => h.take(second * 1000, new Snapshot(
            `n_total ${count}\nprocess_start_time_seconds ${start}\n`));
        const first = at(0, 100, 5);
        const second = at(1, 150, 5);
        const later = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map((s) => at(s, 150 + s, 5)).at(-1);
        const away = at(100, 360, 5);
        const anew = at(101, 3, 90);
        const after = at(102, 7, 90);
        const all = [first, second, later, away, anew, after];
        const rates = all.map(({ change }) => change.rate("n_total"));
    "#;
    check(tab, story, "rates", &json!([null, 50, 1.1, 199.0 / 89.0, null, 4]));
    check(tab, story, "[away.restarted, anew.restarted]", &json!([false, true]));
    check(tab, "", "increase(7, 3)", &json!(3));
}

fn numbers_are_written_for_people(tab: &Tab) {
    for (expression, expected) in [
        (
            "[0, 0.000012345, 0.00123, 0.99, 59.94].map(duration)",
            json!(["0 s", "12.3 µs", "1.23 ms", "990 ms", "59.9 s"]),
        ),
        (
            "[60, 3599.9, 7384, 200000].map(duration)",
            json!(["1 m 00 s", "59 m 59 s", "2 h 03 m", "2 d 07 h"]),
        ),
        (
            "[0, 999, 1000, 65536, 3e9].map(bytes)",
            json!(["0 B", "999 B", "0.98 KiB", "64.0 KiB", "2.79 GiB"]),
        ),
        (
            "[0, 0.3, 9999, 12345, 1.5e6].map(rate)",
            json!(["0", "0.30", "9,999", "12.3 k", "1.50 M"]),
        ),
        ("[0, 0.004, 0.42, 1].map(share)", json!(["0 %", "0.4 %", "42 %", "100 %"])),
        (
            "[count, rate, bytes, duration, share].map((f) => f(null))",
            json!(["–", "–", "–", "–", "–"]),
        ),
    ] {
        check(tab, "", expression, &expected);
    }
}

fn scales_hold_their_values(tab: &Tab) {
    for (expression, expected) in [
        ("linearScale([3, 180]).ticks", json!([0, 100, 200])),
        ("linearScale([]).ticks", json!([0, 0.5, 1])),
        ("linearScale([150 * 1024], 1024).ticks", json!([0, 102_400, 204_800])),
        ("linearScale([600 * 1024], 1024).ticks", json!([0, 524_288, 1_048_576])),
        ("linearScale([180]).place(100)", json!(0.5)),
        (
            "logScale([0.00003, 0.02]).ticks.map(duration)",
            json!(
                ["10.0 µs", "100 µs", "1.00 ms", "10.0 ms", "100 ms"]
                    .iter()
                    .step_by(2)
                    .collect::<Vec<_>>()
            ),
        ),
        ("logScale([1]).place(0)", json!(0)),
        (
            "linePath([{ at: 0, value: 1 }, { at: 1000, value: 2 }, { at: 9000, value: 3 }, \
           { at: 9500, value: null }], (at) => at, (value) => value)",
            json!("M0.0 1.0h0.01L1000.0 2.0M9000.0 3.0h0.01"),
        ),
    ] {
        check(tab, "", expression, &expected);
    }
}

fn what_is_wrong_is_said(tab: &Tab) {
    let story = r#"
        const judge = (now, stalled = []) => {
            const before = { at: 0, snapshot: new Snapshot(
                'talkback_connections_rejected_total{reason="inbox_full"} 0\n' +
                'talkback_connections_closed_total{reason="io_error"} 0\n' +
                'talkback_listen_drops_total{listener="a"} 2\n' +
                'talkback_connections_accepted_total{listener="a"} 0') };
            const change = new Change(before, { at: 1000, snapshot: new Snapshot(now) });
            return findProblems(measure(change), stalled).map(({ level, text }) => [level, text]);
        };
        const seen = 'talkback_connections_accepted_total{listener="a"} 0\n';
    "#;
    for (expression, expected) in [
        ("judge(seen)", json!([])),
        (
            "judge('talkback_worker_connections{worker=\"1\"} 0\\n\
           talkback_worker_turn_seconds{worker=\"1\"} 0.3')",
            json!([["warn", "Worker 1 has been in one turn for 300 ms."]]),
        ),
        (
            "judge('talkback_worker_connections{worker=\"1\"} 0\\n\
           talkback_worker_turn_seconds{worker=\"1\"} 0.3', [1])",
            json!([["bad", "Worker 1 is stalled: it has been in one turn for 300 ms."]]),
        ),
        (
            "judge(seen + 'talkback_listen_queue_length{listener=\"a\"} 4\\n\
           talkback_listen_queue_limit{listener=\"a\"} 5')",
            json!([["warn", "The accept queue of listener a is filling: 4 of 5."]]),
        ),
        (
            "judge(seen + 'talkback_listen_drops_total{listener=\"a\"} 3')",
            json!([[
                "bad",
                "The kernel dropped 1 attempt to connect to listener a just now: \
             its accept queue was full."
            ]]),
        ),
        (
            "judge('talkback_connections_rejected_total{reason=\"inbox_full\"} 3')",
            json!([["bad", "Turning clients away: 3 as inbox_full just now."]]),
        ),
        (
            "judge('talkback_connections_closed_total{reason=\"io_error\"} 2\\n\
           talkback_draining 1\\ntalkback_connections 1')",
            json!([
                ["bad", "Draining: the server is stopping, 1 connection still open."],
                ["warn", "Connections failed: 2 as io_error just now."]
            ]),
        ),
    ] {
        check(tab, story, expression, &expected);
    }
}

fn text_stays_text(tab: &Tab) {
    let fill = "const element = document.createElement('table');
        new Table(element, [{ label: '<b>', text: (row) => row }]).fill(['<img src=x>']);";
    check(
        tab,
        fill,
        "[element.innerText, element.querySelectorAll('img, b').length]",
        &json!(["<b><img src=x>", 0]),
    );
}
