//! `no-hit-lru-scorer`

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::scheduling::config::Parameters;
use crate::scheduling::handlers::{Placement, Stage};
use crate::scheduling::{Candidate, Learner, NoteBit, SchedulingRequest, Scorer};

/// Spreads new prefixes: a request of which no endpoint has any prefix prefers the endpoint that longest got none such, never
/// before the best. To other requests all are the same, 0.5.
#[derive(Clone, Copy, Debug)]
pub struct NoHitLruScorer {
    /// Endpoints whose turn is remembered; those beyond count as never used.
    pub remembered: usize,
    /// Noted where no endpoint has any of the prefix.
    pub cold: NoteBit,
}

thread_local! {
    /// Turns and positions, for sorting.
    static TURNS: Cell<Vec<(u64, usize)>> = const { Cell::new(Vec::new()) };
}

impl NoHitLruScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.needs().prefix();
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        parameters.ignored("prefixPluginType");
        parameters.ignored("prefixPluginName");
        Self { remembered: parameters.whole("lruSize", 1024, 1..=1_000_000), cold: parameters.note() }
    }
}

impl Scorer for NoHitLruScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        let cold = candidates.iter().all(|candidate| candidate.matched_blocks == 0);
        request.notes.set(self.cold, cold);
        if !cold {
            return scores.fill(Some(0.5));
        }
        let mut turns = TURNS.take();
        turns.clear();
        let turn = |candidate: &Candidate<'_>| candidate.memory.last_cold.load(Ordering::Relaxed);
        turns.extend(candidates.iter().enumerate().map(|(position, candidate)| (turn(candidate), position)));
        // The never used in their order, then the used by their turns.
        turns.sort_unstable();
        let used = turns.len() - turns.partition_point(|(turn, _)| *turn == 0);
        // The longest ago beyond those that are remembered, which is rare, are as good as never used.
        if let Some(forgotten) = used.checked_sub(self.remembered).filter(|forgotten| *forgotten > 0) {
            let end = turns.len() - used + forgotten;
            turns[..end].iter_mut().for_each(|(turn, _)| *turn = 0);
            turns[..end].sort_unstable();
        }
        let last = (turns.len().saturating_sub(1)).max(1) as f64;
        for (rank, (_, position)) in turns.iter().enumerate() {
            if let Some(score) = scores.get_mut(*position) {
                *score = Some(1.0 - rank as f64 / last);
            }
        }
        TURNS.set(turns);
    }
}

impl Learner for NoHitLruScorer {
    fn placed(&self, request: &SchedulingRequest<'_>, placement: &Placement<'_>, _response_headers: &mut Vec<(Arc<str>, String)>) {
        if !request.notes.has(self.cold) {
            return;
        }
        let chosen = placement.chosen().filter(|chosen| matches!(chosen.stage, Stage::Primary | Stage::Prefill));
        for endpoint in chosen.filter_map(|chosen| chosen.endpoints.first()) {
            endpoint.memory.last_cold.store(request.turn, Ordering::Relaxed);
        }
    }
}
