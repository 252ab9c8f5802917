//! Not enough servers.

use crate::facts::Facts;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static NO_GPU_NODE: Check = Check {
    code: "pods-without-gpu",
    title: "Servers wait for a node with a GPU",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "The autoscaler has asked, and no node can take the pods: too few GPUs, a taint that they do not tolerate, a node pool at its \
            limit or without capacity in the zone. The scheduler's message says which.",
    elsewhere: Elsewhere::Outside("it is about nodes and Jobs, which weir's servers do not read."),
    needs: &["pools", "pods"],
    run: no_gpu_node,
};

pub(crate) static SATURATED: Check = Check {
    code: "pool-saturated",
    title: "A pool is full",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "Every server that can be read has 5 or more requests waiting, or its KV cache above 0.8: nothing is broken, there is too \
            little of it. More replicas are the answer.",
    elsewhere: Elsewhere::Told { log: false, metric: "inference_pool_saturation" },
    needs: &["pools", "pods", "pages"],
    run: saturated,
};

/// Resources that GPUs are asked for by.
const GPU_RESOURCES: [&str; 4] = ["nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "habana.ai/gaudi"];
/// From how many waiting requests on a server is full.
const QUEUE: f64 = 5.0;
/// From which KV cache use on a server is full.
const KV_CACHE: f64 = 0.8;

fn no_gpu_node(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        let waiting: Vec<_> = facts.pods_of(pool).into_iter().filter_map(|pod| Some((pod, pod.unschedulable()?))).collect();
        let Some((pod, condition)) = waiting.first() else { continue };
        let message = condition.message.as_deref().unwrap_or("");
        let resource = GPU_RESOURCES.into_iter().find(|resource| message.contains(resource) || pod.requests(resource));
        let what = match resource {
            Some(resource) => format!("{} servers wait for a node with {resource}", waiting.len()),
            None => format!("{} servers fit on no node", waiting.len()),
        };
        let event = facts.events.iter().find(|event| {
            let involved = event.involved_object.as_ref();
            involved.and_then(|involved| involved.name.as_deref()) == Some(pod.meta().name())
                && matches!(event.reason.as_deref(), Some("NotTriggerScaleUp" | "FailedScaleUp"))
        });
        let more = event
            .and_then(|event| event.message.as_deref())
            .map_or_else(String::new, |message| format!("; the node autoscaler says: {message}"));
        let remedy = if message.contains("untolerated taint") && !message.contains("Insufficient") {
            "spec.template.spec.tolerations: the taint of the GPU nodes".to_owned()
        } else {
            "add GPU nodes (limit of the node pool, quota, capacity of the zone), or lower maxReplicas to what there is".to_owned()
        };
        let finding =
            Finding::new("InferencePool", path(pool), what).evidence(format!("{}: {}{more}", pod.meta().path(), condition.told()));
        found.push(finding.remedy(remedy).pool(path(pool)));
    }
    found
}

fn saturated(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let ready: Vec<_> = facts.pods_of(pool).into_iter().filter(|pod| pod.ready() == Some(true)).collect();
        let mut shown = Vec::new();
        for pod in &ready {
            let mut full = None;
            for page in facts.pages_of(pod) {
                let queue = page.waiting.is_some_and(|waiting| waiting >= QUEUE);
                let cache = page.kv_cache_utilization.is_some_and(|used| used >= KV_CACHE);
                if !(queue || cache) {
                    return None;
                }
                full = Some(page);
            }
            // One that is not known may have room.
            let page = full?;
            let number = |value: Option<f64>| {
                value.map_or_else(
                    || "?".to_owned(),
                    |value| format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
                )
            };
            shown.push(format!(
                "{}: {} waiting, KV cache {}",
                pod.meta().name(),
                number(page.waiting),
                number(page.kv_cache_utilization)
            ));
        }
        if shown.is_empty() {
            return None;
        }
        let count = shown.len();
        shown.truncate(4);
        let pool_meta = meta(pool.metadata.as_ref());
        let autoscaled = facts
            .autoscalers
            .iter()
            .find(|autoscaler| facts.pool_of_autoscaler(autoscaler).is_some_and(|other| path(other) == path(pool)));
        let remedy = match (autoscaled, facts.workloads_of(pool).first()) {
            (Some(autoscaler), _) => {
                let own = meta(autoscaler.metadata.as_ref());
                format!(
                    "kubectl -n {} describe hpa {}: it is to grow; raise maxReplicas where it cannot",
                    own.namespace(),
                    own.name()
                )
            }
            (None, Some((kind, workload))) => {
                let workload = meta(workload.metadata.as_ref());
                format!(
                    "kubectl -n {} scale {} {} --replicas={}; or an HPA: hpa-examples/in-flight.yaml",
                    pool_meta.namespace(),
                    kind.to_lowercase(),
                    workload.name(),
                    count + 1
                )
            }
            (None, None) => "more replicas; or an HPA: hpa-examples/in-flight.yaml".to_owned(),
        };
        let finding = Finding::new("InferencePool", path(pool), "is full: more replicas are the answer").evidence(shown.join("; "));
        Some(finding.remedy(remedy).pool(path(pool)))
    });
    found.collect()
}
