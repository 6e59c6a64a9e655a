//! What others see of a running server: the pages of the sidecar, and what they are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::info;

use crate::config::Config;
use crate::metrics::{CommandInstruments, Instruments};
use crate::sidecar::{Sidecar, SidecarError, Watch};

use super::accept::Gate;
use super::inspect::{self, Inspector};
use super::lifecycle::Lifecycle;
use super::pool::Pool;

/// Everything that can be read of a server while it runs. Clones see the same server.
#[derive(Clone)]
pub(super) struct View {
    pub(super) instruments: Arc<Instruments>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) pool: Pool,
    /// By the index of the listener.
    pub(super) gates: Arc<[Arc<Gate>]>,
    pub(super) readiness: Arc<Readiness>,
}

/// What stands against newcomers, beside a stop.
pub(super) struct Readiness {
    has_begun: AtomicBool,
    /// Of the listeners with a program: their names, and what is counted of their processes.
    commands: Vec<(String, Arc<CommandInstruments>)>,
}

impl Readiness {
    pub(super) fn new(config: &Config, instruments: &Instruments) -> Self {
        let listeners = config.listeners.iter().enumerate();
        let commands = listeners
            .filter(|(_, listener)| listener.command.is_some())
            .map(|(index, listener)| (listener.name.clone(), instruments.command(index)));
        Self { has_begun: AtomicBool::new(false), commands: commands.collect() }
    }

    /// Everybody is served from now on.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), String> {
        if !self.has_begun.load(Ordering::Acquire) {
            return Err("starting".to_owned());
        }
        let broken = self.commands.iter().find(|(_, command)| command.is_circuit_open());
        broken.map_or(Ok(()), |(name, command)| {
            let trouble = command.trouble();
            Err(format!("listener {name}: {trouble}; it is tried again, see the log"))
        })
    }
}

impl View {
    /// The page of `/metrics` as of now.
    pub(super) fn metrics(&self) -> Vec<u8> {
        let now = Instant::now();
        self.instruments.render(
            |worker| self.pool.seats()[worker].reading(now),
            |listener| self.gates[listener].reading(),
        )
    }

    /// Starts the sidecar, if the config wants one.
    pub(super) fn serve(&self, config: &Config) -> Result<Option<Sidecar>, SidecarError> {
        let Some(address) = config.metrics.address else { return Ok(None) };
        let (metrics, ready) = (self.clone(), self.clone());
        let listeners = config.listeners.iter().map(|listener| listener.name.clone()).collect();
        let inspector = Inspector::new(self.pool.clone(), self.lifecycle.clone(), listeners);
        let (answered, refused) = (self.instruments.clone(), self.instruments.clone());
        let watch = Watch {
            metrics: Box::new(move || metrics.metrics()),
            connections: Box::new(move |query| inspector.page(query)),
            access: inspect::access(&config.metrics),
            ready: Box::new(move || match ready.lifecycle.is_stopping() {
                true => Err("draining".to_owned()),
                false => ready.readiness.check(),
            }),
            answered: Box::new(move |scrape| {
                answered.count_scrape(scrape.page.label(), scrape.code.label());
            }),
            rejected: Box::new(move |reason| refused.count_scrape_rejected(reason.label())),
        };
        let sidecar = Sidecar::start(address, watch)?;
        info!(address = %sidecar.address(), "metrics on /metrics");
        Ok(Some(sidecar))
    }
}
