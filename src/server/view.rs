//! What others see of a running server: the pages of the sidecar, and what they are made of.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use crate::config::Config;
use crate::metrics::Instruments;
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
        let (metrics, ready) = (self.clone(), self.lifecycle.clone());
        let listeners = config.listeners.iter().map(|listener| listener.name.clone()).collect();
        let inspector = Inspector::new(self.pool.clone(), self.lifecycle.clone(), listeners);
        let (answered, refused) = (self.instruments.clone(), self.instruments.clone());
        let watch = Watch {
            metrics: Box::new(move || metrics.metrics()),
            connections: Box::new(move |query| inspector.page(query)),
            access: inspect::access(&config.metrics),
            ready: Box::new(move || !ready.is_stopping()),
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
