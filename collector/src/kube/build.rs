//! From a pool and the pods that it selects to what is wanted.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use weir_datastore::engine::Engine;
use weir_datastore::{EndpointAddress, EndpointSpec, EndpointState, MetricsSource, PodStart, PoolId, PoolSpec, StartingPod};
use weir_k8s::{FieldProblem, InferencePool};

use super::KubeDiscoveryConfig;
use super::annotations::{hold_of, page_of, required_of};
use super::pickers::{names, pickers_of};
use super::pods::{Pods, Selected};
use super::problems::Problem;
use super::services::Services;
use crate::access::WantedPool;

/// What the parts of a pool are taken from.
pub(super) struct Cluster<'index> {
    pub(super) pods: &'index Pods,
    pub(super) services: &'index Services,
    /// Whether Services could be listed.
    pub(super) services_known: bool,
    pub(super) config: &'index KubeDiscoveryConfig,
}

impl Cluster<'_> {
    /// `pool` as it is wanted, and what is wrong with what belongs to it.
    pub(super) fn build(&self, id: &PoolId, pool: &InferencePool, problems: &mut BTreeSet<Problem>) -> WantedPool {
        let config = self.config;
        let (page, wrong) = page_of(&pool.annotations, &config.annotation_prefix, pool.target_ports.len(), &config.metrics);
        let told = |wrong: FieldProblem| {
            let object = format!("InferencePool {id} ({})", pool.version);
            Problem { code: None, object, field: wrong.field, message: wrong.message }
        };
        problems.extend(wrong.into_iter().map(told));
        let metrics = MetricsSource { scheme: page.scheme, path: page.path, engine: page.engine, families: page.families };
        let (endpoints, starts) = self.endpoints(pool, problems);
        let pending = starts.pending;
        let (hold, wrong) = hold_of(&pool.annotations, &config.annotation_prefix);
        problems.extend(wrong.into_iter().map(told));
        let (required, wrong) = required_of(&pool.annotations, &config.annotation_prefix);
        problems.extend(wrong.into_iter().map(told));
        let (mut pickers, mut picker_names) = (Vec::new(), None);
        if let Some(reference) = pool.picker.as_ref().filter(|_| config.pickers.read) {
            let found = pickers_of(pool, reference, self.pods, self.services, self.services_known, &config.pickers);
            problems.extend(found.1);
            pickers = found.0;
            // A picker that cannot be found holds what it holds: the pool has one all the same.
            picker_names = Some(names(&pickers));
        }
        let spec = PoolSpec {
            metrics,
            endpoints,
            pickers: picker_names,
            pending,
            starts: starts.pods,
            hold,
            required,
            ..PoolSpec::empty(id.clone())
        };
        WantedPool { spec, access: page.access, pickers, selector: Arc::new(pool.selector.clone()) }
    }

    /// The pool's endpoints, and what is known of the starts of its pods.
    fn endpoints(&self, pool: &InferencePool, problems: &mut BTreeSet<Problem>) -> (Vec<EndpointSpec>, Starts) {
        let mut selected: Vec<_> = self.pods.select(&pool.namespace, &pool.selector).collect();
        selected.sort_unstable_by_key(|pod| pod.name);
        let mut endpoints: Vec<EndpointSpec> = Vec::with_capacity(selected.len() * pool.target_ports.len());
        let mut places: HashMap<EndpointAddress, usize> = HashMap::with_capacity(endpoints.capacity());
        let mut starts = Starts::default();
        for pod in selected {
            let pending = pod.entry.pending;
            if let Some(start) = &pod.entry.start {
                let (name, uid) = (pod.name.clone(), pod.entry.uid.clone());
                starts.pods.push(StartingPod { pod: name, uid, pending, start: PodStart::clone(start) });
            }
            if pending {
                starts.pending += 1;
                continue;
            }
            check_engine(pool, &pod, problems);
            for endpoint in ranks(pool, &pod, problems) {
                match places.entry(endpoint.address.clone()) {
                    Entry::Vacant(free) => {
                        free.insert(endpoints.len());
                        endpoints.push(endpoint);
                    }
                    Entry::Occupied(taken) => {
                        // The address of a pod that ends may be another's already, whose load must not be taken for its own.
                        let known = &mut endpoints[*taken.get()];
                        if known.state != EndpointState::Terminating && endpoint.state != EndpointState::Terminating {
                            let message = format!("{} is also that of pod {}: it is read once", endpoint.address, known.pod);
                            problems.insert(of_pod(pool, &pod, "status.podIP", message));
                        }
                        if preference(endpoint.state) > preference(known.state) {
                            *known = endpoint;
                        }
                    }
                }
            }
        }
        (endpoints, starts)
    }
}

/// What is known of the starts of a pool's pods.
#[derive(Default)]
struct Starts {
    pods: Vec<StartingPod>,
    /// Those that have no address yet.
    pending: usize,
}

fn preference(state: EndpointState) -> u8 {
    match state {
        EndpointState::Ready => 2,
        EndpointState::Unready => 1,
        EndpointState::Terminating => 0,
    }
}

/// An endpoint for each target port of `pod` that is active.
fn ranks(pool: &InferencePool, pod: &Selected<'_>, problems: &mut BTreeSet<Problem>) -> Vec<EndpointSpec> {
    let Some(ip) = pod.entry.ip else {
        let message = "is no address that can be reached: the pod is left out".to_owned();
        problems.insert(of_pod(pool, pod, "status.podIP", message));
        return Vec::new();
    };
    let active = pod.entry.active_ports.as_deref();
    if let Some(active) = active {
        const FIELD: &str = "metadata.annotations[inference.networking.k8s.io/active-ports]";
        if let Some(wrong) = &active.wrong {
            let message = format!("`{}` is passed over: write ports with commas between, as 8000,8001", wrong.escape_debug());
            problems.insert(of_pod(pool, pod, FIELD, message));
        }
        if !active.ports.is_empty() && !pool.target_ports.iter().any(|port| active.ports.contains(port)) {
            let message = format!("names none of the pool's target ports {:?}: the pod has no endpoint", pool.target_ports);
            problems.insert(of_pod(pool, pod, FIELD, message));
        }
    }
    let ports = (0..).zip(&pool.target_ports).filter(|(_, port)| active.is_none_or(|active| active.ports.contains(port)));
    ports
        .map(|(rank, port)| EndpointSpec {
            address: SocketAddr::new(ip, *port).into(),
            pod: pod.name.clone(),
            pod_uid: pod.entry.uid.clone(),
            rank,
            labels: pod.labels.clone(),
            state: pod.entry.state,
            serves_with: pod.entry.serves_with.clone(),
        })
        .collect()
}

/// A label that names no engine would leave the pod's to what its page shows, without a word.
fn check_engine(pool: &InferencePool, pod: &Selected<'_>, problems: &mut BTreeSet<Problem>) {
    for label in Engine::POD_LABELS {
        let Some(name) = pod.labels.get(label) else { continue };
        let message = match name.parse::<Engine>() {
            Ok(Engine::Custom) => "`custom` names no families: remove the label, or name the engine".to_owned(),
            Ok(_) => continue,
            Err(error) => error.replace("one of auto, ", "one of ").replace(", custom", ""),
        };
        problems.insert(of_pod(pool, pod, &format!("metadata.labels[{label}]"), message));
    }
}

fn of_pod(pool: &InferencePool, pod: &Selected<'_>, field: &str, message: String) -> Problem {
    Problem { code: None, object: format!("Pod {}/{}", pool.namespace, pod.name), field: field.to_owned(), message }
}
