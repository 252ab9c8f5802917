//! How full the candidates of a request are: what sheddable requests are refused by.

use std::time::Duration;

use weir_datastore::Thresholds;

use super::candidate::Candidate;
use super::config::Parameters;

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

    /// As [`crate::flow::Queue::next`] is told it.
    pub fn of_lane(self) -> f64 {
        match self {
            Self::Known(saturation) => saturation,
            Self::NoEndpoints => f64::INFINITY,
            Self::Unknown => f64::NEG_INFINITY,
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
    /// `concurrency-detector`: by what this picker has in flight.
    Concurrency {
        /// Whether requests count, their tokens, or both.
        mode: ConcurrencyMode,
        /// Requests in flight at which an endpoint is full.
        most_requests: u64,
        /// Tokens in flight at which an endpoint is full.
        most_tokens: u64,
        /// As a filter: the share by which that may be exceeded.
        headroom: f64,
    },
}

/// What of the requests in flight counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConcurrencyMode {
    /// How many they are, over all endpoints.
    #[default]
    Requests,
    /// Their tokens, over all endpoints.
    Tokens,
    /// Whichever is the fuller, endpoint by endpoint.
    Hybrid,
}

impl ConcurrencyMode {
    /// As a configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Hybrid => "hybrid",
        }
    }
}

impl Default for SaturationDetector {
    fn default() -> Self {
        Self::Utilization { thresholds: Thresholds::default(), page_age: None, headroom: 0.0 }
    }
}

impl SaturationDetector {
    /// How full `candidates` are. Utilization is taken as the pages show it, without what is unseen.
    pub fn saturation(&self, candidates: &[Candidate<'_>]) -> CandidateSaturation {
        self.over(candidates, |candidate| self.fullness(candidate))
    }

    /// How full `candidates` are with what was sent there since their pages: what the next request is held back by. Else all that
    /// waits would be sent on between two pages.
    pub fn expected_saturation(&self, candidates: &[Candidate<'_>]) -> CandidateSaturation {
        self.over(candidates, |candidate| self.expected_fullness(candidate))
    }

    fn over<'a>(&self, candidates: &[Candidate<'a>], fullness: impl Fn(&Candidate<'a>) -> Option<f64>) -> CandidateSaturation {
        if candidates.is_empty() {
            return CandidateSaturation::NoEndpoints;
        }
        match self {
            Self::Utilization { .. } => {
                let (sum, count) =
                    candidates.iter().filter_map(fullness).fold((0.0, 0.0), |(sum, count), fullness| (sum + fullness, count + 1.0));
                if count > 0.0 { CandidateSaturation::Known(sum / count) } else { CandidateSaturation::Unknown }
            }
            Self::Concurrency { mode, most_requests, most_tokens, .. } => {
                let count = candidates.len() as u64;
                let sum = |of: fn(&Candidate<'_>) -> u64| candidates.iter().map(of).fold(0, u64::saturating_add);
                CandidateSaturation::Known(match mode {
                    ConcurrencyMode::Requests => ratio(sum(|one| one.in_flight), most_requests.saturating_mul(count)),
                    ConcurrencyMode::Tokens => ratio(sum(|one| one.tokens_in_flight), most_tokens.saturating_mul(count)),
                    ConcurrencyMode::Hybrid => candidates.iter().filter_map(fullness).sum::<f64>() / candidates.len() as f64,
                })
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
            Self::Concurrency { mode, most_requests, most_tokens, .. } => {
                let requests = ratio(candidate.in_flight, *most_requests);
                let tokens = ratio(candidate.tokens_in_flight, *most_tokens);
                Some(match mode {
                    ConcurrencyMode::Requests => requests,
                    ConcurrencyMode::Tokens => tokens,
                    ConcurrencyMode::Hybrid => requests.max(tokens),
                })
            }
        }
    }

    /// How full one is with what was sent there since its page. That takes places to run in as long as there are free ones; of a
    /// server that does not tell how many it has, and in which none waits, as many as it already fills. The rest waits.
    fn expected_fullness(&self, candidate: &Candidate<'_>) -> Option<f64> {
        let shown = self.fullness(candidate);
        let (Self::Utilization { thresholds, .. }, Some(load)) = (self, candidate.load) else { return shown };
        let Some(waiting) = load.page.waiting else { return shown };
        let running = load.page.running.map_or(0.0, |running| running.value);
        let places = load.page.units.iter().filter_map(|unit| unit.max_running).reduce(|sum, most| sum + most);
        let free = match places {
            Some(places) => (places - running).max(0.0),
            None if waiting.value > 0.0 => 0.0,
            None => running,
        };
        let queued = (waiting.value + (load.unseen as f64 - free).max(0.0)) / thresholds.queue;
        shown.map(|shown| shown.max(queued))
    }

    /// Whether `candidate` is full beyond the headroom. An endpoint nobody can say of counts as full, as upstream's filter has it.
    pub(super) fn is_full(&self, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::Utilization { headroom, .. } => self.fullness(candidate).is_none_or(|fullness| fullness >= 1.0 + headroom),
            // Limits are whole requests and tokens, as upstream's.
            Self::Concurrency { mode, most_requests, most_tokens, headroom } => {
                let within = |in_flight: u64, most: u64| in_flight < (most as f64 * (1.0 + headroom)) as u64;
                let requests = *mode == ConcurrencyMode::Tokens || within(candidate.in_flight, *most_requests);
                let tokens = *mode == ConcurrencyMode::Requests || within(candidate.tokens_in_flight, *most_tokens);
                !(requests && tokens)
            }
        }
    }

    pub(super) fn read_utilization(parameters: &mut Parameters<'_, '_>) -> Self {
        let Thresholds { queue, kv_cache_utilization } = Thresholds::default();
        let queue = parameters.real("queueDepthThreshold", queue, |number| number > 0.0, "a number above 0");
        let within = |number: f64| number > 0.0 && number <= 1.0;
        let cache = parameters.real("kvCacheUtilThreshold", kv_cache_utilization, within, "a number above 0, at most 1");
        Self::Utilization {
            thresholds: Thresholds { queue, kv_cache_utilization: cache },
            page_age: parameters.duration("metricsStalenessThreshold"),
            headroom: headroom(parameters),
        }
    }

    pub(super) fn read_concurrency(parameters: &mut Parameters<'_, '_>) -> Self {
        let modes = [ConcurrencyMode::Requests, ConcurrencyMode::Tokens, ConcurrencyMode::Hybrid].map(|mode| (mode.name(), mode));
        parameters.producer("inFlightLoadProducerName", "inflight-load-producer");
        Self::Concurrency {
            mode: parameters.choice("concurrencyMode", ConcurrencyMode::Requests, &modes),
            most_requests: parameters.whole("maxConcurrency", 100, 1..=1_000_000) as u64,
            most_tokens: parameters.whole("maxTokenConcurrency", 1_000_000, 1..=1 << 40) as u64,
            headroom: headroom(parameters),
        }
    }
}

/// What is in flight by what may be; no room is full.
fn ratio(in_flight: u64, room: u64) -> f64 {
    if room == 0 { 1.0 } else { in_flight as f64 / room as f64 }
}

fn headroom(parameters: &mut Parameters<'_, '_>) -> f64 {
    parameters.real("headroom", 0.0, |number| number >= 0.0, "a number of 0 or above")
}

#[cfg(test)]
mod tests {
    use weir_datastore::UnitLoad;

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
    fn what_was_sent_since_the_page_fills_places_first() {
        let detector = SaturationDetector::default();
        let of = |running: f64, waiting: f64, places: Option<f64>, unseen: i64| {
            let mut loads = Loads::waiting(&[waiting]);
            loads.pages[0].running = Loads::combined(running);
            loads.pages[0].units = vec![UnitLoad { max_running: places, ..UnitLoad::default() }];
            loads.unseen = vec![unseen];
            let CandidateSaturation::Known(saturation) = detector.expected_saturation(&loads.candidates()) else { unreachable!() };
            assert_eq!(detector.saturation(&loads.candidates()), CandidateSaturation::Known(waiting / 5.0));
            saturation
        };
        // Of 8 places 6 are taken: 2 more run, 4 wait.
        assert_eq!(of(6.0, 0.0, Some(8.0), 6), 0.8);
        assert_eq!(of(9.0, 1.0, Some(8.0), 2), 0.6);
        // Nobody says how many places there are: 3 more are trusted to run, unless some wait.
        assert_eq!(of(3.0, 0.0, None, 7), 0.8);
        assert_eq!(of(3.0, 1.0, None, 4), 1.0);
        // What ended since makes no room that the page does not show.
        assert_eq!(of(3.0, 2.0, None, -2), 0.4);
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
        loads.tokens_in_flight = vec![30, 60];
        for (mode, expected) in [
            // 18 of 20 requests; 90 of 200 tokens; the mean of max(1.5, .3) and max(.3, .6).
            (ConcurrencyMode::Requests, 0.9),
            (ConcurrencyMode::Tokens, 0.45),
            (ConcurrencyMode::Hybrid, 1.05),
        ] {
            let detector = SaturationDetector::Concurrency { mode, most_requests: 10, most_tokens: 100, headroom: 0.0 };
            let CandidateSaturation::Known(saturation) = detector.saturation(&loads.candidates()) else { unreachable!() };
            assert!((saturation - expected).abs() < 1e-9, "{mode:?}: {saturation}");
            assert_eq!(detector.saturation(&[]), CandidateSaturation::NoEndpoints);
        }
    }
}
