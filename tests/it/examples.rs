//! Every file of `config/examples`, served as it stands but for its port, to clients that nobody
//! here wrote.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::{PATIENCE, Server};

/// Debian's packages are modules of Debian's own Python, which need not be the first on the PATH.
const DEBIANS_PYTHON: &str = "/usr/bin/python3";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The example with a port that the kernel picks.
#[track_caller]
fn serve(example: &str) -> Server {
    let text = fs::read_to_string(file("config/examples").join(example)).unwrap();
    let address = "\naddress = \"127.0.0.1:";
    let (before, rest) = text.split_once(address).expect("it listens on loopback alone");
    let behind = rest.trim_start_matches(|character: char| character.is_ascii_digit());
    Server::start(&format!("{before}{address}0{behind}"))
}

/// What the client does with this input; one that hangs is ended.
fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(program).args(arguments);
    command.env("PYTHONUTF8", "1").env_remove("REDISCLI_AUTH");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A client that does not read its input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What the client prints, which must succeed.
#[track_caller]
fn printed(program: &str, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a script beside this file prints, which talks to the server.
#[track_caller]
fn script(python: &str, name: &str, server: &Server) -> String {
    let path = file("tests/it/examples").join(name);
    let port = server.address().port().to_string();
    printed(python, &[path.to_str().unwrap(), &port], "")
}

#[test]
fn pyvisa_sets_and_reads_the_simulated_power_supply() {
    let server = serve("scpi-power-supply.toml");
    assert_eq!(
        script(DEBIANS_PYTHON, "pyvisa_supply.py", &server),
        "identity TALKBACK,PS-3005,SN0001,1.0\n\
         at rest 0.000 0.000 0\n\
         set 12.5 2\n\
         off 0.000 0.000\n\
         done 1\n\
         on 1 12.5\n\
         drawn True\n\
         error -222,\"Data out of range\"\n\
         and then 0,\"No error\"\n\
         error -113,\"Undefined header\"\n\
         unchanged 12.5\n\
         another 0.000\n\
         off 0.000\n"
    );
    server.eventually_closed(&[("peer_closed", 2)]);
}

#[test]
fn smtplib_delivers_mails_to_the_sink_whatever_stands_in_them() {
    let server = serve("smtp-sink.toml");
    assert_eq!(
        script("python3", "smtplib_sink.py", &server),
        "hello 250 b'sink.example greets tester.example\\n8BITMIME\\nSMTPUTF8\\nSIZE 10485760'\n\
         size 10485760\n\
         plain {}\n\
         hostile {}\n\
         long {}\n\
         one refused ['nobody@example.org']\n\
         all refused (550, b'5.1.1 nobody lives here')\n\
         out of turn 503 b'5.5.1 not now'\n\
         unknown 500 b'5.5.2 not known here'\n\
         verify 252 b'2.5.2 try it'\n\
         bye 221 b'2.0.0 good bye'\n\
         old hello 250 b'sink.example greets old.example'\n\
         plain {}\n"
    );
    server.eventually_closed(&[("responder_closed", 2)]);
    // The lines of the mails, which get no reply.
    let metrics = server.metrics();
    let silent = metrics.sum("talkback_messages_total") - metrics.sum("talkback_replies_total");
    assert!(silent > 5000.0, "{metrics}");
}

#[test]
fn poplib_reads_and_deletes_the_one_mail_of_the_mailbox() {
    let server = serve("pop3-mailbox.toml");
    assert_eq!(
        script("python3", "poplib_mailbox.py", &server),
        "welcome +OK one mail at most\n\
         can ['TOP', 'UIDL', 'USER']\n\
         guessed b'-ERR no'\n\
         in +OK come in, you\n\
         stat 1\n\
         list True [b'1 talkback-1']\n\
         size True\n\
         mail Ada <ada@example.org> | One mail\n\
         It comes from a rule, as long as the size says.\n\
         .A line that begins with a dot travels with two of them.\n\
         再见\n\
         head True\n\
         gone +OK deleted\n\
         stat 0 0 []\n\
         gone b'-ERR no such message'\n\
         back +OK nothing deleted 1\n\
         bye +OK good bye\n\
         again 1\n"
    );
    server.eventually_closed(&[("responder_closed", 2)]);
}

#[test]
fn redis_cli_gets_its_pong() {
    let server = serve("redis-ping.toml");
    let port = server.address().port().to_string();
    let cli = |arguments: &[&str], input: &str| {
        printed("redis-cli", &[&["-h", "127.0.0.1", "-p", &port], arguments].concat(), input)
    };
    assert_eq!(cli(&["PING"], ""), "PONG\n");
    assert_eq!(cli(&["ping", "再见 $5"], ""), "再见 $5\n");
    // Words that could be taken for what stands between words.
    for word in ["*1", "$4", "PING", ""] {
        assert_eq!(cli(&["ECHO", word], ""), format!("{word}\n"));
    }
    server.eventually_closed(&[("peer_closed", 6)]);
    // It asks here which commands there are, is refused, and comes again.
    assert_eq!(cli(&[], "PING\nECHO hello\nPING\n"), "PONG\nhello\nPONG\n");
    let refused = cli(&["GET", "x"], "");
    assert_eq!(refused.trim(), "ERR this one only knows PING, ECHO and QUIT");
    // The same by hand.
    let mut client = server.connect();
    client.send("ping\r\nPING\nquit\n");
    client.expect("+PONG\r\n+PONG\r\n+OK\r\n");
    client.expect_end();
}

#[test]
fn every_example_passes_check_and_is_served_to_a_client_by_a_test() {
    let tests = include_str!("examples.rs");
    let mut examples = 0;
    for entry in fs::read_dir(file("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(tests.contains(&format!("serve(\"{name}\")")), "no client talks to {name}");
        let program = env!("CARGO_BIN_EXE_talkback");
        let path = path.to_str().unwrap();
        let report = printed(program, &["check", "--config", path], "");
        let rules = report.lines().find(|line| line.starts_with("listener[0].rules")).unwrap();
        assert!(rules.contains(" rules ") && rules.contains(path), "{rules}");
        let tried = printed(program, &["try", path], "");
        assert!(tried.starts_with(&format!("{path}: ")), "{tried}");
        examples += 1;
    }
    assert_eq!(examples, 4);
}

/// The README's block of this kind that begins like this.
fn readme(kind: &str, begin: &str) -> String {
    let readme = fs::read_to_string(file("README.md")).unwrap();
    let mut blocks = readme.split("\n```");
    let block = blocks.find_map(|block| {
        let block = block.strip_prefix(kind)?.strip_prefix('\n')?;
        block.starts_with(begin).then(|| format!("{block}\n"))
    });
    block.unwrap_or_else(|| panic!("no {kind} block begins with {begin}"))
}

#[test]
fn the_readmes_words_of_try_are_those_of_the_program() {
    let transcript = readme("text", "$ echo '");
    let (command, told) = transcript.split_once('\n').unwrap();
    let (message, path) = command
        .strip_prefix("$ echo '")
        .and_then(|rest| rest.split_once("' | talkback try "))
        .expect("a message and a file");
    let mut command = Command::new("sh");
    let script = format!("echo '{message}' | '{}' try {path}", env!("CARGO_BIN_EXE_talkback"));
    let output = command.args(["-c", &script]).current_dir(file("")).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), told);
}

#[test]
fn the_readmes_rules_answer_as_it_says() {
    let rules = readme("toml", "[[listener]]\nframing = \"line\"\nresponder = \"rules\"");
    let server =
        Server::start(&rules.replace("[[listener]]", "[[listener]]\naddress = \"127.0.0.1:0\""));
    let mut client = server.connect();
    client.send("VOLT?\nVOLT 12\nVOLT?\n");
    client.expect("0\n12\n");
}
