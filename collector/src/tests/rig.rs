//! A collector under test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weir_datastore::{
    Datastore, EndpointLoad, EndpointSpec, EndpointStatus, Failure, PoolId, PoolSnapshot, PoolSpec, Selector, datastore,
};

use super::eventually;
use crate::{Access, Activity, Collector, CollectorConfig, Restrict, WantedPool};

pub(super) struct Rig {
    pub(super) datastore: Datastore,
    pub(super) activity: Activity,
    wanted: watch::Sender<Arc<Vec<WantedPool>>>,
    registry: Registry,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// Reads often and gives up soon: tests wait for several scrapes.
pub(super) fn quick() -> CollectorConfig {
    CollectorConfig {
        busy_interval: Duration::from_millis(50),
        most_busy_reads: None,
        idle_interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        max_body_bytes: 256 * 1024,
        credentials_interval: Duration::from_millis(50),
    }
}

pub(super) fn endpoint(address: SocketAddr) -> EndpointSpec {
    EndpointSpec::standalone(address.into())
}

/// The pool `llama` with endpoints at `addresses`, read by whole pages.
pub(super) fn pool(addresses: &[SocketAddr]) -> WantedPool {
    let endpoints = addresses.iter().copied().map(endpoint).collect();
    let spec = PoolSpec { endpoints, ..PoolSpec::empty(pool_id()) };
    WantedPool { access: Access { restrict: Restrict::Never, ..Access::default() }, ..spec.into() }
}

pub(super) fn pool_id() -> PoolId {
    PoolId::new("default", "llama")
}

impl Rig {
    pub(super) fn start(config: CollectorConfig, pools: Vec<WantedPool>) -> Self {
        Self::start_with(config, pools, |_| ()).0
    }

    /// The same of a collector that `set_up` has changed, with what came of it.
    pub(super) fn start_with<T>(
        config: CollectorConfig,
        pools: Vec<WantedPool>,
        set_up: impl FnOnce(&mut Collector) -> T,
    ) -> (Self, T) {
        let (datastore, topology) = datastore();
        let mut registry = Registry::default();
        let mut collector = Collector::new(config, topology, &mut registry).unwrap();
        let set_up = set_up(&mut collector);
        let activity = collector.activity();
        let (wanted, receiver) = watch::channel(Arc::new(pools));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(collector.run(receiver, shutdown.clone()));
        (Self { datastore, activity, wanted, registry, shutdown, task }, set_up)
    }

    pub(super) fn want(&self, pools: Vec<WantedPool>) {
        self.wanted.send_replace(Arc::new(pools));
    }

    pub(super) fn snapshot(&self) -> Option<PoolSnapshot> {
        self.datastore.snapshot(&pool_id(), &Selector::everything(), Instant::now())
    }

    pub(super) fn status(&self, address: SocketAddr) -> Option<Arc<EndpointStatus>> {
        let snapshot = self.snapshot()?;
        let view = snapshot.endpoints.iter().find(|view| view.endpoint.spec.address.socket_address() == Some(address))?;
        Some(view.status.clone())
    }

    pub(super) fn load(&self, address: SocketAddr) -> Option<Arc<EndpointLoad>> {
        self.status(address)?.load.clone()
    }

    pub(super) fn running(&self, address: SocketAddr) -> Option<f64> {
        Some(self.load(address)?.running?.value)
    }

    pub(super) fn failure(&self, address: SocketAddr) -> Option<Failure> {
        self.status(address)?.failure.clone()
    }

    pub(super) async fn until_running(&self, address: SocketAddr, running: f64) {
        eventually("the value arrives", || self.running(address) == Some(running)).await;
    }

    pub(super) async fn until_failing(&self, address: SocketAddr) -> Failure {
        eventually("the endpoint fails", || self.failure(address).is_some()).await;
        self.failure(address).unwrap()
    }

    /// The value of a series on our own page.
    pub(super) fn metric(&self, series: &str) -> f64 {
        metric(&self.registry, series)
    }

    pub(super) fn scrapes(&self, outcome: &str) -> f64 {
        self.metric(&format!("weir_scrapes_total{{outcome=\"{outcome}\"}}"))
    }

    /// Stops the collector; nothing may hold it up.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(2), self.task).await.expect("the collector stops at once").unwrap();
        assert_eq!(metric(&self.registry, "weir_endpoints_watched"), 0.0);
    }
}

fn metric(registry: &Registry, series: &str) -> f64 {
    let mut page = String::new();
    encode(&mut page, registry).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}
