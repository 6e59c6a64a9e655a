//! `talkback try`: rules answer what a person types, and every answer says which rule it came from
//! and why no other one gave it. No socket is opened.

mod session;
mod shown;

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use talkback::ClientText;
use talkback::config::{Scripted, load_rules};

use super::{EXIT_CONFIG, EXIT_FAILED};
use session::Session;

/// No message that a person tries is longer; a device named by mistake is not read to its end.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Try rules out: each line of standard input is a message; shown is which rule answers and why,
/// what is sent, and what becomes of the state.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A rules file, or a configuration with rules in it
    file: PathBuf,

    /// Those of this listener, where several have some
    #[arg(short, long, value_name = "NAME")]
    listener: Option<String>,

    /// Tell of every rule passed over, also of those for other texts
    #[arg(short, long)]
    verbose: bool,
}

/// Answers standard input until its end; every fault of the file goes to standard error, a line
/// each.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let chosen = match choose(arguments) {
        Ok(chosen) => chosen,
        Err(problem) => {
            // Whoever does not read it still has the exit code.
            let _ = writeln!(io::stderr(), "{problem}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match converse(arguments, &chosen, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // `try | head` has read what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "talkback: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The rules that are meant, or what is wrong with the file or with the choice.
fn choose(arguments: &Arguments) -> Result<Scripted, String> {
    let mut found = load_rules(&arguments.file).map_err(|error| error.to_string())?;
    let file = arguments.file.display();
    let name = |scripted: &Scripted| scripted.listener.as_ref().map(|one| one.name.clone());
    let names: Vec<String> = found.iter().filter_map(name).collect();
    match &arguments.listener {
        Some(_) if !found.is_empty() && names.is_empty() => {
            return Err(format!("{file}: --listener: this is a rules file, without listeners"));
        }
        Some(wanted) => found.retain(|scripted| name(scripted).as_ref() == Some(wanted)),
        None => {}
    }
    match (found.len(), names.as_slice()) {
        (1, _) => Ok(found.remove(0)),
        (_, []) => Err(format!("{file}: no listener of it has rules")),
        (0, _) => Err(format!("{file}: --listener: rules have {}", names.join(", "))),
        _ => Err(format!("{file}: choose with --listener: rules have {}", names.join(", "))),
    }
}

fn converse(arguments: &Arguments, chosen: &Scripted, out: &mut impl Write) -> io::Result<()> {
    let mut input = io::stdin().lock();
    let is_typed = io::stdin().is_terminal();
    let of = match &chosen.listener {
        Some(listener) => format!(" of listener \"{}\"", listener.name),
        None => String::new(),
    };
    let count = chosen.book.rules.len();
    writeln!(out, "{}: {}{of}", arguments.file.display(), shown::counted(count, "rule"))?;
    if is_typed {
        writeln!(out, "each line is a message; the end of input (Ctrl-D) ends this")?;
    }
    let mut session = Session::open(chosen, arguments.verbose, out)?;
    loop {
        if is_typed {
            write!(out, "\n> ")?;
            out.flush()?;
        }
        let mut line = Vec::new();
        (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return if is_typed { writeln!(out) } else { Ok(()) };
        }
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            let problem = format!("a line of {MAX_LINE_BYTES} bytes or more is no message");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        let message = line.strip_suffix(b"\n").unwrap_or(&line);
        let message = message.strip_suffix(b"\r").unwrap_or(message);
        if !is_typed {
            writeln!(out, "\n> {}", ClientText::new(message).at_most(usize::MAX))?;
        }
        session.answer(message, out)?;
    }
}
