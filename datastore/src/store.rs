//! Where loads are kept: writers that each own one cell, readers that never wait.
//!
//! Topology changes rarely and has one owner, the [`TopologyWriter`]; each change swaps one map, so a reader sees a relist whole or
//! not at all. Loads change many times a second; each endpoint has one cell, stored to by the one [`EndpointWriter`] that the
//! topology handed out for it. A [`Datastore`] is the read handle.

pub(crate) mod slo;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cells::{Endpoint, Picker, Pool, PoolMemory, SloCell};
use crate::demand::RequiredWriter;
use crate::latency::{EndpointWindow, TokenWindow};
use crate::load::{EndpointLoad, EndpointStatus, Failure, FailureKind, PickerLoad, PickerStatus};
use crate::pool::{EndpointAddress, EndpointSpec, MetricsSource, PoolId, PoolSpec};
use crate::selector::Selector;
use crate::snapshot::PoolSnapshot;
use crate::start::SeenStart;

/// An empty datastore: its read handle and the one writer of its topology.
pub fn datastore() -> (Datastore, TopologyWriter) {
    let pools = Arc::new(ArcSwap::from_pointee(Pools::new()));
    let (changed, generation) = watch::channel(0);
    (Datastore { pools: pools.clone(), generation }, TopologyWriter { pools, changed })
}

pub(crate) type Pools = BTreeMap<PoolId, Arc<Pool>>;

/// The read handle. Cheap to clone; reading takes no lock.
#[derive(Clone, Debug)]
pub struct Datastore {
    pools: Arc<ArcSwap<Pools>>,
    generation: watch::Receiver<u64>,
}

impl Datastore {
    /// The names of all pools, sorted.
    pub fn pool_ids(&self) -> Vec<PoolId> {
        self.pools.load().keys().cloned().collect()
    }

    /// The names of the pools of one namespace, sorted.
    pub fn pool_ids_in(&self, namespace: &str) -> Vec<PoolId> {
        let first = PoolId::new(namespace, "");
        let pools = self.pools.load();
        pools.range(first..).map(|(id, _)| id).take_while(|id| *id.namespace == *namespace).cloned().collect()
    }

    /// The pool as it is at `now`, reduced to the endpoints whose pod labels `selector` matches; none where there is no such pool.
    pub fn snapshot(&self, pool: &PoolId, selector: &Selector, now: Instant) -> Option<PoolSnapshot> {
        let pool = self.pools.load().get(pool)?.clone();
        Some(PoolSnapshot::new(&pool, selector, now))
    }

    /// Every pool as it is at `now`, sorted by name.
    pub fn snapshots(&self, now: Instant) -> Vec<PoolSnapshot> {
        let everything = Selector::everything();
        self.pools.load().values().map(|pool| PoolSnapshot::new(pool, &everything, now)).collect()
    }

    /// Follows what is written about `pool`; none where there is no such pool.
    pub fn changes(&self, pool: &PoolId) -> Option<PoolChanges> {
        self.pools.load().get(pool).map(|pool| PoolChanges::new(&pool.memory))
    }

    /// Changes each time the topology does.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }
}

/// What is written about one pool, followed.
#[derive(Clone, Debug)]
pub struct PoolChanges {
    memory: Arc<PoolMemory>,
    held_rises: watch::Receiver<u64>,
    seen: u64,
}

impl PoolChanges {
    fn new(memory: &Arc<PoolMemory>) -> Self {
        let seen = memory.version.load(Ordering::Acquire);
        Self { memory: memory.clone(), held_rises: memory.held_rises.subscribe(), seen }
    }

    /// Grows with everything that is written about the pool.
    pub fn version(&self) -> u64 {
        self.memory.version.load(Ordering::Acquire)
    }

    /// Waits until more is written about the pool than at the last call, or when this was made. Its endpoints are told by
    /// [`Datastore::generation`].
    pub async fn written(&mut self) {
        loop {
            // Made before the version is looked at, so that nothing written in between is lost.
            let written = self.memory.written.notified();
            let version = self.memory.version.load(Ordering::Acquire);
            if std::mem::replace(&mut self.seen, version) != version {
                return;
            }
            written.await;
        }
    }

    /// Waits until a picker that held nothing holds a request: what wakes a pool, and must not wait for a tick. A rise between two
    /// calls is not lost.
    pub async fn held_rose(&mut self) {
        if self.held_rises.changed().await.is_err() {
            // Cannot be: the sender lives as long as `memory`. Waiting for ever is what no more rises means.
            std::future::pending::<()>().await;
        }
    }
}

/// What identifies an endpoint across changes: the same address of the same pod, read the same way.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointKey {
    /// Its pool.
    pub pool: PoolId,
    /// Its address.
    pub address: EndpointAddress,
    /// Its pod.
    pub pod: Arc<str>,
    /// Tells the pod from its namesake.
    pub pod_uid: Arc<str>,
    /// How it is read.
    pub metrics: MetricsSource,
}

impl EndpointKey {
    /// The key of `spec`, an endpoint of `pool` whose pages are read as `metrics` says.
    pub fn of(pool: &PoolId, metrics: &MetricsSource, spec: &EndpointSpec) -> Self {
        let engine = spec.labelled_engine().or(metrics.engine);
        Self {
            pool: pool.clone(),
            address: spec.address.clone(),
            pod: spec.pod.clone(),
            pod_uid: spec.pod_uid.clone(),
            metrics: MetricsSource { engine, ..metrics.clone() },
        }
    }
}

/// What identifies a picker.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PickerKey {
    /// Its pool.
    pub pool: PoolId,
    /// Its name.
    pub name: Arc<str>,
}

/// What a change of topology asks of whoever reads pages: start with the added, stop with the removed.
#[derive(Debug, Default)]
pub struct TopologyChange {
    /// A writer for each new endpoint.
    pub added: Vec<EndpointWriter>,
    /// Endpoints that are gone; their writers write to nobody.
    pub removed: Vec<EndpointKey>,
    /// A writer for each new picker.
    pub added_pickers: Vec<PickerWriter>,
    /// Pickers that are gone.
    pub removed_pickers: Vec<PickerKey>,
}

/// The one writer of the topology.
#[derive(Debug)]
pub struct TopologyWriter {
    pools: Arc<ArcSwap<Pools>>,
    changed: watch::Sender<u64>,
}

impl TopologyWriter {
    /// The writer of what the pools require. Ask for it once.
    pub fn required_writer(&self) -> RequiredWriter {
        RequiredWriter { pools: self.pools.clone() }
    }

    /// Makes `specs` all the pools there are. Of two specs with one name the last counts; of two endpoints of a pool with one
    /// identity the first.
    pub fn replace_all(&mut self, specs: Vec<PoolSpec>, now: Instant) -> TopologyChange {
        let before = self.pools.load_full();
        let mut change = TopologyChange::default();
        let mut after = Pools::new();
        for spec in specs {
            let pool = renewed(before.get(&spec.id).map(Arc::as_ref), spec, now, &mut change);
            after.insert(pool.id.clone(), Arc::new(pool));
        }
        for (id, gone) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
            change.removed.extend(gone.endpoints.iter().map(|endpoint| EndpointKey::of(id, &gone.metrics, &endpoint.spec)));
            let pickers = gone.pickers.iter().flatten();
            change.removed_pickers.extend(pickers.map(|picker| PickerKey { pool: id.clone(), name: picker.name.clone() }));
        }
        self.publish(after);
        change
    }

    /// Adds or replaces one pool.
    pub fn upsert(&mut self, spec: PoolSpec, now: Instant) -> TopologyChange {
        let mut after = Pools::clone(&self.pools.load());
        let mut change = TopologyChange::default();
        let pool = renewed(after.get(&spec.id).map(Arc::as_ref), spec, now, &mut change);
        after.insert(pool.id.clone(), Arc::new(pool));
        self.publish(after);
        change
    }

    fn publish(&mut self, pools: Pools) {
        self.pools.store(Arc::new(pools));
        self.changed.send_modify(|generation| *generation += 1);
    }
}

/// The pool that `spec` describes, with the cells of what was there `before`.
fn renewed(before: Option<&Pool>, mut spec: PoolSpec, now: Instant, change: &mut TopologyChange) -> Pool {
    let memory = before.map_or_else(|| Arc::new(PoolMemory::new(now)), |pool| pool.memory.clone());
    memory.changed();
    let starts = std::mem::take(&mut spec.starts);
    memory.starts.learn(&starts, now);
    let mut known: HashMap<_, _> = before
        .iter()
        .flat_map(|pool| pool.endpoints.iter().map(|endpoint| (EndpointKey::of(&pool.id, &pool.metrics, &endpoint.spec), endpoint)))
        .collect();
    let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(spec.endpoints.len());
    let mut taken = HashSet::new();
    for endpoint in std::mem::take(&mut spec.endpoints) {
        let key = EndpointKey::of(&spec.id, &spec.metrics, &endpoint);
        if !taken.insert(key.clone()) {
            continue;
        }
        endpoints.push(match known.remove(&key) {
            Some(same) if same.spec == endpoint => same.clone(),
            Some(changed) => Arc::new(Endpoint {
                spec: endpoint,
                cell: changed.cell.clone(),
                start: changed.start.clone(),
                slo: changed.slo.clone(),
            }),
            None => {
                let cell = Arc::new(ArcSwap::from_pointee(EndpointStatus::default()));
                let start = memory.starts.seen(&endpoint.pod_uid);
                let slo = Arc::new(SloCell::default());
                change.added.push(EndpointWriter {
                    key,
                    cell: cell.clone(),
                    start: start.clone(),
                    memory: memory.clone(),
                    slo: slo.clone(),
                    tokens: TokenWindow::default(),
                    latencies: EndpointWindow::default(),
                });
                Arc::new(Endpoint { spec: endpoint, cell, start, slo })
            }
        });
    }
    for (key, gone) in known {
        remember_activity(&memory, gone.status().last_active);
        change.removed.push(key);
    }
    let pickers = renewed_pickers(before, &spec, &memory, change);
    let PoolSpec { id, metrics, pending, hold, required: options, .. } = spec;
    let unready = starts.into_iter().filter(|pod| pod.start.unready_since.is_some()).collect();
    Pool { id, metrics, endpoints, pickers, pending, unready, hold, options, memory }
}

fn renewed_pickers(
    before: Option<&Pool>,
    spec: &PoolSpec,
    memory: &Arc<PoolMemory>,
    change: &mut TopologyChange,
) -> Option<Vec<Arc<Picker>>> {
    let known = || before.iter().flat_map(|pool| pool.pickers.iter().flatten());
    for gone in known().filter(|picker| !spec.pickers.iter().flatten().any(|name| *name == picker.name)) {
        remember_activity(memory, gone.status().last_active);
        change.removed_pickers.push(PickerKey { pool: spec.id.clone(), name: gone.name.clone() });
    }
    let Some(names) = &spec.pickers else {
        // Nobody holds requests for a pool without a picker: what an earlier one showed no longer matters.
        memory.held_shown.store(false, Ordering::Relaxed);
        return None;
    };
    let mut pickers: Vec<Arc<Picker>> = Vec::with_capacity(names.len());
    for name in names {
        if pickers.iter().any(|picker| picker.name == *name) {
            continue;
        }
        pickers.push(match known().find(|picker| picker.name == *name) {
            Some(same) => same.clone(),
            None => {
                let cell = Arc::new(ArcSwap::from_pointee(PickerStatus::default()));
                let key = PickerKey { pool: spec.id.clone(), name: name.clone() };
                change.added_pickers.push(PickerWriter { key, cell: cell.clone(), memory: memory.clone() });
                Arc::new(Picker { name: name.clone(), cell })
            }
        });
    }
    Some(pickers)
}

fn remember_activity(memory: &PoolMemory, last_active: Option<Instant>) {
    if let Some(last_active) = last_active
        && last_active > **memory.active_before.load()
    {
        memory.active_before.store(Arc::new(last_active));
    }
}

/// Writes what is read of one endpoint. There is one per endpoint.
#[derive(Debug)]
pub struct EndpointWriter {
    key: EndpointKey,
    cell: Arc<ArcSwap<EndpointStatus>>,
    start: Option<Arc<SeenStart>>,
    memory: Arc<PoolMemory>,
    slo: Arc<SloCell>,
    tokens: TokenWindow,
    latencies: EndpointWindow,
}

impl EndpointWriter {
    /// Which endpoint.
    pub fn key(&self) -> &EndpointKey {
        &self.key
    }

    /// What was written last.
    pub fn status(&self) -> Arc<EndpointStatus> {
        self.cell.load_full()
    }

    /// A page was read; the next is due after `interval`.
    pub fn succeeded(&mut self, load: EndpointLoad, interval: Duration) {
        if let Some(start) = &self.start {
            start.scraped(load.scraped_at);
        }
        self.learn_tokens(&load);
        let before = self.cell.load_full();
        let active = load.is_active_since(before.load.as_deref());
        let last_active = if active { Some(load.scraped_at) } else { before.last_active };
        self.cell.store(Arc::new(EndpointStatus { load: Some(Arc::new(load)), failure: None, interval, last_active }));
        self.memory.changed();
    }

    /// A page could not be had at `now`: the last good one stays until it is stale.
    pub fn failed(&mut self, kind: FailureKind, message: &str, now: Instant) {
        let before = self.cell.load_full();
        let failure = Some(next_failure(before.failure.as_ref(), kind, message, now));
        self.cell.store(Arc::new(EndpointStatus { failure, ..EndpointStatus::clone(&before) }));
        self.memory.changed();
    }
}

fn next_failure(before: Option<&Failure>, kind: FailureKind, message: &str, now: Instant) -> Failure {
    Failure {
        kind,
        message: message.into(),
        since: before.map_or(now, |failure| failure.since),
        attempts: before.map_or(0, |failure| failure.attempts).saturating_add(1),
    }
}

/// Writes what one picker says of itself. There is one per picker.
#[derive(Debug)]
pub struct PickerWriter {
    key: PickerKey,
    cell: Arc<ArcSwap<PickerStatus>>,
    memory: Arc<PoolMemory>,
}

impl PickerWriter {
    /// Which picker.
    pub fn key(&self) -> &PickerKey {
        &self.key
    }

    /// The picker told its load; it is asked again after `interval`.
    pub fn succeeded(&mut self, load: PickerLoad, interval: Duration) {
        let before = self.cell.load_full();
        let arrived = before.load.is_some_and(|before| before.arrivals != load.arrivals);
        let holds = load.held.is_some_and(|held| held > 0);
        let held_before = before.load.and_then(|before| before.held).is_some_and(|held| held > 0);
        let serves = load.in_flight.is_some_and(|in_flight| in_flight > 0);
        let last_active = if holds || serves || arrived { Some(load.read_at) } else { before.last_active };
        if load.held.is_some() {
            self.memory.held_shown.store(true, Ordering::Relaxed);
        }
        self.cell.store(Arc::new(PickerStatus { load: Some(load), failure: None, interval, last_active }));
        self.memory.changed();
        if holds && !held_before {
            self.memory.held_rises.send_modify(|rises| *rises += 1);
        }
    }

    /// The picker could not be asked at `now`.
    pub fn failed(&mut self, kind: FailureKind, message: &str, now: Instant) {
        let before = self.cell.load_full();
        let failure = Some(next_failure(before.failure.as_ref(), kind, message, now));
        self.cell.store(Arc::new(PickerStatus { failure, ..PickerStatus::clone(&before) }));
        self.memory.changed();
    }
}
