//! `utilization-detector` and `concurrency-detector` in a profile: take full endpoints away.

use crate::scheduling::{Candidate, Filter, SaturationDetector, SchedulingRequest};

/// Removes the endpoints that the detector counts as full beyond its headroom.
///
/// Of the utilization detector all stay where none would: a full server is better than none. Of the concurrency detector none may
/// be left: its limit is meant strictly.
#[derive(Clone, Copy, Debug)]
pub struct SaturatedFilter {
    /// What full means.
    pub detector: SaturationDetector,
}

impl Filter for SaturatedFilter {
    fn filter(&self, _request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>) {
        let fail_open = matches!(self.detector, SaturationDetector::Utilization { .. });
        if fail_open && candidates.iter().all(|candidate| self.detector.is_full(candidate)) {
            return;
        }
        candidates.retain(|candidate| !self.detector.is_full(candidate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, request};

    fn left(detector: SaturationDetector, loads: &Loads) -> Vec<usize> {
        let request = request();
        let request = SchedulingRequest { request: &request, target_model: None, prefix_blocks: 0 };
        let mut candidates = loads.candidates();
        SaturatedFilter { detector }.filter(&request, &mut candidates);
        candidates.iter().map(|candidate| candidate.index).collect()
    }

    #[test]
    fn full_and_unreadable_endpoints_go_unless_all_would() {
        let detector = SaturationDetector::default();
        let mut loads = Loads::waiting(&[4.9, 5.0, 0.0, 0.0, 0.0]);
        loads.pages[2].kv_cache_utilization = Loads::combined(0.8);
        loads.unknown = vec![3];
        assert_eq!(left(detector, &loads), [0, 4]);
        assert_eq!(left(detector, &Loads::waiting(&[5.0, 6.0])), [0, 1]);
        let SaturationDetector::Utilization { thresholds, page_age, .. } = detector else { unreachable!() };
        let roomy = SaturationDetector::Utilization { thresholds, page_age, headroom: 0.2 };
        assert_eq!(left(roomy, &Loads::waiting(&[5.9, 6.0])), [0]);
    }

    #[test]
    fn the_limit_on_requests_in_flight_is_strict() {
        let detector = SaturationDetector::Concurrency { most: 10, headroom: 0.1 };
        let mut loads = Loads::waiting(&[0.0, 0.0]);
        loads.in_flight = vec![10, 11];
        assert_eq!(left(detector, &loads), [0]);
        loads.in_flight = vec![11, 12];
        assert_eq!(left(detector, &loads), [0_usize; 0]);
    }
}
