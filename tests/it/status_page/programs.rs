//! What the page shows of programs: nothing where there is none, and what is wrong with one.

use crate::browser::Tab;
use crate::harness::Server;

#[test]
fn a_program_that_does_not_live_is_told() {
    let server = Server::with_program(
        "program = [\"false\"]\nmin_processes = 0\nrestart_delay = \"1ms\"\n\
         max_restart_delay = \"1ms\"\nqueue_timeout = \"100ms\"",
    );
    let tab = Tab::open(server.metrics_address());
    tab.eventually("programs", || (), |rows| rows.contains("main") && rows.contains("closed"));
    let mut client = server.connect();
    tab.eventually(
        "problems",
        || {
            client.send("hello\n");
            client.expect("busy\n");
        },
        |told| told.contains("The program behind listener main does not live: "),
    );
    assert!(tab.text("programs").contains("open"));
    tab.eventually("refusals", || (), |rows| rows.contains("main, no process: circuit_open"));
    assert!(tab.text("refusals").contains("main, process ended: failed"));
    let level = "return document.querySelector('[data-part=program]').dataset.level";
    assert_eq!(tab.run(level), "bad");
    assert_eq!(tab.text("state"), "trouble");
    assert_eq!(tab.log(), [""; 0]);
}

#[test]
fn without_a_program_the_page_shows_nothing_of_programs() {
    let server = Server::with_listener("");
    let tab = Tab::open(server.metrics_address());
    tab.eventually("state", || (), |state| state == "serving");
    let shown = "return document.getElementById('programs-section').offsetHeight";
    assert_eq!(tab.run(shown), 0);
}
