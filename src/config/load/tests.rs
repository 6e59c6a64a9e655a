//! The search for the file, and who wins over whom.

use std::os::unix::ffi::OsStringExt;

use super::*;

struct Place {
    directory: tempfile::TempDir,
    overrides: Overrides,
    environment: Environment,
    searched: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let searched = ["first.toml", "second.toml"].map(|name| directory.path().join(name));
        Self {
            directory,
            overrides: Overrides::default(),
            environment: Environment::default(),
            searched: searched.to_vec(),
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn listen(&mut self, addresses: &[&str]) {
        self.overrides.listen = addresses.iter().map(|address| (*address).to_owned()).collect();
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load_from(&self.overrides, &self.environment, &self.searched)
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn check_refused(&self, expected: &[&str]) {
        let directory = format!("{}/", self.directory.path().display());
        let message = self.load().unwrap_err().to_string().replace(&directory, "");
        assert_eq!(message.lines().count(), expected.len(), "{message}");
        for (line, start) in message.lines().zip(expected) {
            assert!(line.starts_with(start), "{line}\nshould start with\n{start}");
        }
    }
}

fn some(text: &str) -> Option<OsString> {
    Some(text.into())
}

#[test]
fn the_file_is_flag_then_variable_then_searched_then_built_in() {
    let mut place = Place::new();
    let loaded = place.loaded();
    assert_eq!(
        (loaded.source.to_string(), loaded.config.workers),
        ("built-in defaults".into(), None)
    );
    assert_eq!(loaded.config, Config::default());

    let steps = ["second.toml", "first.toml", "variable.toml", "flag.toml"];
    for (workers, name) in (1..).zip(steps) {
        let path = place.file(name, format!("workers = {workers}"));
        match name {
            "variable.toml" => place.environment.config = Some(path.clone().into()),
            "flag.toml" => place.overrides.config = Some(path.clone()),
            _ => {}
        }
        let loaded = place.loaded();
        assert_eq!(loaded.config.workers, Some(workers));
        assert_eq!(loaded.source, Source::File(path.clone()));
        let origin = Origin::File { path, line: 1, column: 11 };
        assert_eq!(loaded.origins.of("workers"), origin);
    }
}

#[test]
fn a_file_that_is_named_and_missing_is_an_error_that_says_who_named_it() {
    let mut place = Place::new();
    place.environment.config = Some(place.directory.path().join("x.toml").into());
    place.check_refused(&[
        "x.toml: cannot read the configuration that TALKBACK_CONFIG names: No such",
    ]);
    place.overrides.config = Some(place.directory.path().join("y.toml"));
    place.check_refused(&["y.toml: cannot read the configuration that --config names: No such"]);
}

#[test]
fn a_file_that_is_found_and_cannot_be_read_is_not_passed_over() {
    let place = Place::new();
    std::fs::create_dir(&place.searched[0]).unwrap();
    place.file("second.toml", "");
    place.check_refused(&["first.toml: cannot read the configuration: Is a directory"]);
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let mut place = Place::new();
    place.overrides.config = Some("/dev/zero".into());
    place.check_refused(&[
        "/dev/zero: cannot read the configuration that --config names: it is longer",
    ]);
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_its_place() {
    let place = Place::new();
    place.file("first.toml", b"# \xc3\xa9\n# \xff");
    place.check_refused(&["first.toml:2:3: not TOML"]);
}

#[test]
fn flag_wins_over_variable_over_file_over_default() {
    let mut place = Place::new();
    let file = "workers = 1\n[log]\nlevel = \"error\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n";
    place.file("first.toml", file);
    let origin = |place: &Place, key: &str| place.loaded().origins.of(key).to_string();
    let path = place.searched[0].display().to_string();
    assert_eq!(origin(&place, "workers"), format!("{path}:1:11"));
    assert_eq!(origin(&place, "log.format"), "default");

    place.environment.workers = some("2");
    place.environment.log = some("trace");
    place.environment.listen = some("127.0.0.1:2, [::1]:2");
    let loaded = place.loaded();
    assert_eq!(loaded.config.workers, Some(2));
    assert_eq!(loaded.config.log.level, LogLevel::Trace);
    assert_eq!(loaded.config.listeners[1].address.to_string(), "[::1]:2");
    assert_eq!(origin(&place, "workers"), "TALKBACK_WORKERS");
    assert_eq!(origin(&place, "log.level"), "TALKBACK_LOG");
    assert_eq!(origin(&place, "listener[1].address"), "TALKBACK_LISTEN");

    place.overrides.workers = Some("auto".to_owned());
    place.listen(&["127.0.0.1:3"]);
    let loaded = place.loaded();
    assert_eq!(loaded.config.workers, None);
    assert_eq!(loaded.config.listeners.len(), 1);
    assert_eq!(origin(&place, "workers"), "--workers");
    assert_eq!(origin(&place, "listener[0].name"), "--listen");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut place = Place::new();
    place.environment = Environment {
        config: some(""),
        listen: some(""),
        workers: some(""),
        metrics: some(""),
        log: some(""),
    };
    assert_eq!(place.loaded().config, Config::default());
}

#[test]
fn the_sidecars_address_is_flag_then_variable_then_file() {
    let mut place = Place::new();
    place.file("first.toml", "[metrics]\naddress = \"127.0.0.1:1\"\n");
    let check = |place: &Place, address: &str, origin: &str| {
        let Loaded { config, origins, .. } = place.loaded();
        let found = config.metrics.address.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(
            (found.as_str(), &*origins.of("metrics.address").to_string()),
            (address, origin)
        );
    };
    place.environment.metrics = some("[::1]:2");
    check(&place, "[::1]:2", "TALKBACK_METRICS");
    place.overrides.metrics = Some("127.0.0.1:3".to_owned());
    check(&place, "127.0.0.1:3", "--metrics");
    place.overrides.metrics = Some(String::new());
    check(&place, "", "--metrics");

    place.overrides.metrics = Some("9889".to_owned());
    place.check_refused(&[
        "--metrics: metrics.address: \"9889\" is no address of the sidecar; allowed: an IP address",
    ]);
    place.overrides.metrics = None;
    place.environment.metrics = Some(OsString::from_vec(vec![0xff]));
    place.check_refused(&["TALKBACK_METRICS: metrics.address: its value is not UTF-8"]);
}

#[test]
fn listeners_by_flag_take_the_first_ones_keys_and_names_of_their_own() {
    let mut place = Place::new();
    let file = "[[listener]]\nname = \"a\"\nbacklog = 7\nframing = \"line\"\n\
                [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\nbacklog = 8\n";
    let path = place.file("first.toml", file);
    place.listen(&["127.0.0.1:0", "127.0.0.1:0", "unix:@x"]);
    let Loaded { config, origins, .. } = place.loaded();
    let names: Vec<&str> = config.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["listen-1", "listen-2", "listen-3"]);
    assert!(config.listeners.iter().all(|listener| listener.backlog == 7));
    let origin = Origin::File { path, line: 3, column: 11 };
    assert_eq!(origins.of("listener[2].backlog"), origin);
    assert_eq!(origins.of("listener[2].invalid_utf8"), Origin::Default);
}

#[test]
fn what_belongs_to_another_kind_of_address_stays_behind() {
    let mut place = Place::new();
    place.file("first.toml", "[[listener]]\naddress = \"unix:/x\"\nunix_mode = \"0600\"\n");
    place.listen(&["127.0.0.1:0", "unix:/y"]);
    let modes = place.loaded().config.listeners.into_iter().map(|listener| listener.unix_mode);
    assert_eq!(modes.collect::<Vec<_>>(), [None, Some(0o600)]);
    place.file("first.toml", "[[listener]]\naddress = \"[::]:1\"\nv6only = false\n");
    let v6only = place.loaded().config.listeners.into_iter().map(|listener| listener.v6only);
    assert_eq!(v6only.collect::<Vec<_>>(), [true, true]);
}

#[test]
fn faults_of_file_variables_and_flags_come_at_once() {
    let mut place = Place::new();
    place.file("first.toml", "x = 1\n[limits]\nidle_timeout = 5\n");
    place.environment.log = some("loud");
    place.environment.workers = Some(OsString::from_vec(vec![0xff]));
    place.listen(&["127.0.0.1:0", "8889"]);
    place.check_refused(&[
        "first.toml:1:1: x: unknown key",
        "first.toml:3:16: limits.idle_timeout: 5 is an integer",
        "TALKBACK_WORKERS: workers: its value is not UTF-8",
        "--listen: listener[1].address: \"8889\" is not an address: the IP address before",
        "TALKBACK_LOG: log.level: \"loud\" is not known; allowed: \"error\", \"warn\"",
    ]);
}

#[test]
fn values_of_flags_and_variables_keep_the_rules_of_the_file() {
    let mut place = Place::new();
    for workers in ["0", "1025", "-1", "two", "+2", ""] {
        place.overrides.workers = Some(workers.to_owned());
        place.check_refused(&[&format!(
            "--workers: workers: {workers:?} is no number of workers; allowed: "
        )]);
    }
    place.overrides.workers = None;
    place.listen(&["127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:9889"]);
    place.check_refused(&[
        "--listen: listener[1].address: \"127.0.0.1:1\" is already the address of listener[0]",
        "--listen: listener[2].address: \"127.0.0.1:9889\" is also metrics.address",
    ]);
    place.listen(&["0.0.0.0:9889"]);
    place.check_refused(&["--listen: listener[0].address: \"0.0.0.0:9889\" and metrics.address, "]);
    place.overrides.listen.clear();
    place.overrides.metrics = Some("127.0.0.1:8889".to_owned());
    place.check_refused(&[
        "--metrics: metrics.address: \"127.0.0.1:8889\" and listener[0].address, \"0.0.0.0:8889\", \
         cannot be listened on at once: 0.0.0.0 stands for every IPv4 address; allowed: ",
    ]);
    place.overrides.metrics = None;
    place.environment.listen = some("127.0.0.1:1,");
    place.check_refused(&["TALKBACK_LISTEN: listener[1].address: \"\" is not an address"]);
}

fn with_program(place: &mut Place, program: &[&str], per_connection: bool) {
    place.overrides.program = program.iter().map(|word| (*word).to_owned()).collect();
    place.overrides.per_connection = per_connection;
}

#[test]
fn a_program_on_the_command_line_answers_each_line_on_every_listener() {
    let mut place = Place::new();
    with_program(&mut place, &["bc", "-l"], false);
    let Loaded { config, origins, .. } = place.loaded();
    let [listener] = &config.listeners[..] else { panic!("{config:?}") };
    assert_eq!((listener.responder.as_str(), listener.framing), ("command", Framing::Line));
    assert_eq!(listener.exit_word(), "");
    let program = vec!["bc".to_owned(), "-l".to_owned()];
    assert_eq!(listener.command, Some(command::Command { program, ..Default::default() }));
    for key in ["responder", "framing", "command.program", "command.mode"] {
        assert_eq!(origins.of(&format!("listener[0].{key}")), PROGRAM, "{key}");
    }

    let file = "[[listener]]\nframing = \"raw\"\nexit_word = \"quit\"\n[[listener]]\nname = \"b\"\n\
                address = \"127.0.0.1:1\"\nresponder = \"command\"\n[listener.command]\n\
                program = [\"cat\"]\nmode = \"per_connection\"\nmax_open_files = 9\n";
    place.file("first.toml", file);
    let config = place.loaded().config;
    for (listener, files) in config.listeners.iter().zip([0, 9]) {
        let command = listener.command.as_ref().expect("the program");
        assert_eq!((command.program[0].as_str(), command.mode), ("bc", CommandMode::Shared));
        assert_eq!((listener.framing, command.max_open_files), (Framing::Line, files));
    }
    assert_eq!(config.listeners[0].exit_word(), "quit");
    place.listen(&["127.0.0.1:0", "127.0.0.1:0"]);
    let config = place.loaded().config;
    assert!(config.listeners.iter().all(|listener| listener.responder == "command"));
    assert_eq!(config.listeners.len(), 2);
}

#[test]
fn a_program_for_each_connection_leaves_the_framing_and_what_is_said_of_sharing() {
    let mut place = Place::new();
    with_program(&mut place, &["cat"], true);
    let Loaded { config, origins, .. } = place.loaded();
    assert_eq!(config.listeners[0].framing, Framing::Raw);
    let mode = Origin::Flag("--per-connection");
    assert_eq!(origins.of("listener[0].command.mode"), mode);
    assert_eq!(origins.of("listener[0].framing"), Origin::Default);

    let file = "[[listener]]\nframing = \"line\"\nresponder = \"command\"\n[listener.command]\n\
                program = [\"bc\"]\nmax_processes = 9\nself_test = \"1\"\n";
    place.file("first.toml", file);
    let listener = &place.loaded().config.listeners[0];
    let command = listener.command.as_ref().expect("the program");
    assert_eq!((listener.framing, command.mode), (Framing::Line, CommandMode::PerConnection));
    assert_eq!((command.max_processes, command.self_test.as_str()), (4, "1"));
}

#[test]
fn a_program_on_the_command_line_answers_in_place_of_rules() {
    let mut place = Place::new();
    let rules = "[[listener]]\nresponder = \"rules\"\n[listener.rules]\ndefault = \"?\"\n";
    place.file("first.toml", rules);
    with_program(&mut place, &["cat"], false);
    let listener = &place.loaded().config.listeners[0];
    assert_eq!((listener.responder.as_str(), &listener.rules), ("command", &None));
}

#[test]
fn a_program_on_the_command_line_keeps_the_rules_of_the_file() {
    let mut place = Place::new();
    with_program(&mut place, &["", "-l"], false);
    place.check_refused(&["--: listener[0].command.program: \"\" is no program; allowed: "]);
}
