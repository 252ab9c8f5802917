//! `example-label-scorer`

use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers endpoints whose pod has the label `tier` with the value `fast`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExampleLabelScorer;

impl Scorer for ExampleLabelScorer {
    fn score(&self, _request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let fast = candidate.labels.get("tier").is_some_and(|tier| tier == "fast");
            *score = Some(if fast { 1.0 } else { 0.0 });
        }
    }
}
