//! Requests that wait: upstream's families of flow control, by flow.
//!
//! Clients name flows, so their number is bounded; the series of a flow go when nothing of it has waited for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::models::OTHER;
use super::{Histograms, ModelMetrics, buckets};
use crate::flow::Outcome;

/// Upstream's outcome of a request that was let in.
const WAITS: &str = "NotYetFinalized";
/// Flows, told apart by fairness id, priority and model, that have series of their own; others are `other`.
const MOST_FLOWS: usize = 1000;
/// Bytes of a fairness id that has series of its own.
const LONGEST_ID: usize = 256;
/// How long the series of a flow stay after the last request of it: upstream's time.
const IDLE: Duration = Duration::from_secs(300);

/// A flow. Of `other` there is one per priority and model.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FlowLabels {
    fairness_id: Arc<str>,
    priority: i32,
    inference_pool: Arc<str>,
    model_name: Arc<str>,
    target_model_name: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WaitLabels {
    fairness_id: Arc<str>,
    priority: i32,
    outcome: &'static str,
    inference_pool: Arc<str>,
    model_name: Arc<str>,
    target_model_name: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EnqueueLabels {
    fairness_id: Arc<str>,
    priority: i32,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabels {
    outcome: &'static str,
    priority: i32,
    inference_pool: Arc<str>,
}

/// The families. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct FlowMetrics {
    pool: Arc<str>,
    waits: Histograms<WaitLabels>,
    enqueues: Histograms<EnqueueLabels>,
    cycles: Histogram,
    requests: Family<FlowLabels, Gauge>,
    bytes: Family<FlowLabels, Gauge>,
    outcomes: Family<OutcomeLabels, Counter>,
    folded: Counter,
    flows: Arc<Mutex<HashMap<FlowLabels, Known>>>,
}

#[derive(Debug)]
struct Known {
    series: Arc<FlowSeries>,
    used: Instant,
}

/// The series of one flow.
#[derive(Debug)]
pub(crate) struct FlowSeries {
    labels: FlowLabels,
    requests: Gauge,
    bytes: Gauge,
    /// Most waits end so.
    dispatched: Histogram,
    dispatches: Counter,
}

impl FlowMetrics {
    pub(super) fn register(registry: &mut Registry, pool: &str) -> Self {
        let metrics = Self {
            pool: pool.into(),
            waits: Family::new_with_constructor(|| Histogram::new(buckets::WAIT)),
            enqueues: Family::new_with_constructor(|| Histogram::new(buckets::SHORT)),
            cycles: Histogram::new(buckets::SHORT),
            requests: Family::default(),
            bytes: Family::default(),
            outcomes: Family::default(),
            folded: Counter::default(),
            flows: Arc::default(),
        };
        let help = "[ALPHA] Time that a request waited in the picker, by how the wait ended";
        registry.register("inference_extension_flow_control_request_queue_duration_seconds", help, metrics.waits.clone());
        let help = "[ALPHA] Time that it took to put a request into the queue, or to refuse that";
        registry.register("inference_extension_flow_control_request_enqueue_duration_seconds", help, metrics.enqueues.clone());
        let help = "[ALPHA] Time that a look at the queue took";
        registry.register("inference_extension_flow_control_dispatch_cycle_duration_seconds", help, metrics.cycles.clone());
        let help = "[ALPHA] Requests that wait in the picker";
        registry.register("inference_extension_flow_control_queue_size", help, metrics.requests.clone());
        let help = "[ALPHA] Bytes of the bodies of requests that wait in the picker";
        registry.register("inference_extension_flow_control_queue_bytes", help, metrics.bytes.clone());
        let help = "[ALPHA] Requests that came to flow control, by how their wait ended";
        registry.register("llm_d_epp_flow_control_requests", help, metrics.outcomes.clone());
        let help = "Requests counted under the fairness id `other`, since too many flows are known or the id is too long";
        registry.register("weir_epp_folded_fairness_ids", help, metrics.folded.clone());
        metrics
    }

    /// The series of the flow `fairness` of `priority`.
    pub(crate) fn series(&self, fairness: &str, priority: i32, model: &ModelMetrics, now: Instant) -> Arc<FlowSeries> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = |fairness: &str| FlowLabels {
            fairness_id: fairness.into(),
            priority,
            inference_pool: self.pool.clone(),
            model_name: model.model().clone(),
            target_model_name: model.target().clone(),
        };
        let mut wanted = labels(if fairness.len() > LONGEST_ID { OTHER } else { fairness });
        if flows.len() >= MOST_FLOWS && !flows.contains_key(&wanted) {
            wanted = labels(OTHER);
        }
        if *wanted.fairness_id != *fairness {
            self.folded.inc();
        }
        let known = flows.entry(wanted).or_insert_with_key(|labels| {
            let series = FlowSeries {
                requests: self.requests.get_or_create_owned(labels),
                bytes: self.bytes.get_or_create_owned(labels),
                dispatched: self.waits.get_or_create_owned(&labels.with(Outcome::Dispatched)),
                dispatches: self.outcomes.get_or_create_owned(&self.outcome(Outcome::Dispatched, labels.priority)),
                labels: labels.clone(),
            };
            Known { series: Arc::new(series), used: now }
        });
        known.used = now;
        known.series.clone()
    }

    /// A request was let in (none) or not, which took so long.
    pub(crate) fn enqueued(&self, series: &FlowSeries, refused: Option<Outcome>, took: Duration) {
        let FlowLabels { fairness_id, priority, .. } = series.labels.clone();
        let outcome = refused.map_or(WAITS, Outcome::label);
        self.enqueues.get_or_create(&EnqueueLabels { fairness_id, priority, outcome }).observe(took.as_secs_f64());
    }

    /// A wait ended so.
    pub(crate) fn ended(&self, series: &FlowSeries, outcome: Outcome, waited: Duration) {
        if outcome == Outcome::Dispatched {
            series.dispatches.inc();
            return series.dispatched.observe(waited.as_secs_f64());
        }
        self.outcomes.get_or_create(&self.outcome(outcome, series.labels.priority)).inc();
        self.waits.get_or_create(&series.labels.with(outcome)).observe(waited.as_secs_f64());
    }

    fn outcome(&self, outcome: Outcome, priority: i32) -> OutcomeLabels {
        OutcomeLabels { outcome: outcome.label(), priority, inference_pool: self.pool.clone() }
    }

    /// The dispatcher looked at the queue, which took so long.
    pub(crate) fn looked(&self, took: Duration) {
        self.cycles.observe(took.as_secs_f64());
    }

    /// Forgets flows of which nothing has waited for long.
    pub(crate) fn forget_idle(&self, now: Instant) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.retain(|labels, known| {
            if Arc::strong_count(&known.series) > 1 {
                known.used = now;
            }
            let keep = now.saturating_duration_since(known.used) < IDLE;
            if !keep {
                self.requests.remove(labels);
                self.bytes.remove(labels);
                for outcome in Outcome::ALL {
                    self.waits.remove(&labels.with(outcome));
                }
                for outcome in Outcome::ALL.map(Outcome::label).into_iter().chain([WAITS]) {
                    let FlowLabels { fairness_id, priority, .. } = labels.clone();
                    self.enqueues.remove(&EnqueueLabels { fairness_id, priority, outcome });
                }
            }
            keep
        });
    }
}

impl FlowLabels {
    fn with(&self, outcome: Outcome) -> WaitLabels {
        let Self { fairness_id, priority, inference_pool, model_name, target_model_name } = self.clone();
        WaitLabels { fairness_id, priority, outcome: outcome.label(), inference_pool, model_name, target_model_name }
    }
}

impl FlowSeries {
    /// A request of so many bytes waits.
    pub(crate) fn entered(&self, bytes: u64) {
        self.requests.inc();
        self.bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// It no longer does.
    pub(crate) fn left(&self, bytes: u64) {
        self.requests.dec();
        self.bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
