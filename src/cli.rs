//! The commands. Each is a file; this one only chooses.

mod check;
mod connect;
mod log;
mod options;
mod serve;
mod try_rules;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code: could not run, as for an address that is taken, permission or i/o.
const EXIT_FAILED: u8 = 1;
/// Exit code: a usage or configuration error.
const EXIT_CONFIG: u8 = 2;
/// The server gave up on itself (sysexits' internal software error).
const EXIT_GAVE_UP: u8 = 70;

/// A multithreaded TCP text server that you configure instead of write, and its client.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, until Ctrl-C or SIGTERM.
    Serve(options::Options),
    /// Validate the configuration; print each value, where it came from, and what will bite.
    Check(options::Options),
    Connect(connect::Arguments),
    Try(try_rules::Arguments),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    match usage::arguments().command {
        Command::Serve(options) => serve::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Connect(arguments) => connect::run(&arguments),
        Command::Try(arguments) => try_rules::run(&arguments),
    }
}
