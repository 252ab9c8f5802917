//! What the reading of pickers says of itself.

use prometheus_client::registry::Registry;
use weir_datastore::FailureKind;

use crate::counted::{Counted, OK, OUTCOMES};

/// Counters of pickers. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct PickerMetrics {
    reads: Counted,
}

impl PickerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let help =
            "Attempts to read a picker's page or to open its stream, by outcome; streams that open are in weir_streams_followed";
        Self { reads: Counted::register(registry, "weir_picker_reads", help, "outcome", OUTCOMES) }
    }

    pub(crate) fn succeeded(&self) {
        self.reads.count(OK);
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        self.reads.count(kind.label());
    }
}
