//! The ledger against a model of it: whatever clients do, in any order, each connection, byte,
//! message and close is counted as the contract says, and everybody is answered what is owed.
//!
//! Every run takes new cases. A failure is cut down to its shortest story and names its seed;
//! `TALKBACK_TEST_SEED` brings it back. `TALKBACK_TEST_CASES` asks for more cases than usual.

mod actions;
mod acts;
mod contract;
mod counts;
mod peer;
mod servers;
mod stage;

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use talkback::wire::Framing;

/// A few seconds' worth.
const CASES: u32 = 50;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn check(framing: Framing) {
    let seed = variable("TALKBACK_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let config = Config {
        cases: variable("TALKBACK_TEST_CASES").unwrap_or(CASES),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        // Many of them wait for something that does not come.
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let servers = servers::Servers::default();
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&actions::case(framing), |case| {
        stage::run(&case, &servers).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(story, _)) => panic!("TALKBACK_TEST_SEED={seed}\n{story}"),
        Err(TestError::Abort(why)) => panic!("TALKBACK_TEST_SEED={seed}\n{why}"),
    }
}

#[test]
fn whatever_raw_clients_do_everything_is_counted_and_answered() {
    check(Framing::Raw);
}

#[test]
fn whatever_line_clients_do_everything_is_counted_and_answered() {
    check(Framing::Line);
}
