//! `utilization-detector` and `concurrency-detector` in a profile: take full endpoints away.

use rand::Rng;

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
    fn filter(&self, _request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
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
    use crate::scheduling::ConcurrencyMode;
    use crate::scheduling::testing::{Asked, Loads};

    fn left(detector: SaturationDetector, loads: &Loads) -> Vec<usize> {
        Asked::default().left(&SaturatedFilter { detector }, loads)
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
    fn the_limits_on_what_is_in_flight_are_strict() {
        let mut loads = Loads::waiting(&[0.0, 0.0, 0.0, 0.0]);
        loads.in_flight = vec![10, 11, 10, 11];
        loads.tokens_in_flight = vec![104, 104, 105, 105];
        for (mode, expected) in
            [(ConcurrencyMode::Requests, vec![0, 2]), (ConcurrencyMode::Tokens, vec![0, 1]), (ConcurrencyMode::Hybrid, vec![0])]
        {
            // 10 · 1.1 = 11; 96 · 1.1 = 105.6, whole 105.
            let detector = SaturationDetector::Concurrency { mode, most_requests: 10, most_tokens: 96, headroom: 0.1 };
            assert_eq!(left(detector, &loads), expected, "{mode:?}");
        }
        loads.in_flight = vec![11; 4];
        let mode = ConcurrencyMode::Requests;
        let detector = SaturationDetector::Concurrency { mode, most_requests: 10, most_tokens: 96, headroom: 0.1 };
        assert_eq!(left(detector, &loads), [0_usize; 0]);
    }
}
