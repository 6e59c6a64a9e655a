//! What becomes of a process group whose leader has ended: its members have the time that it had.

use super::*;

/// Obeys SIGTERM after that many seconds, and says so. A shell that waits for input may overlook a
/// signal that comes right before; this one looks again and again.
fn obeys(after: &str) -> String {
    format!(
        "trap 'sleep {after}; echo {after}; exit' TERM; echo ready; while :; do sleep 0.1; done"
    )
}

/// Ignores SIGTERM.
const DEAF: &str = "trap '' TERM; echo ready; cat <&3";

/// A leader that obeys at once, and these members of its group, who are ready.
#[track_caller]
fn family(stage: &Stage, members: &[&str]) -> Running {
    let members: String = members.iter().map(|member| format!("({member}) & ")).collect();
    let mut leader = stage.spawn(&shell(&format!("exec 3<&0; {members} exec 2>/dev/null; wait")));
    for _ in 0..members.matches("ready").count() {
        assert_eq!(leader.line(), "ready");
    }
    leader
}

#[test]
fn the_rest_of_a_group_has_its_two_seconds_though_its_leader_obeys_at_once() {
    let stage = Stage::new();
    let member = obeys("0.1");
    let mut leader = stage.spawn(&shell(&format!("({member}) & wait")));
    assert_eq!(leader.line(), "ready");
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.rest(), "0.1\n");
    assert_eq!(leader.status().signal(), Some(15));
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[test]
fn a_deaf_rest_of_a_group_is_killed_after_two_seconds() {
    let stage = Stage::new();
    let mut leader = stage.spawn(&shell("exec 3<&0; (trap '' TERM; echo ready; cat <&3) & wait"));
    assert_eq!(leader.line(), "ready");
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(15));
    check_took_the_grace(began);
    assert_eq!(leader.rest(), "");
}

/// Nothing of ours but standard output.
fn without_our_error(member: &str) -> String {
    format!("exec 2>/dev/null; {member}")
}

#[test]
fn the_rest_of_a_group_has_its_time_whatever_of_ours_it_holds() {
    let stage = Stage::new();
    let (soon, later) = (without_our_error(&obeys("0.1")), without_our_error(&obeys("0.5")));
    let leader = &mut family(&stage, &[&soon, &later]);
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(15));
    // When all are gone it is over, and not before.
    assert_eq!(leader.rest(), "0.1\n0.5\n");
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[test]
fn a_deaf_rest_is_killed_after_two_seconds_whatever_of_ours_it_holds() {
    let stage = Stage::new();
    let leader = &mut family(&stage, &[&without_our_error(DEAF)]);
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(15));
    check_took_the_grace(began);
    assert_eq!(leader.rest(), "");
}

#[test]
fn a_stop_gives_the_rest_of_a_group_its_time_too() {
    let stage = Stage::new();
    let leader = &mut family(&stage, &[&without_our_error(&obeys("0.3"))]);
    let began = Instant::now();
    stage.thread.stop();
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    assert_eq!(leader.ended.try_recv().unwrap().1.signal(), Some(15));
    assert_eq!(leader.rest(), "0.3\n");
}

/// Leaves the group with our standard error, and ends with its input.
const RUNAWAY: &str = "setsid sh -c 'echo ready; exec cat <&3 >/dev/null'";

#[test]
fn who_has_left_the_group_is_not_waited_for() {
    let stage = Stage::new();
    let leader = &mut family(&stage, &[RUNAWAY]);
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(15));
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[test]
fn a_killed_process_has_ended_though_somebody_outside_its_group_has_its_standard_error() {
    let stage = Stage::new();
    let script = format!("exec 3<&0; trap '' TERM; {RUNAWAY} & cat");
    let mut leader = stage.spawn(&shell(&script));
    assert_eq!(leader.line(), "ready");
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(9));
    check_took_the_grace(began);
}

#[test]
fn zombies_that_nobody_reaps_are_not_waited_for() {
    let name = "groups::zombies_that_nobody_reaps_are_not_waited_for";
    if !is_alone(name, &[]) {
        return;
    }
    // Orphans come to this process, which leaves them as they are.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let stage = Stage::new();
    let leader = &mut family(&stage, &["echo ready; exec cat <&3"]);
    let began = Instant::now();
    leader.end();
    assert_eq!(leader.status().signal(), Some(15));
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    assert_eq!(children().unwrap().len(), 1, "the test shows nothing");
}

#[test]
fn the_ends_of_many_families_at_once_take_as_long_as_that_of_one() {
    let stage = Stage::new();
    let member = without_our_error(&obeys("0.1"));
    let mut leaders: Vec<_> = (0..20).map(|_| family(&stage, &[&member])).collect();
    let began = Instant::now();
    leaders.iter().for_each(Running::end);
    for leader in &mut leaders {
        assert_eq!(leader.status().signal(), Some(15));
        assert_eq!(leader.rest(), "0.1\n");
    }
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}
