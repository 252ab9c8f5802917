//! `running-requests-size-scorer`

use super::least_is_best;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers few requests in execution: (most − running) / (most − least) over the candidates, 1 where all are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningRequestsScorer;

impl Scorer for RunningRequestsScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        least_is_best(candidates, scores, |load| load.running());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_formula() {
        let mut loads = Loads::waiting(&[9.0, 9.0, 9.0]);
        for (page, running) in loads.pages.iter_mut().zip([8.0, 2.0, 4.0]) {
            page.running = Loads::combined(running);
        }
        let third = 4.0 / 6.0;
        assert_eq!(scores(&RunningRequestsScorer, &loads), [Some(0.0), Some(1.0), Some(third)]);
    }
}
