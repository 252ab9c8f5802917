//! What plugins see: a request and the endpoints that may take it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::{Combined, EndpointLoad, LoraLoad};

use super::tokens::{TokenEstimate, tokens_of_bytes};
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
    /// Tokens that such a block stands for; 0 where nobody asks.
    pub block_tokens: usize,
    /// Its priority; below 0 it may be shed.
    pub priority: i32,
    /// How many tokens it is taken for.
    pub estimate: TokenEstimate,
    /// When it is placed.
    pub now: Instant,
    /// Its number among the requests of the pool: a later one has a higher one.
    pub turn: u64,
    /// [`Candidate::facts`] of the endpoint that was chosen for another stage of it and that the next is to be near to.
    pub peer: Option<&'a [u64]>,
    /// What plugins noted of it.
    pub notes: &'a Notes,
}

impl SchedulingRequest<'_> {
    /// Tokens of its prompt, estimated: upstream's bytes / 4, rounded up.
    pub fn input_tokens(&self) -> u64 {
        tokens_of_bytes(self.request.prefix.len())
    }

    /// Tokens that it is to a server that has `matched_blocks` of its prefix.
    pub fn tokens_at(&self, matched_blocks: usize) -> u64 {
        self.estimate.of(self.request, self.prefix_blocks, self.block_tokens, matched_blocks)
    }
}

/// What plugins note of one request, one bit each, from scoring it to learning where it went.
#[derive(Debug, Default)]
pub struct Notes(Cell<u64>);

/// The bit of one plugin, given out when the configuration is read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NoteBit(u8);

impl NoteBit {
    /// The bit at `position`; none beyond what there is room for.
    pub fn at(position: usize) -> Option<Self> {
        u8::try_from(position).ok().filter(|position| *position < 64).map(Self)
    }
}

impl Notes {
    /// Whether `bit` is set.
    pub fn has(&self, bit: NoteBit) -> bool {
        self.0.get() & (1 << bit.0) != 0
    }

    /// Makes `bit` so.
    pub fn set(&self, bit: NoteBit, so: bool) {
        let others = self.0.get() & !(1 << bit.0);
        self.0.set(others | u64::from(so) << bit.0);
    }
}

/// What plugins keep of an endpoint from request to request.
#[derive(Debug, Default)]
pub struct EndpointMemory {
    /// [`SchedulingRequest::turn`] of the last request that went there though no endpoint had any of its prefix; 0 before the first.
    pub last_cold: AtomicU64,
}

/// An endpoint that may take the request.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Position in the caller's list: how the caller knows it again.
    pub index: usize,
    /// Upstream's name of it: `namespace/pod-rank-0`.
    pub name: &'a Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Its pod's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What plugins read from its labels, each at the position it was given: see [`crate::scheduling::LabelFact`].
    pub facts: &'a [u64],
    /// What plugins keep of it.
    pub memory: &'a EndpointMemory,
    /// Its load by a fresh page; none where there is no such page: the endpoint is unknown then, never idle.
    pub load: Option<Load<'a>>,
    /// Requests that this picker has in flight there.
    pub in_flight: u64,
    /// Tokens that those are taken for.
    pub tokens_in_flight: u64,
    /// Leading blocks of the request's prefix that the endpoint has been given before.
    pub matched_blocks: usize,
}

impl Candidate<'_> {
    /// The fact at `position`; 0 where there is none.
    pub fn fact(&self, position: usize) -> u64 {
        self.facts.get(position).copied().unwrap_or(0)
    }

    /// The share of the request's prefix that it has been given before, 0..1; 0 without a prefix.
    pub fn matched_share(&self, request: &SchedulingRequest<'_>) -> f64 {
        match request.prefix_blocks {
            0 => 0.0,
            blocks => self.matched_blocks as f64 / blocks as f64,
        }
    }
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
