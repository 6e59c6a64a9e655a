//! Listeners with programs, and clients that bring out what the metrics tell of them: one that
//! answers, says something else and dies, one that hangs, one that dies at once, and one that
//! cannot be run at all.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Client, Server};

/// Answers, dies, says something else, or hangs, as it is told.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rot/program.py");
/// More than may wait while its only process hangs.
const CROWD: usize = 6;

/// Where these listeners are, as they stand in the configuration.
pub struct Places {
    pub answers: SocketAddr,
    pub hangs: SocketAddr,
    pub dies: SocketAddr,
    pub unfit: SocketAddr,
}

/// The listeners; what they need is made in this directory.
pub fn listeners(directory: &Path) -> String {
    // Found and executable, and yet no program: what only a start can tell.
    let unfit = directory.join("unfit");
    fs::write(&unfit, "no program").unwrap();
    fs::set_permissions(&unfit, Permissions::from_mode(0o700)).unwrap();
    let listener = |name: &str, program: &str, keys: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nframing = \"line\"\n\
             responder = \"command\"\nreply_timeout = \"2s\"\n\
             [listener.command]\nprogram = {program}\n{keys}\n"
        )
    };
    let answers = format!("[\"python3\", \"-u\", \"{PROGRAM}\"]");
    let one = "max_processes = 1\nmax_queue = 4\nqueue_timeout = \"3s\"";
    let none_yet = "min_processes = 0\nrestart_delay = \"1ms\"\nmax_restart_delay = \"1s\"";
    listener("answers", &answers, one)
        + &listener("hangs", &answers, one)
        + &listener("dies", "[\"false\"]", none_yet)
        + &listener("unfit", &format!("[\"{}\"]", unfit.display()), none_yet)
}

/// Asks each of them, and returns the clients whose answers are still to come.
#[track_caller]
pub fn ask(places: &Places) -> Vec<Client> {
    let mut client = Client::connect(places.answers);
    for said in ["hello\n", "say\n"] {
        client.send(said);
        client.expect(said);
    }
    client.send("die\n");
    let mut hang = Client::connect(places.hangs);
    hang.send("hang\n");
    let mut clients = vec![client, hang];
    let crowd = [places.hangs; CROWD].into_iter().chain([places.dies, places.unfit]);
    for place in crowd {
        let mut client = Client::connect(place);
        client.send("hello\n");
        clients.push(client);
    }
    clients
}

/// All of it has happened once.
#[track_caller]
pub fn await_all(server: &Server) {
    server.eventually("every program has done what it does", |metrics| {
        ["timeouts", "refused", "start_failures", "ends", "standard_error_lines"]
            .iter()
            .all(|name| metrics.sum(&format!("talkback_command_{name}_total")) > 0.0)
            && metrics.sum("talkback_command_circuit_open") > 0.0
    });
}
