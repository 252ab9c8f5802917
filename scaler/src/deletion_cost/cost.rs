//! What it costs to lose a pod: pure, clock passed in.
//!
//! Requests in flight decide: whatever runs on a pod is cut or must be waited for. Among pods with about as many, the warmer prefix
//! cache decides, by the prompt tokens that were found in it lately, an older one counting less: so many tokens another pod would have
//! to compute again. Not by the share of the KV cache in use, which is what running requests occupy and says nothing of an idle
//! server; and not by the share of hits, which one request can make 1.
//!
//! Both go in steps of a factor of two, and are left only when a step is passed by a quarter: a pod is patched when something
//! changed, not at every request.

use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::EndpointLoad;

/// Steps of warmth below one step of requests.
const WARMTH_STEPS: i32 = 10;
/// Tokens found in the cache that make the first step of warmth.
const WARM_TOKENS: f64 = 1024.0;
/// Requests beyond this step are one: 2^19.
const HIGHEST_STEP: i32 = 20;
/// How far a step must be passed.
const MARGIN: f64 = 1.25;
/// Below this many requests, averaged, a pod without any counts as idle.
const IDLE: f64 = 0.5;

/// How fast the past is forgotten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// A pod without requests keeps half of its average for so long, 10 s.
    pub requests: Duration,
    /// What was found in the prefix cache counts half after so long, 10 min.
    pub warmth: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self { requests: Duration::from_secs(10), warmth: Duration::from_secs(600) }
    }
}

/// What the pages of a pod say together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodLoad {
    /// Requests running and waiting, over all its ranks.
    pub in_flight: f64,
    /// Prompt tokens ever found in its prefix caches; none where no page says it.
    pub prefix_hits: Option<f64>,
}

impl PodLoad {
    /// One rank more; none when its page does not tell what runs and waits: then nothing is known of the pod.
    pub fn and(self, rank: &EndpointLoad) -> Option<Self> {
        let prefix_hits = match (self.prefix_hits, rank.counters.prefix_hits) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
        Some(Self { in_flight: self.in_flight + rank.running?.value + rank.waiting?.value, prefix_hits })
    }
}

/// One pod over time.
#[derive(Clone, Debug)]
pub struct PodCost {
    seen_at: Instant,
    in_flight: f64,
    average: f64,
    hits: Option<f64>,
    warm_tokens: f64,
    request_step: i32,
    warmth_step: i32,
}

impl PodCost {
    /// A pod seen for the first time.
    pub fn new(load: PodLoad, now: Instant) -> Self {
        let mut pod = Self {
            seen_at: now,
            in_flight: load.in_flight,
            average: load.in_flight,
            hits: load.prefix_hits,
            warm_tokens: 0.0,
            request_step: 0,
            warmth_step: 0,
        };
        pod.request_step = pod.step_of_requests();
        pod
    }

    /// The same pod, later.
    pub fn observe(&mut self, load: PodLoad, memory: &Memory, now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen_at);
        self.seen_at = now;
        self.in_flight = load.in_flight;
        self.average = load.in_flight + (self.average - load.in_flight) * kept(elapsed, memory.requests);
        // A counter that fell is a server that began anew, its cache too.
        let found = match (self.hits, load.prefix_hits) {
            (Some(before), Some(now)) if now >= before => now - before,
            (Some(_), Some(_)) => {
                self.warm_tokens = 0.0;
                0.0
            }
            _ => 0.0,
        };
        self.hits = load.prefix_hits.or(self.hits);
        self.warm_tokens = self.warm_tokens * kept(elapsed, memory.warmth) + found;
        self.request_step = self.step_of_requests();
        self.warmth_step = moved(self.warmth_step, self.warm_tokens / WARM_TOKENS, 1.0).min(WARMTH_STEPS - 1);
    }

    /// The cost: below 0 for an idle pod, above for a busy one, so that a pod of which nothing is known (no annotation counts as 0) is
    /// never the first to go. From -10 to 209.
    pub fn cost(&self) -> i32 {
        (self.request_step - i32::from(self.request_step == 0)) * WARMTH_STEPS + self.warmth_step
    }

    /// Busy at once, idle only after a while.
    fn step_of_requests(&self) -> i32 {
        let at_least = i32::from(self.in_flight > 0.0);
        moved(self.request_step, self.average, IDLE).clamp(at_least, HIGHEST_STEP)
    }
}

/// The share that is left of what was, after `elapsed`.
fn kept(elapsed: Duration, half_life: Duration) -> f64 {
    if half_life.is_zero() {
        return 0.0;
    }
    (-elapsed.as_secs_f64() / half_life.as_secs_f64()).exp2()
}

/// The step of `value`, unless it is still within a margin of `step`. Step 0 is below `first`, step 1 below 2, step 2 below 4, and so on.
fn moved(step: i32, value: f64, first: f64) -> i32 {
    let (low, high) = (step_of(value / MARGIN, first), step_of(value * MARGIN, first));
    step.clamp(low, high)
}

fn step_of(value: f64, first: f64) -> i32 {
    if value.is_nan() || value < first {
        return 0;
    }
    // The cast saturates.
    (value.max(1.0).log2().floor() as i32).saturating_add(1).min(HIGHEST_STEP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn busy(in_flight: f64) -> PodLoad {
        PodLoad { in_flight, prefix_hits: None }
    }

    /// After so many seconds of this load.
    fn after(pod: &mut PodCost, load: PodLoad, seconds: u64) -> i32 {
        for _ in 0..seconds {
            let now = pod.seen_at + Duration::from_secs(1);
            pod.observe(load, &Memory::default(), now);
        }
        pod.cost()
    }

    #[test]
    fn a_request_makes_a_pod_busy_at_once_and_its_end_idle_after_a_while() {
        let mut pod = PodCost::new(busy(0.0), Instant::now());
        assert_eq!(pod.cost(), -10);
        assert!(after(&mut pod, busy(1.0), 1) > 0);
        after(&mut pod, busy(1.0), 60);
        assert!(after(&mut pod, busy(0.0), 5) > 0);
        assert_eq!(after(&mut pod, busy(0.0), 20), -10);
    }

    #[test]
    fn warmth_decides_among_idle_pods_and_never_outweighs_a_request() {
        let now = Instant::now();
        let hits = |hits: f64| PodLoad { in_flight: 0.0, prefix_hits: Some(hits) };
        let mut warm = PodCost::new(hits(5e6), now);
        assert_eq!(warm.cost(), -10, "what was found before it was seen tells nothing of now");
        let mut total = 5e6;
        for _ in 0..60 {
            total += 100_000.0;
            after(&mut warm, hits(total), 1);
        }
        assert_eq!(warm.cost(), -1);
        let cold_but_busy = PodCost::new(busy(1.0), now);
        assert!(cold_but_busy.cost() > warm.cost());
        // Two hours later nothing of it counts.
        assert_eq!(after(&mut warm, hits(total), 4 * 7200), -10);
        // A server that began anew.
        after(&mut warm, hits(total + 1e6), 1);
        assert!(warm.cost() > -10);
        assert_eq!(after(&mut warm, hits(10.0), 1), -10);
    }

    #[test]
    fn a_rank_without_the_signals_makes_the_pod_unknown() {
        let combined = |value| Some(weir_datastore::Combined { value, hottest: value });
        let rank = EndpointLoad {
            engine: weir_datastore::engine::Engine::Vllm,
            scraped_at: Instant::now(),
            running: combined(2.0),
            waiting: combined(1.0),
            kv_cache_utilization: None,
            counters: weir_datastore::Counters { prefix_hits: Some(7.0), ..Default::default() },
            lora: None,
            units: Vec::new(),
            unused: Default::default(),
        };
        let one = PodLoad::default().and(&rank).unwrap();
        assert_eq!(one.and(&rank), Some(PodLoad { in_flight: 6.0, prefix_hits: Some(14.0) }));
        assert_eq!(one.and(&EndpointLoad { waiting: None, ..rank }), None);
    }

    proptest! {
        #[test]
        fn costs_are_bounded_and_tell_idle_from_busy(loads in prop::collection::vec((0.0..1e9f64, 0.0..1e15f64, 0..100u64), 1..50)) {
            let now = Instant::now();
            let load = |(in_flight, hits, _): (f64, f64, u64)| PodLoad { in_flight: f64::floor(in_flight), prefix_hits: Some(hits) };
            let mut pod = PodCost::new(load(loads[0]), now);
            for one in loads {
                let at = pod.seen_at + Duration::from_secs(one.2);
                pod.observe(load(one), &Memory::default(), at);
                prop_assert!((-10..=209).contains(&pod.cost()));
                prop_assert!(pod.in_flight == 0.0 || pod.cost() > 0, "{} for {pod:?}", pod.cost());
            }
        }

        #[test]
        fn under_a_steady_load_the_cost_settles(start in 0..10_000u32, load in 0..10_000u32) {
            let mut pod = PodCost::new(busy(f64::from(start)), Instant::now());
            let settled = after(&mut pod, busy(f64::from(load)), 2000);
            for _ in 0..50 {
                prop_assert_eq!(after(&mut pod, busy(f64::from(load)), 1), settled);
            }
        }

        /// Requests that come and go around a level do not make a pod's cost flap.
        #[test]
        fn a_load_that_flickers_is_one_cost(level in 8..5_000u32, flicker in prop::collection::vec(-0.08..0.08f64, 100)) {
            let mut pod = PodCost::new(busy(f64::from(level)), Instant::now());
            after(&mut pod, busy(f64::from(level)), 60);
            let mut changes = 0;
            for noise in flicker {
                let before = pod.cost();
                changes += u32::from(after(&mut pod, busy(f64::from(level) * (1.0 + noise)), 1) != before);
            }
            // The start may lie just below the margin of a step; back again it does not go.
            prop_assert!(changes <= 1, "{changes}");
        }

        #[test]
        fn more_requests_never_cost_less(one in 0..100_000u32, two in 0..100_000u32) {
            let cost = |load: u32| after(&mut PodCost::new(busy(f64::from(load)), Instant::now()), busy(f64::from(load)), 100);
            prop_assert!(one > two || cost(one) <= cost(two));
        }
    }
}
