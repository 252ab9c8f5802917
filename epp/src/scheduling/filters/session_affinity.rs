//! `session-affinity-filter`

use std::sync::Arc;

use rand::Rng;

use crate::scheduling::config::Parameters;
use crate::scheduling::handlers::Placement;
use crate::scheduling::session::SessionAffinity;
use crate::scheduling::{Candidate, Filter, Learner, SchedulingRequest};

/// Leaves the endpoint of the request's session alone, where it is among the candidates; else everybody.
#[derive(Debug)]
pub struct SessionAffinityFilter(SessionAffinity);

impl SessionAffinityFilter {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        Self(SessionAffinity::read(parameters))
    }
}

impl Filter for SessionAffinityFilter {
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        if let Some(position) = self.0.pinned(request, candidates) {
            candidates.swap(0, position);
            candidates.truncate(1);
        }
    }
}

impl Learner for SessionAffinityFilter {
    fn placed(&self, request: &SchedulingRequest<'_>, placement: &Placement<'_>, response_headers: &mut Vec<(Arc<str>, String)>) {
        self.0.placed(request, placement, response_headers);
    }
}
