//! `probabilistic-admitter`

use rand::{Rng, RngExt};
use weir_datastore::Thresholds;

use crate::scheduling::config::Parameters;
use crate::scheduling::{Admitter, Candidate, CandidateSaturation, SaturationDetector, SchedulingRequest};

/// Refuses sheddable requests the oftener the fuller the pool is: with probability saturation^power · k, at most 1. Where nobody
/// knows how full it is, none is refused.
#[derive(Clone, Copy, Debug)]
pub struct ProbabilisticAdmitter {
    /// Where an endpoint is full.
    pub thresholds: Thresholds,
    /// The higher, the later it begins.
    pub power: f64,
    /// The higher, the steeper it is.
    pub k: f64,
}

impl ProbabilisticAdmitter {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let default = Thresholds::default();
        let mut positive = |name, default| parameters.real(name, default, |number| number > 0.0, "a number above 0");
        Self {
            thresholds: Thresholds {
                queue: positive("queueDepthThreshold", default.queue),
                kv_cache_utilization: positive("kvCacheUtilThreshold", default.kv_cache_utilization),
            },
            power: positive("power", 5.0),
            k: positive("k", 300.0),
        }
    }
}

impl Admitter for ProbabilisticAdmitter {
    fn admit(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], rng: &mut dyn Rng) -> Result<(), String> {
        if request.priority >= 0 {
            return Ok(());
        }
        let detector = SaturationDetector::Utilization { thresholds: self.thresholds, page_age: None, headroom: 0.0 };
        let CandidateSaturation::Known(saturation) = detector.saturation(candidates) else { return Ok(()) };
        let probability = (saturation.powf(self.power) * self.k).min(1.0);
        if rng.random::<f64>() < probability {
            return Err(format!("probabilistic-admitter: rejected, saturation={saturation:.3} prob={probability:.2}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::scheduling::testing::{Asked, Loads};

    /// The share of 10,000 requests of `priority` that is refused.
    fn refused(loads: &Loads, priority: i32) -> f64 {
        let admitter =
            ProbabilisticAdmitter { thresholds: Thresholds { queue: 5.0, kv_cache_utilization: 0.8 }, power: 5.0, k: 300.0 };
        let mut rng = StdRng::seed_from_u64(5);
        let asked = Asked { priority, ..Asked::default() };
        let request = asked.request(loads);
        let candidates = loads.candidates();
        (0..10_000).filter(|_| admitter.admit(&request, &candidates, &mut rng).is_err()).count() as f64 / 10_000.0
    }

    #[test]
    fn the_formula() {
        // Queues of 1 and 2 over 5: mean .3; .3^5 · 300 = .729.
        let loads = Loads::waiting(&[1.0, 2.0]);
        assert!((refused(&loads, -1) - 0.729).abs() < 0.02);
        assert_eq!(refused(&loads, 0), 0.0, "only sheddable ones");
        assert_eq!(refused(&Loads::waiting(&[0.0, 0.0]), -1), 0.0);
        assert_eq!(refused(&Loads::waiting(&[9.0, 9.0]), -1), 1.0);
        let mut unknown = Loads::waiting(&[9.0]);
        unknown.unknown = vec![0];
        assert_eq!(refused(&unknown, -1), 0.0, "nobody knows: nobody is refused");
        assert_eq!(refused(&Loads::waiting(&[]), -1), 0.0);
    }
}
