//! Discovery in a cluster: InferencePools of both groups, the pods that they select, the pods of their pickers; what users say about
//! requests.
//!
//! There is one watch per kind of object, not per pool. What they tell meets in one index, which makes up anew the pools that a
//! change touches, at most every 100 ms, and hands them over as [`WantedPool`](crate::WantedPool)s, as `pools.yaml` would. Whatever happens to the API
//! server, what was known last stays; a list is taken whole or not at all.
//!
//! 1. [`KubeDiscovery`], [`KubeDiscoveryConfig`] (`config`).
//! 2. `contact`, `follow`: the client of one watch, with its health seen; one watch, from list to change.
//! 3. `pods`, `starts`, `services`, `pools`: what is kept of each kind, and what of it a change touches.
//! 4. `annotations`, `pickers`, `build`: from a pool and what it selects to what is wanted.
//! 5. `rules`: [`RequestRules`], the objects that speak of requests.
//! 6. `promise`, `scaling`: [`Promise`], whether an autoscaler brings a pool back from zero.
//! 7. `problems`, `index`: what is wrong with which object; all of it together.

mod annotations;
mod build;
mod config;
mod contact;
mod follow;
mod index;
mod metrics;
mod pickers;
mod pods;
mod pools;
mod problems;
mod promise;
mod rules;
mod scaling;
mod services;
mod starts;

pub use self::config::{KubeDiscoveryConfig, PickerPages, PodMetrics, PodsScope, PoolGroups, Scope};
pub use self::promise::Promise;
pub use self::rules::RequestRules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::core::{DynamicObject, DynamicResourceScope};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use weir_k8s::{Autoscaler, Pod, PoolVersion, Service};

use self::contact::observed;
use self::follow::Follower;
use self::index::{Index, Update};
use self::metrics::KubeMetrics;
use self::pods::PodFacts;
use self::pools::PoolFacts;
use self::promise::AutoscalerFacts;
use self::rules::RuleFacts;
use self::scaling::Scaling;
use self::services::ServiceFacts;
use crate::access::WantedPools;
use crate::collector::ConfigError;

/// Changes are gathered for so long before they are handed over.
const GATHERING: Duration = Duration::from_millis(100);
/// How often a kind is asked for that is not served, or that may not be read.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long one watch lasts, in seconds: within it and 5 s more, a connection that has gone silently is noticed.
const WATCH_SECONDS: u32 = 60;
/// Changes that wait for the index.
const QUEUE: usize = 256;

const PODS: &str = "pods";
const SERVICES: &str = "services";
const AUTOSCALERS: &str = "horizontalpodautoscalers.autoscaling";

/// By resource, what keeps it from being followed, and the way out.
pub type Obstacles = BTreeMap<&'static str, String>;

/// The watches of a cluster's pools, pods and Services.
pub struct KubeDiscovery {
    client: Client,
    config: Arc<KubeDiscoveryConfig>,
    metrics: KubeMetrics,
    index: Index,
    synced: watch::Sender<bool>,
    rules: watch::Receiver<Arc<RequestRules>>,
    promise: watch::Sender<Promise>,
    obstacles: watch::Sender<Obstacles>,
    ask_again: Duration,
}

impl KubeDiscovery {
    /// Discovery through `client`, and the pools as they become: what [`Collector::run`](crate::Collector::run) takes. There are none
    /// until everything was listed once.
    ///
    /// # Errors
    /// [`ConfigError`] where `config` cannot be worked with.
    pub fn new(client: Client, config: KubeDiscoveryConfig, registry: &mut Registry) -> Result<(Self, WantedPools), ConfigError> {
        config.check()?;
        let config = Arc::new(config);
        let resources = config.versions().map(resource_name).chain(config.pickers.read.then_some(SERVICES)).chain([PODS]);
        let resources = resources.chain(config.resources().iter().map(|resource| resource.name()));
        let resources = resources.chain(config.promised().map(|_| AUTOSCALERS));
        let metrics = KubeMetrics::register(registry, resources, Instant::now());
        let (pools, receiver) = watch::channel(Arc::default());
        let (rules_sender, rules) = watch::channel(Arc::default());
        let index = Index::new(config.clone(), pools, rules_sender, metrics.clone());
        let (synced, obstacles) = (watch::Sender::new(false), watch::Sender::default());
        let promise = watch::Sender::default();
        let discovery = Self { client, config, metrics, index, synced, rules, promise, obstacles, ask_again: ASK_AGAIN };
        Ok((discovery, receiver))
    }

    /// Becomes true once all that is read was listed, and stays so.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// What users say about requests, as it becomes; nothing unless [`KubeDiscoveryConfig::rules`].
    pub fn rules(&self) -> watch::Receiver<Arc<RequestRules>> {
        self.rules.clone()
    }

    /// Whether an autoscaler brings the pool back from zero, as it becomes; nothing unless [`KubeDiscoveryConfig::promises`].
    pub fn promise(&self) -> watch::Receiver<Promise> {
        self.promise.subscribe()
    }

    /// Why pools may not be known: what is not served or cannot be read at present, without what can be done without.
    pub fn obstacles(&self) -> watch::Receiver<Obstacles> {
        self.obstacles.subscribe()
    }

    /// Asks every `interval` instead of every 30 s for what is not served or may not be read.
    #[must_use]
    pub fn ask_again_every(self, interval: Duration) -> Self {
        Self { ask_again: interval.max(Duration::from_millis(1)), ..self }
    }

    /// Follows the cluster until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut updates) = mpsc::channel(QUEUE);
        let mut watches = self.start(&sender);
        self.follow_autoscalers(&mut watches, &shutdown);
        // Nothing is sent by the index itself; the watches never end.
        drop(sender);
        let mut gathered = Vec::with_capacity(QUEUE);
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    self.publish();
                }
                count = updates.recv_many(&mut gathered, QUEUE), if !watches.is_empty() => {
                    gathered.drain(..).for_each(|update| self.index.apply(update));
                    if count > 0 && due.is_none() {
                        due = Some(Instant::now() + GATHERING);
                    }
                }
                Some(ended) = watches.join_next() => if let Err(failed) = ended {
                    error!(error = %failed, "a watch has panicked: what it told last stays, restart weir");
                },
            }
        }
        watches.shutdown().await;
    }

    fn publish(&mut self) {
        if !self.index.is_synced() {
            return;
        }
        self.index.publish();
        if !self.synced.send_replace(true) {
            self.metrics.synced.set(1);
            let (pools, pods) = self.index.sizes();
            info!(pools, pods, "everything was listed once, pools are followed");
        }
    }

    fn start(&self, sender: &mpsc::Sender<Update>) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        let any = watcher::Config::default().timeout(WATCH_SECONDS);
        for version in self.config.versions() {
            let config = match &self.config.scope {
                Scope::Pool(id) => any.clone().fields(&format!("metadata.name={}", id.name)),
                Scope::All | Scope::Namespace(_) | Scope::Pods(_) => any.clone(),
            };
            let follower = self.follower::<DynamicObject>(resource_name(version), &version.resource(), config);
            let wrap = move |change| Update::Pools(version, change);
            watches.spawn(follower.run(move |object| PoolFacts::of(version, object), wrap, sender.clone()));
        }
        if self.config.pickers.read {
            let follower = self.follower::<Service>(SERVICES, &(), any.clone());
            watches.spawn(follower.run(ServiceFacts::of, Update::Services, sender.clone()));
        }
        for resource in self.config.resources().iter().copied() {
            let mut follower = self.follower::<DynamicObject>(resource.name(), &resource.resource(), any.clone());
            follower.obstacles = None;
            let convert = move |object| RuleFacts::of(resource, &object);
            watches.spawn(follower.run(convert, move |change| Update::Rules(resource, change), sender.clone()));
        }
        watches.spawn(self.follower::<Pod>(PODS, &(), any).run(read_pod, Update::Pods, sender.clone()));
        watches
    }

    fn follow_autoscalers(&self, watches: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let Some(pool) = self.config.promised() else { return };
        let (sender, updates) = mpsc::channel(QUEUE);
        let any = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut follower = self.follower::<DynamicObject>(AUTOSCALERS, &Autoscaler::resource(), any);
        follower.obstacles = None;
        let config = self.config.clone();
        let convert = move |object| AutoscalerFacts::of(&config.annotation_prefix, object);
        watches.spawn(follower.run(convert, |change| change, sender));
        let scaling = Scaling {
            client: self.client.clone(),
            namespace: pool.namespace.to_string(),
            updates,
            selector: self.index.selector(),
            wanted: self.index.wanted(),
            told: self.promise.clone(),
            metrics: self.metrics.clone(),
        };
        watches.spawn(scaling.run(shutdown.clone()));
    }

    fn follower<K>(&self, resource: &'static str, kind: &K::DynamicType, config: watcher::Config) -> Follower<K>
    where
        K: Resource<Scope = DynamicResourceScope>,
    {
        let health = self.metrics.health(resource);
        let client = observed(self.client.clone(), health.clone());
        let (api, namespace) = match &self.config.scope {
            Scope::All => (Api::all_with(client, kind), None),
            Scope::Namespace(namespace) => (Api::namespaced_with(client, namespace, kind), Some(namespace.clone())),
            Scope::Pool(id) | Scope::Pods(PodsScope { pool: id, .. }) => {
                (Api::namespaced_with(client, &id.namespace, kind), Some(id.namespace.to_string()))
            }
        };
        let group = K::group(kind).into_owned();
        let obstacles = Some(self.obstacles.clone());
        Follower { api, config, health, metrics: self.metrics.clone(), group, namespace, obstacles, ask_again: self.ask_again }
    }
}

/// A pod as it is told now.
fn read_pod(pod: Pod) -> PodFacts {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    PodFacts::of(pod, Instant::now(), i64::try_from(wall.as_secs()).unwrap_or(i64::MAX))
}

fn resource_name(version: PoolVersion) -> &'static str {
    match version {
        PoolVersion::V1 => "inferencepools.inference.networking.k8s.io",
        PoolVersion::V1Alpha2 => "inferencepools.inference.networking.x-k8s.io",
    }
}

#[cfg(test)]
mod tests;
