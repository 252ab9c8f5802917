//! What is told of an election.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    lease: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AttemptLabels {
    lease: String,
    result: &'static str,
}

/// Counters and gauges of every election of a process.
#[derive(Clone, Debug, Default)]
pub struct LeaseMetrics {
    leader: Family<Labels, Gauge>,
    attempts: Family<AttemptLabels, Counter>,
}

impl LeaseMetrics {
    /// Registers `weir_leader{lease}` and `weir_lease_attempts_total{lease,result}`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("weir_leader", "1 while this process holds the Lease, else 0", metrics.leader.clone());
        registry.register(
            "weir_lease_attempts",
            "Looks at and writes to a Lease, by result: acquired, renewed, waiting (another holds it), conflict, failed, released",
            metrics.attempts.clone(),
        );
        metrics
    }

    pub(super) fn leads(&self, lease: &str, leads: bool) {
        self.leader.get_or_create(&Labels { lease: lease.to_owned() }).set(i64::from(leads));
    }

    pub(super) fn attempted(&self, lease: &str, result: &'static str) {
        self.attempts.get_or_create(&AttemptLabels { lease: lease.to_owned(), result }).inc();
    }
}
