//! The pools as JSON: what the page says, and why it does not say the rest.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_datastore::{EndpointView, Measurement, PoolSnapshot, StartingPod, Unused, catalog};

/// One pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the InferencePool.
    pub name: String,
    /// Every family of the catalog by its name.
    pub metrics: BTreeMap<&'static str, ValueView>,
    /// Families whose value is only the highest bound of the servers' histograms: the true one is at least that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at_least: Vec<&'static str>,
    /// Endpoints by state.
    pub coverage: BTreeMap<&'static str, usize>,
    /// The endpoints.
    pub endpoints: Vec<EndpointJson>,
    /// Pods that are not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unready: Vec<UnreadyPod>,
}

/// A pod that is not ready.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadyPod {
    /// Its name.
    pub pod: String,
    /// How long ago it was created, or first seen.
    pub began_seconds_ago: f64,
    /// What stands in the way of its ever being ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<String>,
}

/// A value with its age, or why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ValueView {
    /// Known.
    #[serde(rename_all = "camelCase")]
    Known {
        /// The value.
        value: f64,
        /// Its unit.
        unit: &'static str,
        /// Age of the oldest page in it.
        age_seconds: f64,
    },
    /// Not known.
    #[serde(rename_all = "camelCase")]
    Unknown {
        /// The cause.
        unknown: String,
        /// How long ago it was last known, if ever.
        last_known_seconds_ago: Option<f64>,
    },
}

/// One endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointJson {
    /// host:port.
    pub address: String,
    /// Its pod.
    pub pod: String,
    /// fresh, stale, unreachable, unready or terminating.
    pub state: &'static str,
    /// The engine that writes its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    /// Age of its last readable page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Requests in execution, by that page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<f64>,
    /// Requests queued, by that page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, by that page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_utilization: Option<f64>,
    /// What of the page was not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<UnusedView>,
    /// The current run of failed attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

/// Samples of a page that were not used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnusedView {
    /// Lines that could not be read.
    pub dropped_lines: u32,
    /// Values that cannot be true.
    pub invalid: u32,
    /// Repeated series.
    pub duplicates: u32,
    /// Samples with an old timestamp of their own.
    pub outdated: u32,
}

/// A run of failed attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureView {
    /// Its class.
    pub kind: &'static str,
    /// In words.
    pub message: String,
    /// Attempts in the run.
    pub attempts: u32,
    /// How long ago it began.
    pub began_seconds_ago: f64,
}

impl PoolView {
    /// `pool` as it is shown.
    pub fn of(pool: &PoolSnapshot) -> Self {
        let metrics = catalog::FAMILIES.iter().map(|family| {
            let value = ValueView::of((family.measure)(pool), family.unit.as_str(), pool);
            (family.name, value)
        });
        let states = weir_datastore::Freshness::ALL;
        let expected = pool.expected_start();
        let unready = |pod: &StartingPod| UnreadyPod {
            pod: pod.pod.to_string(),
            began_seconds_ago: pool.taken_at.saturating_duration_since(pod.start.began).as_secs_f64(),
            hindrance: pod.hindrance(expected, pool.taken_at),
        };
        Self {
            namespace: pool.id.namespace.to_string(),
            name: pool.id.name.to_string(),
            metrics: metrics.collect(),
            at_least: catalog::FAMILIES.iter().filter(|family| family.is_at_least(pool)).map(|family| family.name).collect(),
            coverage: states.map(|state| (state.label(), pool.coverage.count(state))).into(),
            endpoints: pool.endpoints.iter().map(|view| EndpointJson::of(view, pool)).collect(),
            unready: pool.unready.iter().map(unready).collect(),
        }
    }
}

impl ValueView {
    fn of(measurement: Measurement, unit: &'static str, pool: &PoolSnapshot) -> Self {
        match measurement {
            Ok(measured) => {
                let age = pool.taken_at.saturating_duration_since(measured.as_of);
                Self::Known { value: measured.value, unit, age_seconds: age.as_secs_f64() }
            }
            Err(unknown) => Self::Unknown {
                last_known_seconds_ago: unknown.last_known().map(|at| pool.taken_at.saturating_duration_since(at).as_secs_f64()),
                unknown: unknown.to_string(),
            },
        }
    }
}

impl EndpointJson {
    fn of(view: &EndpointView, pool: &PoolSnapshot) -> Self {
        let load = view.status.load.as_deref();
        let ago = |at| pool.taken_at.saturating_duration_since(at).as_secs_f64();
        let unused = load.map(|load| load.unused).filter(|unused| *unused != Unused::default());
        Self {
            address: view.endpoint.spec.address.to_string(),
            pod: view.endpoint.spec.pod.to_string(),
            state: view.freshness.label(),
            engine: load.map(|load| load.engine.name()),
            age_seconds: load.map(|load| ago(load.scraped_at)),
            running: load.and_then(|load| load.running).map(|signal| signal.value),
            waiting: load.and_then(|load| load.waiting).map(|signal| signal.value),
            kv_cache_utilization: load.and_then(|load| load.kv_cache_utilization).map(|signal| signal.value),
            unused: unused.map(|unused| UnusedView {
                dropped_lines: unused.dropped_lines,
                invalid: unused.invalid,
                duplicates: unused.duplicates,
                outdated: unused.outdated,
            }),
            failure: view.status.failure.as_ref().map(|failure| FailureView {
                kind: failure.kind.label(),
                message: failure.message.to_string(),
                attempts: failure.attempts,
                began_seconds_ago: ago(failure.since),
            }),
        }
    }
}
