//! When processes die at once: pauses, the circuit, and what closes it again.

use super::*;

#[test]
fn deaths_at_once_are_followed_by_growing_pauses_and_then_the_circuit_opens() {
    let mut stage = Stage::new(Limits { max_processes: 1, ..limits() });
    stage.pool.begin(stage.now);
    stage.check("start 0");
    stage.request(1);
    for (key, pause) in [100, 200, 400, 800].into_iter().enumerate() {
        stage.die_at_once(key as u64);
        stage.check(&format!("0001 to {key}, 1 ProcessEnded"));
        stage.request(1);
        stage.pass(pause * MS - MS);
        stage.check("");
        stage.pass(MS);
        stage.check(&format!("start {}", key + 1));
    }
    stage.die_at_once(4);
    stage.check("0001 to 4, 1 ProcessEnded, opened for 1000 ms");
    assert!(stage.pool.is_circuit_open());
    stage.request(2);
    stage.check("2 CircuitOpen");
    stage.pass(SECOND);
    stage.check("start 5");
    // One at a time.
    stage.request(3);
    stage.request(4);
    stage.check("4 CircuitOpen");
    stage.pool.started(stage.now, Key(5));
    stage.check("0003 to 5");
    assert_eq!(stage.reply(5), Some(3));
    stage.check("closed");
    assert!(!stage.pool.is_circuit_open());
}

fn with_open_circuit() -> Stage {
    let mut stage = Stage::new(Limits { max_processes: 1, ..limits() });
    stage.pool.begin(stage.now);
    for key in 0..5 {
        stage.die_at_once(key);
        stage.pass(SECOND);
    }
    stage.check("start 0, start 1, start 2, start 3, start 4, opened for 1000 ms, start 5");
    stage
}

#[test]
fn a_trial_that_dies_leaves_the_circuit_open() {
    let mut stage = with_open_circuit();
    stage.request(1);
    stage.die_at_once(5);
    stage.check("0001 to 5, 1 ProcessEnded");
    stage.request(2);
    stage.pass(SECOND);
    stage.check("2 CircuitOpen, start 6");
    stage.request(3);
    stage.pool.start_failed(stage.now, Key(6));
    stage.check("3 StartFailed");
    assert!(stage.pool.is_circuit_open());
}

#[test]
fn a_trial_that_lives_closes_the_circuit_without_being_asked() {
    let mut stage = with_open_circuit();
    stage.pool.started(stage.now, Key(5));
    stage.pass(STEADY - MS);
    assert!(stage.pool.is_circuit_open());
    stage.pass(MS);
    stage.check("closed");
    // But not for one that dies of the first request.
    stage.request(1);
    stage.pool.ended(stage.now, Key(5), 0);
    stage.check("0001 to 5, 1 ProcessEnded, opened for 1000 ms");
}

#[test]
fn the_circuit_stays_closed_while_one_that_has_answered_lives() {
    let mut stage = Stage::with_idle(Limits { max_processes: 2, queue_timeout: None, ..limits() });
    stage.request(1);
    assert_eq!(stage.reply(0), Some(1));
    stage.request(2);
    stage.request(3);
    stage.check("0001 to 0, 0002 to 0, start 1");
    for key in 1..10 {
        stage.pool.start_failed(stage.now, Key(key));
        stage.check("");
        stage.pass(SECOND);
        stage.check(&format!("start {}", key + 1));
    }
    stage.pass(SECOND);
    assert_eq!(stage.reply(0), Some(2));
}

#[test]
fn the_circuit_stays_closed_while_one_works_on_its_first_request() {
    let mut stage = Stage::with_idle(Limits { max_processes: 2, queue_timeout: None, ..limits() });
    stage.request(1);
    stage.request(2);
    stage.check("0001 to 0, start 1");
    for key in 1..8 {
        stage.pool.start_failed(stage.now, Key(key));
        stage.pass(SECOND);
        stage.check(&format!("start {}", key + 1));
    }
    assert_eq!(stage.reply(0), Some(1));
    stage.check("0002 to 0");
}

#[test]
fn a_message_that_kills_takes_the_program_away_from_nobody_else() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    stage.request(1);
    assert_eq!(stage.reply(0), Some(1));
    stage.forget();
    for key in 0..20 {
        // It reads the message, and dies of it.
        stage.request(2);
        stage.pool.ended(stage.now, Key(key), 0);
        stage.check(&format!("0002 to {key}, 2 ProcessEnded, start {}", key + 1));
        stage.pool.started(stage.now, Key(key + 1));
        stage.pass(100 * MS);
    }
    stage.request(3);
    stage.check("0003 to 20");
    assert_eq!(stage.reply(20), Some(3));
    // Where nobody has been answered for a while, it may be the program.
    stage.pass(STEADY);
    stage.request(2);
    stage.pool.ended(stage.now, Key(20), 0);
    stage.pool.started(stage.now, Key(21));
    stage.request(2);
    stage.pool.ended(stage.now, Key(21), 0);
    stage.forget();
    stage.pass(99 * MS);
    stage.check("");
    stage.pass(MS);
    stage.check("start 22");
}

/// Old ones that wait die together, as when somebody kills them, of which the pipes tell first or
/// not. A message is on its way, and comes to each before it is known to be dead.
#[track_caller]
fn check_killed_by_hand(hangs_up: bool) {
    const ALL: u64 = 8;
    let mut stage = Stage::with_idle(Limits { min_processes: 8, max_processes: 8, ..limits() });
    stage.pass(STEADY);
    stage.request(1);
    for key in (0..ALL).rev() {
        assert_eq!(stage.said.pop(), Some(format!("0001 to {key}")));
        if hangs_up {
            stage.pool.hung_up(stage.now, Key(key));
        }
        stage.pool.ended(stage.now, Key(key), b"0001\n".len());
        stage.listen();
    }
    stage.pass(100 * MS);
    let started = stage.said.iter().find(|said| said.starts_with("start")).expect("another one");
    assert_eq!(started, &format!("start {ALL}"));
    assert!(!stage.said.iter().any(|said| said.starts_with("opened")), "{:?}", stage.said);
    stage.forget();
    stage.pool.started(stage.now, Key(ALL));
    stage.check(&format!("0001 to {ALL}"));
    assert_eq!(stage.reply(ALL), Some(1));
}

#[test]
fn old_processes_that_are_killed_together_do_not_open_the_circuit() {
    check_killed_by_hand(false);
}

#[test]
fn nor_do_they_where_their_pipes_tell_of_it_first() {
    check_killed_by_hand(true);
}

#[test]
fn a_message_that_kills_now_and_then_leaves_a_quiet_program_to_all() {
    let mut stage = Stage::with_idle(Limits { max_processes: 1, ..limits() });
    for key in 0..8 {
        stage.pass(STEADY);
        stage.request(2);
        stage.pool.ended(stage.now, Key(key), 0);
        stage.check(&format!("0002 to {key}, 2 ProcessEnded"));
        stage.pass(100 * MS);
        stage.check(&format!("start {}", key + 1));
        stage.pool.started(stage.now, Key(key + 1));
    }
}

#[test]
fn one_that_was_asked_when_it_was_young_and_never_read_counts_however_long_it_lived() {
    let bounds = Limits { max_processes: 1, queue_timeout: None, reply_timeout: None, ..limits() };
    let mut stage = Stage::with_idle(bounds);
    stage.request(1);
    for key in 0..3 {
        stage.check(&format!("0001 to {key}"));
        stage.pass(STEADY);
        stage.pool.ended(stage.now, Key(key), b"0001\n".len());
        // Twice as long each time.
        stage.pass((100 << key) * MS - MS);
        stage.check("");
        stage.pass(MS);
        stage.check(&format!("start {}", key + 1));
        stage.pool.started(stage.now, Key(key + 1));
    }
}

#[test]
fn replies_of_those_that_run_do_not_hasten_the_starts_of_those_that_die() {
    let mut stage = Stage::with_idle(Limits { max_processes: 2, ..limits() });
    stage.request(1);
    stage.request(2);
    stage.check("0001 to 0, start 1");
    for (key, pause) in [100, 200, 400, 800, 1000, 1000].into_iter().enumerate() {
        let key = key as u64 + 1;
        stage.pool.started(stage.now, Key(key));
        stage.listen();
        assert_eq!(stage.pool.ended(stage.now, Key(key), 5), None);
        // The other one goes on answering, and there is always one more request.
        assert!(stage.reply(0).is_some());
        stage.request(2);
        stage.forget();
        stage.pass(pause * MS - MS);
        stage.check("");
        stage.pass(MS);
        stage.check(&format!("start {}", key + 1));
    }
    // One that was started after those answers: the next death is the first again.
    stage.pool.started(stage.now, Key(7));
    assert_eq!(stage.reply(7), Some(2));
    stage.request(3);
    stage.forget();
    stage.request(4);
    stage.pool.ended(stage.now, Key(7), 0);
    stage.check("3 ProcessEnded, start 8");
    stage.pool.start_failed(stage.now, Key(8));
    stage.pass(100 * MS);
    stage.check("start 9");
}

#[test]
fn one_that_has_answered_is_replaced_at_once_though_others_died() {
    let mut stage = Stage::with_idle(Limits { max_processes: 2, queue_timeout: None, ..limits() });
    stage.request(1);
    assert_eq!(stage.reply(0), Some(1));
    stage.request(2);
    stage.request(3);
    for key in 1..7 {
        stage.pool.start_failed(stage.now, Key(key));
        stage.pass(SECOND);
    }
    stage.forget();
    stage.pool.start_failed(stage.now, Key(7));
    assert_eq!(stage.pool.ended(stage.now, Key(0), 0), None);
    stage.check("2 ProcessEnded, start 8");
    stage.pool.start_failed(stage.now, Key(8));
    stage.check("3 StartFailed, opened for 1000 ms");
}
