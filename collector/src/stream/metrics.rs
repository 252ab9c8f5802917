//! What the following of streams and the reading of pickers say of themselves.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::follow::Ended;
use crate::counted::Counted;

/// Counters of streams. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct StreamMetrics {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
    pub(crate) refused_endpoints: Counter,
    followed: Gauge,
    reconnects: Counted,
    pub(crate) fallbacks: Counter,
}

/// A stream that is being followed, for as long as it lasts.
pub(crate) struct Followed(Gauge);

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl StreamMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let help = "Streams that ended or could not be opened again, by why";
        let metrics = Self {
            frames: Counter::default(),
            bytes: Counter::default(),
            refused_endpoints: Counter::default(),
            followed: Gauge::default(),
            reconnects: Counted::register(registry, "weir_stream_reconnects", help, "reason", Ended::REASONS),
            fallbacks: Counter::default(),
        };
        registry.register("weir_stream_frames", "Frames heard on streams of other weirs", metrics.frames.clone());
        registry.register("weir_stream_bytes", "Bytes heard on streams of other weirs", metrics.bytes.clone());
        let help = "Endpoints in frames that were not used, since what was said of them cannot be true";
        registry.register("weir_stream_refused_endpoints", help, metrics.refused_endpoints.clone());
        registry.register("weir_streams_followed", "Streams of other weirs being followed", metrics.followed.clone());
        let help = "Times at which an endpoint that was fed by a stream had to be read by this weir itself";
        registry.register("weir_stream_fallbacks", help, metrics.fallbacks.clone());
        metrics
    }

    pub(crate) fn following(&self) -> Followed {
        self.followed.inc();
        Followed(self.followed.clone())
    }

    pub(crate) fn reconnected(&self, reason: &'static str) {
        self.reconnects.count(reason);
    }
}
