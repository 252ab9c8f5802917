//! `utilization-filter`

use rand::Rng;

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, Filter, SchedulingRequest};

/// Takes away the endpoints of which a signal is above its limit. A signal that an endpoint does not tell is above none.
#[derive(Clone, Debug)]
pub struct UtilizationFilter {
    /// Signals and their limits; all must hold.
    pub conditions: Vec<(Signal, f64)>,
    /// Whether everybody stays where nobody would.
    pub fallback: bool,
}

/// What is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Requests that this picker has in flight there.
    ActiveRequests,
    /// Requests in execution.
    RunningRequests,
    /// Requests waiting in the server.
    WaitingQueue,
    /// Share of the KV cache in use.
    KvCacheUtilization,
}

impl Signal {
    fn of(self, candidate: &Candidate<'_>) -> Option<f64> {
        match self {
            Self::ActiveRequests => Some(candidate.in_flight as f64),
            Self::RunningRequests => candidate.load?.running(),
            Self::WaitingQueue => candidate.load?.waiting(),
            Self::KvCacheUtilization => candidate.load?.kv_cache_utilization(),
        }
    }
}

impl UtilizationFilter {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let signals = [
            ("active-requests", Signal::ActiveRequests),
            ("running-requests", Signal::RunningRequests),
            ("waiting-queue", Signal::WaitingQueue),
            ("kv-cache-utilization", Signal::KvCacheUtilization),
        ];
        let conditions = parameters.each("conditions", |condition| {
            for (name, what) in [("metric", "name the signal"), ("maxValue", "write the most that passes")] {
                if !condition.given(name) {
                    condition.missing(name, what);
                }
            }
            let signal = condition.choice("metric", Signal::ActiveRequests, &signals);
            let (most, expected) = match signal {
                Signal::KvCacheUtilization => (1.0, "a number from 0 to 1"),
                _ => (f64::MAX, "a number of 0 or above"),
            };
            (signal, condition.real("maxValue", 0.0, |number| (0.0..=most).contains(&number), expected))
        });
        if conditions.is_empty() {
            parameters.missing("conditions", "write at least one, with `metric` and `maxValue`");
        }
        parameters.producer("inFlightLoadProducerName", "inflight-load-producer");
        Self { conditions, fallback: parameters.boolean("fallbackOnEmpty", false) }
    }
}

impl Filter for UtilizationFilter {
    fn filter(&self, _request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        let passes = |candidate: &Candidate<'_>| {
            self.conditions.iter().all(|(signal, most)| signal.of(candidate).is_none_or(|value| value <= *most))
        };
        if self.fallback && !candidates.iter().any(passes) {
            return;
        }
        candidates.retain(passes);
    }
}
