//! One saturation: the same number for metric, autoscaler and shedding.

use crate::load::EndpointLoad;
use crate::measurement::Unknown;

/// Where an endpoint counts as full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Requests waiting in the server.
    pub queue: f64,
    /// Share of the KV cache in use.
    pub kv_cache_utilization: f64,
}

impl Default for Thresholds {
    /// Upstream's defaults (Gateway API Inference Extension, utilization detector).
    fn default() -> Self {
        Self { queue: 5.0, kv_cache_utilization: 0.8 }
    }
}

impl Thresholds {
    /// How full one endpoint is: 1 at the first threshold that is reached, above 1 beyond it. Unknown where its page carries neither
    /// signal; a missing one of the two is left out.
    pub fn endpoint(self, load: &EndpointLoad) -> Option<f64> {
        let queue = load.waiting.map(|waiting| waiting.value / self.queue);
        let cache = load.kv_cache_utilization.map(|utilization| utilization.value / self.kv_cache_utilization);
        [queue, cache].into_iter().flatten().reduce(f64::max)
    }
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq)]
pub enum Saturation {
    /// Mean over the fresh endpoints of max(queue/threshold, kv/threshold): 1 is full, more is possible.
    Known(f64),
    /// Nothing there that could be full.
    NoEndpoints {
        /// Requests that wait for an endpoint nevertheless.
        held: u64,
    },
    /// Nothing can be said: nobody is to be shed, nothing scaled down for it.
    Unknown(Unknown),
}
