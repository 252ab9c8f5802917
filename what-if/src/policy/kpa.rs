//! Knative's pod autoscaler: concurrency over a stable and a panic window, a tick every two seconds.

use std::collections::VecDeque;

use crate::sample::{Metric, PoolSample};

const TICK: u64 = 2;
const STABLE_WINDOW: usize = 60;
const PANIC_WINDOW: usize = 6;
const PANIC_THRESHOLD: f64 = 2.0;
const MOST_UP: f64 = 1000.0;
const GRACE: u64 = 30;

pub(crate) struct Kpa {
    target: f64,
    concurrency: VecDeque<f64>,
    panic_until: Option<u64>,
    most_in_panic: f64,
    zero_since: Option<u64>,
}

impl Kpa {
    /// `target`: requests in flight per pod.
    pub(crate) fn new(target: f64) -> Self {
        Self { target, concurrency: VecDeque::new(), panic_until: None, most_in_panic: 0.0, zero_since: None }
    }

    pub(crate) fn second(&mut self, second: u64, sample: &PoolSample) -> Option<u32> {
        self.concurrency.push_back(sample.value(Metric::TotalInFlight).unwrap_or_default());
        if self.concurrency.len() > STABLE_WINDOW {
            self.concurrency.pop_front();
        }
        if second % TICK != 0 {
            return None;
        }
        let mean = |seconds: usize| {
            let count = seconds.min(self.concurrency.len()).max(1);
            self.concurrency.iter().rev().take(count).sum::<f64>() / count as f64
        };
        let ready = (sample.pods.len() as f64).max(1.0);
        let clamped = |wanted: f64| wanted.min((MOST_UP * ready).ceil()).max((ready / 2.0).floor());
        let panic_wish = (mean(PANIC_WINDOW) / self.target).ceil();
        let stable = clamped((mean(STABLE_WINDOW) / self.target).ceil());
        let panic = clamped(panic_wish);
        if panic_wish / ready >= PANIC_THRESHOLD {
            if self.panic_until.is_none() {
                self.most_in_panic = 0.0;
            }
            self.panic_until = Some(second + STABLE_WINDOW as u64);
        } else if self.panic_until.is_some_and(|until| second >= until) {
            self.panic_until = None;
        }
        let mut wanted = stable;
        if self.panic_until.is_some() {
            self.most_in_panic = self.most_in_panic.max(stable).max(panic);
            wanted = self.most_in_panic;
        }
        // Nothing over a whole window: zero, after the grace.
        if self.concurrency.iter().all(|concurrency| *concurrency == 0.0) && self.concurrency.len() == STABLE_WINDOW {
            let since = *self.zero_since.get_or_insert(second);
            return Some(u32::from(second - since < GRACE));
        }
        self.zero_since = None;
        Some(wanted.max(if sample.held > 0 { 1.0 } else { wanted }) as u32)
    }
}
