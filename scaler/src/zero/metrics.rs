//! What the scaler says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::zero::policy::{Decision, Reason};
use crate::zero::targets::TargetError;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct NamespaceLabels {
    namespace: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    namespace: Arc<str>,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DecisionLabels {
    namespace: Arc<str>,
    action: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    namespace: Arc<str>,
    result: &'static str,
}

/// Counters of the scaler, for all its namespaces. Clones share them.
#[derive(Clone, Debug)]
pub struct ScalerMetrics {
    targets: Family<StateLabels, Gauge>,
    decisions: Family<DecisionLabels, Counter>,
    writes: Family<ResultLabels, Counter>,
    watch_errors: Family<NamespaceLabels, Counter>,
    wakes: Histogram,
}

impl ScalerMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
        let metrics = Self {
            targets: Family::default(),
            decisions: Family::default(),
            writes: Family::default(),
            watch_errors: Family::default(),
            wakes: Histogram::new(buckets),
        };
        let help = "Annotated HorizontalPodAutoscalers, by what their targets stay at; all 0 on a replica that does not lead";
        registry.register("weir_scaler_targets", help, metrics.targets.clone());
        let help = "Changes of what is done about a target, and why";
        registry.register("weir_scaler_decisions", help, metrics.decisions.clone());
        let help = "Writes to /scale, by result: written, dry_run, limited (too many), not_leading, or what went wrong";
        registry.register("weir_scaler_writes", help, metrics.writes.clone());
        let help = "What went wrong with watches of HorizontalPodAutoscalers";
        registry.register("weir_scaler_watch_errors", help, metrics.watch_errors.clone());
        let help = "From the news of a held request to the written number of replicas";
        registry.register_with_unit("weir_scaler_wake", help, Unit::Seconds, metrics.wakes.clone());
        metrics
    }

    /// A namespace that is served: its series exist from now on.
    pub(crate) fn begin(&self, namespace: &Arc<str>) {
        self.states(namespace, &BTreeMap::new());
        for result in ["written", "dry_run", "limited", "not_leading"].into_iter().chain(TargetError::LABELS) {
            drop(self.writes.get_or_create(&ResultLabels { namespace: namespace.clone(), result }));
        }
        drop(self.watch_errors.get_or_create(&NamespaceLabels { namespace: namespace.clone() }));
    }

    /// How many targets stay at what.
    pub(crate) fn states(&self, namespace: &Arc<str>, counts: &BTreeMap<&'static str, i64>) {
        for state in Reason::STATES {
            let labels = StateLabels { namespace: namespace.clone(), state };
            self.targets.get_or_create(&labels).set(counts.get(state).copied().unwrap_or(0));
        }
    }

    /// What is done about a target has changed.
    pub(crate) fn decided(&self, namespace: &Arc<str>, decision: &Decision) {
        let (action, reason) = (decision.action.label(), decision.reason.label());
        self.decisions.get_or_create(&DecisionLabels { namespace: namespace.clone(), action, reason }).inc();
    }

    /// What became of a write.
    pub(crate) fn wrote(&self, namespace: &Arc<str>, result: &'static str) {
        self.writes.get_or_create(&ResultLabels { namespace: namespace.clone(), result }).inc();
    }

    /// A watch failed.
    pub(crate) fn watch_failed(&self, namespace: &str) {
        self.watch_errors.get_or_create(&NamespaceLabels { namespace: namespace.into() }).inc();
    }

    /// A held request was followed by a write.
    pub(crate) fn woke(&self, after: Duration) {
        self.wakes.observe(after.as_secs_f64());
    }
}
