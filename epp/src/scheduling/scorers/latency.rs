//! `latency-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// What upstream's latency scorer does where no latencies are predicted, which weir never does: free KV cache, short queue against
/// the longest, and known prefix, each by its weight, in hundredths.
#[derive(Clone, Copy, Debug)]
pub struct LatencyScorer {
    /// Weights of KV cache, queue and prefix; their sum is 1.
    pub weights: [f64; 3],
}

impl LatencyScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.needs().prefix();
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        parameters.refused("latencyPredictionInfoProducerName", "names a predictor of latencies, which weir has not: remove it");
        // Of predictions alone.
        for name in ["ttftWeight", "tpotWeight"] {
            parameters.real(name, 0.0, |number| number >= 0.0, "a number of 0 or above");
        }
        parameters.choice("headroomSelectionStrategy", (), &[("least", ()), ("most", ())]);
        let weights = ["compositeKVWeight", "compositeQueueWeight", "compositePrefixWeight"]
            .map(|name| parameters.real(name, 1.0, |number| number >= 0.0, "a number of 0 or above"));
        Self::new(weights)
    }

    /// With these weights of KV cache, queue and prefix, of which none is below 0; the KV cache alone where all are 0.
    pub fn new(weights: [f64; 3]) -> Self {
        let sum: f64 = weights.iter().sum();
        Self { weights: if sum > 0.0 { weights.map(|weight| weight / sum) } else { [1.0, 0.0, 0.0] } }
    }
}

impl Scorer for LatencyScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        let waiting = |candidate: &Candidate<'_>| candidate.load.and_then(|load| load.waiting());
        let longest = candidates.iter().filter_map(waiting).fold(0.0, f64::max);
        let [kv_weight, queue_weight, prefix_weight] = self.weights;
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let queue = waiting(candidate).map(|waiting| if longest > 0.0 { (longest - waiting) / longest } else { 1.0 });
            let free = candidate.load.and_then(|load| load.kv_cache_utilization()).map(|utilization| 1.0 - utilization);
            // What weighs nothing need not be known.
            let known = |part: Option<f64>, weight: f64| if weight > 0.0 { part.map(|part| weight * part) } else { Some(0.0) };
            let prefix = prefix_weight * candidate.matched_share(request);
            *score = known(free, kv_weight)
                .zip(known(queue, queue_weight))
                .map(|(free, queue)| ((free + queue + prefix) * 100.0).round() / 100.0);
        }
    }
}
