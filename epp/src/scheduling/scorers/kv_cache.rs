//! `kv-cache-utilization-scorer`

use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers free KV cache: 1 − utilization.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvCacheUtilizationScorer;

impl Scorer for KvCacheUtilizationScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            *score = candidate.load.and_then(|load| load.kv_cache_utilization()).map(|utilization| 1.0 - utilization);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_formula() {
        let mut loads = Loads::waiting(&[0.0, 0.0, 0.0]);
        loads.pages[0].kv_cache_utilization = Loads::combined(0.25);
        loads.pages[1].kv_cache_utilization = Loads::combined(1.0);
        loads.pages[2].kv_cache_utilization = None;
        assert_eq!(scores(&KvCacheUtilizationScorer, &loads), [Some(0.75), Some(0.0), None]);
    }
}
