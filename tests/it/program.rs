//! The program from its command line: `check`, what wins over what, where a config is looked for,
//! and the notes' client and nc against `serve`.

mod answering;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// The program in a directory of its own, in an environment that says nothing to it.
struct Place {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn with_file(self, name: &str, content: &str) -> Self {
        fs::write(self.directory.path().join(name), content).unwrap();
        self
    }

    fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
        command.args(arguments);
        self.prepared(command)
    }

    /// Any program, here.
    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(&self.directory).stdin(Stdio::null());
        for name in ["CONFIG", "LISTEN", "WORKERS", "METRICS", "LOG"] {
            command.env_remove(format!("TALKBACK_{name}"));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The report of `check`, which must have accepted the config.
    #[track_caller]
    fn report(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.run(&[&["check"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        stdout(&output).lines().map(str::to_owned).collect()
    }

    /// Key, value and origin stand in the report of `check`.
    #[track_caller]
    fn check(&self, arguments: &[&str], expected: &[[&str; 3]]) {
        let report = self.report(arguments);
        for setting in expected {
            let found = report.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let found: Vec<_> = found.filter(|words| words.first() == Some(&setting[0])).collect();
            assert_eq!(found, [setting.as_slice()], "{report:#?}");
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `talkback serve` with the defaults but for its ports, which are fixed.
struct Serving {
    child: Child,
    address: SocketAddr,
    _place: Place,
}

impl Serving {
    #[track_caller]
    fn start() -> Self {
        Self::start_with(&[])
    }

    #[track_caller]
    fn start_with(arguments: &[&str]) -> Self {
        let place = Place::new().with_variable("TALKBACK_METRICS", "127.0.0.1:0");
        let mut command = place.command(&[&["serve", "-l", "127.0.0.1:0"], arguments].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let listening = lines.find(|line| line.contains(" listening ")).expect("it listens");
        lines.find(|line| line.ends_with(" ready")).expect("it is ready");
        // A full pipe would make it wait.
        std::thread::spawn(move || lines.for_each(drop));
        let address = listening.rsplit_once("address=").unwrap().1.parse().unwrap();
        Self { child, address, _place: place }
    }

    /// What a client prints that is given the address and this input.
    #[track_caller]
    fn answer(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(program)
            .args(arguments)
            .args([self.address.ip().to_string(), self.address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Either fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NOTES_CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/notes/client.py");

#[test]
fn the_notes_client_talks_with_the_defaults() {
    let serving = Serving::start();
    let said = "hello\n你好，世界\n👋🏽 🇨🇳 👩‍👩‍👧\nexit now\n EXIT\n";
    assert_eq!(serving.answer("python3", &[NOTES_CLIENT], said), said);
    let until_exit = serving.answer("python3", &[NOTES_CLIENT], "你好\nexit\nnever\n");
    assert_eq!(until_exit, "你好\n");
}

#[test]
fn several_of_the_notes_clients_talk_at_the_same_time() {
    let serving = Serving::start();
    std::thread::scope(|scope| {
        for name in ["一", "二", "三", "四"] {
            let serving = &serving;
            scope.spawn(move || {
                let said = format!("{name}\n").repeat(50);
                assert_eq!(serving.answer("python3", &[NOTES_CLIENT], &said), said);
            });
        }
    });
}

#[test]
fn nc_gets_its_input_back() {
    let serving = Serving::start();
    for said in ["hello\n", "你好 👋\n", "no newline at the end", ""] {
        assert_eq!(serving.answer("nc", &["-N"], said), said);
    }
    // Also where it ends by the word, with the newline that a shell puts behind it.
    assert_eq!(serving.answer("nc", &[], "exit\n"), "");
}

#[test]
fn nothing_on_the_command_line_shows_the_help_as_a_usage_error() {
    let output = Place::new().run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    for command in ["serve", "check", "connect", "try"] {
        assert!(stderr(&output).contains(&format!("\n  {command} ")), "{}", stderr(&output));
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let output = Place::new().run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), concat!("talkback ", env!("CARGO_PKG_VERSION"), "\n"));
    for line in ["--help", "serve --help", "check -h", "connect -h", "try -h"] {
        let output = Place::new().run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{line}");
        assert!(stdout(&output).contains("Usage: talkback"), "{}", stdout(&output));
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error_and_says_what_may_be_meant() {
    for (arguments, meant) in [
        (&["server"][..], "'serve'\n"),
        (&["check", "--"], ": talkback check\n"),
        (&["serve", "cat", "-u"], ": talkback serve -- cat -u\n"),
        (&["check", "a b.toml"], ": talkback check --config 'a b.toml'\n"),
    ] {
        let output = Place::new().run(arguments);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains(meant), "{meant}: {}", stderr(&output));
    }
}

#[test]
fn check_shows_every_value_with_its_origin() {
    let place = Place::new().with_file("talkback.toml", "[limits]\nidle_timeout = \"90s\"\n");
    place.check(
        &[],
        &[
            ["limits.idle_timeout", "\"90s\"", "./talkback.toml:2:16"],
            ["limits.send_timeout", "\"20s\"", "default"],
            ["workers", "\"auto\"", "default"],
        ],
    );
}

#[test]
fn check_tells_everything_that_is_wrong_at_once() {
    let config = "workers = 0\n[limit]\n[limits]\nidle_timeout = 5\nmax_conections = 3\n";
    let place = Place::new().with_file("talkback.toml", config).with_variable("TALKBACK_LOG", "x");
    let starts = [
        "./talkback.toml:1:11: workers: 0 is out of range; allowed: \"auto\" or an integer",
        "./talkback.toml:2:2: limit: unknown key; did you mean \"limits\"?",
        "./talkback.toml:4:16: limits.idle_timeout: 5 is an integer; allowed: a string",
        "./talkback.toml:5:1: limits.max_conections: unknown key; did you mean \"max_conn",
        "TALKBACK_LOG: log.level: ",
    ];
    // The server refuses to start with the same words.
    for command in ["check", "serve"] {
        let output = place.run(&[command]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert_eq!(stdout(&output), "");
        let told = stderr(&output);
        assert_eq!(told.lines().count(), starts.len(), "{command}: {told}");
        for (line, start) in told.lines().zip(starts) {
            assert!(line.starts_with(start), "{command}: {line}\nshould start with\n{start}");
        }
    }
}

#[test]
fn check_warns_of_what_will_bite_and_accepts_it() {
    let config = "[[listener]]\nbacklog = 65535\naddress = \"[::]:0\"\n\
                  [limits]\nidle_timeout = \"0s\"\n[metrics]\naddress = \"0.0.0.0:0\"\n";
    let report = Place::new().with_file("talkback.toml", config).report(&[]);
    let warnings: Vec<&String> =
        report.iter().filter(|line| line.starts_with("warning: ")).collect();
    for key in ["listener[0].backlog", "limits.idle_timeout", "metrics.address"] {
        // A host may take a backlog of that size.
        let is_clamped = somaxconn() < 65_535;
        let is_told = warnings.iter().any(|line| line.contains(&format!(": {key}: ")));
        assert_eq!(is_told, key != "listener[0].backlog" || is_clamped, "{key}: {warnings:#?}");
    }
    assert_eq!(report.last(), Some(&format!("ok, with {} warnings", warnings.len())));
}

fn somaxconn() -> u32 {
    fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap()
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let file = "workers = 2\n[log]\nlevel = \"error\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n";
    let place = Place::new().with_file("talkback.toml", file);
    place.check(&[], &[["workers", "2", "./talkback.toml:1:11"]]);
    let place = place
        .with_variable("TALKBACK_WORKERS", "3")
        .with_variable("TALKBACK_METRICS", "127.0.0.1:6")
        .with_variable("TALKBACK_LOG", "warn")
        .with_variable("TALKBACK_LISTEN", "127.0.0.1:2,127.0.0.1:3");
    place.check(
        &[],
        &[
            ["workers", "3", "TALKBACK_WORKERS"],
            ["metrics.address", "\"127.0.0.1:6\"", "TALKBACK_METRICS"],
            ["log.level", "\"warn\"", "TALKBACK_LOG"],
            ["listener[0].address", "\"127.0.0.1:2\"", "TALKBACK_LISTEN"],
            ["listener[1].address", "\"127.0.0.1:3\"", "TALKBACK_LISTEN"],
        ],
    );
    let listen = ["-l", "127.0.0.1:4", "--listen", "127.0.0.1:5"];
    let flags = [&["-w", "4", "--metrics", ""], &listen[..]].concat();
    place.check(
        &flags,
        &[
            ["workers", "4", "--workers"],
            ["metrics.address", "\"\"", "--metrics"],
            ["log.level", "\"warn\"", "TALKBACK_LOG"],
            ["listener[0].name", "\"listen-1\"", "--listen"],
            ["listener[0].address", "\"127.0.0.1:4\"", "--listen"],
            ["listener[1].address", "\"127.0.0.1:5\"", "--listen"],
        ],
    );
}

#[test]
fn a_second_server_on_the_host_is_told_of_the_metrics_address_and_may_choose_another() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let output = Place::new().run(&["serve", "-l", "127.0.0.1:0", "--metrics", &taken]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let last = told.lines().last().unwrap_or_default();
    let start = format!("talkback: metrics.address: cannot listen on {taken} for metrics: ");
    assert!(last.starts_with(&start), "{told}");
    let hint = "; another program, perhaps another talkback, listens there: set [metrics] address \
                (--metrics) to another one, or to \"\" for none";
    assert!(last.ends_with(hint), "{told}");
    let elsewhere = Serving::start_with(&["--metrics", ""]);
    assert_eq!(elsewhere.answer("nc", &["-N"], "hello\n"), "hello\n");
}

#[test]
fn the_config_is_looked_for_by_flag_then_variable_then_directory() {
    let workers = |count: u32| format!("workers = {count}\n");
    let place = Place::new().with_file("by-flag.toml", &workers(2));
    if !Path::new("/etc/talkback/talkback.toml").exists() {
        assert_eq!(place.report(&[])[0], "configuration: built-in defaults");
    }
    let place = place.with_file("talkback.toml", &workers(4));
    assert_eq!(place.report(&[])[0], "configuration: ./talkback.toml");
    place.check(&[], &[["workers", "4", "./talkback.toml:1:11"]]);
    let place = place
        .with_file("by-variable.toml", &workers(3))
        .with_variable("TALKBACK_CONFIG", "by-variable.toml");
    place.check(&[], &[["workers", "3", "by-variable.toml:1:11"]]);
    place.check(&["--config", "by-flag.toml"], &[["workers", "2", "by-flag.toml:1:11"]]);
}

#[test]
fn a_config_that_is_named_and_not_there_is_an_error() {
    let place = Place::new().with_file("talkback.toml", "").with_variable("TALKBACK_CONFIG", "no");
    for (arguments, by) in
        [(&["check"][..], "TALKBACK_CONFIG"), (&["check", "-c", "no"], "--config")]
    {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2));
        let told = stderr(&output);
        let expected = format!("no: cannot read the configuration that {by} names: No such file");
        assert!(told.starts_with(&expected) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn connections_that_do_not_fit_the_descriptors_are_refused_before_a_port_is_bound() {
    let config = "workers = 1\n[limits]\nmax_connections = 1000\n[metrics]\naddress = \"\"\n";
    let place = Place::new().with_file("talkback.toml", config);
    let limited = |command: &str| {
        let program = env!("CARGO_BIN_EXE_talkback");
        let script = format!("ulimit -n 500 && exec '{program}' {command} -l 127.0.0.1:0");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        place.prepared(shell).output().unwrap()
    };
    let sum = "1000 connections + 4 × 32 for scrapes + 3 × 1 workers + 3 × 1 listeners + 32 = 1166";
    let served = limited("serve");
    assert_eq!(served.status.code(), Some(1), "{}", stderr(&served));
    let last = stderr(&served).lines().last().unwrap().to_owned();
    let told = format!("limits.max_connections needs {sum} descriptors, but this process may open");
    assert!(last.contains(&told), "{last}");
    assert!(!stderr(&served).contains("listening"), "{}", stderr(&served));
    // What would not start is not passed.
    let checked = limited("check");
    assert_eq!(checked.status.code(), Some(1));
    assert!(stdout(&checked).contains(&format!("limits.max_connections: {sum} descriptors")));
}
