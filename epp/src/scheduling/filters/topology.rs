//! `topology-affinity-filter`

use rand::Rng;

use crate::scheduling::config::Parameters;
use crate::scheduling::topology::{LEVELS, Nearness, nearness};
use crate::scheduling::{Candidate, Filter, SchedulingRequest};

/// Leaves the endpoints that are near to the one that was chosen for another stage of the request; everybody where none is, or
/// nobody knows.
#[derive(Clone, Copy, Debug)]
pub struct TopologyFilter {
    /// How near at least.
    pub within: Nearness,
    /// Position of the first fact of where an endpoint is.
    pub place: usize,
}

impl TopologyFilter {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.producer("topologyProducerName", "topology-extractor");
        let within = parameters.choice("minAffinity", Nearness::Host, &LEVELS);
        Self { within, place: parameters.needs().topology() }
    }
}

impl Filter for TopologyFilter {
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        let near = |candidate: &Candidate<'_>| nearness(request, candidate, self.place).is_some_and(|near| near <= self.within);
        if candidates.iter().any(near) {
            candidates.retain(near);
        }
    }
}
