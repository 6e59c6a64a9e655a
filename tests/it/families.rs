//! A page of metrics on which every family stands, those of programs too: without a listener that
//! has one a server shows none of them.

use talkback::metrics::Instruments;

use crate::harness::Server;

pub fn page() -> String {
    let server = Server::with_listener("");
    let instruments = Instruments::new([("main", true)], 0, &[], &[]).unwrap();
    instruments.command(0);
    let rendered = instruments.render(|_| unreachable!("there is no worker"), |_| None);
    let rendered = String::from_utf8(rendered).unwrap();
    let of_programs = rendered.lines().filter(|line| line.contains("talkback_command_"));
    server.get("/metrics").1 + &of_programs.map(|line| format!("{line}\n")).collect::<String>()
}
