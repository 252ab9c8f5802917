//! What plugins see: a request and the endpoints that may take it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use weir_datastore::{Combined, EndpointLoad, LoraLoad};

use crate::InferenceRequest;

/// A request as plugins see it.
#[derive(Clone, Copy, Debug)]
pub struct SchedulingRequest<'a> {
    /// As it came.
    pub request: &'a InferenceRequest,
    /// The model that the server will read in the body, rewrites applied; absent without a body.
    pub target_model: Option<&'a str>,
    /// Blocks that its prefix was cut into; 0 where it is shorter than one, or nobody asks.
    pub prefix_blocks: usize,
}

/// An endpoint that may take the request.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Position in the caller's list: how the caller knows it again.
    pub index: usize,
    /// Where it is.
    pub address: SocketAddr,
    /// Its pod's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its load by a fresh page; none where there is no such page: the endpoint is unknown then, never idle.
    pub load: Option<Load<'a>>,
    /// Requests that this picker has in flight there.
    pub in_flight: u64,
    /// Leading blocks of the request's prefix that the endpoint has been given before.
    pub matched_blocks: usize,
}

/// The load of an endpoint: its page, and what this picker did since the page was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The page.
    pub page: &'a EndpointLoad,
    /// Requests more than when it was asked for, or fewer: see [`crate::scheduling::InFlight::unseen`].
    pub unseen: i64,
    /// How old the page is.
    pub age: Duration,
}

impl<'a> Load<'a> {
    /// Requests waiting in the server; absent where its page does not say.
    ///
    /// Nobody knows whether an unseen request runs already or still waits, so it counts in both.
    pub fn waiting(&self) -> Option<f64> {
        self.page.waiting.map(|waiting| self.with_unseen(waiting))
    }

    /// Requests in execution; absent where its page does not say.
    pub fn running(&self) -> Option<f64> {
        self.page.running.map(|running| self.with_unseen(running))
    }

    /// Share of the KV cache in use, 0..1; absent where its page does not say.
    pub fn kv_cache_utilization(&self) -> Option<f64> {
        self.page.kv_cache_utilization.map(|utilization| utilization.value)
    }

    /// LoRA adapters in use; absent where there are none.
    pub fn lora(&self) -> Option<&'a LoraLoad> {
        self.page.lora.as_ref()
    }

    fn with_unseen(&self, shown: Combined) -> f64 {
        (shown.value + self.unseen as f64).max(0.0)
    }
}
