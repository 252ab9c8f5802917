//! `header-label-affinity-scorer`

use std::sync::Arc;

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers endpoints with the label's value that a header of the request has: 1, the others 0; 0 for all without the header.
#[derive(Clone, Debug)]
pub struct HeaderLabelScorer {
    /// The header, in lower case.
    pub header: Arc<str>,
    /// The label.
    pub label: String,
}

impl HeaderLabelScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let header = parameters.required_text("headerName", "name the header that is compared");
        let header = parameters.header(&header);
        Self { header, label: parameters.required_text("labelKey", "name the label that it is compared with") }
    }
}

impl Scorer for HeaderLabelScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        let Some(wanted) = request.request.header(&self.header) else { return scores.fill(Some(0.0)) };
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            let same = candidate.labels.get(&self.label).is_some_and(|value| value == wanted);
            *score = Some(if same { 1.0 } else { 0.0 });
        }
    }
}
