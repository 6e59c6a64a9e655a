//! The reading of a configuration on trial: each refusal says where and what, and what is taken
//! comes back from its own printing. For the tests here and for those in `fuzz`.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::duration::{self, MAX_DURATION};
use super::load::assemble;
use super::reference::{Key, reference};
use super::rules::written::written;
use super::{
    Address, Config, ConfigError, DEFAULT_MAX_CONNECTIONS, Environment, Fault, Host, Loaded,
    Origin, Overrides, Setting, Source,
};

pub(crate) use super::rules::trial::check_rules;

const FILE: &str = "t.toml";
/// The files that this one may name.
const RULES: [(&str, &[u8]); 2] = [
    ("rules.toml", b"greeting = \"hello\"\n[[rule]]\nequals = \"a\"\nsend = [\"b\", \"\"]\n"),
    ("broken.toml", b"\n[[rule]]\nequals = 1\nmatches = \"(\"\nsnd = \"\"\n"),
];
/// A refusal is a line to read; most of it says what is allowed.
const MAX_LINE: usize = 500;

/// Everything that must hold for the bytes of a file and the values of `TALKBACK_LISTEN`,
/// `TALKBACK_WORKERS` and `TALKBACK_LOG`.
#[track_caller]
pub(crate) fn check_file(file: &[u8], variables: [Option<&[u8]>; 3]) {
    let [listen, workers, log] =
        variables.map(|value| value.map(|bytes| OsString::from_vec(bytes.to_vec())));
    match load(file, &Environment { listen, workers, log, ..Environment::default() }) {
        Ok(loaded) => check_loaded(&loaded),
        Err(ConfigError::Invalid(faults)) => {
            assert!(!faults.is_empty(), "refused without a reason");
            for of_a_file in faults.chunk_by(|one, other| path(one) == path(other)) {
                assert!(of_a_file.is_sorted_by_key(Fault::rank), "{faults:#?}");
                let file = match path(&of_a_file[0]) {
                    Some(path) if path != FILE => files(path.as_ref()).expect("it has been read"),
                    _ => file.to_vec(),
                };
                let lines: Vec<&[u8]> = file.split(|byte| *byte == b'\n').collect();
                of_a_file.iter().for_each(|fault| check_fault(fault, &lines));
            }
        }
        Err(ConfigError::Unreadable { .. }) => panic!("bytes in memory can be read"),
    }
}

fn load(file: &[u8], environment: &Environment) -> Result<Loaded, ConfigError> {
    assemble(Source::File(FILE.into()), file, &Overrides::default(), environment, &files)
}

fn files(path: &Path) -> io::Result<Vec<u8>> {
    let found = RULES.iter().find(|(name, _)| Path::new(name) == path);
    found.map(|(_, bytes)| bytes.to_vec()).ok_or(io::ErrorKind::NotFound.into())
}

fn path(fault: &Fault) -> Option<&str> {
    match &fault.origin {
        Some(Origin::File { path, .. }) => path.to_str(),
        _ => None,
    }
}

/// A refusal is one line that can be read, and says where in the lines of its file.
#[track_caller]
pub(super) fn check_place(fault: &Fault, lines: &[&[u8]]) {
    let shown = fault.to_string();
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(shown.chars().count() <= MAX_LINE, "{} characters: {shown}", shown.chars().count());
    match &fault.origin {
        Some(Origin::File { line, column, .. }) => {
            let line =
                line.checked_sub(1).and_then(|at| lines.get(at)).expect("a line of the file");
            // Behind the last character is where one is missing.
            let columns = String::from_utf8_lossy(line).chars().count() + 1;
            assert!((1..=columns).contains(column), "{shown}: {columns} columns");
        }
        Some(Origin::Environment(_)) => {}
        Some(Origin::Default | Origin::Flag(_)) | None => panic!("it does not say where: {shown}"),
    }
}

#[track_caller]
fn check_fault(fault: &Fault, lines: &[&[u8]]) {
    check_place(fault, lines);
    let table = fault.key.split('[').next().unwrap_or_default();
    let is_known = Key::find(&fault.key).is_some()
        || reference().iter().any(|key| key.split().0 == table && !table.is_empty());
    let is_named = match fault.key.as_str() {
        "" => fault.problem.starts_with("not TOML: "),
        _ => is_known || fault.problem.starts_with("unknown key; "),
    };
    assert!(is_named, "it does not name a key: {fault}");
}

#[track_caller]
fn check_loaded(loaded: &Loaded) {
    let config = &loaded.config;
    config.validate().expect("what loads keeps every rule");
    let settings = config.settings();
    let printed = as_file(config, &settings);
    assert!(!printed.replace('\n', "").contains(char::is_control), "{printed:?}");
    let again = load(printed.as_bytes(), &Environment::default());
    let again = again.unwrap_or_else(|error| panic!("{error}\nin\n{printed}"));
    assert_eq!(again.config, spelt_out(config), "{printed}");
    assert_eq!(again.config.settings(), settings);
    for host in [
        Host { somaxconn: Some(1), descriptors: Some(0), workers: 1 },
        Host { somaxconn: Some(u32::MAX), descriptors: Some(u64::MAX), workers: 1024 },
    ] {
        for warning in config.warnings(&host) {
            assert!(!warning.to_string().contains(char::is_control), "{warning}");
        }
    }
}

/// What the printing says is a file, once rules are written out.
fn as_file(config: &Config, settings: &[Setting]) -> String {
    let mut books = config.listeners.iter().filter_map(|listener| listener.rules.as_ref());
    let mut file = String::new();
    let mut open = "";
    for Setting { key, value } in settings {
        let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
        if table != open {
            open = table;
            let of_listener = table.strip_prefix("listener[").and_then(|rest| rest.split_once(']'));
            let header = match of_listener {
                Some((_, "")) => "[[listener]]".to_owned(),
                Some((_, below)) => format!("[listener{below}]"),
                None => format!("[{table}]"),
            };
            writeln!(file, "{header}").expect("a string takes everything");
        }
        let value = match key {
            "rules" => &written(books.next().expect("a book for each setting of rules")),
            _ => value,
        };
        writeln!(file, "{key} = {value}").expect("a string takes everything");
    }
    file
}

/// With what follows from other values written out, as the printing does it.
fn spelt_out(config: &Config) -> Config {
    let mut config = config.clone();
    for listener in &mut config.listeners {
        listener.exit_word = Some(listener.exit_word().to_owned());
    }
    config.limits.max_connections.get_or_insert(DEFAULT_MAX_CONNECTIONS);
    config
}

/// Everything that must hold for a word read as an address or a duration.
#[track_caller]
pub(crate) fn check_word(word: &str) {
    if let Some(duration) = duration::parse(word) {
        assert!(duration <= MAX_DURATION, "{word}");
        let printed = duration::format(duration);
        assert_eq!(duration::parse(&printed), Some(duration), "{word} is {printed}");
    }
    match word.parse::<Address>() {
        Ok(address) => {
            let printed = address.to_string();
            assert!(!printed.contains(char::is_control), "{printed:?}");
            assert_eq!(printed.parse(), Ok(address), "{word}");
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{word:?}"),
    }
}
