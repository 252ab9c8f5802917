//! Candidates and requests for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::engine::Engine;
use weir_datastore::{Combined, Counters, EndpointLoad, Unused};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::tokens::TokenEstimate;
use super::{Candidate, EndpointMemory, Filter, Load, Notes, SchedulingRequest, Scorer};
use crate::{Api, InferenceRequest, Subset};

/// Endpoints 10.0.0.1:8000 and on.
pub(crate) struct Loads {
    pub(crate) pages: Vec<EndpointLoad>,
    /// Of each endpoint.
    pub(crate) labels: Vec<BTreeMap<String, String>>,
    /// Of each endpoint.
    pub(crate) facts: Vec<Box<[u64]>>,
    pub(crate) memories: Vec<EndpointMemory>,
    names: Vec<Arc<str>>,
    /// Endpoints without a fresh page.
    pub(crate) unknown: Vec<usize>,
    pub(crate) unseen: Vec<i64>,
    pub(crate) in_flight: Vec<u64>,
    pub(crate) tokens_in_flight: Vec<u64>,
    pub(crate) matched_blocks: Vec<usize>,
    pub(crate) ages: Vec<Duration>,
    pub(crate) prefix_blocks: usize,
}

impl Loads {
    /// Idle endpoints with queues.
    pub(crate) fn waiting(queues: &[f64]) -> Self {
        let page = |waiting: &f64| EndpointLoad {
            engine: Engine::Vllm,
            scraped_at: Instant::now(),
            running: Self::combined(0.0),
            waiting: Self::combined(*waiting),
            kv_cache_utilization: Self::combined(0.0),
            counters: Counters::default(),
            lora: None,
            units: Vec::new(),
            unused: Unused::default(),
        };
        Self {
            pages: queues.iter().map(page).collect(),
            labels: vec![BTreeMap::new(); queues.len()],
            facts: vec![Box::default(); queues.len()],
            memories: queues.iter().map(|_| EndpointMemory::default()).collect(),
            names: (0..queues.len()).map(|index| format!("default/pod-{index}-rank-0").into()).collect(),
            unknown: Vec::new(),
            unseen: vec![0; queues.len()],
            in_flight: vec![0; queues.len()],
            tokens_in_flight: vec![0; queues.len()],
            matched_blocks: vec![0; queues.len()],
            ages: vec![Duration::ZERO; queues.len()],
            prefix_blocks: 0,
        }
    }

    pub(crate) fn combined(value: f64) -> Option<Combined> {
        Some(Combined { value, hottest: value })
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate<'_>> {
        let load = |index: usize| Load { page: &self.pages[index], unseen: self.unseen[index], age: self.ages[index] };
        (0..self.pages.len())
            .map(|index| Candidate {
                index,
                name: &self.names[index],
                address: format!("10.0.0.{}:8000", index + 1).parse().unwrap(),
                labels: &self.labels[index],
                facts: &self.facts[index],
                memory: &self.memories[index],
                load: (!self.unknown.contains(&index)).then(|| load(index)),
                in_flight: self.in_flight[index],
                tokens_in_flight: self.tokens_in_flight[index],
                matched_blocks: self.matched_blocks[index],
            })
            .collect()
    }
}

/// A request for chat completions of `target`.
pub(crate) fn request() -> InferenceRequest {
    InferenceRequest {
        id: "r".into(),
        received: Instant::now(),
        api: Api::ChatCompletions,
        model: Some("target".into()),
        model_rewrite: None,
        objective: None,
        fairness: None,
        body_bytes: 100,
        prefix: bytes::Bytes::new(),
        cache_salt: None,
        streaming: false,
        subset: Subset::All,
        test_selection: None,
        headers: Vec::new(),
        max_output_tokens: None,
        trail: None,
    }
}

/// A request and what is known of it beside the loads.
pub(crate) struct Asked {
    pub(crate) request: InferenceRequest,
    pub(crate) priority: i32,
    pub(crate) estimate: TokenEstimate,
    pub(crate) block_tokens: usize,
    pub(crate) now: Instant,
    pub(crate) turn: u64,
    pub(crate) peer: Option<Vec<u64>>,
    pub(crate) notes: Notes,
}

impl Default for Asked {
    /// A plain one, with blocks of 16 tokens.
    fn default() -> Self {
        Self {
            request: request(),
            priority: 0,
            estimate: TokenEstimate::default(),
            block_tokens: 16,
            now: Instant::now(),
            turn: 1,
            peer: None,
            notes: Notes::default(),
        }
    }
}

impl Asked {
    pub(crate) fn request(&self, loads: &Loads) -> SchedulingRequest<'_> {
        SchedulingRequest {
            request: &self.request,
            target_model: Some("target"),
            prefix_blocks: loads.prefix_blocks,
            block_tokens: self.block_tokens,
            priority: self.priority,
            estimate: self.estimate,
            now: self.now,
            turn: self.turn,
            peer: self.peer.as_deref(),
            notes: &self.notes,
        }
    }

    /// What `scorer` says of `loads`.
    pub(crate) fn scores(&self, scorer: &dyn Scorer, loads: &Loads) -> Vec<Option<f64>> {
        let candidates = loads.candidates();
        let mut scores = vec![None; candidates.len()];
        scorer.score(&self.request(loads), &candidates, &mut scores);
        scores
    }

    /// Whom `filter` leaves.
    pub(crate) fn left(&self, filter: &dyn Filter, loads: &Loads) -> Vec<usize> {
        let mut candidates = loads.candidates();
        filter.filter(&self.request(loads), &mut candidates, &mut StdRng::seed_from_u64(1));
        candidates.iter().map(|candidate| candidate.index).collect()
    }
}

/// What `scorer` says of `loads` for a plain request.
pub(crate) fn scores(scorer: &dyn Scorer, loads: &Loads) -> Vec<Option<f64>> {
    Asked::default().scores(scorer, loads)
}
