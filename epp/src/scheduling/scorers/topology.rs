//! `topology-affinity-scorer`

use crate::scheduling::config::Parameters;
use crate::scheduling::topology::{Nearness, nearness};
use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers endpoints near to the one that was chosen for another stage of the request: 1 on its host, 0.2 in its rack, 0.05 in its
/// zone, 0.02 in its region; 0 for all where there is none.
#[derive(Clone, Copy, Debug)]
pub struct TopologyScorer {
    /// Position of the first fact of where an endpoint is.
    pub place: usize,
}

impl TopologyScorer {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.producer("topologyProducerName", "topology-extractor");
        Self { place: parameters.needs().topology() }
    }
}

impl Scorer for TopologyScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            *score = Some(match nearness(request, candidate, self.place) {
                Some(Nearness::Host) => 1.0,
                Some(Nearness::Rack) => 0.2,
                Some(Nearness::Zone) => 0.05,
                Some(Nearness::Region) => 0.02,
                Some(Nearness::Apart) | None => 0.0,
            });
        }
    }
}
