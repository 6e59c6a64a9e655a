//! What the page's script says of the programs behind listeners.

use serde_json::json;

use super::check_all;
use crate::browser::Tab;

pub fn what_is_wrong_with_a_program_is_said(tab: &Tab) {
    let story = r#"
        const page = (figures) => {
            const { open, refused, timeouts, ended, slow } = {
                open: 0, refused: {}, timeouts: 0, ended: {}, slow: 0, ...figures };
            const of = (name, label) => `talkback_command_${name}{listener="a"${label ?? ""}}`;
            const by = (name, counts) => Object.entries({ idle: 0, ...counts }).map(
                ([reason, count]) => `${of(name, `,reason="${reason}"`)} ${count}`);
            return [`${of("circuit_open")} ${open}`, `${of("timeouts_total")} ${timeouts}`,
                ...by("refused_total", refused), ...by("ends_total", ended),
                `${of("queue_wait_seconds_bucket", ',le="1"')} 0`,
                `${of("queue_wait_seconds_bucket", ',le="2"')} ${slow}`,
                `${of("queue_wait_seconds_bucket", ',le="+Inf"')} ${slow}`].join("\n");
        };
        const judge = (figures) => {
            const [before, now] = [{}, figures].map((some, second) => {
                return { at: second * 1000, snapshot: new Snapshot(page(some)) };
            });
            const change = new Change(before, now);
            return findProblems(measure(change), [], null).map(({ level, text }) => [level, text]);
        };
    "#;
    let dead = "The program behind listener a does not live: its processes died before they \
                answered, and messages are refused.";
    check_all(
        tab,
        story,
        [
            ("judge({ ended: { idle: 3, exited: 1, max_requests: 2 } })", json!([])),
            ("judge({ open: 1, refused: { circuit_open: 9 } })", json!([["bad", dead]])),
            (
                "judge({ refused: { queue_full: 7, circuit_open: 1 } })",
                json!([[
                    "bad",
                    "Messages of listener a got no process: 7 as queue_full, 1 as circuit_open \
                     just now."
                ]]),
            ),
            (
                "judge({ timeouts: 2 })",
                json!([[
                    "warn",
                    "The program behind listener a did not answer in time: 2 just now."
                ]]),
            ),
            (
                "judge({ ended: { signalled: 1, protocol: 2, timeout: 3 } })",
                json!([[
                    "warn",
                    "Processes behind listener a ended: 1 as signalled, 2 as protocol just now."
                ]]),
            ),
            (
                "judge({ slow: 10 })",
                json!([["warn", "Messages of listener a wait long for a process: p99 is 2.0 s."]]),
            ),
        ],
    );
}
