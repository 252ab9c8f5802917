//! `prefix-cache-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers servers that were given the same prefix before: matched blocks / blocks of the prefix; 0 without a prefix. How long the
/// match is may count beside its share: (tokens matched / a scale)², at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrefixCacheScorer {
    /// What the length counts, 0..1; the share counts the rest.
    pub length_weight: f64,
    /// Tokens that are as good as any more.
    pub scale_tokens: usize,
}

impl Default for PrefixCacheScorer {
    /// Upstream's: the share alone.
    fn default() -> Self {
        Self { length_weight: 0.0, scale_tokens: 8192 }
    }
}

impl PrefixCacheScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let default = Self::default();
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        let share = |number: f64| (0.0..=1.0).contains(&number);
        Self {
            length_weight: parameters.real("matchLengthWeight", default.length_weight, share, "a number from 0 to 1"),
            scale_tokens: parameters.whole("matchLengthScaleTokens", default.scale_tokens, 1..=1 << 30),
        }
    }
}

impl Scorer for PrefixCacheScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let share = candidate.matched_share(request);
            *score = Some(if self.length_weight > 0.0 && request.prefix_blocks > 0 {
                let tokens = candidate.matched_blocks.saturating_mul(request.block_tokens);
                let length = (tokens as f64 / self.scale_tokens as f64).min(1.0);
                self.length_weight * length * length + (1.0 - self.length_weight) * share
            } else {
                share
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
        assert_eq!(scores(&PrefixCacheScorer::default(), &loads), [Some(0.0), Some(0.0)], "no prefix");
        loads.prefix_blocks = 4;
        assert_eq!(scores(&PrefixCacheScorer::default(), &loads), [Some(0.75), Some(0.0)]);
        // Three blocks of 16 tokens are half of 96: .5² = .25; half of it and half of the share.
        let with_length = PrefixCacheScorer { length_weight: 0.5, scale_tokens: 96 };
        assert_eq!(scores(&with_length, &loads), [Some(0.5 * 0.25 + 0.5 * 0.75), Some(0.0)]);
        let short = PrefixCacheScorer { length_weight: 1.0, scale_tokens: 40 };
        assert_eq!(scores(&short, &loads), [Some(1.0), Some(0.0)], "no more than the scale");
    }
}
