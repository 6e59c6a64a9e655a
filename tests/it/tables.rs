//! What is written down against what is built: the README's tables, the file of defaults, and the
//! list of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use talkback::config::{config_table, rules_table};
use talkback::metrics::names;

use crate::harness::Server;

/// Set it and the README's tables are written instead of compared.
const WRITE: &str = "TALKBACK_WRITE_TABLES";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The README between `<!-- name -->` and `<!-- /name -->` is `table`.
#[track_caller]
fn check(name: &str, table: &str) {
    let path = file("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (before, rest) = readme.split_once(&begin).expect("the table's first mark");
    let (written, after) = rest.split_once(&end).expect("the table's last mark");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{before}{begin}\n\n{}\n\n{end}{after}", table.trim())).unwrap();
        return;
    }
    assert_eq!(written.trim(), table.trim(), "write it anew: {WRITE}=1 cargo test tables::");
}

/// One test for all of them, which would otherwise write the file at the same time.
#[test]
fn the_readmes_tables_are_those_of_the_code() {
    check("config", &config_table());
    check("rules", &rules_table());
    check("metrics", &names::table());
}

#[test]
fn check_accepts_the_file_of_defaults_and_finds_nothing_in_it_but_defaults() {
    let report = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_talkback"));
        for name in ["CONFIG", "LISTEN", "WORKERS", "LOG"] {
            command.env_remove(format!("TALKBACK_{name}"));
        }
        let directory = tempfile::tempdir().unwrap();
        let output = command.arg("check").args(arguments).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = String::from_utf8(output.stdout).unwrap();
        let settings = report.lines().skip(2).take_while(|line| !line.is_empty());
        // A key, then its value, which has no space in it here.
        let words = settings.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
        words.map(|words| (words[0].to_owned(), words[1].to_owned())).collect::<BTreeMap<_, _>>()
    };
    let path = file("config/talkback.toml");
    let with_file = report(&["--config", path.to_str().unwrap()]);
    assert!(with_file.len() > 20, "{with_file:?}");
    // Where the host has a file in /etc, the built-in defaults cannot be had this way.
    if !Path::new("/etc/talkback/talkback.toml").exists() {
        assert_eq!(with_file, report(&[]));
    }
}

/// A fresh server's families, as the `# TYPE` lines tell them.
#[test]
fn a_fresh_server_exposes_the_listed_metrics_and_no_others() {
    let server = Server::with_program("");
    let text = server.get("/metrics").1;
    let exposed: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let listed: BTreeSet<(&str, &str)> =
        names::ALL.iter().map(|metric| (metric.name, metric.kind.label())).collect();
    assert_eq!(exposed, listed);
    for metric in names::ALL {
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(text.lines().any(|line| line == help), "{help}");
    }
}

#[test]
fn without_a_program_there_is_nothing_of_programs() {
    let text = Server::with_listener("").get("/metrics").1;
    assert!(!text.contains("talkback_command_"), "{text}");
}

/// Words of a command that choose tests: those with a path's colons.
fn filters(command: &str) -> Vec<&str> {
    let words = command.split([' ', ';']).filter(|word| word.contains("::"));
    words.map(|word| word.trim_matches(':')).collect()
}

/// Tests of this binary whose name holds the filter.
fn tests_of(filter: &str) -> usize {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--list", filter]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter(|line| line.ends_with(": test")).count()
}

#[test]
fn every_command_of_the_promises_names_what_exists() {
    let promises = fs::read_to_string(file("docs/promises.md")).unwrap();
    assert_eq!(promises.lines().filter(|line| line.starts_with("## ")).count(), 10);
    let commands: Vec<_> = promises.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands.len(), 10, "{commands:?}");
    for command in commands {
        let mut proofs = 0;
        for filter in filters(command) {
            let is_of_the_library = command.contains("--lib");
            let source = file(&format!("src/{filter}.rs"));
            let found = if is_of_the_library { source.exists() } else { tests_of(filter) > 0 };
            assert!(found, "nothing is named {filter}: {command}");
            proofs += 1;
        }
        for program in command.split([' ', ';']).filter(|word| word.starts_with("benches/")) {
            assert!(file(program).exists(), "{command}");
            proofs += 1;
        }
        if let Some((_, target)) = command.split_once("fuzz run ") {
            let target = target.split(' ').next().unwrap();
            assert!(file(&format!("fuzz/fuzz_targets/{target}.rs")).exists(), "{command}");
            proofs += 1;
        }
        assert!(proofs > 0, "it proves nothing: {command}");
    }
}
