//! Metrics of single pods: what HorizontalPodAutoscalers of type `Pods` average by themselves.
//!
//! A pod has a value where all of its endpoints (a pod with several target ports has several, "ranks") are ready, fresh and carry the
//! signal. Otherwise it has none, never 0 and never a part: the autoscaler takes a missing pod for as busy as the target when it
//! would scale down, and for idle when it would scale up.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;
use weir_datastore::catalog::{PER_POD_QUEUE_SIZE, Unit};
use weir_datastore::{Combined, EndpointAddress, EndpointLoad, EndpointView, Freshness, Measured, PoolSnapshot};

use crate::names;

/// One family with one value per pod.
#[derive(Debug)]
pub struct PodFamily {
    /// Metric name.
    pub name: &'static str,
    /// Unit of its values.
    pub unit: Unit,
    /// Its meaning, in one sentence.
    pub help: &'static str,
    /// Engines' own names of the same signal, as examples of other adapters use them.
    also: &'static [&'static str],
    signal: fn(&EndpointLoad) -> Option<Combined>,
    /// Whether the ranks of a pod add up; otherwise they average.
    adds_up: bool,
}

/// Every family with one value per pod. All are per endpoint by nature: the target type is `AverageValue`, of the metric type `Pods`.
pub const POD_FAMILIES: &[PodFamily] = &[
    PodFamily {
        name: "inference_pod_running_requests",
        unit: Unit::Requests,
        help: "Requests in execution in the pod's model servers.",
        also: &["vllm:num_requests_running", "sglang:num_running_reqs"],
        signal: |load| load.running,
        adds_up: true,
    },
    PodFamily {
        name: "inference_pod_queue_size",
        unit: Unit::Requests,
        help: "Requests waiting in the pod's model servers.",
        also: &["vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"],
        signal: |load| load.waiting,
        adds_up: true,
    },
    PodFamily {
        name: PER_POD_QUEUE_SIZE.0,
        unit: Unit::Requests,
        help: "Requests waiting in the pod's model servers, by the name that pickers use.",
        also: &[],
        signal: |load| load.waiting,
        adds_up: true,
    },
    PodFamily {
        name: "inference_pod_kv_cache_utilization",
        unit: Unit::Ratio,
        help: "Mean share of the KV cache in use over the pod's model servers.",
        also: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"],
        signal: |load| load.kv_cache_utilization,
        adds_up: false,
    },
];

/// The family that `name` means, in any dialect.
pub(crate) fn family(name: &str) -> Option<&'static PodFamily> {
    let plain = names::plain(name);
    POD_FAMILIES.iter().find(|family| family.name == plain || family.also.contains(&plain))
}

/// What is known of the pods that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// Those with a value, by name.
    pub(crate) known: BTreeMap<Arc<str>, Measured>,
    /// How many have none.
    pub(crate) unknown: usize,
    /// Of those, how many are ready.
    pub(crate) ready: usize,
    /// What the last attempt at some pod without a value met with.
    pub(crate) problem: Option<Arc<str>>,
    /// The youngest page of one without a value.
    pub(crate) last_read: Option<Instant>,
}

/// A pod is told from its namesake before it by its uid.
type PodKey = (Arc<str>, Arc<str>);

/// The values of the pods in `snapshots` called `name`, or of all.
pub(crate) fn measure(family: &PodFamily, snapshots: &[PoolSnapshot], name: Option<&str>) -> Pods {
    let mut by_pod: BTreeMap<PodKey, BTreeMap<&EndpointAddress, &EndpointView>> = BTreeMap::new();
    for view in snapshots.iter().flat_map(|snapshot| &snapshot.endpoints) {
        let spec = &view.endpoint.spec;
        if name.is_none_or(|name| *spec.pod == *name) {
            let of_pod = by_pod.entry((spec.pod.clone(), spec.pod_uid.clone())).or_default();
            // A pod of two pools is read twice: the younger page counts.
            let kept = of_pod.entry(&spec.address).or_insert(view);
            if read_at(view) > read_at(kept) {
                *kept = view;
            }
        }
    }
    let mut pods = Pods::default();
    let mut without: BTreeMap<Arc<str>, Vec<&EndpointView>> = BTreeMap::new();
    for ((name, _), views) in by_pod {
        match value(family, views.values().copied()) {
            Some(measured) => {
                let kept = pods.known.entry(name).or_insert(measured);
                if measured.as_of > kept.as_of {
                    *kept = measured;
                }
            }
            None => without.entry(name).or_default().extend(views.into_values()),
        }
    }
    without.retain(|name, _| !pods.known.contains_key(name));
    pods.unknown = without.len();
    pods.ready = without.values().filter(|views| views.iter().any(|view| is_ready(view))).count();
    let views = || without.values().flatten();
    pods.problem = views().filter(|view| is_ready(view)).find_map(|view| Some(view.status.failure.as_ref()?.message.clone()));
    pods.last_read = views().filter_map(|view| Some(view.status.load.as_deref()?.scraped_at)).max();
    pods
}

/// The endpoints of one pod as one, as old as the oldest of them; none where one of them has nothing to say.
fn value<'view>(family: &PodFamily, views: impl Iterator<Item = &'view EndpointView>) -> Option<Measured> {
    let (mut sum, mut count) = (0.0, 0.0);
    let mut as_of: Option<Instant> = None;
    for view in views {
        let load = view.fresh_load()?;
        sum += (family.signal)(load)?.value;
        count += 1.0;
        as_of = Some(as_of.map_or(load.scraped_at, |oldest| oldest.min(load.scraped_at)));
    }
    Some(Measured { value: if family.adds_up { sum } else { sum / count }, as_of: as_of? })
}

fn read_at(view: &EndpointView) -> Option<Instant> {
    view.fresh_load().map(|load| load.scraped_at)
}

fn is_ready(view: &EndpointView) -> bool {
    !matches!(view.freshness, Freshness::Unready | Freshness::Terminating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_engines_mean_our_families() {
        for (name, expected) in [
            ("inference_pod_queue_size", Some("inference_pod_queue_size")),
            ("prometheus.googleapis.com|vllm:num_requests_waiting|gauge", Some("inference_pod_queue_size")),
            ("vllm:num_requests_running", Some("inference_pod_running_requests")),
            ("prometheus.googleapis.com|tgi_queue_size|gauge", Some("inference_pod_queue_size")),
            ("sglang:token_usage", Some("inference_pod_kv_cache_utilization")),
            ("inference_pool_per_pod_queue_size", Some("inference_pool_per_pod_queue_size")),
            ("inference_pool_average_queue_size", None),
            ("vllm:num_preemptions_total", None),
            ("", None),
        ] {
            assert_eq!(family(name).map(|family| family.name), expected, "{name}");
        }
    }

    #[test]
    fn each_name_has_one_family() {
        let mut names: Vec<_> = POD_FAMILIES.iter().flat_map(|family| family.also.iter().copied().chain([family.name])).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        assert!(POD_FAMILIES.iter().all(|family| family.help.ends_with('.') && family.adds_up == (family.unit == Unit::Requests)));
    }
}
