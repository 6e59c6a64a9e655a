//! Programs that answer: real ones, shared by all clients of a listener or one for each.

mod circuit;
mod own_ends;
mod panics;
mod per_connection;
mod shared;
mod trouble;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Metrics, Server, eventually};

/// A program in Python, as a TOML list. It reads lines; `body` is done with each `line`.
fn python(body: &str) -> String {
    python_at_the_end(body, "")
}

/// The same, and `last` is done at the end of its input.
fn python_at_the_end(body: &str, last: &str) -> String {
    let body: Vec<String> = body.lines().map(|line| format!("    {line}")).collect();
    let program = format!(
        "import os, sys, time\nfor line in sys.stdin:\n    line = line.rstrip('\\n')\n{}\n{last}",
        body.join("\n")
    );
    format!("[\"python3\", \"-u\", \"-c\", {program:?}]")
}

/// A program of the shell, which starts sooner than Python.
fn sh(script: &str) -> String {
    format!("[\"sh\", \"-c\", {script:?}]")
}

/// What a script of the shell does to take its time: this many seconds, in the script's group.
fn pause(seconds: f64) -> String {
    format!("timeout --foreground {seconds} tail -f /dev/null")
}

/// Says what it was told, and who says it.
fn echo() -> String {
    python("print(line, os.getpid())")
}

/// A config with one listener and this program, `listener` and `command` being more of their keys.
fn config(program: &str, listener: &str, command: &str) -> String {
    format!(
        "workers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\nresponder = \"command\"\n\
         {listener}\n[listener.command]\nprogram = {program}\n{command}\n"
    )
}

fn shared(program: &str, command: &str) -> Server {
    Server::start(&config(program, "framing = \"line\"", command))
}

fn processes(metrics: &Metrics, state: &str) -> f64 {
    metrics.get(&format!("talkback_command_processes{{listener=\"main\",state=\"{state}\"}}"))
}

fn ends(metrics: &Metrics, reason: &str) -> f64 {
    metrics.get(&format!("talkback_command_ends_total{{listener=\"main\",reason=\"{reason}\"}}"))
}

fn refused(metrics: &Metrics, reason: &str) -> f64 {
    metrics.get(&format!("talkback_command_refused_total{{listener=\"main\",reason=\"{reason}\"}}"))
}

fn of_main(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(&format!("talkback_command_{name}{{listener=\"main\"}}"))
}

/// Whether a process of that number is there, and is no zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[track_caller]
fn eventually_gone(pid: u32) {
    eventually(format_args!("process {pid} is gone"), || !lives(pid));
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Writes a program that anybody may execute.
fn script(path: &Path, text: &str) {
    // Not by this process: what it has open for writing, a test that forks has open too.
    let write = "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let mut shell = std::process::Command::new("sh");
    assert!(shell.args(["-c", write]).arg(path).arg(text).status().unwrap().success());
}
