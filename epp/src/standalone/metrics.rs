//! What the standalone frontend counts besides what every server here does.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;

use super::upstream::Trouble;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    reason: &'static str,
}

/// Counters; cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyMetrics {
    failures: Family<Reason, Counter>,
    comments: Counter,
}

impl ProxyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_epp_http_failures",
            "Attempts to send a request to an endpoint that brought no whole answer, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "weir_epp_http_comments",
            "Comments sent to clients whose streamed answer waits for an endpoint",
            metrics.comments.clone(),
        );
        for reason in Trouble::REASONS {
            let _exposed = metrics.failures.get_or_create(&Reason { reason });
        }
        metrics
    }

    pub(super) fn failed(&self, trouble: &Trouble) {
        self.failures.get_or_create(&Reason { reason: trouble.reason() }).inc();
    }

    pub(super) fn commented(&self) {
        self.comments.inc();
    }
}
