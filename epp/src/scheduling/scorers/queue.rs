//! `queue-scorer`

use super::least_is_best;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers short queues: (most − queue) / (most − least) over the candidates, 1 where all are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueScorer;

impl Scorer for QueueScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        least_is_best(candidates, scores, |load| load.waiting());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_formula() {
        let loads = Loads::waiting(&[0.0, 3.0, 12.0]);
        assert_eq!(scores(&QueueScorer, &loads), [Some(1.0), Some(0.75), Some(0.0)]);
        assert_eq!(scores(&QueueScorer, &Loads::waiting(&[7.0, 7.0])), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let mut loads = Loads::waiting(&[2.0, 4.0, 0.0]);
        loads.pages[2].waiting = None;
        assert_eq!(scores(&QueueScorer, &loads), [Some(1.0), Some(0.0), None]);
    }

    #[test]
    fn what_was_sent_since_the_page_counts() {
        let mut loads = Loads::waiting(&[0.0, 0.0]);
        loads.unseen = vec![4, 0];
        assert_eq!(scores(&QueueScorer, &loads), [Some(0.0), Some(1.0)]);
    }
}
