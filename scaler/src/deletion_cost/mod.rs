//! Which pod of a ReplicaSet goes first: the annotation `controller.kubernetes.io/pod-deletion-cost`, from what the pods' pages say.
//!
//! When there are to be fewer replicas, the ReplicaSet controller takes away the Ready pod with the lowest cost. [`cost`] makes the
//! cost of what is known of a pod, `plan` says which pods are patched now, and this file follows the pods and patches them, as long as
//! this replica leads. What is not known is not written, and what somebody else wrote is theirs.

pub mod cost;
mod metrics;
mod plan;
mod pods;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use weir_datastore::{Datastore, Freshness, PoolSnapshot};
use weir_k8s::{Leader, NotLeading};

use cost::{Memory, PodCost, PodLoad};
pub use metrics::DeletionCostMetrics;
use plan::{Budget, Due, Judgement, in_order, judge};
use pods::Pods;
pub use pods::{ANNOTATION, FIELD_MANAGER};

/// Between looks at the pools.
const LOOK: Duration = Duration::from_secs(1);

/// How costs are made and written.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletionCostSettings {
    /// The namespace whose pods are followed; none: all.
    pub namespace: Option<String>,
    /// Patches a minute over all pods, 60; the highest change comes first.
    pub patches_per_minute: u32,
    /// How fast the past is forgotten.
    pub memory: Memory,
}

impl Default for DeletionCostSettings {
    fn default() -> Self {
        Self { namespace: None, patches_per_minute: 60, memory: Memory::default() }
    }
}

/// Whether patches are made.
#[derive(Debug)]
pub enum Writes {
    /// While this replica leads.
    WhileLeading(Leader),
    /// Never: what would be patched is logged and counted.
    DryRun,
}

/// Keeps the deletion cost of the pods of all pools in a datastore.
pub struct DeletionCost {
    client: Client,
    datastore: Datastore,
    settings: DeletionCostSettings,
    writes: Writes,
    metrics: DeletionCostMetrics,
    pods: Pods,
    costs: HashMap<Arc<str>, PodCost>,
    budget: Budget,
    had_unknown: bool,
    /// Whether the pods cannot be followed at present.
    is_blind: bool,
    failure: Option<String>,
    synced: watch::Sender<bool>,
}

impl fmt::Debug for DeletionCost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeletionCost")
            .field("settings", &self.settings)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}

impl DeletionCost {
    /// Nothing is asked yet. Needs `list`, `watch` and `patch` of the pods.
    pub fn new(
        client: Client,
        datastore: Datastore,
        settings: DeletionCostSettings,
        writes: Writes,
        metrics: DeletionCostMetrics,
    ) -> Self {
        let budget = Budget::new(settings.patches_per_minute, Instant::now());
        Self {
            client,
            datastore,
            settings,
            writes,
            metrics,
            pods: Pods::default(),
            costs: HashMap::new(),
            budget,
            had_unknown: false,
            is_blind: false,
            failure: None,
            synced: watch::Sender::new(false),
        }
    }

    /// Whether the pods were listed.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Follows and writes until `stop`. What was written stays.
    pub async fn run(mut self, stop: CancellationToken) {
        let api: Api<PartialObjectMeta<Pod>> = match &self.settings.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        self.pods.take_in(event);
                        if std::mem::take(&mut self.is_blind) {
                            tracing::info!("pods are followed again");
                        }
                        self.synced.send_if_modified(|synced| std::mem::replace(synced, self.pods.synced) != self.pods.synced);
                    }
                    Some(Err(error)) => if !std::mem::replace(&mut self.is_blind, true) {
                        tracing::error!(%error, "pods cannot be followed, what was known last stays: the identity needs list and watch of pods");
                    },
                    // Never ends by itself.
                    None => return,
                },
                _ = looks.tick() => {
                    let due = self.look(Instant::now());
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.patch(due) => {}
                    }
                }
            }
        }
    }

    /// Takes in what is known now, and says which patches are due.
    fn look(&mut self, now: Instant) -> Vec<Due> {
        if !self.pods.synced {
            return Vec::new();
        }
        let loads = loads_of_pods(&self.datastore.snapshots(now));
        self.costs.retain(|uid, _| loads.contains_key(uid));
        let mut counts: HashMap<Judgement, usize> = HashMap::new();
        let mut due = Vec::new();
        let mut unknown = None;
        for (uid, load) in loads {
            let Some(pod) = self.pods.get(&uid) else { continue };
            let cost = load.map(|load| match self.costs.get_mut(&uid) {
                Some(cost) => {
                    cost.observe(load, &self.settings.memory, now);
                    cost.cost()
                }
                None => self.costs.entry(uid.clone()).or_insert(PodCost::new(load, now)).cost(),
            });
            let (judgement, patch) = judge(&uid, pod, cost);
            *counts.entry(judgement).or_default() += 1;
            due.extend(patch);
            if judgement == Judgement::Unknown {
                unknown = Some(format!("{}/{}", pod.namespace, pod.name));
            }
        }
        for state in Judgement::ALL {
            self.metrics.pods(state, counts.get(&state).copied().unwrap_or(0));
        }
        match (&unknown, self.had_unknown) {
            (Some(pod), false) => {
                let count = counts.get(&Judgement::Unknown).copied().unwrap_or(0);
                tracing::warn!(
                    pod,
                    count,
                    "nothing is known of a pod: its deletion cost stays as it is until its metrics can be read"
                );
            }
            (None, true) => tracing::info!("all pods of pools can be read: their deletion costs are kept"),
            _ => {}
        }
        self.had_unknown = unknown.is_some();
        in_order(due)
    }

    async fn patch(&mut self, due: Vec<Due>) {
        for Due { uid, cost, .. } in due {
            let leads = match &self.writes {
                Writes::WhileLeading(leader) => leader.leads(),
                Writes::DryRun => true,
            };
            if !leads || !self.budget.take(Instant::now()) {
                return;
            }
            let Some(pod) = self.pods.get(&uid) else { continue };
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            let Writes::WhileLeading(leader) = &self.writes else {
                tracing::info!(namespace, pod = name, cost, "dry run: the pod's deletion cost would be written");
                self.metrics.patched("dry_run");
                self.pods.wrote(&uid, cost);
                continue;
            };
            let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &namespace);
            // The uid, so that a namesake that came after it is not meant.
            let patch = json!({ "metadata": { "uid": uid, "annotations": { ANNOTATION: cost.to_string() } } });
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            let result = match leader.write(api.patch_metadata(&name, &parameters, &Patch::Merge(&patch))).await {
                Ok(Ok(_)) => {
                    tracing::debug!(namespace, pod = name, cost, "deletion cost written");
                    self.pods.wrote(&uid, cost);
                    if self.failure.take().is_some() {
                        tracing::info!("deletion costs can be written again");
                    }
                    "written"
                }
                Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                    self.pods.forget(&uid);
                    "gone"
                }
                Ok(Err(kube::Error::Api(status))) => {
                    self.fails(format!("the deletion cost of pods in {namespace} cannot be written: {}", status.message));
                    "refused"
                }
                Ok(Err(error)) => {
                    self.fails(format!("the deletion cost of pods in {namespace} cannot be written: {error}"));
                    "failed"
                }
                Err(error @ NotLeading::TooLong) => {
                    self.fails(format!("the deletion cost of pods in {namespace} cannot be written: {error}"));
                    "failed"
                }
                Err(NotLeading::Before | NotLeading::During) => "not_leading",
            };
            self.metrics.patched(result);
            // The rest at the next look: nothing is hammered.
            if !matches!(result, "written" | "gone") {
                return;
            }
        }
    }

    fn fails(&mut self, error: String) {
        if self.failure.as_ref() != Some(&error) {
            tracing::error!(error, "failing");
            self.failure = Some(error);
        }
    }
}

/// What is known of each pod that takes requests, by uid, over its ranks; none where one of them cannot be read. An endpoint of
/// several pools counts once.
fn loads_of_pods(pools: &[PoolSnapshot]) -> HashMap<Arc<str>, Option<PodLoad>> {
    let mut loads: HashMap<Arc<str>, Option<PodLoad>> = HashMap::new();
    let mut seen = HashSet::new();
    for view in pools.iter().flat_map(|pool| &pool.endpoints) {
        let spec = &view.endpoint.spec;
        // One that goes has no choice left, one without an uid is no pod.
        if view.freshness == Freshness::Terminating || spec.pod_uid.is_empty() {
            continue;
        }
        if !seen.insert((spec.pod_uid.clone(), spec.address.clone())) {
            continue;
        }
        let load = loads.entry(spec.pod_uid.clone()).or_insert(Some(PodLoad::default()));
        *load = load.and_then(|load| load.and(view.fresh_load()?));
    }
    loads
}

#[cfg(test)]
mod tests;
