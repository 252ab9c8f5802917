//! What is counted of spans.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;

use crate::transport::Reason;

/// What became of spans.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The collector took it.
    Exported,
    /// There was no room to wait.
    QueueFull,
    /// The collector could not be reached, or did not take its batch.
    Failed,
    /// The collector took the batch without it.
    Rejected,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Exported, Self::QueueFull, Self::Failed, Self::Rejected];

    fn label(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::QueueFull => "queue_full",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters; cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceMetrics {
    spans: Family<OutcomeLabel, Counter>,
    failures: Family<ReasonLabel, Counter>,
}

impl TraceMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("weir_trace_spans", "Spans of sampled requests, by what became of them", metrics.spans.clone());
        registry.register(
            "weir_trace_export_failures",
            "Attempts to send spans to the collector that failed, by reason",
            metrics.failures.clone(),
        );
        for outcome in Outcome::ALL {
            metrics.spans(outcome, 0);
        }
        for reason in Reason::ALL {
            let _exposed = metrics.failures.get_or_create(&ReasonLabel { reason: reason.label() });
        }
        metrics
    }

    pub(crate) fn spans(&self, outcome: Outcome, spans: u64) {
        self.spans.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc_by(spans);
    }

    pub(crate) fn failed(&self, reason: Reason) {
        self.failures.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }
}
