//! `talkback connect`: standard input to a server, its replies to standard output.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use talkback::client::{self, Address, Manner, Sending};

/// Talk to a server: lines from standard input go out, replies come to standard output.
///
/// At the end of input the remaining replies are awaited. Ends with 0 when the server closes, with
/// 1 when it cannot be reached or resets the connection.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// HOST:PORT, [IPv6]:PORT, unix:/path or unix:@name, as in 127.0.0.1:8889
    address: Address,

    /// Send each line without its ending, and the next only after a reply: for a server that takes
    /// what one receive returns for a message
    #[arg(short, long)]
    no_newline: bool,
}

/// Holds the conversation. A failure is one line on standard error.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let stream = match client::connect(&arguments.address) {
        Ok(stream) => stream,
        Err(error) => return failed(&error),
    };
    let sending = if arguments.no_newline { Sending::LinesInTurn } else { Sending::Bytes };
    let output = io::stdout();
    let manner = Manner { sending, finish_lines: output.is_terminal() };
    match client::converse(stream, io::stdin(), output, manner) {
        Ok(_end) => ExitCode::SUCCESS,
        Err(error) => failed(&format_args!("{}: {error}", arguments.address)),
    }
}

fn failed(error: &dyn Display) -> ExitCode {
    // Where standard error is gone too, the exit code has to do.
    let _ = writeln!(io::stderr(), "talkback: {error}");
    ExitCode::FAILURE
}
