//! The page's own arithmetic, run in the browser that will run it: the same files, inside of one
//! function.

mod programs;

use serde_json::{Value, json};

use crate::browser::Tab;
use crate::harness::Server;

const SOURCES: &str = concat!(
    include_str!("../../../src/sidecar/status/parse.js"),
    include_str!("../../../src/sidecar/status/rates.js"),
    include_str!("../../../src/sidecar/status/format.js"),
    include_str!("../../../src/sidecar/status/figures.js"),
    include_str!("../../../src/sidecar/status/findings.js"),
    include_str!("../../../src/sidecar/status/past.js"),
    include_str!("../../../src/sidecar/status/charts.js"),
    include_str!("../../../src/sidecar/status/tables.js"),
);

/// What `expression` is, after the statements before it.
#[track_caller]
fn check(tab: &Tab, before: &str, expression: &str, expected: &Value) {
    let value = tab.run(&format!("{SOURCES}\n{before}\nreturn ({expression});"));
    assert_eq!(value, *expected, "{expression}");
}

/// The same for many at once: a browser reads the sources once.
#[track_caller]
fn check_all<const N: usize>(tab: &Tab, before: &str, cases: [(&str, Value); N]) {
    let expressions = cases.each_ref().map(|(expression, _)| format!("({expression}),"));
    let values = tab.run(&format!("{SOURCES}\n{before}\nreturn [{}];", expressions.concat()));
    for (at, (expression, expected)) in cases.iter().enumerate() {
        assert_eq!(values[at], *expected, "{expression}");
    }
}

#[test]
fn the_script_reads_counts_and_judges_as_prometheus_does() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    the_text_format_is_read(&tab);
    a_quantile_is_linear_within_its_bucket(&tab);
    no_rate_is_negative_after_a_restart(&tab);
    a_gap_is_looked_back_over_until_the_window_is_full_again(&tab);
    numbers_are_written_for_people(&tab);
    scales_hold_their_values(&tab);
    what_is_wrong_is_said(&tab);
    a_limit_that_is_reached_is_said(&tab);
    programs::what_is_wrong_with_a_program_is_said(&tab);
    replies_that_nobody_takes_are_said(&tab);
    what_is_over_is_kept_with_its_times(&tab);
    a_refusal_a_silence_and_a_stop_are_told_apart(&tab);
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
    check_all(
        tab,
        buckets,
        [
            ("quantile(0.5, b(0, 10, 10, 10))", json!(1.5)),
            ("quantile(0.5, b(10, 10, 10, 10))", json!(0.5)),
            ("quantile(0.99, b(0, 0, 100, 100))", json!(3.98)),
            ("quantile(0.9, b(5, 5, 5, 10))", json!(4)),
            ("quantile(0.5, b(0, 0, 0, 0))", json!(null)),
            ("quantile(0.5, [])", json!(null)),
            (
                "bucketIncrease(b(1, 2, 3, 4), b(1, 3, 5, 9)).map((x) => x.count)",
                json!([0, 1, 2, 5]),
            ),
            (
                "bucketIncrease(b(9, 9, 9, 9), b(1, 2, 2, 2)).map((x) => x.count)",
                json!([1, 2, 2, 2]),
            ),
        ],
    );
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

fn a_gap_is_looked_back_over_until_the_window_is_full_again(tab: &Tab) {
    let story = r#"
        const h = new Timeline();
        const at = (second, count) => h.take(second * 1000, new Snapshot(`n_total ${count}\n`));
        for (let second = 0; second <= 20; second += 1) {
            at(second, 0);
        }
        const seen = [45, 46, 54, 55, 56].map((second) => at(second, 350).change);
    "#;
    let seconds = json!([25, 26, 34, 10, 10]);
    check(tab, story, "seen.map(({ seconds }) => seconds)", &seconds);
    let rates = json!([14, 350.0 / 26.0, 350.0 / 34.0, 0, 0]);
    check(tab, story, "seen.map((change) => change.rate('n_total'))", &rates);
    check(
        tab,
        story,
        "[1, 10, 25.6].map((seconds) => lately({ seconds }))",
        &json!(["just now", "just now", "in the last 26 s"]),
    );
}

fn numbers_are_written_for_people(tab: &Tab) {
    check_all(
        tab,
        "",
        [
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
                "[count, rate, bytes, duration, share, waited].map((f) => f(null))",
                json!(["–", "–", "–", "–", "–", "–"]),
            ),
            (
                "[0.000462, 0.00000999, 0.00396, 0.00995, 0.9996, 28.4, 9.96].map(roughly)",
                json!(["460 µs", "10 µs", "4.0 ms", "10 ms", "1.0 s", "28 s", "10 s"]),
            ),
            (
                "[[9, 9, 9], [0, 9, 9], [0, 0, 9], [0, 0, 0]].map((counts) => {
                const bounds = [0.004, 60, Infinity];
                const buckets = counts.map((count, at) => ({ bound: bounds[at], count }));
                return waited(estimate(0.99, buckets));
            })",
                json!(["≤ 4 ms", "59 s", "> 60 s", "–"]),
            ),
            ("[queueLimit(8, 8), queueLimit(9, 8)]", json!(["8", "8 + 1"])),
        ],
    );
}

fn scales_hold_their_values(tab: &Tab) {
    check_all(
        tab,
        "",
        [
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
        ],
    );
}

/// Judges an answer of /metrics that came a second after another one.
const JUDGE: &str = r#"
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

fn what_is_wrong_is_said(tab: &Tab) {
    check_all(
        tab,
        JUDGE,
        [
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
                    ["warn", "Connections failed: 2 as io_error just now."],
                    ["note", "Draining: the server is stopping, 1 connection still open."]
                ]),
            ),
        ],
    );
}

fn a_limit_that_is_reached_is_said(tab: &Tab) {
    check_all(
        tab,
        JUDGE,
        [
            (
                "judge(seen + 'talkback_listen_queue_length{listener=\"a\"} 4\\n\
           talkback_listen_queue_limit{listener=\"a\"} 4')",
                json!([["warn", "The accept queue of listener a is filling: 4, limit 4 + 1."]]),
            ),
            (
                "judge(seen + 'talkback_listen_queue_length{listener=\"a\"} 9\\n\
           talkback_listen_queue_limit{listener=\"a\"} 8\\n\
           talkback_accept_held_seconds_total{listener=\"a\"} 0.97')",
                json!([
                    ["bad", "The accept queue of listener a is full: 9, limit 8 + 1."],
                    [
                        "warn",
                        "max_accept_rate keeps newcomers of listener a waiting, 97 % of the time."
                    ]
                ]),
            ),
            (
                "judge('talkback_connections 59\\ntalkback_connections_limit 60')",
                json!([["warn", "Near the limit: 59 of 60 connections are open."]]),
            ),
            (
                "judge('talkback_connections 60\\ntalkback_connections_limit 60')",
                json!([[
                    "bad",
                    "At the limit: 60 of 60 connections are open, the next client is turned away."
                ]]),
            ),
        ],
    );
}

fn replies_that_nobody_takes_are_said(tab: &Tab) {
    let story = r#"
        const before = 'talkback_connections_closed_total{reason="peer_dead"} 0\n';
        const judge = (now, pending = []) => {
            const change = new Change({ at: 0, snapshot: new Snapshot(before) },
                { at: 1000, snapshot: new Snapshot(now) });
            return findProblems(measure(change), [], pending).map(({ text }) => text);
        };
        const row = (peer, idle_seconds) => ({ peer, idle_seconds, pending_bytes: 131072 });
        const told = (bytes) => {
            const h = new Timeline();
            const at = (second) => h.take(second * 1000, new Snapshot(
                `talkback_pending_bytes ${bytes[second]}\n`));
            const { change } = bytes.map((_, second) => at(second)).at(-1);
            return findProblems(measure(change), [], null).map(({ text }) => text);
        };
    "#;
    check_all(
        tab,
        story,
        [
            ("judge('', [row('a:1', 1.9)])", json!([])),
            (
                "judge('', [row('a:1', 14), row('a:2', 0.1)])",
                json!(["A client does not take its replies: 128 KiB pending for a:1, \
                    nothing moved for 14.0 s."]),
            ),
            (
                "judge('', Array(10).fill(row('a:1', 14)))[0].slice(0, 48)",
                json!("10 clients or more do not take their replies: 12"),
            ),
            (
                "told([5, 5, 5, 5, 5, 5, 5])",
                json!(["Replies are pending all the time, 5 B now: clients take them slowly."]),
            ),
            ("[told([5, 5, 5, 0, 5, 5, 5]), told([5, 5, 5])]", json!([[], []])),
            (
                "judge('talkback_discarded_bytes_total 131072\\n')",
                json!(["Replies were thrown away: 128 KiB just now, not taken before their \
                    connections ended."]),
            ),
            (
                "judge(before.replace(' 0', ' 2'))",
                json!(["Connections failed: 2 as peer_dead just now."]),
            ),
            (
                "judge(['0.2', '0.4', '+Inf'].map((le, at) => {
                return `talkback_respond_seconds_bucket{le=\"${le}\"} ${at * 9}`;
            }).join('\\n'))",
                json!(["Replies take long: p99 is > 400 ms."]),
            ),
        ],
    );
}

fn what_is_over_is_kept_with_its_times(tab: &Tab) {
    let story = r#"
        const past = new Past();
        const found = (key, size, text = `${key} ${size} just now.`) => {
            return { key, size, text, level: "warn" };
        };
        const at = (second, ...problems) => past.take(second * 1000, problems);
        const over = () => past.over.map(({ first, last, text }) => {
            return [first / 1000, last / 1000, text];
        });
    "#;
    for (statements, expected) in [
        ("at(0, found('a', 1)); at(1, found('a', 2));", json!([])),
        (
            "at(0, found('a', 1)); at(1, found('a', 7)); at(2, found('a', 3)); at(3);",
            json!([[0, 2, "a 7."]]),
        ),
        // One that comes back soon was not over; later it is another.
        ("at(0, found('a', 1)); at(1); at(20, found('a', 1)); at(21);", json!([[0, 20, "a 1."]])),
        (
            "at(0, found('a', 1)); at(1); at(40, found('a', 1)); at(41);",
            json!([[40, 40, "a 1."], [0, 0, "a 1."]]),
        ),
        // While the server says nothing, nothing is known to be over.
        (
            "at(0, found('a', 1)); past.see(60000, [found('b', 0)]);\
             at(90, found('a', 1)); at(91);",
            json!([[0, 90, "a 1."], [60, 60, "b 0."]]),
        ),
        ("at(0, found('a', 1)); past.see(60000, [found('b', 0)]);", json!([[0, 0, "a 1."]])),
    ] {
        check(tab, &format!("{story}{statements}"), "over()", &expected);
    }
    let many = "for (let s = 0; s < 30; s += 1) { at(s, found(`k${s}`, 1)); }";
    check(
        tab,
        &format!("{story}{many}"),
        "[over().length, over()[0][0], over()[9][0]]",
        &json!([10, 28, 19]),
    );
}

fn a_refusal_a_silence_and_a_stop_are_told_apart(tab: &Tab) {
    let story = "const told = (error, wasDraining = false) => {
        const { word, problem: { level, text } } = silence(error, null, wasDraining);
        return [word, level, text.split(' since')[0]];
    };";
    check_all(
        tab,
        story,
        [
            ("told(new TypeError('Failed to fetch'))", json!(["refused", "bad", "Nobody listens"])),
            (
                "told(new TypeError('Failed to fetch'), true)",
                json!(["stopped", "note", "Stopped: it was draining, and nobody listens"]),
            ),
            (
                "told(new DOMException('', 'TimeoutError'), true)",
                json!(["timed out", "bad", "No answer"]),
            ),
            (
                "told(new Error('', { cause: 503 }))",
                json!(["errors", "bad", "It answers with an error (503)"]),
            ),
            ("told(new Error('lost'))", json!(["no answer", "bad", "No answer"])),
        ],
    );
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
