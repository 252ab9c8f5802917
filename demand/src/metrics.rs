//! What is told of levels and documents.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use weir_hpa::required::{Basis, Level};

use crate::documents::{Document, LeftOut};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct BasisLabels {
    basis: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PartLabels {
    part: &'static str,
}

/// Gauges and counters of required replicas.
#[derive(Clone, Debug, Default)]
pub struct DemandMetrics {
    pools: Family<BasisLabels, Gauge>,
    documents: Family<StateLabels, Gauge>,
    bytes: Gauge,
    readable: Gauge,
    left_out: Family<PartLabels, Gauge>,
    writes: Family<ResultLabels, Counter>,
}

/// The label of a basis.
pub(crate) fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Full => "full",
        Basis::ServersOnly => "servers_only",
        Basis::CostsUnknown => "costs_unknown",
    }
}

impl DemandMetrics {
    /// Registers the `weir_demand_…` families.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_demand_pools",
            "Pools by what their required replicas rest on: full, servers_only (no picker counts what arrives), costs_unknown (no \
             replica was full yet), unknown (no number)",
            metrics.pools.clone(),
        );
        registry.register(
            "weir_demand_documents",
            "What was learned of pools, as kept: read, refused (cannot be used and is left as it is)",
            metrics.documents.clone(),
        );
        registry.register_with_unit("weir_demand_documents_size", "Size of all of it", Unit::Bytes, metrics.bytes.clone());
        registry.register("weir_demand_documents_readable", "1 while it can be read, else 0", metrics.readable.clone());
        registry.register(
            "weir_demand_left_out",
            "What is not kept for want of room: days of pools, pools",
            metrics.left_out.clone(),
        );
        registry.register(
            "weir_demand_writes",
            "Writes of what was learned, by result: written, conflict (looked at again), forbidden, failed, not_leading",
            metrics.writes.clone(),
        );
        metrics
    }

    pub(crate) fn pools<'a>(&self, levels: impl Iterator<Item = &'a Level>) {
        let (mut full, mut servers_only, mut costs_unknown, mut unknown) = (0, 0, 0, 0);
        for level in levels {
            match level {
                Level::Known(known) => match known.basis {
                    Basis::Full => full += 1,
                    Basis::ServersOnly => servers_only += 1,
                    Basis::CostsUnknown => costs_unknown += 1,
                },
                Level::Unknown(_) => unknown += 1,
            }
        }
        let counts = [
            (basis(Basis::Full), full),
            (basis(Basis::ServersOnly), servers_only),
            (basis(Basis::CostsUnknown), costs_unknown),
            ("unknown", unknown),
        ];
        for (basis, count) in counts {
            self.pools.get_or_create(&BasisLabels { basis }).set(count);
        }
    }

    pub(crate) fn documents<'a>(&self, documents: impl Iterator<Item = &'a Document>) {
        let (mut read, mut refused, mut bytes) = (0, 0, 0);
        for document in documents {
            *(if document.learned.is_ok() { &mut read } else { &mut refused }) += 1;
            bytes += document.text.len();
        }
        self.documents.get_or_create(&StateLabels { state: "read" }).set(read);
        self.documents.get_or_create(&StateLabels { state: "refused" }).set(refused);
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn readable(&self, readable: bool) {
        self.readable.set(i64::from(readable));
    }

    pub(crate) fn left_out(&self, left_out: LeftOut) {
        let count = |part, count| self.left_out.get_or_create(&PartLabels { part }).set(i64::try_from(count).unwrap_or(i64::MAX));
        count("days", left_out.days);
        count("pools", left_out.pools);
    }

    pub(crate) fn wrote(&self, result: &'static str) {
        self.writes.get_or_create(&ResultLabels { result }).inc();
    }
}
