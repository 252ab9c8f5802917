//! `prefix-cache-affinity-filter`

use rand::{Rng, RngExt};

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, Filter, SchedulingRequest};

/// Leaves the endpoints that were given most of the request's prefix before, unless there is none, or the wait there would be too
/// long.
#[derive(Clone, Copy, Debug)]
pub struct PrefixAffinityFilter {
    /// The share of the prefix that counts as most of it; 0 or below: nobody is taken away.
    pub threshold: f64,
    /// The share of requests that goes anywhere, so that others get the prefix too.
    pub exploration: f64,
    /// How much later, in milliseconds, the first token of the best of those may come than that of the best of the others; 0: any.
    pub most_penalty_ms: f64,
    /// How the time to the first token is known.
    pub source: TtftSource,
}

/// How the time to the first token is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TtftSource {
    /// By a predictor, which weir has not: no wait is too long.
    Predictor,
    /// The tokens in flight by a server's peak throughput, in tokens a second.
    PrefillThroughput(f64),
}

impl PrefixAffinityFilter {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.needs().prefix();
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        parameters.producer("inFlightLoadProducerName", "inflight-load-producer");
        parameters.refused("latencyPredictionInfoProducerName", "names a predictor of latencies, which weir has not: remove it");
        let llm_d = parameters.llm_d();
        let (exploration, penalty) = if llm_d { (0.0, 18_000.0) } else { (0.01, 5_000.0) };
        let share = |number: f64| (0.0..=1.0).contains(&number);
        let threshold = parameters.real("affinityThreshold", 0.8, |number| number <= 1.0, "a number of at most 1");
        let exploration = parameters.real("explorationProbability", exploration, share, "a number from 0 to 1");
        let most_penalty_ms =
            parameters.real("maxTTFTPenaltyMs", penalty, |number| number >= 0.0, "milliseconds, 0 or above; 0 for any");
        let by_throughput = parameters.choice("ttftSource", llm_d, &[("latencyPredictor", false), ("prefillThroughput", true)]);
        let throughput = parameters.real("peakPrefillThroughput", 15_928.0, |number| number > 0.0, "tokens a second, above 0");
        let source = if by_throughput { TtftSource::PrefillThroughput(throughput) } else { TtftSource::Predictor };
        Self { threshold, exploration, most_penalty_ms, source }
    }

    /// Whether the wait at the best of those that have the prefix is too long.
    fn too_late(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>]) -> bool {
        let TtftSource::PrefillThroughput(throughput) = self.source else { return false };
        let (mut sticky, mut others) = (u64::MAX, u64::MAX);
        for candidate in candidates {
            let best = if candidate.matched_share(request) >= self.threshold { &mut sticky } else { &mut others };
            *best = candidate.tokens_in_flight.min(*best);
        }
        let later_ms = sticky.saturating_sub(others) as f64 / throughput * 1000.0;
        self.most_penalty_ms > 0.0 && later_ms > self.most_penalty_ms
    }
}

impl Filter for PrefixAffinityFilter {
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, rng: &mut dyn Rng) {
        if candidates.len() <= 1 || self.threshold <= 0.0 {
            return;
        }
        if self.exploration > 0.0 && rng.random::<f64>() < self.exploration {
            return;
        }
        let sticks = |candidate: &Candidate<'_>| candidate.matched_share(request) >= self.threshold;
        if candidates.iter().any(sticks) && !self.too_late(request, candidates) {
            candidates.retain(sticks);
        }
    }
}
