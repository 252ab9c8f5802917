//! `prefix-cache-scorer`

use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers servers that were given the same prefix before: matched blocks / blocks of the prefix; 0 without a prefix.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrefixCacheScorer;

impl Scorer for PrefixCacheScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            *score = Some(match request.prefix_blocks {
                0 => 0.0,
                blocks => candidate.matched_blocks as f64 / blocks as f64,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_formula() {
        let mut loads = Loads::waiting(&[0.0, 0.0]);
        loads.matched_blocks = vec![3, 0];
        assert_eq!(scores(&PrefixCacheScorer, &loads), [Some(0.0), Some(0.0)], "no prefix");
        loads.prefix_blocks = 4;
        assert_eq!(scores(&PrefixCacheScorer, &loads), [Some(0.75), Some(0.0)]);
    }
}
