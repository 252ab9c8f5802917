//! The APIServices by which the API server finds this adapter: whose they are, and the authority they trust.
//!
//! There is one APIService per group and version, so one backend in a cluster. What belongs to another Service is left to it
//! unless taking over was asked for; what is ours is kept true, also when somebody overwrites it.
//!
//! - `judge`: what to do about an APIService as it is now. Nothing there talks to anyone.
//! - `keeper`: one APIService followed and written.
//!
//! Only `spec.caBundle` is weir's (merge patch, field manager `weir`): manifests that leave it out can be applied again by any
//! tool without taking it away.

mod judge;
mod keeper;
mod metrics;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::GroupVersion;
use keeper::Keeper;
use metrics::RegistrationMetrics;

/// Who serves what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistrationSettings {
    /// The Service in front of this adapter.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port, 443 by default at the API server.
    pub port: u16,
    /// What it serves, [`crate::AdapterConfig::versions`].
    pub versions: Vec<GroupVersion>,
    /// Whether an APIService of another Service is pointed here.
    pub take_over: bool,
    /// Whether an APIService that is absent is created. Otherwise the install manifests bring it.
    pub create: bool,
}

/// What clients must trust, as it changes; none in it means: not known yet.
pub type Bundle = watch::Receiver<Option<Arc<str>>>;

/// Keeps the APIServices.
#[derive(Debug)]
pub struct Registration {
    settings: Arc<RegistrationSettings>,
    metrics: RegistrationMetrics,
}

impl Registration {
    /// Its metrics go into `registry`.
    pub fn new(settings: RegistrationSettings, registry: &mut Registry) -> Self {
        Self { settings: Arc::new(settings), metrics: RegistrationMetrics::register(registry) }
    }

    /// Follows the APIServices until `stop`. With a `bundle` they are made to trust it; without one (certificate files) their
    /// `caBundle` is left to whoever made the files.
    pub async fn run(self, client: Client, bundle: Option<Bundle>, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for version in self.settings.versions.iter().copied() {
            let keeper = Keeper::new(client.clone(), Arc::clone(&self.settings), version, bundle.clone(), self.metrics.clone());
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(keeper.run()).await });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an APIService is no longer kept");
            }
        }
    }
}
