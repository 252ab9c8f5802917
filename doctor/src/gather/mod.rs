//! Facts off a cluster: bounded, many at once, each call with a deadline.
//!
//! Everything is read as the kubeconfig's user: objects by listing them, pages and `/v1/models` of the pools' pods through the API
//! server's pod proxy, a picker's log for the few signs that name a cause. What may not be read becomes a fact of its own.

mod ask;
mod config;
mod dial;
mod list;
mod logs;
mod pages;
mod prepare;
mod readings;

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use kube::Client;
use thiserror::Error;

use self::ask::Asker;
use crate::explain::Reading;
use crate::facts::{FORMAT, Facts, scrub};

/// Kinds whose versions come and go: of each the first that is served.
const GRANTS: [&str; 2] =
    ["apis/gateway.networking.k8s.io/v1beta1/referencegrants", "apis/gateway.networking.k8s.io/v1/referencegrants"];
const DESTINATION_RULES: [&str; 3] = [
    "apis/networking.istio.io/v1/destinationrules",
    "apis/networking.istio.io/v1beta1/destinationrules",
    "apis/networking.istio.io/v1alpha3/destinationrules",
];

/// What is to be looked at, and how hard.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// One namespace alone; none: all that may be read.
    pub namespace: Option<String>,
    /// How long one call may take.
    pub deadline: Duration,
    /// How many calls are under way at once.
    pub concurrency: usize,
    /// Most pods whose pages are read.
    pub pods: usize,
}

impl Default for GatherOptions {
    fn default() -> Self {
        Self { namespace: None, deadline: Duration::from_secs(5), concurrency: 32, pods: 1_000 }
    }
}

/// Why there are no facts at all.
#[derive(Debug, Error)]
pub enum GatherError {
    /// The API server does not answer.
    #[error("the API server does not answer ({0}): is the kubeconfig's context the right one, and the cluster up?")]
    NoAnswer(String),
    /// It does not take the credentials.
    #[error("the API server does not take the credentials of the kubeconfig (401): log in again, or name another with --context")]
    Unauthorized,
}

/// Reads facts off one cluster.
#[derive(Clone)]
pub struct Gatherer {
    client: Client,
    options: GatherOptions,
}

impl Gatherer {
    /// Reads by `client`, as its user. It should send nothing twice (`ClientOptions::connect_without_retries`): a pod that refuses is told
    /// of by a 503.
    pub fn new(client: Client, options: GatherOptions) -> Self {
        Self { client, options }
    }

    /// Reads everything. `progress` is told what is being done; `now` is written into the facts.
    ///
    /// # Errors
    /// [`GatherError`] where the API server as a whole does not answer; anything less is a fact.
    pub async fn gather(&self, now: SystemTime, progress: &(dyn Fn(&str) + Sync)) -> Result<Facts, GatherError> {
        let asker = Asker::new(self.client.clone(), &self.options);
        progress("asking the API server");
        let version = asker.get("/version").await.map_err(|problem| match problem.status {
            Some(401) => GatherError::Unauthorized,
            _ => GatherError::NoAnswer(problem.message),
        })?;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap_or_default();
        let mut facts = Facts {
            version: Some(FORMAT),
            recorded_by: Some(weir_k8s::USER_AGENT.to_owned()),
            recorded_at: Timestamp::try_from(now).ok().map(|now| now.to_string()),
            kubernetes: version["gitVersion"].as_str().map(scrub::text),
            ..Facts::default()
        };
        progress("listing objects");
        self.list(&asker, &mut facts).await;
        let pools = facts.every_pool().count();
        progress(&format!("{pools} pools, {} pods known: reading their pages", facts.pods.iter().count()));
        let (pages, dials, configs, signs, secrets) = tokio::join!(
            pages::read(&asker, &facts, &self.options),
            dial::read(&asker, &facts),
            config::read(&asker, &facts),
            logs::read(&asker, &facts),
            list::secrets(&asker, &facts),
        );
        (facts.pages, facts.served_models) = pages;
        (facts.picker_dials, facts.picker_configs, facts.log_signs, facts.secrets) = (dials, configs, signs, secrets);
        progress("examining");
        Ok(facts)
    }

    /// Reads the Events that tell of changes of size in `namespace`: what an autoscaler's controller remembers follows from them.
    pub async fn remember(&self, facts: &mut Facts, namespace: &str) {
        let asker = Asker::new(self.client.clone(), &self.options);
        let of = |path| list::Kind { path, own: Some(namespace), fallback: namespace };
        let (own, targets) = tokio::join!(
            list::all(&asker, of("api/v1/events?fieldSelector=reason%3DSuccessfulRescale")),
            list::all(&asker, of("api/v1/events?fieldSelector=reason%3DScalingReplicaSet")),
        );
        facts.rescales = own;
        list::add(&mut facts.rescales, targets);
    }

    /// The autoscalers of `namespace`, by name.
    pub fn autoscalers(facts: &Facts, namespace: &str) -> Vec<String> {
        let of = facts.autoscalers.iter().map(|autoscaler| crate::look::meta(autoscaler.metadata.as_ref()));
        let mut names: Vec<_> = of.filter(|meta| meta.namespace() == namespace).map(|meta| meta.name().to_owned()).collect();
        names.sort();
        names
    }

    /// Asks the metrics APIs for every metric of each of the autoscalers, as the controller does: for each one answer per metric, in order.
    pub async fn readings(&self, facts: &Facts, namespace: &str, names: &[String], now: SystemTime) -> Vec<Vec<Reading>> {
        let asker = &Asker::new(self.client.clone(), &self.options);
        futures_util::future::join_all(names.iter().map(|name| readings::read(asker, facts, namespace, name, now))).await
    }

    async fn list(&self, asker: &Asker, facts: &mut Facts) {
        let own = self.options.namespace.as_deref();
        let fallback = self.client.default_namespace();
        let here = |path| list::Kind { path, own, fallback };
        // What lives in namespaces of its own is looked for everywhere.
        let anywhere = |path| list::Kind { path, own: None, fallback: own.unwrap_or(fallback) };
        let objects = async {
            tokio::join!(
                list::all(asker, here("apis/inference.networking.k8s.io/v1/inferencepools")),
                list::all(asker, here("apis/inference.networking.x-k8s.io/v1alpha2/inferencepools")),
                list::all(asker, here("apis/inference.networking.x-k8s.io/v1alpha2/inferenceobjectives")),
                list::all(asker, here("apis/inference.networking.x-k8s.io/v1alpha2/inferencemodelrewrites")),
                list::all(asker, here("apis/inference.networking.x-k8s.io/v1alpha2/inferencemodels")),
                list::all(asker, here("apis/llm-d.ai/v1alpha2/inferenceobjectives")),
                list::all(asker, here("apis/llm-d.ai/v1alpha2/inferencemodelrewrites")),
            )
        };
        let routes = async {
            tokio::join!(
                list::all(asker, anywhere("apis/gateway.networking.k8s.io/v1/gateways")),
                list::all(asker, anywhere("apis/gateway.networking.k8s.io/v1/httproutes")),
                list::first_served(asker, GRANTS.map(anywhere)),
                list::first_served(asker, DESTINATION_RULES.map(anywhere)),
            )
        };
        let workloads = async {
            tokio::join!(
                list::all(asker, here("api/v1/pods")),
                list::all(asker, here("api/v1/services")),
                list::all(asker, here("apis/apps/v1/deployments")),
                list::all(asker, here("apis/apps/v1/statefulsets")),
                list::all(asker, here("apis/leaderworkerset.x-k8s.io/v1/leaderworkersets")),
                list::all(asker, here("apis/batch/v1/jobs")),
                list::all(asker, here("apis/policy/v1/poddisruptionbudgets")),
                list::all(asker, here("api/v1/events?fieldSelector=reason%3DNotTriggerScaleUp")),
                list::all(asker, anywhere("api/v1/nodes")),
                list::crds(asker),
            )
        };
        let scaling = async {
            tokio::join!(
                list::all(asker, here("apis/autoscaling/v2/horizontalpodautoscalers")),
                list::all(asker, here("apis/keda.sh/v1alpha1/scaledobjects")),
                list::api_services(asker),
                list::all(asker, here("apis/monitoring.coreos.com/v1/servicemonitors")),
                list::all(asker, here("apis/monitoring.coreos.com/v1/podmonitors")),
                list::all(asker, here("apis/monitoring.googleapis.com/v1/podmonitorings")),
                list::all(asker, anywhere("apis/monitoring.coreos.com/v1/prometheuses")),
            )
        };
        let (objects, routes, workloads, scaling) = tokio::join!(objects, routes, workloads, scaling);
        let (objectives, rewrites);
        (facts.pools, facts.old_pools, facts.objectives, facts.rewrites, facts.models, objectives, rewrites) = objects;
        list::add(&mut facts.objectives, objectives);
        list::add(&mut facts.rewrites, rewrites);
        (facts.gateways, facts.routes, facts.grants, facts.destination_rules) = routes;
        (
            facts.pods,
            facts.services,
            facts.deployments,
            facts.stateful_sets,
            facts.leader_worker_sets,
            facts.jobs,
            facts.disruption_budgets,
            facts.events,
            facts.nodes,
            facts.crds,
        ) = workloads;
        (
            facts.autoscalers,
            facts.scaled_objects,
            facts.api_services,
            facts.service_monitors,
            facts.pod_monitors,
            facts.pod_monitorings,
            facts.prometheuses,
        ) = scaling;
    }
}

#[cfg(test)]
mod tests;
