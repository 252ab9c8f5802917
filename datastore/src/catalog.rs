//! The catalog: every family weir serves of a pool, in one table.
//!
//! Names are those of the Gateway API Inference Extension's picker where it has one. The target type is what keeps users from the
//! trap of scaling on a mean as if it were a total: a mean with `AverageValue` is divided by the replica count once more.

mod slo;

use crate::load::LoadSignal;
use crate::measurement::{Measured, Measurement};
use crate::saturation::Saturation;
use crate::snapshot::PoolSnapshot;

/// The unit of a family's values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// 0..1 of what there is.
    Ratio,
    /// Requests.
    Requests,
    /// Endpoints.
    Endpoints,
    /// Replicas.
    Replicas,
    /// One pod's KV cache.
    Pods,
    /// 1 is full.
    Saturation,
    /// Seconds.
    Seconds,
    /// Tokens.
    Tokens,
    /// Tokens a second.
    TokensPerSecond,
}

impl Unit {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "ratio 0..1",
            Self::Requests => "requests",
            Self::Endpoints => "endpoints",
            Self::Replicas => "replicas",
            Self::Pods => "pods' worth",
            Self::Saturation => "1 = full",
            Self::Seconds => "seconds",
            Self::Tokens => "tokens",
            Self::TokensPerSecond => "tokens/s",
        }
    }
}

/// How a family behaves when pools or replicas are added, and so which target type of a HorizontalPodAutoscaler fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Per endpoint: target type `Value`; of several pools there is no one value.
    Mean,
    /// Of the whole pool: target type `AverageValue`; several pools add up.
    Total,
    /// To look at, not to scale on.
    State,
}

impl Kind {
    /// The target type that fits, if any.
    pub fn target_type(self) -> Option<&'static str> {
        match self {
            Self::Mean => Some("Value"),
            Self::Total => Some("AverageValue"),
            Self::State => None,
        }
    }
}

/// One family with one value per pool.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Metric name.
    pub name: &'static str,
    /// Unit of its values.
    pub unit: Unit,
    /// How it behaves.
    pub kind: Kind,
    /// Its meaning, in one sentence.
    pub help: &'static str,
    /// Its value.
    pub measure: fn(&PoolSnapshot) -> Measurement,
}

/// Endpoints of a pool by state; label `state`.
pub const ENDPOINTS: (&str, &str) = ("inference_pool_endpoints", "Endpoints of the pool by state.");

/// Requests waiting in one server; labels `name`, `namespace`, `model_server_pod`.
pub const PER_POD_QUEUE_SIZE: (&str, &str) =
    ("inference_pool_per_pod_queue_size", "Requests waiting in one model server, by its last page that is not stale.");

/// How long the phases of pods' starts took; labels `name`, `namespace`, `phase`.
pub const COLD_START: (&str, &str) =
    ("inference_pool_cold_start_seconds", "Time that a phase of the start of a pod took, by the phase's end.");

/// Every family with one value per pool, in the order of the page.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "inference_pool_average_kv_cache_utilization",
        unit: Unit::Ratio,
        kind: Kind::Mean,
        help: "Mean share of the KV cache in use over the pool's fresh ready endpoints.",
        measure: |pool| pool.mean(LoadSignal::KvCacheUtilization),
    },
    Family {
        name: "inference_pool_average_queue_size",
        unit: Unit::Requests,
        kind: Kind::Mean,
        help: "Mean number of requests waiting in a model server over the pool's fresh ready endpoints.",
        measure: |pool| pool.mean(LoadSignal::Waiting),
    },
    Family {
        name: "inference_pool_average_running_requests",
        unit: Unit::Requests,
        kind: Kind::Mean,
        help: "Mean number of requests in execution over the pool's fresh ready endpoints.",
        measure: |pool| pool.mean(LoadSignal::Running),
    },
    Family {
        name: "inference_pool_max_kv_cache_utilization",
        unit: Unit::Ratio,
        kind: Kind::Mean,
        help: "Highest share of the KV cache in use of any engine of the pool.",
        measure: |pool| pool.max(LoadSignal::KvCacheUtilization),
    },
    Family {
        name: "inference_pool_max_queue_size",
        unit: Unit::Requests,
        kind: Kind::Mean,
        help: "Most requests waiting in any engine of the pool.",
        measure: |pool| pool.max(LoadSignal::Waiting),
    },
    Family {
        name: "inference_pool_max_running_requests",
        unit: Unit::Requests,
        kind: Kind::Mean,
        help: "Most requests in execution in any engine of the pool.",
        measure: |pool| pool.max(LoadSignal::Running),
    },
    Family {
        name: "inference_pool_total_queue_size",
        unit: Unit::Requests,
        kind: Kind::Total,
        help: "Requests waiting in the pool's model servers and held in its pickers.",
        measure: PoolSnapshot::total_queue_size,
    },
    Family {
        name: "inference_pool_total_running_requests",
        unit: Unit::Requests,
        kind: Kind::Total,
        help: "Requests in execution in the pool's model servers.",
        measure: |pool| pool.total(LoadSignal::Running),
    },
    Family {
        name: "inference_pool_total_inflight_requests",
        unit: Unit::Requests,
        kind: Kind::Total,
        help: "Requests running or waiting in the pool's model servers or held in its pickers.",
        measure: PoolSnapshot::total_inflight,
    },
    Family {
        name: "inference_pool_required_replicas",
        unit: Unit::Replicas,
        kind: Kind::Total,
        help: "Replicas that the pool requires, as a level: what arrives by what a replica was seen to do. Target AverageValue 1, alone.",
        measure: PoolSnapshot::required_replicas,
    },
    Family {
        name: "inference_pool_total_kv_cache_utilization",
        unit: Unit::Pods,
        kind: Kind::Total,
        help: "KV cache in use, in pods' worth: the sum over pods of the mean over their ranks.",
        measure: PoolSnapshot::total_kv_cache_utilization,
    },
    Family {
        name: "inference_pool_saturation",
        unit: Unit::Saturation,
        kind: Kind::Mean,
        help: "Mean over endpoints of max(queue/5, KV cache utilization/0.8): 1 is full.",
        measure: saturation,
    },
    Family {
        name: "inference_pool_held_requests",
        unit: Unit::Requests,
        kind: Kind::Total,
        help: "Requests waiting in the pool's pickers for an endpoint, also while none exists.",
        measure: |pool| pool.held.clone(),
    },
    Family {
        name: "inference_pool_ready_pods",
        unit: Unit::Endpoints,
        kind: Kind::State,
        help: "Ready endpoints of the pool with fresh metrics.",
        measure: |pool| Ok(Measured { value: pool.coverage.fresh as f64, as_of: pool.taken_at }),
    },
    Family {
        name: "inference_pool_idle_seconds",
        unit: Unit::Seconds,
        kind: Kind::State,
        help: "Seconds since anything ran, waited, was held or arrived in the pool.",
        measure: PoolSnapshot::idle_seconds,
    },
    Family {
        name: "inference_pool_metrics_age_seconds",
        unit: Unit::Seconds,
        kind: Kind::State,
        help: "Age of the oldest model server page that counts.",
        measure: PoolSnapshot::metrics_age_seconds,
    },
    Family {
        name: "inference_pool_expected_start_seconds",
        unit: Unit::Seconds,
        kind: Kind::State,
        help: "Time that the start of a pod is expected to take, from its creation until it is ready, by those that were seen.",
        measure: PoolSnapshot::expected_start_seconds,
    },
    slo::TTFT_P50,
    slo::TTFT_P90,
    slo::TTFT_P99,
    slo::TPOT_P50,
    slo::TPOT_P90,
    slo::TPOT_P99,
    slo::REQUEST_DURATION_P50,
    slo::REQUEST_DURATION_P90,
    slo::REQUEST_DURATION_P99,
    slo::QUEUE_TIME_P50,
    slo::QUEUE_TIME_P90,
    slo::QUEUE_TIME_P99,
    slo::PROMPT_TOKENS,
    slo::GENERATION_TOKENS,
    slo::PREFILL_BACKLOG_TOKENS,
    slo::PREFILL_BACKLOG_SECONDS,
];

impl Family {
    /// Whether it can be asked for one model: as a label of its series, and as `model` in a selector.
    pub fn is_by_model(&self) -> bool {
        slo::quantile_of(self).is_some()
    }

    /// Whether its value is no more than the highest bound of the servers' buckets: the true one is at least that.
    pub fn is_at_least(&self, pool: &PoolSnapshot) -> bool {
        slo::quantile_of(self)
            .is_some_and(|(signal, quantile)| pool.latency(signal, quantile).is_ok_and(|(found, _)| found.at_least))
    }
}

/// The family called `name`.
pub fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// Without endpoints the pool is not full, unless requests wait for one.
fn saturation(pool: &PoolSnapshot) -> Measurement {
    let as_of = pool.oldest_sample().unwrap_or(pool.taken_at);
    match pool.saturation() {
        Saturation::Known(value) => Ok(Measured { value, as_of }),
        Saturation::NoEndpoints { held } => Ok(Measured { value: if held > 0 { 1.0 } else { 0.0 }, as_of }),
        Saturation::Unknown(unknown) => Err(unknown),
    }
}
