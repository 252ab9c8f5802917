//! What is told of the pods and the patches.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::plan::Judgement;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

/// Counters and gauges of deletion cost.
#[derive(Clone, Debug, Default)]
pub struct DeletionCostMetrics {
    pods: Family<StateLabels, Gauge>,
    patches: Family<ResultLabels, Counter>,
}

impl DeletionCostMetrics {
    /// Registers `weir_deletion_cost_pods{state}` and `weir_deletion_cost_patches_total{result}`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_deletion_cost_pods",
            "Pods of pools by what becomes of their deletion cost: written, due, unknown (no fresh metrics: left as it is), foreign \
             (somebody else's annotation: left), no_replica_set (nobody would read it)",
            metrics.pods.clone(),
        );
        registry.register(
            "weir_deletion_cost_patches",
            "Patches of pods, by result: written, gone (the pod), refused, failed, dry_run, not_leading",
            metrics.patches.clone(),
        );
        metrics
    }

    pub(super) fn pods(&self, state: Judgement, count: usize) {
        self.pods.get_or_create(&StateLabels { state: state.label() }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn patched(&self, result: &'static str) {
        self.patches.get_or_create(&ResultLabels { result }).inc();
    }
}
