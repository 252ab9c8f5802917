//! How full the candidates of a request are: what sheddable requests are refused by.

use std::time::Duration;

use weir_datastore::Thresholds;

use super::candidate::Candidate;

/// How full the endpoints are that may take a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CandidateSaturation {
    /// 1 is full, more is possible.
    Known(f64),
    /// There is none: as full as can be.
    NoEndpoints,
    /// Nobody can say: nobody is to be shed.
    Unknown,
}

impl CandidateSaturation {
    /// Whether a sheddable request is to be refused.
    pub fn sheds(self) -> bool {
        match self {
            Self::Known(saturation) => saturation >= 1.0,
            Self::NoEndpoints => true,
            Self::Unknown => false,
        }
    }
}

/// What full means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SaturationDetector {
    /// `utilization-detector`: by queue and KV cache. With the default thresholds and every endpoint a candidate this is the
    /// pool's saturation, as the page and the API tell it.
    Utilization {
        /// Where an endpoint is full.
        thresholds: Thresholds,
        /// Beyond this age a page counts as that of a full endpoint, and so does a missing one; none: such are left out.
        page_age: Option<Duration>,
        /// As a filter: the share by which the thresholds may be exceeded.
        headroom: f64,
    },
    /// `concurrency-detector`: by the requests that this picker has in flight.
    Concurrency {
        /// Requests in flight at which an endpoint is full.
        most: u64,
        /// As a filter: the share by which that may be exceeded.
        headroom: f64,
    },
}

impl Default for SaturationDetector {
    fn default() -> Self {
        Self::Utilization { thresholds: Thresholds::default(), page_age: None, headroom: 0.0 }
    }
}

impl SaturationDetector {
    /// How full `candidates` are. Utilization is taken as the pages show it, without what is unseen.
    pub fn saturation(&self, candidates: &[Candidate<'_>]) -> CandidateSaturation {
        if candidates.is_empty() {
            return CandidateSaturation::NoEndpoints;
        }
        match self {
            Self::Utilization { .. } => {
                let (sum, count) = candidates
                    .iter()
                    .filter_map(|candidate| self.fullness(candidate))
                    .fold((0.0, 0.0), |(sum, count), fullness| (sum + fullness, count + 1.0));
                if count > 0.0 { CandidateSaturation::Known(sum / count) } else { CandidateSaturation::Unknown }
            }
            Self::Concurrency { most, .. } => {
                let in_flight: u64 = candidates.iter().map(|candidate| candidate.in_flight).sum();
                let capacity = most.saturating_mul(candidates.len() as u64);
                CandidateSaturation::Known(if capacity == 0 { 1.0 } else { in_flight as f64 / capacity as f64 })
            }
        }
    }

    /// How full one is; none where nobody can say.
    fn fullness(&self, candidate: &Candidate<'_>) -> Option<f64> {
        match self {
            Self::Utilization { thresholds, page_age, .. } => {
                let page = candidate.load.filter(|load| page_age.is_none_or(|oldest| load.age <= oldest));
                match page.and_then(|load| thresholds.endpoint(load.page)) {
                    None if page_age.is_some() => Some(1.0),
                    fullness => fullness,
                }
            }
            Self::Concurrency { most, .. } => Some(candidate.in_flight as f64 / *most as f64),
        }
    }

    /// Whether `candidate` is full beyond the headroom. An endpoint nobody can say of counts as full, as upstream's filter has it.
    pub(super) fn is_full(&self, candidate: &Candidate<'_>) -> bool {
        let (Self::Utilization { headroom, .. } | Self::Concurrency { headroom, .. }) = self;
        self.fullness(candidate).is_none_or(|fullness| fullness >= 1.0 + headroom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::Loads;

    #[test]
    fn mean_of_the_fuller_of_queue_and_cache() {
        let mut loads = Loads::waiting(&[1.0, 0.0, 20.0]);
        loads.pages[0].kv_cache_utilization = Loads::combined(0.25);
        loads.pages[1].kv_cache_utilization = Loads::combined(0.4);
        // max(1/5, .25/.8) = .3125; max(0, .4/.8) = .5; max(20/5, 0) = 4.
        let detector = SaturationDetector::default();
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known((0.3125 + 0.5 + 4.0) / 3.0));
        loads.unknown = vec![2];
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known((0.3125 + 0.5) / 2.0));
        loads.unknown = vec![0, 1, 2];
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Unknown);
        assert!(!CandidateSaturation::Unknown.sheds() && CandidateSaturation::Known(1.0).sheds());
        assert!(detector.saturation(&[]).sheds());
    }

    #[test]
    fn stale_counts_as_full_where_that_is_asked_for() {
        let mut loads = Loads::waiting(&[0.0, 0.0]);
        loads.ages = vec![Duration::from_millis(201), Duration::from_millis(200)];
        let page_age = Some(Duration::from_millis(200));
        let detector = SaturationDetector::Utilization { thresholds: Thresholds::default(), page_age, headroom: 0.0 };
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known(0.5));
        loads.unknown = vec![0, 1];
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known(1.0));
    }

    #[test]
    fn requests_in_flight_over_all_that_may_be() {
        let mut loads = Loads::waiting(&[0.0, 0.0]);
        loads.in_flight = vec![15, 3];
        let detector = SaturationDetector::Concurrency { most: 10, headroom: 0.0 };
        assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known(0.9));
    }
}
