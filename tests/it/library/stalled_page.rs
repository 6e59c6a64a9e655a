//! The status page of a server whose responder blocks.

use std::net::SocketAddr;

use super::stalls::Stalling;
use super::{config, connect};
use crate::browser::Tab;

#[test]
fn a_stalled_worker_is_told_until_it_goes_on_and_the_others_connections_are_shown() {
    let mut config = config();
    config.workers = Some(2);
    config.metrics.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut stalling = Stalling::start(&config);
    let mut other = connect(&stalling.server);
    other.echo("hello\n");
    let peer = other.stream.local_addr().unwrap().to_string();
    let mut stalled = stalling.stall();
    let tab = Tab::open(stalling.server.metrics_address().unwrap());
    tab.eventually(
        "problems",
        || (),
        |told| {
            told.starts_with("Worker ")
                && told.contains(" is stalled: it has been in one turn for ")
        },
    );
    let level = "return document.querySelector('[data-part=worker]').dataset.level";
    assert_eq!(tab.run(level), "bad");
    tab.eventually("busiest", || (), |rows| rows.contains(&peer));
    let own = stalled.stream.local_addr().unwrap().to_string();
    assert!(!tab.text("busiest").contains(&own));

    stalling.release();
    stalled.expect("stall\n");
    tab.eventually("busiest", || (), |rows| rows.contains(&own));
    tab.eventually("problems", || (), |told| !told.contains("stalled"));
    assert_eq!(tab.log(), [""; 0]);
}
