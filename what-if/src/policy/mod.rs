//! Who decides how many replicas there are.

pub(crate) mod hpa;
mod kpa;
pub(crate) mod required;

pub use hpa::{HpaPolicy, PolicyError};
pub use required::RequiredOptions;

use std::collections::VecDeque;

use weir_hpa::{Decision, Replicas};

use crate::sample::PoolSample;
use kpa::Kpa;

/// A policy under way.
pub(crate) enum Running {
    /// As many as there were at the start.
    Fixed,
    /// A list of wishes by the second, made with the future in hand.
    Planned(Vec<u32>),
    /// A HorizontalPodAutoscaler.
    Hpa(Box<HpaPolicy>),
    /// Knative's autoscaler.
    Kpa(Kpa),
}

/// What it asks for in one second.
pub(crate) struct Wish {
    /// Replicas from now on; `None`: no change.
    pub(crate) replicas: Option<u32>,
    /// The HPA's decision, in the seconds in which it makes one.
    pub(crate) decision: Option<Decision>,
}

impl Running {
    pub(crate) fn knative(full_concurrency: f64) -> Self {
        Self::Kpa(Kpa::new(0.7 * full_concurrency))
    }

    /// One second. `sample` is what is known, `current` the replicas as the cluster shows them.
    pub(crate) fn second(&mut self, second: u64, sample: &PoolSample, current: &Replicas) -> Wish {
        match self {
            Self::Fixed => Wish { replicas: None, decision: None },
            Self::Planned(wishes) => {
                let index = (second as usize).min(wishes.len().saturating_sub(1));
                Wish { replicas: wishes.get(index).copied(), decision: None }
            }
            Self::Hpa(policy) => {
                let decision = policy.second(second, sample, current);
                Wish { replicas: decision.as_ref().map(|decision| decision.desired), decision }
            }
            Self::Kpa(kpa) => Wish { replicas: kpa.second(second, sample), decision: None },
        }
    }
}

/// The plan of one who knows the load: pods asked for as early as slow ones need, given up as soon as they are not needed.
pub(crate) fn plan(needed: &[u32], start: f64) -> Vec<u32> {
    // Start times are log-normal with σ 0.25: 99 of 100 pods are ready after 1.75 of the mean.
    let ahead = (1.75 * start) as usize + 15;
    let mut wishes = vec![0; needed.len()];
    // The highest of a sliding window, from the back.
    let mut falling: VecDeque<usize> = VecDeque::new();
    for second in (0..needed.len()).rev() {
        while falling.back().is_some_and(|later| needed[*later] <= needed[second]) {
            falling.pop_back();
        }
        falling.push_back(second);
        while falling.front().is_some_and(|later| *later > second + ahead) {
            falling.pop_front();
        }
        wishes[second] = falling.front().map_or(0, |highest| needed[*highest]);
    }
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_asks_early_and_drops_at_once() {
        let mut needed = vec![1; 1000];
        needed[500..600].fill(4);
        let wishes = plan(&needed, 100.0);
        assert_eq!(wishes[309], 1);
        assert_eq!(wishes[310], 4);
        assert_eq!(wishes[599], 4);
        assert_eq!(wishes[600], 1);
    }
}
