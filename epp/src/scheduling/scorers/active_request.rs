//! `active-request-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers few requests of this picker in flight: 1 up to a number that counts as idle, above it (most − requests) / most, times
/// the score that a busy one gets at most.
#[derive(Clone, Copy, Debug)]
pub struct ActiveRequestScorer {
    /// So many requests still count as idle.
    pub idle: u64,
    /// The most that one gets which is not idle, 0..1.
    pub most_busy_score: f64,
}

impl ActiveRequestScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.ignored("requestTimeout");
        parameters.producer("inFlightLoadProducerName", "inflight-load-producer");
        Self {
            idle: parameters.whole("idleThreshold", 0, 0..=1_000_000) as u64,
            most_busy_score: parameters.real("maxBusyScore", 1.0, |score| (0.0..=1.0).contains(&score), "a number from 0 to 1"),
        }
    }
}

impl Scorer for ActiveRequestScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        let most = candidates.iter().map(|candidate| candidate.in_flight).max().unwrap_or(0);
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let requests = candidate.in_flight;
            *score = Some(match requests <= self.idle {
                true => 1.0,
                false => (most - requests) as f64 / most as f64 * self.most_busy_score,
            });
        }
    }
}
