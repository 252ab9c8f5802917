//! Candidates for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::engine::Engine;
use weir_datastore::{Combined, Counters, EndpointLoad, Unused};

use super::{Candidate, Load, SchedulingRequest, Scorer};
use crate::{Api, InferenceRequest, Subset};

/// Endpoints 10.0.0.1:8000 and on.
pub(crate) struct Loads {
    pub(crate) pages: Vec<EndpointLoad>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Endpoints without a fresh page.
    pub(crate) unknown: Vec<usize>,
    pub(crate) unseen: Vec<i64>,
    pub(crate) in_flight: Vec<u64>,
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
            labels: BTreeMap::new(),
            unknown: Vec::new(),
            unseen: vec![0; queues.len()],
            in_flight: vec![0; queues.len()],
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
                address: format!("10.0.0.{}:8000", index + 1).parse().unwrap(),
                labels: &self.labels,
                load: (!self.unknown.contains(&index)).then(|| load(index)),
                in_flight: self.in_flight[index],
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
    }
}

/// What `scorer` says of `loads` for a request for `target`.
pub(crate) fn scores(scorer: &dyn Scorer, loads: &Loads) -> Vec<Option<f64>> {
    let request = request();
    let request = SchedulingRequest { request: &request, target_model: Some("target"), prefix_blocks: loads.prefix_blocks };
    let candidates = loads.candidates();
    let mut scores = vec![None; candidates.len()];
    scorer.score(&request, &candidates, &mut scores);
    scores
}
