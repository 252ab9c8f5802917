//! `token-load-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers few tokens of this picker in flight: 1 − tokens / threshold, 0 from the threshold on.
#[derive(Clone, Copy, Debug)]
pub struct TokenLoadScorer {
    /// Tokens in flight at which the score is 0.
    pub threshold: f64,
    /// Whether the request's own tokens count, as they would be there (llm-d); not in v1.5.0.
    pub with_own: bool,
}

impl TokenLoadScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.producer("inFlightLoadProducerName", "inflight-load-producer");
        Self { threshold: parameters.whole("queueThresholdTokens", 4_194_304, 1..=1 << 40) as f64, with_own: parameters.llm_d() }
    }
}

impl Scorer for TokenLoadScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let own = if self.with_own { request.tokens_at(candidate.matched_blocks) } else { 0 };
            let tokens = candidate.tokens_in_flight.saturating_add(own) as f64;
            *score = Some(1.0 - tokens.min(self.threshold) / self.threshold);
        }
    }
}
