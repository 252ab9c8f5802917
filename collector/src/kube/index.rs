//! All that the watches tell, and the pools that follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use weir_datastore::PoolId;
use weir_k8s::{PoolVersion, RequestResource};

use super::build::Cluster;
use super::follow::Change;
use super::metrics::KubeMetrics;
use super::pods::{Labels, PodFacts, Pods, Touched, selects};
use super::pools::{PoolFacts, Pools};
use super::problems::Problems;
use super::rules::{RequestRules, RuleFacts, Rules};
use super::services::{ServiceFacts, Services, TouchedServices};
use super::{KubeDiscoveryConfig, PODS, SERVICES, Scope, resource_name};
use crate::access::{WantedPool, WantedPools};

/// What one of the watches tells.
#[derive(Debug)]
pub(super) enum Update {
    Pools(PoolVersion, Change<PoolFacts>),
    Pods(Change<PodFacts>),
    Services(Change<ServiceFacts>),
    Rules(RequestResource, Change<RuleFacts>),
}

/// What a kind's first answer was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Listed,
    Absent,
    Forbidden,
}

impl Answer {
    /// What is known once `change` is, after `before`: what was listed once stays known.
    fn after<T>(before: Option<Self>, change: &Change<T>) -> Option<Self> {
        match change {
            Change::All(_) => Some(Self::Listed),
            _ if before == Some(Self::Listed) => before,
            Change::Absent => Some(Self::Absent),
            Change::Forbidden => Some(Self::Forbidden),
            Change::Applied(_) | Change::Deleted(_) => before,
        }
    }
}

/// The state of the cluster as far as it is followed.
#[derive(Debug)]
pub(super) struct Index {
    config: Arc<KubeDiscoveryConfig>,
    pools: Pools,
    pods: Pods,
    services: Services,
    rules: Rules,
    answers: BTreeMap<PoolVersion, Answer>,
    pods_answer: Option<Answer>,
    services_answer: Option<Answer>,
    /// Pools to be made up anew.
    touched: BTreeSet<PoolId>,
    wanted: BTreeMap<PoolId, WantedPool>,
    problems: Problems,
    handed_over: watch::Sender<Arc<Vec<WantedPool>>>,
    /// The labels of the pods of the pool that autoscalers are followed for.
    selector: watch::Sender<Option<Labels>>,
    metrics: KubeMetrics,
}

impl Index {
    pub(super) fn new(
        config: Arc<KubeDiscoveryConfig>,
        handed_over: watch::Sender<Arc<Vec<WantedPool>>>,
        rules: watch::Sender<Arc<RequestRules>>,
        metrics: KubeMetrics,
    ) -> Self {
        let rules = Rules::new(config.resources(), rules);
        let (mut pools, mut touched) = (Pools::default(), BTreeSet::new());
        if let Scope::Pods(scope) = &config.scope {
            touched = pools.apply(PoolVersion::V1, Change::All(vec![PoolFacts::of_pods(scope)]));
        }
        Self {
            config,
            pools,
            pods: Pods::default(),
            services: Services::default(),
            rules,
            answers: BTreeMap::new(),
            pods_answer: None,
            services_answer: None,
            touched,
            wanted: BTreeMap::new(),
            problems: Problems::new(metrics.problems.clone()),
            handed_over,
            selector: watch::Sender::default(),
            metrics,
        }
    }

    /// The pools as they become.
    pub(super) fn wanted(&self) -> WantedPools {
        self.handed_over.subscribe()
    }

    /// The labels of the pods of the pool that autoscalers are followed for, once it is known.
    pub(super) fn selector(&self) -> watch::Receiver<Option<Labels>> {
        self.selector.subscribe()
    }

    /// How many pools are wanted, how many pods are known.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.wanted.len(), self.pods.len())
    }

    /// Whether everything has answered, and nothing is missing without which a pool would look emptier than it is: pods that may
    /// not be listed are not no pods.
    pub(super) fn is_synced(&self) -> bool {
        let answered = self.config.versions().all(|version| self.answers.contains_key(&version));
        let of_some_group =
            self.config.versions().next().is_none() || self.answers.values().any(|answer| *answer != Answer::Forbidden);
        let services = !self.config.pickers.read || self.services_answer.is_some();
        answered && of_some_group && services && self.rules.answered() && self.pods_answer == Some(Answer::Listed)
    }

    pub(super) fn apply(&mut self, update: Update) {
        match update {
            Update::Pools(version, change) => {
                let before = self.answers.get(&version).copied();
                if let Some(answer) = Answer::after(before, &change) {
                    self.answers.insert(version, answer);
                }
                self.touched.append(&mut self.pools.apply(version, change));
            }
            Update::Pods(change) => {
                self.pods_answer = Answer::after(self.pods_answer, &change);
                match self.pods.apply(change) {
                    None => {}
                    Some(Touched::All) => self.touched.append(&mut self.pools.ids()),
                    Some(Touched::Some { namespace, labels }) => {
                        let selected = |selector| labels.iter().any(|labels| selects(selector, labels));
                        for (id, pool) in self.pools.of_namespace(&namespace) {
                            let service = pool.picker.as_ref().map(|picker| (pool.namespace.clone(), picker.service.clone()));
                            let service = service.and_then(|key| self.services.get(&key));
                            if selected(&pool.selector) || service.is_some_and(|service| selected(&service.selector)) {
                                self.touched.insert(id.clone());
                            }
                        }
                    }
                }
            }
            Update::Rules(resource, change) => self.rules.apply(resource, change),
            Update::Services(change) => {
                self.services_answer = Answer::after(self.services_answer, &change);
                match self.services.apply(change) {
                    None => {}
                    Some(TouchedServices::All) => self.touched.append(&mut self.pools.ids()),
                    Some(TouchedServices::One((namespace, name))) => {
                        let named = |(_, pool): &(_, &Arc<weir_k8s::InferencePool>)| {
                            pool.picker.as_ref().is_some_and(|picker| picker.service == name)
                        };
                        let touched = self.pools.of_namespace(&namespace).filter(named).map(|(id, _)| id.clone());
                        self.touched.extend(touched);
                    }
                }
            }
        }
    }

    /// Makes the touched pools up anew, and hands all over if one of them has changed.
    pub(super) fn publish(&mut self) {
        let cluster = Cluster {
            pods: &self.pods,
            services: &self.services,
            services_known: self.services_answer == Some(Answer::Listed),
            config: &self.config,
        };
        let mut changed = false;
        for id in std::mem::take(&mut self.touched) {
            let (pool, problems) = self.pools.get(&id);
            let mut problems: BTreeSet<_> = problems.into_iter().collect();
            let wanted = pool.map(|pool| cluster.build(&id, pool, &mut problems));
            self.problems.set(&id, problems);
            changed |= wanted.as_ref() != self.wanted.get(&id);
            match wanted {
                Some(wanted) => drop(self.wanted.insert(id, wanted)),
                None => drop(self.wanted.remove(&id)),
            }
        }
        if let Some(id) = self.config.promised() {
            let selector = self.pools.get(id).0.map(|pool| pool.selector.clone());
            self.selector.send_if_modified(|known| {
                let changed = *known != selector;
                *known = selector;
                changed
            });
        }
        for (resource, count) in self.rules.sizes() {
            self.metrics.objects(resource.name(), count);
        }
        if let Some(problems) = self.rules.publish() {
            self.problems.set_rules(problems);
        }
        self.problems.told();
        for version in self.config.versions() {
            self.metrics.objects(resource_name(version), self.pools.len(version));
        }
        if self.config.pickers.read {
            self.metrics.objects(SERVICES, self.services.len());
        }
        self.metrics.objects(PODS, self.pods.len());
        if changed {
            self.metrics.updates.inc();
            self.handed_over.send_replace(Arc::new(self.wanted.values().cloned().collect()));
        }
    }
}
