//! `talkback check`: what each value is, where it came from, and what of it will bite on this host.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit};
use talkback::config::{Config, Effect, Host, Loaded, Origin, Warning};
use talkback::server::program_faults;

use super::options::Options;
use super::{EXIT_CONFIG, EXIT_FAILED};

/// Prints the report; every fault of the configuration goes to standard error, a line each.
pub(crate) fn run(options: &Options) -> ExitCode {
    let loaded = match options.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            // Whoever does not read it still has the exit code.
            let _ = writeln!(io::stderr(), "{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match report(&mut io::stdout().lock(), &loaded, &this_host(read_somaxconn)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        // `check | head` has read what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot write the report: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The facts that the warnings need; one that cannot be had is left out.
pub(crate) fn this_host(somaxconn: impl FnOnce() -> io::Result<String>) -> Host {
    Host {
        somaxconn: somaxconn().ok().and_then(|text| text.trim().parse().ok()),
        // No hard limit at all is more than any number of connections.
        descriptors: Some(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)),
        workers: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// net.core.somaxconn of this network namespace.
pub(crate) fn read_somaxconn() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
}

/// Whether the server would start on this host.
fn report(out: &mut impl Write, loaded: &Loaded, host: &Host) -> io::Result<bool> {
    writeln!(out, "configuration: {}", loaded.source)?;
    writeln!(out)?;
    let settings = loaded.config.settings();
    let width = |text: &str| text.chars().count();
    let keys = settings.iter().map(|setting| width(&setting.key)).max().unwrap_or(0);
    let values = settings.iter().map(|setting| width(&setting.value)).max().unwrap_or(0).min(40);
    for setting in &settings {
        let origin = loaded.origins.of(&setting.key);
        writeln!(out, "{:keys$}  {:values$}  {origin}", setting.key, setting.value)?;
    }
    writeln!(out)?;
    let mut warnings = loaded.config.warnings(host);
    warnings.extend(variables_that_are_not_set(loaded));
    warnings.extend(programs_that_cannot_be_run(&loaded.config));
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let starts = warnings.iter().all(|warning| warning.effect != Effect::Refuses);
    match warnings.len() {
        _ if !starts => writeln!(out, "not ok: the server will not start on this host"),
        0 => writeln!(
            out,
            "ok: no warnings (addresses, a Unix socket's directory and group, and self tests are \
             tried by `serve` alone)"
        ),
        1 => writeln!(out, "ok, with 1 warning"),
        count => writeln!(out, "ok, with {count} warnings"),
    }?;
    Ok(starts)
}

/// Variables that a program is to have from this process, which has none of that name: most often a
/// slip. PATH, which is passed on where nobody says anything, is not told of.
pub(crate) fn variables_that_are_not_set(loaded: &Loaded) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, listener) in loaded.config.listeners.iter().enumerate() {
        let key = format!("listener[{index}].command.environment");
        let is_written = loaded.origins.of(&key) != Origin::Default;
        let Some(command) = listener.command.as_ref().filter(|_| is_written) else { continue };
        let passed_on = command.environment.iter().filter(|entry| !entry.contains('='));
        for name in passed_on.filter(|name| env::var_os(name).is_none()) {
            let text = format!(
                "{name:?} is not set here, and the program will not have it; set it, write \
                 \"{}=value\", or leave it out",
                name.escape_debug()
            );
            warnings.push(Warning { key: key.clone(), text, effect: Effect::Runs });
        }
    }
    warnings
}

/// What a start would refuse.
fn programs_that_cannot_be_run(config: &Config) -> impl Iterator<Item = Warning> {
    program_faults(config).into_iter().map(|(key, error)| {
        let text = format!("{error}; the server will refuse to start");
        Warning { key, text, effect: Effect::Refuses }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use talkback::config::{Environment, Overrides, load};

    fn reported(backlog: u32) -> String {
        let overrides = Overrides { workers: Some("3".to_owned()), ..Overrides::default() };
        let mut loaded = load(&overrides, &Environment::default()).expect("the defaults load");
        loaded.config.listeners[0].backlog = backlog;
        let host = Host { somaxconn: Some(4096), descriptors: None, workers: 2 };
        let mut out = Vec::new();
        report(&mut out, &loaded, &host).expect("a vector takes everything");
        String::from_utf8(out).expect("the report is text")
    }

    #[test]
    fn every_value_stands_in_line_with_its_origin() {
        let report = reported(4096);
        assert!(report.starts_with("configuration: built-in defaults\n\n"), "{report}");
        let column = |key: &str, origin: &str| {
            let line =
                report.lines().find(|line| line.starts_with(key)).expect("a line of the key");
            line.rfind(origin).expect("its origin")
        };
        let workers = column("workers ", "--workers");
        assert_eq!(workers, column("listener[0].address ", "default"));
        assert_eq!(workers, column("log.connections ", "default"));
        assert!(
            report.ends_with(
                "\nok: no warnings (addresses, a Unix socket's directory and group, and self tests \
                 are tried by `serve` alone)\n"
            ),
            "{report}"
        );
    }

    #[test]
    fn warnings_stand_behind_the_values() {
        let report = reported(4097);
        assert!(report.contains("\nwarning: listener[0].backlog: 4097 is above"), "{report}");
        assert!(report.ends_with("\nok, with 1 warning\n"), "{report}");
    }

    #[test]
    fn a_fact_that_cannot_be_had_is_left_out() {
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(this_host(denied).somaxconn, None);
        assert_eq!(this_host(|| Ok("4096\n".to_owned())).somaxconn, Some(4096));
        assert_eq!(this_host(|| Ok("many".to_owned())).somaxconn, None);
    }
}
