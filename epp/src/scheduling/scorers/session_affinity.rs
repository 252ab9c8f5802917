//! `session-affinity-scorer`

use std::sync::Arc;

use crate::scheduling::config::Parameters;
use crate::scheduling::handlers::Placement;
use crate::scheduling::session::SessionAffinity;
use crate::scheduling::{Candidate, Learner, SchedulingRequest, Scorer};

/// Prefers the endpoint of the request's session: 1, the others 0.
#[derive(Debug)]
pub struct SessionAffinityScorer(SessionAffinity);

impl SessionAffinityScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        Self(SessionAffinity::read(parameters))
    }
}

impl Scorer for SessionAffinityScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        scores.fill(Some(0.0));
        if let Some(score) = self.0.pinned(request, candidates).and_then(|position| scores.get_mut(position)) {
            *score = Some(1.0);
        }
    }
}

impl Learner for SessionAffinityScorer {
    fn placed(&self, request: &SchedulingRequest<'_>, placement: &Placement<'_>, response_headers: &mut Vec<(Arc<str>, String)>) {
        self.0.placed(request, placement, response_headers);
    }
}
