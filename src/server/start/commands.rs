//! How programs come into a server: found before anything is bound, given a worker to live with,
//! and proven before anybody is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Command, CommandMode, Config, Listener};
use crate::metrics::Instruments;
use crate::responder::Service;
use crate::server::command::{
    Ask, CommandError, Deliver, Desired, Exchange, Home, Inquiries, Keeper, KeeperThread, Plan,
    PoolLimits, Program, Proof, Proven, Relay, RelayPlan, Setup, tell_of_nobody,
};
use crate::server::failures::Failures;
use crate::wire::Framing;

use super::{Post, StartError, unless_zero};

/// Beyond what a pool lets anybody wait: a process that is to end is given 2 s, and no deadline of
/// a connection is looked at more often than each 50 ms.
const MARGIN: Duration = Duration::from_secs(5);

/// The programs of the listeners that have one, by their places in the config.
pub(super) type Programs = BTreeMap<usize, Arc<Program>>;

/// What programs bring into a server.
#[derive(Default)]
pub(super) struct Commands {
    /// For each worker, by the listeners' places in the config.
    pub(super) services: Vec<BTreeMap<usize, Service>>,
    pub(super) proofs: Vec<(String, Proven)>,
    pub(super) keeper: Option<KeeperThread>,
}

/// Finds every program, so that what could never start is said at once.
pub(super) fn find(config: &Config, instruments: &Instruments) -> Result<Programs, StartError> {
    let mut programs = Programs::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(command) = &listener.command else { continue };
        let counted = instruments.command(index);
        let count = move |lines| counted.standard_error_lines(lines);
        let program = Program::resolve(&listener.name, &Setup::of(command), count)
            .map_err(|error| failed(listener, error.into()))?;
        programs.insert(index, Arc::new(program));
    }
    Ok(programs)
}

/// Starts the keeper, if it is needed, and gives each shared program to one worker, in turn.
pub(super) fn settle(
    config: &Config,
    programs: Programs,
    posts: &mut [Post],
    instruments: &Arc<Instruments>,
    failures: &Arc<Failures>,
) -> Result<Commands, StartError> {
    let services = vec![BTreeMap::new(); posts.len()];
    if programs.is_empty() {
        return Ok(Commands { services, ..Commands::default() });
    }
    let (keeper, thread) = start_keeper(instruments.clone(), failures.clone())?;
    let mut commands = Commands { services, keeper: Some(thread), ..Commands::default() };
    for (turn, (index, program)) in programs.into_iter().enumerate() {
        let listener = &config.listeners[index];
        let Some(command) = &listener.command else { continue };
        let is_shared = command.mode == CommandMode::Shared;
        let at = turn % posts.len();
        let inquiries = Inquiries::with_room(most_inquiries(command));
        if is_shared {
            let seat = posts[at].seat.clone();
            let others = inquiries.deliver_from_others(move || seat.doorbell().ring());
            let service = |deliver| ask(desired(index, listener, command, deliver, instruments));
            let (home, others) = (service(inquiries.deliver()), service(others));
            for (worker, services) in commands.services.iter_mut().enumerate() {
                let service = if worker == at { &home } else { &others };
                services.insert(index, service.clone());
            }
        } else {
            for (post, services) in posts.iter_mut().zip(&mut commands.services) {
                let relays = relay_plan(index, listener, &keeper, instruments);
                let home = home(post)?;
                home.adopt_relays(index, relays);
                let exchange = exchange(index, listener, &program, &keeper, home, instruments);
                services.insert(index, relay(exchange));
            }
        }
        if is_shared || !command.self_test.is_empty() {
            let asked = match command.mode {
                CommandMode::Shared => program.clone(),
                CommandMode::PerConnection => {
                    Arc::new(Program::clone(&program).with(tell_of_nobody(&listener.address)))
                }
            };
            let plan = plan(index, listener, command, asked, instruments);
            let starts = if is_shared { command.min_processes } else { 0 };
            let (proof, proven) = Proof::new(starts, &command.self_test, command.self_test_timeout);
            let recorders = instruments.command_recorders(index);
            home(&mut posts[at])?.adopt(plan, keeper.clone(), recorders, proof, inquiries);
            commands.proofs.push((listener.name.clone(), proven));
        }
    }
    Ok(commands)
}

/// Whether each connection of it has a process of its own.
pub(super) fn is_relayed(listener: &Listener) -> bool {
    let command = listener.command.as_ref();
    command.is_some_and(|command| command.mode == CommandMode::PerConnection)
}

fn home(post: &mut Post) -> Result<&mut Home, StartError> {
    post.home().map_err(|source| StartError::System { what: "programs".to_owned(), source })
}

fn ask(desired: Desired) -> Service {
    let desired = Arc::new(desired);
    Service::Custom(Arc::new(move |_| Box::new(Ask::new(desired.clone()))))
}

fn relay(exchange: Exchange) -> Service {
    let exchange = Arc::new(exchange);
    Service::Custom(Arc::new(move |client| Box::new(Relay::new(exchange.clone(), client))))
}

fn exchange(
    index: usize,
    listener: &Listener,
    program: &Arc<Program>,
    keeper: &Keeper,
    home: &Home,
    instruments: &Instruments,
) -> Exchange {
    Exchange {
        listener: index,
        name: listener.name.clone(),
        program: program.clone(),
        instruments: instruments.command(index),
        keeper: keeper.clone(),
        reporter: home.reporter(),
        notes: home.notes(),
        terminator: match listener.framing {
            Framing::Line => "\n",
            Framing::Raw => "",
        },
    }
}

fn relay_plan(
    index: usize,
    listener: &Listener,
    keeper: &Keeper,
    instruments: &Instruments,
) -> RelayPlan {
    RelayPlan {
        name: listener.name.clone(),
        instruments: instruments.command(index),
        keeper: keeper.clone(),
        reply_timeout: listener.reply_timeout,
    }
}

/// Waits until every program has shown that it serves.
pub(super) fn await_proofs(proofs: Vec<(String, Proven)>) -> Result<(), StartError> {
    for (listener, proven) in proofs {
        // Without an outcome the worker has panicked, which says itself.
        let outcome = proven.recv().unwrap_or_else(|_| {
            Err(CommandError::Start { problem: "its worker has ended".to_owned() })
        });
        outcome.map_err(|source| StartError::Command { listener, source })?;
    }
    Ok(())
}

fn start_keeper(
    instruments: Arc<Instruments>,
    failures: Arc<Failures>,
) -> Result<(Keeper, KeeperThread), StartError> {
    let max_connections =
        usize::try_from(instruments.connections_limit.get()).unwrap_or(usize::MAX);
    let panicked = move || {
        instruments.worker_panics.inc();
        failures.note(Instant::now())
    };
    Keeper::start(max_connections, panicked)
        .map_err(|source| StartError::System { what: "thread processes".to_owned(), source })
}

/// What its pool can have in hand and in its queue; more on the way there would be refused anyhow.
fn most_inquiries(command: &Command) -> usize {
    command.max_queue + command.max_processes * command.pipeline
}

fn desired(
    index: usize,
    listener: &Listener,
    command: &Command,
    deliver: Deliver,
    instruments: &Instruments,
) -> Desired {
    Desired {
        deliver,
        within: command.queue_timeout + listener.reply_timeout + MARGIN,
        overload_reply: command.overload_reply.clone(),
        instruments: instruments.command(index),
    }
}

fn plan(
    index: usize,
    listener: &Listener,
    command: &Command,
    program: Arc<Program>,
    instruments: &Instruments,
) -> Plan {
    Plan {
        listener: index,
        name: listener.name.clone(),
        program,
        limits: PoolLimits {
            min_processes: match command.mode {
                CommandMode::Shared => command.min_processes,
                CommandMode::PerConnection => 0,
            },
            max_processes: command.max_processes,
            pipeline: command.pipeline,
            max_queue: command.max_queue,
            queue_timeout: unless_zero(command.queue_timeout),
            reply_timeout: Some(listener.reply_timeout),
            idle_timeout: unless_zero(command.process_idle_timeout),
            max_requests: (command.max_requests > 0).then_some(command.max_requests),
            restart_delay: command.restart_delay,
            max_restart_delay: command.max_restart_delay,
        },
        is_trial: command.mode == CommandMode::PerConnection,
        max_reply_bytes: command.max_reply_bytes,
        overload_reply: command.overload_reply.clone(),
        instruments: instruments.command(index),
    }
}

fn failed(listener: &Listener, source: CommandError) -> StartError {
    StartError::Command { listener: listener.name.clone(), source }
}
