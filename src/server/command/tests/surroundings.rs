//! What a program finds: its environment, directory, identity, descriptors and limits.

use std::os::fd::AsRawFd;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use super::*;

#[test]
fn its_environment_is_what_the_config_says_and_the_order_adds_and_nothing_else() {
    let stage = Stage::new();
    let path = std::env::var("PATH").unwrap();
    let environment = ["PATH", "SET=to=this", "TALKBACK_TEST_UNSET", "EMPTY="];
    let setup = Setup { environment: environment.map(str::to_owned).to_vec(), ..program(&["env"]) };
    let added = [("PROTO", "TCP"), ("SET", "anew")];
    let mut running = stage.try_spawn(&stage.program(&setup), &added).unwrap();
    let rest = running.rest();
    let mut found: Vec<_> = rest.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["EMPTY=", &format!("PATH={path}"), "PROTO=TCP", "SET=anew"]);
}

#[test]
fn its_arguments_are_passed_as_they_are() {
    let stage = Stage::new();
    assert_eq!(
        stage.says(&program(&["printf", "<%s>", "a b", "", "$HOME", "*"])),
        "<a b><><$HOME><*>"
    );
    // As a shell does it, the first is the name as it was written.
    assert_eq!(stage.says(&shell("echo $0")), "sh\n");
}

#[test]
fn it_leads_a_session_and_a_process_group_of_its_own() {
    let stage = Stage::new();
    let mut running = stage.spawn(&program(&["cat", "/proc/self/stat"]));
    let stat = running.rest();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let pid = running.process.pid().to_string();
    let parent = std::process::id().to_string();
    assert_eq!(fields[1..4], [&*parent, &*pid, &*pid], "parent, group, session");
}

#[test]
fn it_inherits_no_descriptor_beyond_standard_error() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let leak = fcntl_dupfd_cloexec(file, 200).unwrap();
    fcntl_setfd(&leak, FdFlags::empty()).unwrap();
    // The fourth is ls's own, with which it reads the directory.
    let found = Stage::new().says(&program(&["ls", "-v", "/proc/self/fd"]));
    assert_eq!(found, "0\n1\n2\n3\n", "{} leaks", leak.as_raw_fd());
}

#[test]
fn its_pipes_block_and_ours_do_not() {
    let stage = Stage::new();
    let script = "for n in 0 1 2; do grep flags /proc/self/fdinfo/$n; done";
    let running = &mut stage.spawn(&shell(script));
    let nonblocking = rustix::fs::OFlags::NONBLOCK;
    for ours in [running.input.as_ref().unwrap(), &running.output] {
        assert!(rustix::fs::fcntl_getfl(ours).unwrap().contains(nonblocking));
        assert!(rustix::io::fcntl_getfd(ours).unwrap().contains(FdFlags::CLOEXEC));
    }
    let rest = running.rest();
    let flags = rest.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    let flags: Vec<_> = flags.map(|octal| u32::from_str_radix(octal, 8).unwrap()).collect();
    assert_eq!(flags.len(), 3);
    assert!(flags.iter().all(|flags| flags & nonblocking.bits() == 0), "{flags:?}");
}

#[test]
fn its_limits_are_what_the_config_says_and_it_dumps_no_core() {
    let stage = Stage::new();
    let setup = Setup {
        max_memory_bytes: 512 << 20,
        max_cpu_time: Duration::from_secs(7),
        max_open_files: 64,
        ..program(&["cat", "/proc/self/limits"])
    };
    let limits = stage.says(&setup);
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<_> = line[name.len()..].split_whitespace().take(2).collect();
        values.join(" ")
    };
    assert_eq!(limit("Max address space"), "536870912 536870912");
    assert_eq!(limit("Max cpu time"), "7 8");
    assert_eq!(limit("Max open files"), "64 64");
    assert_eq!(limit("Max core file size"), "0 0");
}

#[test]
fn a_limit_really_limits() {
    let stage = Stage::new();
    let setup = Setup { max_cpu_time: Duration::from_secs(1), ..shell("while :; do :; done") };
    let began = Instant::now();
    assert_eq!(stage.spawn(&setup).status().signal(), Some(libc::SIGXCPU));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn it_runs_where_the_config_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let setup = Setup { directory: path.clone(), ..program(&["pwd"]) };
    assert_eq!(Stage::new().says(&setup), format!("{}\n", path.display()));
}

#[test]
fn as_root_it_runs_as_the_user_that_the_config_names_with_no_other_group() {
    let script = shell("id -u; id -g; id -G");
    if !rustix::process::geteuid().is_root() {
        let setup = Setup { user: "root".to_owned(), ..script };
        let error = Program::resolve("main", &setup, |_| {}).unwrap_err();
        assert!(error.to_string().contains("CAP_SETUID"), "{error}");
        return;
    }
    // Where talkback has groups that could be left over.
    let name = "as_root_it_runs_as_the_user_that_the_config_names_with_no_other_group";
    if !is_alone(&format!("surroundings::{name}"), &["setpriv", "--groups", "1,2,3"]) {
        return;
    }
    let stage = Stage::new();
    let check = |user: &str, group: &str, expected: &str| {
        let setup = Setup { user: user.to_owned(), group: group.to_owned(), ..script.clone() };
        assert_eq!(stage.says(&setup), expected, "{user:?}, {group:?}");
    };
    let nobody = crate::server::accounts::user("nobody").unwrap().unwrap();
    let (id, own) = (nobody.id, nobody.group.unwrap());
    check("nobody", "", &format!("{id}\n{own}\n{own}\n"));
    check("nobody", "1234", &format!("{id}\n1234\n1234\n"));
    check("12345", "1234", "12345\n1234\n1234\n");
    check("", "1234", "0\n1234\n1234\n");
    // The kernel takes it from whoever changes its user, and with it our own /proc/self.
    let dumpable = rustix::process::dumpable_behavior();
    assert_eq!(dumpable, Ok(rustix::process::DumpableBehavior::Dumpable));
}
