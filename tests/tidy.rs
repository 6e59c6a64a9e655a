//! What no compiler holds: who may import whom, how long things get, and what stays out of tests.
//! Every rule is also run against a bad sample, so that none of them can pass by seeing nothing.

use std::fs;
use std::path::Path;

// Beside this file it would be a test of its own.
#[path = "tidy/scan.rs"]
mod scan;
use scan::{Function, blank, functions, paths};

/// The floors, low to high: a module under `src/`, and what it may import besides itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("accepting", &[]),
    ("client_text", &[]),
    ("wire", &[]),
    ("nearest", &[]),
    ("responder", &["wire", "nearest"]),
    ("offload", &["responder"]),
    ("config", &["wire", "nearest", "responder"]),
    ("metrics", &[]),
    ("connection", &["sys", "client_text", "wire", "responder", "metrics"]),
    ("sidecar", &["accepting"]),
    (
        "server",
        &[
            "sys",
            "client_text",
            "accepting",
            "wire",
            "responder",
            "config",
            "metrics",
            "connection",
            "sidecar",
        ],
    ),
    ("client", &[]),
    ("fuzz", &["wire", "config", "sidecar", "client"]),
    ("cli", &["wire", "responder", "config", "server", "client"]),
];

/// Modules that know bytes and text alone, and the paths that would bring in more.
const PURE: &[&str] = &["wire", "responder"];
const IMPURE: &[&[&str]] = &[
    // An address is a plain value; what opens a socket is not.
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "os"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["prometheus"],
    &["socket2"],
    &["rustix"],
    &["tracing"],
];

/// Modules that wait and time: a clock that may jump is not theirs.
const TIMED: &[&str] = &["accepting", "connection", "sidecar", "server", "client"];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 100;

/// The one small module that may hold unsafe code, file by file.
const UNSAFE: &[&str] = &["src/sys.rs", "src/sys/spawn.rs"];

/// Names that say nothing of what lives in a file.
const VAGUE: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "mod"];

/// Directories that a path of somebody's own machine begins with.
const PRIVATE_DIRECTORIES: &[&str] = &["home", "root", "work", "workspace", "builds"];

/// The only place that may wait for time to pass.
const POLL: (&str, &str) = ("tests/it/harness.rs", "eventually");

/// One file of the tree.
struct Source {
    /// From the root, with slashes.
    path: String,
    text: String,
    /// The text with blanks for comments and for what stands in quotes.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: blank(text) }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Written by hand and read by people: what the sizes are for.
    fn is_ours(&self) -> bool {
        (self.path.starts_with("src/") || self.path.starts_with("tests/"))
            && (self.is_rust()
                || [".py", ".js", ".css", ".html"].iter().any(|end| self.path.ends_with(end))
                || self.path == "tests/run")
    }

    /// `wire` for `src/wire.rs` and all of `src/wire/`; nothing for the two roots and the tests.
    fn module(&self) -> Option<&str> {
        let name = self.path.strip_prefix("src/")?.split(['/', '.']).next()?;
        (name != "lib" && name != "main").then_some(name)
    }
}

type Rule = fn(&Source) -> Vec<String>;

// ---- rules ----

fn floors(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("the module `{module}` stands on no floor: add it to FLOORS")];
    };
    let mut found = Vec::new();
    for (line, path) in paths(&source.code) {
        let [root, target, ..] = path.as_slice() else { continue };
        let fine = match *root {
            "crate" => *target == module || (module != "cli" && allowed.contains(target)),
            // What the library offers at its root has no floor of its own.
            "talkback" => allowed.contains(target) || target.starts_with(char::is_uppercase),
            "super" => *target != "super",
            _ => true,
        };
        if !fine {
            found.push(format!("{line}: `{module}` may not import {root}::{target}"));
        }
    }
    // Outside of an inline module, `super` of a file right under src/ is the crate's root.
    if source.path.matches('/').count() == 1 {
        let lines = source.code.lines().enumerate();
        let climbing = lines.filter(|(_, line)| line.starts_with("use super::"));
        found.extend(climbing.map(|(at, _)| format!("{}: write crate:: for super::", at + 1)));
    }
    found
}

fn purity(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let mut forbidden: Vec<&[&str]> = Vec::new();
    if PURE.contains(&module) {
        forbidden.extend(IMPURE);
    }
    if TIMED.contains(&module) {
        forbidden.push(&["std", "time", "SystemTime"]);
    }
    let mut found = Vec::new();
    for (line, path) in paths(&source.code) {
        if forbidden.iter().any(|prefix| path.starts_with(prefix)) {
            found.push(format!("{line}: `{module}` may not know {}", path.join("::")));
        }
    }
    found
}

fn unsafety(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") || UNSAFE.contains(&&*source.path) {
        return Vec::new();
    }
    let paths = paths(&source.code).into_iter().filter(|(_, path)| path.contains(&"unsafe"));
    paths.map(|(line, _)| format!("{line}: `unsafe` belongs into {}", UNSAFE[0])).collect()
}

fn sizes(source: &Source) -> Vec<String> {
    if !source.is_ours() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > MAX_FILE_LINES {
        found.push(format!("{lines} lines; at most {MAX_FILE_LINES}"));
    }
    for (at, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > MAX_COLUMNS {
            found.push(format!("{}: {columns} columns; at most {MAX_COLUMNS}", at + 1));
        }
    }
    if !source.is_rust() {
        return found;
    }
    for function in functions(&source.code) {
        let lines = function.last - function.first + 1;
        if lines > MAX_FUNCTION_LINES {
            let Function { name, first, .. } = function;
            found
                .push(format!("{first}: `{name}` has {lines} lines; at most {MAX_FUNCTION_LINES}"));
        }
    }
    found
}

fn names(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/") && !source.path.starts_with("tests/") {
        return Vec::new();
    }
    let stems = source.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    stems.filter(|stem| VAGUE.contains(stem)).map(|stem| format!("`{stem}` is no name")).collect()
}

fn module_docs(source: &Source) -> Vec<String> {
    let lacking =
        source.path.starts_with("src/") && source.is_rust() && !source.text.starts_with("//! ");
    if lacking { vec!["1: no module doc".to_owned()] } else { Vec::new() }
}

fn waiting(source: &Source) -> Vec<String> {
    if !source.path.starts_with("tests/") {
        return Vec::new();
    }
    let mut lines: Vec<usize> = Vec::new();
    if source.is_rust() {
        let paths = paths(&source.code).into_iter();
        lines.extend(paths.filter(|(_, path)| path.ends_with(&["sleep"])).map(|(line, _)| line));
    }
    if source.path == POLL.0 {
        let functions = functions(&source.code);
        let inside = |line: &usize| functions.iter().any(|f| f.name == POLL.1 && f.contains(*line));
        if let Some(at) = lines.iter().position(inside) {
            lines.remove(at);
        }
    }
    // This file quotes what it looks for.
    if source.path != "tests/tidy.rs" {
        let quoted = |line: &str| {
            let call = !source.is_rust() && line.contains("sleep(");
            let follows = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit() || c == '$');
            call || line.contains("\"sleep\"") || line.split("sleep ").skip(1).any(follows)
        };
        let text = source.text.lines().enumerate();
        lines.extend(text.filter(|(_, line)| quoted(line)).map(|(at, _)| at + 1));
    }
    let says = |line| format!("{line}: tests wait for what happens, not for time (`eventually`)");
    lines.into_iter().map(says).collect()
}

fn ignoring(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let ignores = |line: &&str| {
        line.contains("#[ignore") || (line.contains("cfg_attr(") && line.contains(", ignore"))
    };
    let mut found: Vec<_> = source.code.lines().filter(ignores).map(str::to_owned).collect();
    let fences = source.text.lines().filter(|line| line.trim_start().starts_with("/// ```ignore"));
    found.extend(fences.map(str::to_owned));
    found
}

fn private_paths(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut private: Vec<_> = PRIVATE_DIRECTORIES.iter().map(|name| format!("/{name}/")).collect();
    let here = env!("CARGO_MANIFEST_DIR");
    // A checkout right under the root, as in a container, has a name that may mean anything.
    if here.matches('/').count() > 1 {
        private.push(here.to_owned());
    }
    for (at, line) in source.text.lines().enumerate() {
        for path in &private {
            // What stands behind a letter is part of a longer path, or of a URL.
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
            if line.match_indices(path.as_str()).any(|(at, _)| begins(at)) {
                found.push(format!("{}: names {path}, which is somebody's machine", at + 1));
            }
        }
    }
    found
}

// ---- the tree, and the samples ----

/// Every text file below `directory` but what git and cargo keep for themselves.
fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a directory of the tree can be read") {
        let path = entry.expect("an entry of the tree can be read").path();
        let name = path.strip_prefix(root).expect("found below the root").to_string_lossy();
        if path.is_dir() {
            let kept = name == ".git" || name == "target" || path.join("CACHEDIR.TAG").exists();
            if !kept {
                collect(root, &path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push(Source::new(&name, &text));
        }
    }
}

#[track_caller]
fn holds(rule: Rule) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    assert!(sources.iter().any(|source| source.path == "tests/tidy.rs"), "the tree was not found");
    let complaints: Vec<String> = sources
        .iter()
        .flat_map(|source| rule(source).into_iter().map(|what| format!("{}:{what}", source.path)))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[track_caller]
fn finds(rule: Rule, count: usize, path: &str, text: &str) {
    let found = rule(&Source::new(path, text));
    assert_eq!(found.len(), count, "{path}: {found:?}");
}

#[test]
fn a_file_imports_only_from_lower_floors() {
    holds(floors);
    finds(floors, 2, "src/wire/utf8.rs", "use crate::{server::pool, wire::{a, b}, client};");
    finds(floors, 1, "src/connection.rs", "fn f() { crate::server::start() }");
    finds(floors, 1, "src/responder.rs", "use crate::wire;\nuse super::server;");
    finds(floors, 1, "src/server/pool.rs", "use super::super::client;");
    finds(
        floors,
        2,
        "src/cli/serve.rs",
        "use talkback::{Server, metrics, config};\nuse crate::main_;",
    );
    finds(floors, 1, "src/wire.rs", "use crate::Server;");
    finds(floors, 1, "src/novelty.rs", "");
    finds(floors, 0, "src/wire.rs", "// crate::server\nconst A: &str = \"crate::server\";");
    finds(floors, 0, "src/lib.rs", "use crate::server::Server;");
}

#[test]
fn what_is_pure_knows_no_socket_clock_thread_or_metric() {
    holds(purity);
    let text =
        "use std::{net::{Ipv4Addr, TcpStream}, time::{Duration, Instant}};\nuse tracing::debug;";
    finds(purity, 3, "src/wire/framing.rs", text);
    finds(purity, 1, "src/responder.rs", "fn f() { std::thread::yield_now() }");
    finds(purity, 1, "src/server/timers.rs", "use std::time::{Instant, SystemTime};");
    finds(purity, 1, "src/sidecar/door.rs", "use std::time::SystemTime;");
    finds(purity, 0, "src/metrics/process.rs", "use std::time::SystemTime;");
}

#[test]
fn unsafe_code_stands_in_one_small_module() {
    holds(unsafety);
    for path in UNSAFE {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let source = Source::new(path, &text.unwrap_or_default());
        let needs_it = paths(&source.code).iter().any(|(_, path)| path.contains(&"unsafe"));
        assert!(needs_it, "{path} needs no leave for unsafe code");
        finds(unsafety, 0, path, "fn f() { unsafe { g() } }");
    }
    finds(unsafety, 1, "src/server/accept.rs", "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }");
    finds(unsafety, 1, "src/sys/other.rs", "fn f() { unsafe { g() } }");
}

#[test]
fn files_functions_and_lines_stay_readable() {
    holds(sizes);
    finds(sizes, 1, "src/a.rs", &"\n".repeat(MAX_FILE_LINES + 1));
    finds(sizes, 1, "tests/a.py", &"x".repeat(MAX_COLUMNS + 1));
    finds(sizes, 1, "src/a/b.js", &"x".repeat(MAX_COLUMNS + 1));
    let body = |lines| format!("fn f(a: [u8; 2]) {{\n{}}}\n", "    '}';\n".repeat(lines));
    finds(sizes, 0, "src/a.rs", &body(MAX_FUNCTION_LINES - 2));
    finds(sizes, 1, "src/a.rs", &body(MAX_FUNCTION_LINES - 1));
}

#[test]
fn every_file_has_a_name_and_says_what_lives_in_it() {
    holds(names);
    finds(names, 2, "src/util/mod.rs", "");
    holds(module_docs);
    finds(module_docs, 1, "src/a.rs", "use std::io;\n");
}

#[test]
fn no_test_sleeps_and_none_is_ignored() {
    holds(waiting);
    let nap = "fn nap() { thread::sleep(A) }\n";
    finds(waiting, 2, "tests/it/a.rs", "use std::thread::sleep;\nfn f() { sleep(A) }");
    finds(waiting, 2, "tests/it/a.rs", "const A: &str = \"sleep 1\";\nconst B: &str = \"sleep\";");
    finds(waiting, 1, "tests/it/a.py", "time.sleep(1)");
    finds(waiting, 1, "tests/run", "sleep 0.1");
    finds(waiting, 1, POLL.0, &format!("fn eventually() {{ thread::sleep(A) }}\n{nap}"));
    finds(waiting, 0, POLL.0, "fn eventually() { thread::sleep(A) }");
    holds(ignoring);
    finds(ignoring, 2, "tests/a.rs", "#[ignore = \"\"]\n#[cfg_attr(loom, ignore)]\nfn f() {}");
}

#[test]
fn no_path_of_a_machine_leaks() {
    holds(private_paths);
    let path = format!("see /{}/me/notes, not https://a.b/{0}/me", PRIVATE_DIRECTORIES[0]);
    finds(private_paths, 1, "README.md", &path);
}
