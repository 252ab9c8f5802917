//! What the frontend counts about itself. What becomes of requests is the director's to count.

use std::sync::atomic::AtomicI64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

use crate::exchange::{Budget, Note};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Kind {
    kind: &'static str,
}

/// Counters of a frontend; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct FrontendMetrics {
    streams: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    events: Family<Kind, Counter>,
}

impl FrontendMetrics {
    /// Counters that this registry exposes, all of them from the start.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_ext_proc_streams",
            "Streams of gateways that are open, one per request, and requests without a gateway",
            metrics.streams.clone(),
        );
        registry.register("weir_ext_proc_waiting_requests", "Requests that wait for their pick", metrics.waiting.clone());
        registry.register(
            "weir_ext_proc_events",
            "Things about a gateway or a client that are not as they should be, by kind",
            metrics.events.clone(),
        );
        for note in Note::ALL {
            let _exposed = metrics.events.get_or_create(&Kind { kind: note.label() });
        }
        metrics
    }

    /// Exposes what waiting bodies take, too.
    pub(super) fn watch(budget: Budget, registry: &mut Registry) {
        registry.register_collector(Box::new(WaitingBytes(budget)));
    }

    /// Counts it; whether it is the first of its kind.
    pub(crate) fn count(&self, note: Note) -> bool {
        self.events.get_or_create(&Kind { kind: note.label() }).inc() == 0
    }

    /// One more stream, if there are less than `most`.
    pub(crate) fn stream(&self, most: usize) -> Option<Raised> {
        let raised = Raised::new(&self.streams);
        let open = usize::try_from(self.streams.get()).unwrap_or(0);
        (open <= most).then_some(raised)
    }

    pub(crate) fn waiting(&self) -> Raised {
        Raised::new(&self.waiting)
    }

    #[cfg(test)]
    pub(crate) fn counted(&self, note: Note) -> u64 {
        self.events.get_or_create(&Kind { kind: note.label() }).get()
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> (i64, i64) {
        (self.streams.get(), self.waiting.get())
    }
}

/// A gauge is one higher while this exists.
#[derive(Debug)]
pub(crate) struct Raised(Gauge<i64, AtomicI64>);

impl Raised {
    fn new(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
struct WaitingBytes(Budget);

impl Collector for WaitingBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bytes = Gauge::<i64, AtomicI64>::default();
        bytes.set(i64::try_from(self.0.used()).unwrap_or(i64::MAX));
        let descriptor = encoder.encode_descriptor(
            "weir_ext_proc_waiting_bytes",
            "Bytes of requests' bodies that wait for a pick",
            None,
            MetricType::Gauge,
        )?;
        bytes.encode(descriptor)
    }
}
