//! What cannot be run: told at the start where that is possible, and at the spawn where not.

use std::os::unix::fs::PermissionsExt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

#[track_caller]
fn check(setup: &Setup, parts: &[&str]) {
    let error = Program::resolve("main", setup, |_| {}).expect_err("it cannot be run").to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn a_program_that_is_nowhere_is_told_with_the_path_that_was_searched() {
    let path = ["PATH=/nowhere:/usr/lib".to_owned()].to_vec();
    check(
        &Setup { environment: path, ..program(&["no-such-program"]) },
        &["\"no-such-program\"", "/nowhere:/usr/lib"],
    );
    check(&Setup { environment: Vec::new(), ..program(&["talkback-x"]) }, &["/bin:/usr/bin"]);
    check(&program(&["./no/such"]), &["\"./no/such\"", "/no/such)"]);
    check(&program(&[""]), &["\"\""]);
    check(&Setup::default(), &["\"\""]);
}

#[test]
fn the_path_of_the_program_counts_and_not_our_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sh");
    std::os::unix::fs::symlink("/bin/echo", &file).unwrap();
    let path = format!("PATH={}:/bin", directory.path().display());
    let setup = Setup { environment: vec![path], ..program(&["sh", "this", "one"]) };
    assert_eq!(Stage::new().says(&setup), "this one\n");
    // Relative parts of it, and names with a slash, start from the program's directory.
    for (path, name) in [("PATH=:/bin", "sh"), ("PATH=.", "sh"), ("PATH=", "./sh")] {
        let setup = Setup {
            environment: vec![path.to_owned()],
            directory: directory.path().to_owned(),
            ..program(&[name, "here"])
        };
        assert_eq!(Stage::new().says(&setup), "here\n", "{path}");
    }
}

#[test]
fn what_is_found_and_cannot_be_executed_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app");
    std::fs::write(&file, "#!/no/such/python3 -u\n").unwrap();
    let name = file.to_str().unwrap();
    check(&program(&[name]), &[name, "chmod +x"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    check(&program(&[name]), &[name, "\"/no/such/python3\""]);
    let path = format!("PATH={}", directory.path().display());
    check(&Setup { environment: vec![path], ..program(&["app"]) }, &[name, "first line"]);
    check(&program(&[directory.path().to_str().unwrap()]), &["no file"]);
}

#[test]
fn a_directory_user_group_or_limit_that_cannot_be_is_told() {
    let here = program(&["true"]);
    let directory = |path: &str| Setup { directory: path.into(), ..here.clone() };
    check(&directory("/no/such"), &["directory /no/such", "No such file"]);
    check(&directory("/dev/null"), &["directory /dev/null", "not a directory"]);
    let account = |user: &str, group: &str| {
        let (user, group) = (user.to_owned(), group.to_owned());
        Setup { user, group, ..here.clone() }
    };
    check(&account("no-such-user", ""), &["user \"no-such-user\"", "unknown"]);
    check(&account("", "no-such-group"), &["group \"no-such-group\"", "unknown"]);
    check(&account("54321", ""), &["user \"54321\"", "group"]);
    if let Some(most) = getrlimit(Resource::Nofile).maximum {
        let setup = Setup { max_open_files: most + 1, ..here };
        check(&setup, &["max_open_files", &most.to_string(), "ulimit -Hn"]);
    }
}

#[test]
fn what_the_system_refuses_is_told_with_its_number_and_leaves_nothing() {
    if !is_alone(
        "failures::what_the_system_refuses_is_told_with_its_number_and_leaves_nothing",
        &[],
    ) {
        return;
    }
    let stage = Stage::new();
    let cat = stage.program(&program(&["cat"]));
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let limit = getrlimit(Resource::Nofile);
    // From no descriptor at all to all but one that are needed, whichever step it hits.
    let highest = 4 + u64::try_from(before).unwrap();
    for more in 0..8 {
        let current = Some(highest - 4 + more);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let outcome = stage.try_spawn(&cat, &[]);
        setrlimit(Resource::Nofile, limit).unwrap();
        match outcome {
            Err(SpawnError::System(error) | SpawnError::Step { source: error, .. }) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{more}");
            }
            Err(other) => panic!("{other}"),
            Ok(running) => running.end(),
        }
        eventually("nothing is left", || open() == before && children().unwrap().is_empty());
    }
    assert!(stage.try_spawn(&cat, &[]).is_ok());
}

#[test]
fn what_another_user_may_not_is_told_with_the_step_the_path_and_the_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stage = Stage::new();
    let directory = tempfile::tempdir().unwrap();
    let ours = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(directory.path(), ours).unwrap();
    let file = directory.path().join("app");
    std::fs::copy("/bin/true", &file).unwrap();
    let name = file.to_str().unwrap();
    let as_nobody = |setup: Setup| Setup { user: "nobody".to_owned(), ..setup };
    let check = |setup: Setup, expected: &str| {
        let error = stage.try_spawn(&stage.program(&setup), &[]).err().expect("it does not start");
        assert_eq!(error.to_string(), format!("{expected}: Permission denied (os error 13)"));
    };
    let expected = format!("cannot execute {name} as user nobody");
    check(as_nobody(program(&[name])), &expected);
    let setup = Setup { directory: directory.path().to_owned(), ..program(&["true"]) };
    let expected = format!("cannot enter {} as user nobody", directory.path().display());
    check(as_nobody(setup), &expected);
}

#[test]
fn connections_wait_up_to_their_bound_and_behind_pools_and_none_is_forgotten() {
    let stage = Stage::new();
    let (told, outcomes) = unbounded();
    let (release, released) = unbounded::<()>();
    let (reached, held) = unbounded();
    let missing = Arc::new(Program { file: "/no/such/file".into(), ..resolved() });
    let order = |is_connections: bool, name: usize| {
        let told = told.clone();
        let connection = is_connections
            .then(|| -> Watch { Box::new(|| Progress { spoke: None, has_ended: true }) });
        stage.keeper.spawn(Order {
            program: missing.clone(),
            environment: Vec::new(),
            ends: Box::new(move || (name != MAX_WAITING).then(|| pipes().unwrap().1)),
            ordered: Instant::now(),
            connection,
            started: Box::new(move |outcome| told.send((name, outcome.unwrap_err())).unwrap()),
            ended: Box::new(|_, _| {}),
        });
    };
    stage.keeper.spawn(Order {
        program: missing.clone(),
        environment: Vec::new(),
        ends: Box::new(|| Some(pipes().unwrap().1)),
        ordered: Instant::now(),
        connection: None,
        started: Box::new(move |_| {
            reached.send(()).unwrap();
            let _ = released.recv();
        }),
        ended: Box::new(|_, _| {}),
    });
    held.recv_timeout(PATIENCE).unwrap();
    // The last one of those that wait is gone when its turn comes.
    (1..=MAX_WAITING).for_each(|name| order(true, name));
    assert!(outcomes.is_empty());
    order(true, MAX_WAITING + 1);
    assert!(matches!(outcomes.try_recv().unwrap(), (_, SpawnError::Busy)));
    order(false, 0);
    drop(release);
    for name in 0..MAX_WAITING {
        let (told, error) = outcomes.recv_timeout(PATIENCE).expect("each is told");
        assert!(matches!(error, SpawnError::Step { .. }), "{error}");
        assert_eq!(told, name);
    }
    let last = outcomes.recv_timeout(PATIENCE).expect("each is told");
    assert!(matches!(last, (MAX_WAITING, SpawnError::Unwanted)), "{last:?}");
}

fn resolved() -> Program {
    Program::resolve("main", &program(&["true"]), |_| {}).unwrap()
}

#[test]
fn a_panic_in_what_is_told_costs_no_process_and_the_thread_gives_up_when_it_is_told_to() {
    let panics = Arc::new(AtomicU64::new(0));
    let counted = panics.clone();
    let (keeper, thread) =
        Keeper::start(0, move || counted.fetch_add(1, Ordering::SeqCst) == 1).unwrap();
    let stage = Stage { keeper, thread, lines: Arc::default() };
    let mut cat = stage.spawn(&program(&["cat"]));
    let panicking = || {
        stage.keeper.spawn(Order {
            program: stage.program(&program(&["true"])),
            environment: Vec::new(),
            ends: Box::new(|| Some(pipes().unwrap().1)),
            ordered: Instant::now(),
            connection: None,
            started: Box::new(|_| panic!("one that the test wants")),
            ended: Box::new(|_, _| {}),
        });
    };
    panicking();
    assert_eq!(stage.spawn(&program(&["true"])).status().code(), Some(0));
    rustix::io::write(cat.input.as_ref().unwrap(), b"still here\n").unwrap();
    assert_eq!(cat.line(), "still here");
    panicking();
    assert_eq!(cat.status().signal(), Some(15));
    let refused = stage.try_spawn(&stage.program(&program(&["true"])), &[]);
    assert!(matches!(refused, Err(SpawnError::Stopped)));
    assert_eq!(panics.load(Ordering::SeqCst), 2);
}

#[test]
fn where_sigchld_is_ignored_ends_are_told_though_not_how() {
    let name = "failures::where_sigchld_is_ignored_ends_are_told_though_not_how";
    if !is_alone(name, &["sh", "-c", "trap '' CHLD; exec \"$0\" \"$@\""]) {
        return;
    }
    let stage = Stage::new();
    stage.spawn(&shell("exit 7")).status();
    let cat = stage.spawn(&program(&["cat"]));
    cat.end();
    cat.status();
    let missing = Arc::new(Program { file: "/no/such/file".into(), ..resolved() });
    assert!(matches!(stage.try_spawn(&missing, &[]), Err(SpawnError::Step { .. })));
    assert_eq!(children().unwrap(), [""; 0]);
}
