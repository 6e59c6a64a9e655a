//! Every way in which a process ends, and that nothing of it is left.

use std::sync::atomic::AtomicUsize;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::*;

#[test]
fn it_is_told_how_a_process_ended_by_itself() {
    let stage = Stage::new();
    assert_eq!(stage.spawn(&program(&["true"])).status().code(), Some(0));
    assert_eq!(stage.spawn(&shell("exit 7")).status().code(), Some(7));
    let killed = stage.spawn(&shell("kill -KILL $$"));
    assert_eq!(killed.status().signal(), Some(9));
}

#[test]
fn the_end_of_its_input_is_seen_by_a_process() {
    let stage = Stage::new();
    let mut cat = stage.spawn(&program(&["cat"]));
    let input = cat.input.take().unwrap();
    rustix::io::write(&input, b"one\n").unwrap();
    assert_eq!(cat.line(), "one");
    drop(input);
    assert_eq!(cat.rest(), "");
    assert_eq!(cat.status().code(), Some(0));
}

#[test]
fn a_process_that_obeys_sigterm_ends_at_once() {
    let stage = Stage::new();
    let cat = stage.spawn(&program(&["cat"]));
    let began = Instant::now();
    cat.end();
    cat.end();
    assert_eq!(cat.status().signal(), Some(15));
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    // What is over is over.
    cat.end();
    assert_eq!(stage.spawn(&program(&["true"])).status().code(), Some(0));
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_after_two_seconds() {
    let stage = Stage::new();
    let mut deaf = stage.spawn(&shell("trap '' TERM; echo ready; cat"));
    assert_eq!(deaf.line(), "ready");
    let began = Instant::now();
    deaf.end();
    assert_eq!(deaf.status().signal(), Some(9));
    check_took_the_grace(began);
    assert_eq!(deaf.rest(), "", "its cat has gone with it");
}

#[test]
fn what_a_process_leaves_behind_is_killed_when_it_ends_by_itself() {
    let stage = Stage::new();
    let mut parent = stage.spawn(&shell("exec 3<&0; cat <&3 & echo left"));
    assert_eq!(parent.line(), "left");
    assert_eq!(parent.status().code(), Some(0));
    // It would go on while its input is open.
    assert_eq!(parent.rest(), "");
}

#[test]
fn a_stopped_process_ends_too() {
    let stage = Stage::new();
    let cat = stage.spawn(&program(&["cat"]));
    let pid = Pid::from_raw(cat.process.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    cat.end();
    assert!(matches!(cat.status().signal(), Some(15 | 9)));
}

/// Fifty, of which every second one ignores SIGTERM.
fn fifty(stage: &Stage, ends: &Arc<AtomicUsize>) -> Vec<OwnedFd> {
    let deaf = stage.program(&shell("trap '' TERM; echo ready; cat"));
    let obedient = stage.program(&shell("echo ready; cat"));
    let mut pidfds = Vec::new();
    for number in 0..50 {
        let program = if number % 2 == 0 { &deaf } else { &obedient };
        let (told, outcome) = unbounded();
        let (ours, theirs) = pipes().unwrap();
        let ends = ends.clone();
        stage.keeper.spawn(Order {
            program: program.clone(),
            environment: Vec::new(),
            ends: Box::new(|| Some(theirs)),
            ordered: Instant::now(),
            connection: None,
            started: Box::new(move |outcome| told.send(outcome).unwrap()),
            ended: Box::new(move |_, _| {
                ends.fetch_add(1, Ordering::SeqCst);
            }),
        });
        let process = outcome.recv_timeout(PATIENCE).unwrap().unwrap();
        await_readable(&ours.output);
        let pid = Pid::from_raw(process.pid().cast_signed()).unwrap();
        pidfds.push(pidfd_open(pid, PidfdFlags::empty()).unwrap());
        // Whoever reads its input sees no end of it.
        std::mem::forget(ours.input);
    }
    pidfds
}

#[track_caller]
fn check_gone(pidfds: &[OwnedFd]) {
    for pidfd in pidfds {
        let gone = rustix::process::pidfd_send_signal(pidfd, Signal::CONT);
        assert_eq!(gone, Err(rustix::io::Errno::SRCH));
    }
}

#[test]
fn a_stop_with_fifty_processes_takes_two_seconds_and_leaves_none() {
    let (stage, ends) = (Stage::new(), Arc::default());
    let pidfds = fifty(&stage, &ends);
    let began = Instant::now();
    stage.thread.stop();
    check_took_the_grace(began);
    assert_eq!(ends.load(Ordering::SeqCst), 50);
    check_gone(&pidfds);
    let order = stage.keeper;
    let (told, outcome) = unbounded();
    order.spawn(Order {
        program: Arc::new(Program::resolve("main", &program(&["true"]), |_| {}).unwrap()),
        environment: Vec::new(),
        ends: Box::new(|| Some(pipes().unwrap().1)),
        ordered: Instant::now(),
        connection: None,
        started: Box::new(move |outcome| told.send(outcome).unwrap()),
        ended: Box::new(|_, _| {}),
    });
    assert!(matches!(outcome.recv().unwrap(), Err(SpawnError::Stopped)));
}

#[test]
fn dropping_the_thread_ends_every_process() {
    let stage = Stage::new();
    let cat = stage.spawn(&program(&["cat"]));
    drop(stage);
    assert_eq!(cat.ended.try_recv().unwrap().1.signal(), Some(15));
}

#[test]
fn a_thousand_processes_leave_no_zombie_and_no_descriptor() {
    if !is_alone("ends::a_thousand_processes_leave_no_zombie_and_no_descriptor", &[]) {
        return;
    }
    let stage = Stage::new();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let cat = stage.program(&program(&["cat"]));
    let before = descriptors();
    for number in 0..1000 {
        let running = stage.try_spawn(&cat, &[]).unwrap();
        match number % 3 {
            0 => running.end(),
            1 => {
                let pid = Pid::from_raw(running.process.pid().cast_signed()).unwrap();
                rustix::process::kill_process(pid, Signal::KILL).unwrap();
            }
            _ => drop(running.input),
        }
        let (_, status) = running.ended.recv_timeout(PATIENCE).unwrap();
        assert_eq!(status.signal(), [Some(15), Some(9), None][number % 3]);
    }
    assert_eq!(children().unwrap(), [""; 0]);
    eventually("every descriptor is closed", || descriptors() == before);
}

/// Prints the number of a process, which the test then sees end.
#[test]
fn processes_end_with_a_talkback_that_is_killed() {
    let name = "ends::processes_end_with_a_talkback_that_is_killed";
    if std::env::var_os(ALONE).is_some() {
        let running = Stage::new().leak().spawn(&program(&["sleep", "1000"]));
        eprintln!("{}", running.process.pid());
        // Until it is killed.
        let _ = running.ended.recv_timeout(PATIENCE);
        return;
    }
    let mut talkback = alone(name, &[]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = io::BufReader::new(talkback.stderr.take().unwrap());
    io::BufRead::read_line(&mut said, &mut line).unwrap();
    let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    talkback.kill().unwrap();
    talkback.wait().unwrap();
    await_readable(&pidfd);
}

/// In a PID namespace of its own, where the test is process 1.
#[test]
fn as_process_1_orphans_are_reaped() {
    let name = "ends::as_process_1_orphans_are_reaped";
    let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
    if std::env::var_os(ALONE).is_none() {
        let allowed = Command::new(namespace[0]).args(&namespace[1..]).arg("true").output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this machine allows no PID namespace here");
            return;
        }
    }
    if !is_alone(name, &namespace) {
        return;
    }
    assert_eq!(std::process::id(), 1);
    let stage = Stage::new();
    // It leaves its group and its parent, and ends at the end of the same input.
    let script = "exec 3<&0; (setsid sh -c 'echo $$; exec cat <&3' &); cat";
    let mut running = stage.spawn(&shell(script));
    let orphan: u32 = running.line().parse().unwrap();
    let is_there = || std::path::Path::new(&format!("/proc/{orphan}")).exists();
    assert!(is_there());
    drop(running.input.take());
    assert_eq!(running.status().code(), Some(0));
    eventually("the orphan is reaped", || !is_there());
    assert_eq!(children().unwrap(), [""; 0]);
}
