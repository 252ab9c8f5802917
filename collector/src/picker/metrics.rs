//! What the reading of pickers says of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use weir_datastore::FailureKind;

/// The outcome of a page that was read.
const OK: &str = "ok";

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

/// Counters of pickers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct PickerMetrics {
    reads: Family<Outcome, Counter>,
}

impl PickerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let reads = Family::<Outcome, Counter>::default();
        for outcome in crate::metrics::FAILURES.map(FailureKind::label).into_iter().chain([OK]) {
            drop(reads.get_or_create(&Outcome { outcome }));
        }
        let help =
            "Attempts to read a picker's page or to open its stream, by outcome; streams that open are in weir_streams_followed";
        registry.register("weir_picker_reads", help, reads.clone());
        Self { reads }
    }

    pub(crate) fn succeeded(&self) {
        self.reads.get_or_create(&Outcome { outcome: OK }).inc();
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        self.reads.get_or_create(&Outcome { outcome: kind.label() }).inc();
    }
}
