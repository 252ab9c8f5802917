//! The autoscalers of a pool's namespace, followed, and what they scale, asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Error as ClientError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_datastore::EndpointState;
use weir_k8s::{ScaleTarget, TargetReference};

use super::follow::Change;
use super::metrics::{KubeMetrics, TargetRead};
use super::pods::Labels;
use super::promise::{AutoscalerFacts, Promise, promise, together};
use crate::access::WantedPools;

/// Looks at targets are so far apart, at least.
const LOOK_AT_MOST: Duration = Duration::from_secs(1);
/// Targets of the pool are looked at so often though nothing is told.
const LOOK_AT_LEAST: Duration = Duration::from_secs(15);
/// Targets that are not the pool's, or cannot be read, are looked at again so late.
const OTHERS_AGAIN: Duration = Duration::from_secs(300);
/// How long the API server may take to tell of one.
const ANSWER: Duration = Duration::from_secs(10);
/// Autoscalers that may scale from zero and are looked at; a namespace has a few.
const MOST: usize = 256;

/// What wakes the pool, followed.
pub(super) struct Scaling {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) updates: mpsc::Receiver<Change<AutoscalerFacts>>,
    /// The labels that the pool's pods have, once it is known.
    pub(super) selector: watch::Receiver<Option<Labels>>,
    pub(super) wanted: WantedPools,
    pub(super) told: watch::Sender<Promise>,
    pub(super) metrics: KubeMetrics,
}

/// What is known of one autoscaler.
struct Known {
    facts: AutoscalerFacts,
    /// Since when it is seen not to scale.
    inactive_since: Option<Instant>,
}

/// What is known of one target.
struct Target {
    read_at: Instant,
    /// None where it is not there, or could not be read yet.
    read: Option<ScaleTarget>,
}

#[derive(Default)]
struct Memory {
    known: BTreeMap<Arc<str>, Known>,
    targets: BTreeMap<TargetReference, Target>,
    /// Kinds that may not be read: said once.
    forbidden: BTreeSet<Arc<str>>,
    too_many: bool,
}

impl Scaling {
    /// Says what is promised as it becomes, until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut memory = Memory::default();
        let mut looked_at: Option<Instant> = None;
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                change = self.updates.recv() => match change {
                    Some(change) => memory.apply(change, Instant::now()),
                    None => return,
                },
                changed = self.selector.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // While there are endpoints nobody asks what would bring one.
                    if self.has_endpoint() {
                        continue;
                    }
                }
                () = sleep_until(due) => {
                    looked_at = Some(Instant::now());
                    self.look(&mut memory).await;
                    due = Instant::now() + LOOK_AT_LEAST;
                    continue;
                }
            }
            due = due.min(looked_at.map_or_else(Instant::now, |at| at + LOOK_AT_MOST));
        }
    }

    fn has_endpoint(&mut self) -> bool {
        let wanted = self.wanted.borrow_and_update();
        wanted.iter().flat_map(|pool| &pool.spec.endpoints).any(|endpoint| endpoint.state == EndpointState::Ready)
    }

    async fn look(&self, memory: &mut Memory) {
        let Some(selector) = self.selector.borrow().clone() else { return };
        let now = Instant::now();
        for reference in memory.due(&selector, now) {
            let read = self.read(&reference, &mut memory.forbidden).await;
            let target = memory.targets.entry(reference).or_insert(Target { read_at: now, read: None });
            target.read_at = now;
            // What was known last stays where nobody answers.
            if let Some(read) = read {
                target.read = read;
            }
        }
        let promise = memory.promise(&selector, Instant::now());
        self.told.send_if_modified(|before| {
            let changed = *before != promise;
            if changed {
                match &promise {
                    Promise::Nothing => info!("no autoscaler scales the pool from zero"),
                    Promise::Endpoint(what) | Promise::Pods(what) => {
                        info!(%what, "something will bring an endpoint where there is none")
                    }
                    Promise::Hindered(why) => warn!(%why, "nothing will bring an endpoint where there is none"),
                }
                *before = promise;
            }
            changed
        });
    }

    /// The target, or that there is none; none where nobody could say.
    async fn read(&self, reference: &TargetReference, forbidden: &mut BTreeSet<Arc<str>>) -> Option<Option<ScaleTarget>> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(&reference.group, &reference.version, &reference.kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        let answer = timeout(ANSWER, api.get_opt(&reference.name)).await;
        let (outcome, read) = match answer {
            Ok(Ok(Some(object))) => match ScaleTarget::read(object) {
                Ok(target) => (TargetRead::Good, Some(Some(target))),
                Err(problem) => {
                    warn!(object = %reference, %problem, "what an autoscaler scales cannot be read");
                    (TargetRead::Broken, Some(None))
                }
            },
            Ok(Ok(None)) => (TargetRead::Absent, Some(None)),
            Ok(Err(ClientError::Api(status))) if status.code == 403 => {
                if forbidden.insert(kind.plural.as_str().into()) {
                    let (group, plural, namespace) = (&reference.group, &kind.plural, &self.namespace);
                    let fix = format!(
                        "add to the Role in namespace {namespace}: {{apiGroups: [\"{group}\"], resources: [\"{plural}\"], verbs: [\"get\"]}}; \
                         or annotate the InferencePool with hold"
                    );
                    info!(resource = %plural, fix, "may not be read: what autoscalers scale from zero is not known");
                }
                (TargetRead::Forbidden, Some(None))
            }
            Ok(Err(_)) | Err(_) => (TargetRead::Failed, None),
        };
        self.metrics.target_read(outcome);
        read
    }
}

impl Memory {
    fn apply(&mut self, change: Change<AutoscalerFacts>, now: Instant) {
        match change {
            Change::All(all) => {
                let mut before = std::mem::take(&mut self.known);
                for facts in all {
                    let old = before.remove(&facts.name);
                    self.put(facts, old, now);
                }
            }
            Change::Applied(facts) => {
                let old = self.known.remove(&facts.name);
                self.put(facts, old, now);
            }
            Change::Deleted(facts) => drop(self.known.remove(&facts.name)),
            // What was known last stays.
            Change::Absent | Change::Forbidden => {}
        }
    }

    fn put(&mut self, facts: AutoscalerFacts, old: Option<Known>, now: Instant) {
        if facts.waker().is_none() {
            return;
        }
        if self.known.len() >= MOST {
            if !std::mem::replace(&mut self.too_many, true) {
                warn!(most = MOST, passed_over = %facts.name, "more autoscalers than these may scale from zero: the rest is passed over");
            }
            return;
        }
        let since = old.and_then(|old| old.inactive_since).unwrap_or(now);
        let inactive_since = facts.inactive.is_some().then_some(since);
        self.known.insert(facts.name.clone(), Known { facts, inactive_since });
    }

    /// The targets that are to be looked at; those that nothing scales any more are forgotten.
    fn due(&mut self, selector: &Labels, now: Instant) -> Vec<TargetReference> {
        let wanted: BTreeSet<TargetReference> =
            self.known.values().filter_map(|known| known.facts.waker()).map(|autoscaler| autoscaler.target.clone()).collect();
        self.targets.retain(|reference, _| wanted.contains(reference));
        let is_due = |reference: &TargetReference| match self.targets.get(reference) {
            None => true,
            Some(target) => {
                let of_pool = target.read.as_ref().is_some_and(|read| read.is_selected_by(selector));
                of_pool || now.saturating_duration_since(target.read_at) >= OTHERS_AGAIN
            }
        };
        wanted.into_iter().filter(is_due).collect()
    }

    fn promise(&self, selector: &Labels, now: Instant) -> Promise {
        together(self.known.values().filter_map(|known| {
            let autoscaler = known.facts.waker()?;
            let target = self.targets.get(&autoscaler.target)?.read.as_ref().filter(|target| target.is_selected_by(selector))?;
            let inactive = known.facts.inactive.as_ref().zip(known.inactive_since);
            let inactive = inactive.map(|((reason, message), since)| (&**reason, &**message, since));
            Some(promise(autoscaler, target, inactive, now))
        }))
    }
}
