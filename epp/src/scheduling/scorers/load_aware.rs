//! `load-aware-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers short queues by a fixed measure: half of 1 − queue / threshold, 0 from the threshold on.
#[derive(Clone, Copy, Debug)]
pub struct LoadAwareScorer {
    /// Requests waiting at which the score is 0.
    pub threshold: f64,
}

impl LoadAwareScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        Self { threshold: parameters.whole("threshold", 128, 1..=1_000_000) as f64 }
    }
}

impl Scorer for LoadAwareScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let waiting = candidate.load.and_then(|load| load.waiting());
            *score = waiting.map(|waiting| 0.5 * (1.0 - waiting.min(self.threshold) / self.threshold));
        }
    }
}
