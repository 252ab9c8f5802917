//! Looking things up among facts. `None` is always "not known", never "not there".

use std::time::Duration;

use jiff::Timestamp;

use crate::facts::Facts;
use crate::facts::gateway::{BackendReference, Route};
use crate::facts::meta::{Labels, Meta};
use crate::facts::observed::{Page, PickerConfig};
use crate::facts::pool::Pool;
use crate::facts::scaling::{Autoscaler, TargetReference};
use crate::facts::workload::{Pod, Service, Workload};

/// The API group of `v1` pools.
pub(crate) const POOL_GROUP: &str = "inference.networking.k8s.io";
/// The API group of `v1alpha2` pools.
pub(crate) const OLD_POOL_GROUP: &str = "inference.networking.x-k8s.io";
/// Gateway API.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Metadata, where there is any.
pub(crate) fn meta(metadata: Option<&Meta>) -> &Meta {
    static NOTHING: std::sync::OnceLock<Meta> = std::sync::OnceLock::new();
    metadata.unwrap_or_else(|| NOTHING.get_or_init(Meta::default))
}

/// Whether `labels` have all of `wanted`; an empty selector of a Service or a pool selects nothing.
pub(crate) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A time as Kubernetes writes it.
pub(crate) fn time(text: Option<&String>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// From one time to a later one.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(to.duration_since(from)).ok()
}

/// A duration of Gateway API or Go: `1h`, `2m30s`, `500ms`, `0s`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0_f64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Seconds for people: `45 s`, `4 min 10 s`.
pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

impl Facts {
    /// When the facts were had.
    pub(crate) fn now(&self) -> Option<Timestamp> {
        time(self.recorded_at.as_ref())
    }

    /// How long ago `text` was.
    pub(crate) fn ago(&self, text: Option<&String>) -> Option<Duration> {
        between(time(text)?, self.now()?)
    }

    /// Every pool once: where both groups have one of a name, that of `v1`.
    pub(crate) fn every_pool(&self) -> impl Iterator<Item = &Pool> {
        let older = self.old_pools.iter().filter(|old| {
            let old = meta(old.metadata.as_ref());
            !self.pools.iter().any(|pool| meta(pool.metadata.as_ref()).is(old.namespace(), old.name()))
        });
        self.pools.iter().chain(older)
    }

    /// The pool of that name.
    pub(crate) fn pool(&self, namespace: &str, name: &str) -> Option<&Pool> {
        self.every_pool().find(|pool| meta(pool.metadata.as_ref()).is(namespace, name))
    }

    /// Whether there is a pool of that name in either group.
    pub(crate) fn has_pool(&self, namespace: &str, name: &str) -> Option<bool> {
        if self.pool(namespace, name).is_some() {
            return Some(true);
        }
        self.pools.all_in(namespace)?;
        self.old_pools.all_in(namespace)?;
        Some(false)
    }

    /// Whether there is a pool of that name in `group`.
    pub(crate) fn has_pool_of(&self, group: &str, namespace: &str, name: &str) -> Option<bool> {
        let listing = match group {
            POOL_GROUP => &self.pools,
            OLD_POOL_GROUP => &self.old_pools,
            _ => return None,
        };
        if listing.iter().any(|pool| meta(pool.metadata.as_ref()).is(namespace, name)) {
            return Some(true);
        }
        listing.all_in(namespace).map(|_| false)
    }

    /// The pods that `pool` selects and that are neither done nor going, as far as they are known.
    pub(crate) fn pods_of<'facts>(&'facts self, pool: &Pool) -> Vec<&'facts Pod> {
        let labels = pool.spec.as_ref().and_then(|spec| spec.selector.as_ref()).and_then(|selector| selector.labels());
        let Some(wanted) = labels else { return Vec::new() };
        let namespace = meta(pool.metadata.as_ref()).namespace();
        self.selected_pods(namespace, &wanted)
    }

    /// The pods of `namespace` with all labels of `wanted`.
    pub(crate) fn selected_pods(&self, namespace: &str, wanted: &Labels) -> Vec<&Pod> {
        let selected = |pod: &&Pod| {
            let meta = pod.meta();
            pod.counts() && meta.namespace() == namespace && meta.labels.as_ref().is_some_and(|labels| has_all(labels, wanted))
        };
        self.pods.iter().filter(selected).collect()
    }

    /// A Service, where it is known.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| meta(service.metadata.as_ref()).is(namespace, name))
    }

    /// The Service of `pool`'s picker.
    pub(crate) fn picker_service(&self, pool: &Pool) -> Option<&Service> {
        self.service(meta(pool.metadata.as_ref()).namespace(), pool.picker()?.name.as_deref()?)
    }

    /// The pods of `pool`'s picker, as far as they are known.
    pub(crate) fn picker_pods<'facts>(&'facts self, pool: &Pool) -> Vec<&'facts Pod> {
        let selector = self.picker_service(pool).and_then(|service| service.spec.as_ref()?.selector.as_ref());
        let namespace = meta(pool.metadata.as_ref()).namespace();
        selector.map(|selector| self.selected_pods(namespace, selector)).unwrap_or_default()
    }

    /// The pages of `pod`.
    pub(crate) fn pages_of<'facts>(&'facts self, pod: &'facts Pod) -> impl Iterator<Item = &'facts Page> {
        let meta = pod.meta();
        self.pages
            .iter()
            .filter(|page| page.namespace.as_deref() == Some(meta.namespace()) && page.pod.as_deref() == Some(meta.name()))
    }

    /// The configurations of `pool`'s picker: those of its pods' ConfigMaps and command lines.
    pub(crate) fn configs_of<'facts>(&'facts self, pool: &Pool) -> Vec<&'facts PickerConfig> {
        let namespace = meta(pool.metadata.as_ref()).namespace();
        let sources: Vec<String> = self.picker_pods(pool).into_iter().flat_map(config_sources).collect();
        let here = |config: &&PickerConfig| {
            config.namespace.as_deref() == Some(namespace)
                && config.source.as_ref().is_some_and(|source| sources.iter().any(|known| known == source))
        };
        self.picker_configs.iter().filter(here).collect()
    }

    /// Everything that an autoscaler can scale.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = (&'static str, &Workload)> {
        let deployments = self.deployments.iter().map(|workload| ("Deployment", workload));
        let stateful_sets = self.stateful_sets.iter().map(|workload| ("StatefulSet", workload));
        deployments.chain(stateful_sets).chain(self.leader_worker_sets.iter().map(|workload| ("LeaderWorkerSet", workload)))
    }

    /// What makes the pods of `pool`.
    pub(crate) fn workloads_of<'facts>(&'facts self, pool: &Pool) -> Vec<(&'static str, &'facts Workload)> {
        let labels = pool.spec.as_ref().and_then(|spec| spec.selector.as_ref()).and_then(|selector| selector.labels());
        let Some(wanted) = labels else { return Vec::new() };
        let namespace = meta(pool.metadata.as_ref()).namespace();
        let makes = |(_, workload): &(&str, &Workload)| {
            meta(workload.metadata.as_ref()).namespace() == namespace
                && workload.pod_labels().is_some_and(|labels| has_all(labels, &wanted))
        };
        self.workloads().filter(makes).collect()
    }

    /// What `reference` of `namespace` scales.
    pub(crate) fn target(&self, namespace: &str, reference: &TargetReference) -> Option<&Workload> {
        let (kind, name) = (reference.kind.as_deref()?, reference.name.as_deref()?);
        self.workloads()
            .find(|(of, workload)| *of == kind && meta(workload.metadata.as_ref()).is(namespace, name))
            .map(|(_, workload)| workload)
    }

    /// The pool whose pods `autoscaler` makes: that of its metrics, else that of its target.
    pub(crate) fn pool_of_autoscaler(&self, autoscaler: &Autoscaler) -> Option<&Pool> {
        let namespace = meta(autoscaler.metadata.as_ref()).namespace();
        let spec = autoscaler.spec.as_ref()?;
        let named = spec.metrics.iter().flatten().find_map(|metric| self.pool(namespace, metric.pool()?));
        named.or_else(|| {
            let labels = self.target(namespace, spec.scale_target_ref.as_ref()?)?.pod_labels()?;
            self.every_pool().find(|pool| {
                let wanted = pool.spec.as_ref().and_then(|spec| spec.selector.as_ref()).and_then(|selector| selector.labels());
                meta(pool.metadata.as_ref()).namespace() == namespace && wanted.is_some_and(|wanted| has_all(labels, &wanted))
            })
        })
    }

    /// The least time that a server of `pool` took from being scheduled to Ready, over those that never started anew.
    pub(crate) fn start_time(&self, pool: &Pool) -> Option<Duration> {
        let took = |pod: &&Pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref();
            let ready = crate::facts::meta::condition(conditions, "Ready", "True")?;
            let scheduled = crate::facts::meta::condition(conditions, "PodScheduled", "True")?;
            if pod.container_statuses().any(|status| status.restart_count.unwrap_or(0) > 0) {
                return None;
            }
            between(time(scheduled.last_transition_time.as_ref())?, time(ready.last_transition_time.as_ref())?)
        };
        self.pods_of(pool).iter().filter_map(took).min()
    }
}

/// Where a picker pod's configuration is: `configmap/NAME` of each that it mounts, and `pod/NAME` for its command line.
pub(crate) fn config_sources(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let maps = volumes.filter_map(|volume| Some(format!("configmap/{}", volume.config_map.as_ref()?.name.as_ref()?)));
    maps.chain([format!("pod/{}", pod.meta().name())]).collect()
}

/// The group of a backend that is a pool; none for Services and others.
pub(crate) fn pool_group(backend: &BackendReference) -> Option<&str> {
    let group = backend.group.as_deref()?;
    (backend.kind.as_deref()? == "InferencePool").then_some(group)
}

/// Every backend of a route that is a pool: its group, namespace and name.
pub(crate) fn pool_backends(route: &Route) -> impl Iterator<Item = (&BackendReference, &str, &str, &str)> {
    let own = meta(route.metadata.as_ref()).namespace();
    let rules = route.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.flat_map(|rule| rule.backend_refs.iter().flatten()).filter_map(move |backend| {
        Some((backend, pool_group(backend)?, backend.namespace.as_deref().unwrap_or(own), backend.name.as_deref()?))
    })
}

/// `namespace/name` of a pool.
pub(crate) fn path(pool: &Pool) -> String {
    meta(pool.metadata.as_ref()).path()
}
