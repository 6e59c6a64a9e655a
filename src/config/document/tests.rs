//! Every refusal with its place, and the shipped file held to the reference.

use std::io;

use super::*;
use crate::config::{Allowed, Command, Origin, reference};

const SHIPPED: &str = include_str!("../../../config/talkback.toml");

fn read_text(source: &str) -> Document {
    read_bytes(source.as_bytes())
}

fn read_bytes(bytes: &[u8]) -> Document {
    read(bytes, Path::new("t.toml"), &|_| Err(io::ErrorKind::NotFound.into()), &[])
}

#[track_caller]
fn check(source: &str, expected: &[&str]) {
    let faults: Vec<String> = read_text(source).faults.iter().map(Fault::to_string).collect();
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, start) in faults.iter().zip(expected) {
        assert!(fault.starts_with(start), "{fault}\nshould start with\n{start}");
        assert!(!fault.contains('\n'), "{fault}");
    }
}

#[test]
fn a_listener_may_name_a_responder_of_the_callers_own_and_no_unknown_one() {
    let source = b"[[listener]]\nresponder = \"shout\"\n";
    let files: Files<'_> = &|_| Err(io::ErrorKind::NotFound.into());
    let document = read(source, Path::new("t.toml"), files, &["shout".to_owned()]);
    assert_eq!(document.faults, []);
    assert_eq!(document.config.listeners[0].responder, "shout");
    let unknown = read(source, Path::new("t.toml"), files, &["other".to_owned()]);
    assert_eq!(unknown.faults.len(), 1);
}

#[test]
fn the_shipped_file_is_the_built_in_defaults() {
    let document = read_text(SHIPPED);
    assert_eq!(document.faults, []);
    // The file writes out the exit word that follows from its responder.
    let mut defaults = Config::default();
    defaults.listeners[0].exit_word = Some(Listener::default().exit_word().to_owned());
    assert_eq!(document.config, defaults);
    assert_eq!(read_text("").config, Config::default());
}

#[test]
fn every_key_stands_in_the_shipped_file_with_its_default_and_a_reason() {
    let mut table = "";
    let mut missing: Vec<&str> = reference().iter().map(|key| key.name).collect();
    for line in SHIPPED.lines().map(|line| line.trim_start_matches("# ")) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        }
        let Some((key, rest)) = line.split_once(" = ") else { continue };
        let name = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        let Some(known) = reference().iter().find(|known| known.name == name) else { continue };
        missing.retain(|missing| *missing != name);
        let (value, reason) = rest.split_once(" # ").expect("a reason behind the value");
        assert!(!reason.trim().is_empty(), "{line}");
        if !known.default.is_empty() {
            assert_eq!(value.trim(), known.default, "{line}");
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// What stands in comments there is as true as the rest.
#[test]
fn the_shipped_command_is_the_built_in_defaults() {
    let (before, rest) = SHIPPED.split_once("# [listener.command]").unwrap();
    let (commented, after) = rest.split_once("\n\n").unwrap();
    let table = commented.replace("\n# ", "\n");
    let before = before.replace("\"raw\" ", "\"line\"").replace("\"echo\" ", "\"command\"");
    let document = read_text(&format!("{before}[listener.command]{table}\n{after}"));
    assert_eq!(document.faults, []);
    let program = ["python3", "-u", "app.py"].map(str::to_owned).to_vec();
    let expected = Command { program, ..Command::default() };
    assert_eq!(document.config.listeners[0].command, Some(expected));
}

/// Something other than the default of this key.
fn altered(key: &str) -> &'static str {
    match key {
        "workers" => "3",
        "listener.name" => "\"other\"",
        "listener.address" => "\"[::]:1\"",
        "listener.v6only" => "false",
        "listener.unix_mode" => "\"0600\"",
        "listener.unix_group" => "\"adm\"",
        "listener.framing" => "\"line\"",
        "listener.responder" => "\"discard\"",
        "listener.rules" => "{ default = \"a\" }",
        "listener.exit_word" => "\"bye\"",
        "listener.reply_timeout" => "\"31s\"",
        "listener.invalid_utf8" => "\"replace\"",
        "listener.command.program" => "[\"q\"]",
        "listener.command.mode" => "\"per_connection\"",
        "listener.command.min_processes" => "3",
        "listener.command.max_restart_delay" | "listener.command.max_cpu_time" => "\"7s\"",
        "listener.command.overload_reply" | "listener.command.self_test" => "\"7\"",
        "listener.command.environment" => "[\"A=b\"]",
        "listener.command.directory" => "\"/\"",
        "listener.command.user" | "listener.command.group" => "\"adm\"",
        "limits.full_message" => "\"full\"",
        "limits.keepalive_idle" | "limits.keepalive_interval" => "\"7s\"",
        "limits.user_timeout" => "\"91s\"",
        "metrics.address" => "\"\"",
        "metrics.connections" => "\"never\"",
        "metrics.allowed_hosts" => "[\"a.example\"]",
        "log.level" | "log.connections" => "\"warn\"",
        "log.format" => "\"json\"",
        _ if key.contains("_timeout") || key.contains("_delay") => "\"7ms\"",
        _ => "7",
    }
}

/// The lines above a key of this table.
fn header(table: &str) -> String {
    match table {
        "" => String::new(),
        "listener" => "[[listener]]\n".to_owned(),
        "listener.command" => {
            "[[listener]]\nresponder = \"command\"\nframing = \"line\"\n[listener.command]\n"
                .to_owned()
        }
        table => format!("[{table}]\n"),
    }
}

/// The line below it, without which the key means nothing.
fn company(table: &str, key: &str) -> &'static str {
    match (table, key) {
        ("listener", "v6only") => "address = \"[::]:1\"",
        ("listener", "unix_mode" | "unix_group") => "address = \"unix:/x\"",
        ("listener", "rules") => "responder = \"rules\"",
        ("listener", "max_accept_burst") => "max_accept_rate = 7",
        ("listener.command", key) if key != "program" => "program = [\"p\"]",
        _ => "",
    }
}

#[test]
fn every_key_of_the_reference_has_an_effect_and_an_origin() {
    for key in reference() {
        let (table, name) = key.split();
        let (header, company) = (header(table), company(table, name));
        let value = altered(key.name);
        let document = read_text(&format!("{header}{name} = {value}\n{company}"));
        assert_eq!(document.faults, [], "{}", key.name);
        let without = read_text(&format!("{header}{company}"));
        assert_ne!(document.config, without.config, "{}", key.name);
        let shown = key.name.replace("listener.", "listener[0].");
        assert!(matches!(document.origins.of(&shown), Origin::File { .. }), "{shown}");
    }
}

#[test]
fn every_key_refuses_another_type_at_its_value() {
    for key in reference() {
        let (table, name) = key.split();
        let (header, company) = (header(table), company(table, name));
        let shown = key.name.replace("listener.", "listener[0].");
        let (line, column) = (header.lines().count() + 1, name.len() + 4);
        for (value, problem) in [
            ("1.5", "1.5 is a float; allowed: "),
            ("[ 1 ]", "[ 1 ] is an array; allowed: "),
            ("{ a = 1 }", "it is a table; allowed: "),
            ("1979-05-27", "1979-05-27 is a date; allowed: "),
        ] {
            if matches!(key.allowed, Allowed::Form(_)) && value.starts_with('{') {
                continue;
            }
            let is_list = matches!(key.allowed, Allowed::List(_)) && value.starts_with('[');
            // A list is right, and what stands in it is not.
            let (column, problem) = if is_list {
                (column + 2, "1 is an integer; allowed: ")
            } else {
                (column, problem)
            };
            let expected = format!("t.toml:{line}:{column}: {shown}: {problem}{}", key.allowed);
            check(&format!("{header}{name} = {value}\n{company}"), &[&expected]);
        }
    }
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_or_its_own_table_or_all_that_are_known() {
    check(
        "[limits]\n  idle_timeut = \"5m\"\n",
        &["t.toml:2:3: limits.idle_timeut: unknown key; did you mean \"idle_timeout\"?"],
    );
    check("[limts]", &["t.toml:1:2: limts: unknown key; did you mean \"limits\"?"]);
    check("\"\" = 9", &["t.toml:1:1: \"\": unknown key; allowed: workers, "]);
    check(
        "backlog = 1\nconnections = 1\n[log]\nworkers = 2\nidle_timeout = \"1s\"\n",
        &[
            "t.toml:1:1: backlog: unknown key; \"backlog\" belongs in [[listener]]",
            "t.toml:2:1: connections: unknown key; \"connections\" belongs in [metrics] or ",
            "t.toml:4:1: log.workers: unknown key; \"workers\" belongs at the top of the file",
            "t.toml:5:1: log.idle_timeout: unknown key; \"idle_timeout\" belongs in [limits]",
        ],
    );
    check(
        "[shutdown]\ncolour = 1",
        &["t.toml:2:1: shutdown.colour: unknown key; allowed: drain_delay, drain_timeout"],
    );
    check("\"a\\nb\" = 1", &["t.toml:1:1: a\\nb: unknown key; allowed: workers, listener, limits"]);
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_file() {
    check(
        "workers = 0\n\
         [[listener]]\n\
         framing = \"lines\"\n\
         address = \"localhost:1\"\n\
         name = \"Main\"\n\
         [[listener]]\n\
         nam = \"x\"\n\
         [limits]\n\
         idle_timeout = 300\n\
         send_timeout = \"5 minutes\"\n\
         [log]\n\
         level = \"warning\"\n",
        &[
            "t.toml:1:11: workers: 0 is out of range; allowed: \"auto\" or an integer from",
            "t.toml:3:11: listener[0].framing: \"lines\" is not known (did you mean \"line\"?); \
             allowed: \"raw\" or \"line\"",
            "t.toml:4:11: listener[0].address: \"localhost:1\" is not an address",
            "t.toml:5:8: listener[0].name: \"Main\" is not a listener's name",
            "t.toml:6:1: listener[1].name: missing",
            "t.toml:6:1: listener[1].address: missing",
            "t.toml:7:1: listener[1].nam: unknown key; did you mean \"name\"?",
            "t.toml:9:16: limits.idle_timeout: 300 is an integer; allowed: a string of an integer",
            "t.toml:10:16: limits.send_timeout: \"5 minutes\" is not such a duration",
            "t.toml:12:9: log.level: \"warning\" is not known; allowed: \"error\", \"warn\"",
        ],
    );
}

#[test]
fn columns_count_characters_and_lines_any_line_ending() {
    check("\r\nlistener = [{ framing = 1 }]", &["t.toml:2:25: listener[0].framing: "]);
    check(
        "\nlistener=[{name=\"é\", framing=1}]",
        &["t.toml:2:17: listener[0].name: ", "t.toml:2:30: listener[0].framing: "],
    );
    check("\u{feff}x = 1", &["t.toml:1:1: x: unknown key"]);
}

#[test]
fn what_is_no_configuration_at_all_is_refused_line_by_line_in_no_time() {
    let faults_of = |unit: &str| read_text(&unit.repeat((1 << 17) / unit.len())).faults;
    for unit in ["a log, not a configuration\n", "]\n", "a = 1\n"] {
        let faults = faults_of(unit);
        let last = faults.last().unwrap().to_string();
        assert!(last.starts_with(&format!("t.toml:{}:", (1 << 17) / unit.len())), "{last}");
    }
    let keys: Vec<String> = (10_000..30_000).map(|number| format!("k{number}=1")).collect();
    let faults = read_text(&format!("limits={{{}}}", keys.join(","))).faults;
    let places: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert_eq!(places.len(), keys.len());
    let last = format!("t.toml:1:{}: limits.k29999: unknown key; ", 9 + 9 * (keys.len() - 1));
    assert!(places[19_999].starts_with(&last), "{}", places[19_999]);
}

#[test]
fn a_syntax_error_has_its_place_and_a_duplicate_key_hides_no_other_fault() {
    check("\n[limits\nidle_timeout = \"1s\"", &["t.toml:2:8: not TOML: "]);
    check("workers = ", &["t.toml:1:11: not TOML: "]);
    check("[[listener]]\nunix_mode = 0660", &["t.toml:2:13: not TOML: "]);
    check(
        "workers = 1\nworkers = 2\n[log]\nlevel = 1\n",
        &["t.toml:2:1: not TOML: duplicate key", "t.toml:4:9: log.level: 1 is an integer"],
    );
}

#[test]
fn a_byte_that_is_not_utf8_has_its_place() {
    let document = read_bytes(b"a\n\xc3\xa9\xffb");
    assert!(document.faults[0].to_string().starts_with("t.toml:2:2: not TOML: "));
}

#[test]
fn integers_are_read_in_every_notation_and_refused_out_of_range() {
    let document = read_text("[limits]\nmax_connections = 0x1_0\nmax_pending_bytes = 1_000");
    assert_eq!(document.config.limits.max_connections, Some(16));
    assert_eq!(document.config.limits.max_pending_bytes, 1000);
    for value in ["-1", "1_000_001", "99999999999999999999", "-99999999999999999999"] {
        let problem =
            format!("t.toml:2:26: limits.max_connections_per_ip: {value} is out of range");
        check(&format!("[limits]\nmax_connections_per_ip = {value}"), &[&problem]);
    }
}

#[test]
fn workers_are_auto_or_a_number_without_quotes() {
    assert_eq!(read_text("workers = 1024").config.workers, Some(1024));
    check("workers = 1025", &["t.toml:1:11: workers: 1025 is out of range; allowed: \"auto\" or"]);
    check(
        "workers = \"4\"",
        &["t.toml:1:11: workers: \"4\" is a string other than \"auto\"; allowed"],
    );
    check("workers = true", &["t.toml:1:11: workers: true is a boolean; allowed: \"auto\" or"]);
}

#[test]
fn tables_of_the_wrong_shape_are_told() {
    check("limits = 5", &["t.toml:1:10: limits: it is an integer; allowed: a table, [limits]"]);
    check(
        "[listener]\nname = \"a\"",
        &["t.toml:1:1: listener: it is a table; allowed: tables with"],
    );
    check("listener = []", &["t.toml:1:12: listener: there is none; at least one is needed"]);
    check("listener = [1]", &["t.toml:1:13: listener[0]: it is an integer; allowed: a table"]);
    check("[[limits]]", &["t.toml:1:1: limits: it is an array; allowed: a table, [limits]"]);
    check("[workers]", &["t.toml:1:1: workers: it is a table; allowed: \"auto\" or"]);
}

#[test]
fn listeners_differ_in_name_and_address() {
    check(
        "[[listener]]\n\
         [[listener]]\n\
         name = \"main\"\n\
         address = \"0.0.0.0:8889\"\n",
        &[
            "t.toml:3:8: listener[1].name: \"main\" is already the name of listener[0]",
            "t.toml:4:11: listener[1].address: \"0.0.0.0:8889\" is already the address of",
        ],
    );
    check(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n",
        &[],
    );
}

#[test]
fn of_two_keys_that_contradict_each_other_the_written_one_is_at_fault() {
    check(
        "[metrics]\naddress = \"0.0.0.0:8889\"\n",
        &["t.toml:2:11: metrics.address: \"0.0.0.0:8889\" is also listener[0].address"],
    );
    check(
        "[[listener]]\naddress = \"127.0.0.1:9889\"\n",
        &["t.toml:2:11: listener[0].address: \"127.0.0.1:9889\" is also metrics.address"],
    );
    check(
        "[[listener]]\nmax_message_bytes = 3\n",
        &["t.toml:2:21: listener[0].max_message_bytes: 3 bytes are fewer than the exit word"],
    );
    check(
        "[[listener]]\nmax_message_bytes = 3\nexit_word = \"quit\"\n",
        &["t.toml:3:13: listener[0].exit_word: \"quit\" is longer than max_message_bytes (3)"],
    );
}

#[test]
fn keys_of_another_kind_of_address_are_refused_even_at_their_default() {
    check(
        "[[listener]]\nv6only = true\nunix_mode = \"0660\"\nunix_group = \"adm\"\n",
        &[
            "t.toml:2:1: listener[0].v6only: belongs only to an IPv6 address",
            "t.toml:3:1: listener[0].unix_mode: belongs only to a unix:/… address",
            "t.toml:4:1: listener[0].unix_group: belongs only to a unix:/… address",
        ],
    );
    // Which kind it should be is not known here, so that only the address is at fault.
    check(
        "[[listener]]\naddress = \"unix:x\"\nunix_mode = \"0660\"\n",
        &["t.toml:2:11: listener[0].address: \"unix:x\" is not an address: a Unix socket needs"],
    );
}

#[test]
fn what_could_not_be_read_makes_no_other_fault() {
    check(
        "[[listener]]\nname = 1\naddress = 2\nframing = 3\nmax_message_bytes = 70000\n\
         [[listener]]\nname = \"main\"\naddress = \"0.0.0.0:8889\"\n\
         [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:9889\"\n\
         [metrics]\naddress = 4\n",
        &[
            "t.toml:2:8: listener[0].name: 1 is an integer",
            "t.toml:3:11: listener[0].address: 2 is an integer",
            "t.toml:4:11: listener[0].framing: 3 is an integer",
            "t.toml:13:11: metrics.address: 4 is an integer",
        ],
    );
}

#[test]
fn unix_modes_are_octal_strings() {
    let unix = |mode: &str| format!("[[listener]]\naddress = \"unix:/x\"\nunix_mode = {mode}\n");
    for (mode, read) in [("\"0660\"", 0o660), ("\"777\"", 0o777), ("\"0000\"", 0)] {
        assert_eq!(read_text(&unix(mode)).config.listeners[0].unix_mode, Some(read));
    }
    for mode in ["\"0860\"", "\"66\"", "\"1777\"", "\"+660\"", "\"\"", "\"00660\""] {
        check(
            &unix(mode),
            &[&format!("t.toml:3:13: listener[0].unix_mode: {mode} is no file mode")],
        );
    }
    check(
        &unix("660"),
        &["t.toml:3:13: listener[0].unix_mode: 660 is an integer; allowed: a string"],
    );
}

#[test]
fn texts_keep_their_bounds() {
    check(
        "[[listener]]\nexit_word = \"a\\r\"\n",
        &["t.toml:2:13: listener[0].exit_word: \"a\\r\" cannot be an exit word; allowed: "],
    );
    let message = format!("[limits]\nfull_message = \"{}\"", "x".repeat(1025));
    check(&message, &["t.toml:2:16: limits.full_message: it has 1025 bytes; allowed: "]);
    let long = format!("[[listener]]\nname = \"{}\"", "x".repeat(1 << 16));
    let faults = read_text(&long).faults;
    assert!(faults[0].to_string().len() < 300, "{}", faults[0]);
}

#[test]
fn raw_framing_takes_at_most_64_kib() {
    check(
        "[[listener]]\nmax_message_bytes = 65537\n",
        &["t.toml:2:21: listener[0].max_message_bytes: 65537 is more than one receive takes"],
    );
    check("[[listener]]\nmax_message_bytes = 65537\nframing = \"line\"\n", &[]);
}

#[test]
fn a_zero_timeout_is_off_and_an_empty_metrics_address_too() {
    let config = read_text("[limits]\nidle_timeout = \"0s\"\n[metrics]\naddress = \"\"").config;
    assert!(config.limits.idle_timeout.is_zero());
    assert_eq!(config.metrics.address, None);
    check(
        "[metrics]\naddress = \"localhost:1\"",
        &["t.toml:2:11: metrics.address: \"localhost:1\" is"],
    );
}

#[test]
fn the_exit_word_is_off_with_a_responder_that_may_be_given_a_mail() {
    let exit_word = |responder: &str| {
        let responder = responder.to_owned();
        Listener { responder, ..Listener::default() }.exit_word().to_owned()
    };
    let words = ["echo", "discard", "rules", "mail"].map(exit_word);
    assert_eq!(words, ["exit", "exit", "", ""]);
}
