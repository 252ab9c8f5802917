//! How long a pod takes from creation to being ready.
//!
//! The datastore has a mean of its own, of the pods that its process saw, for whoever waits at an empty pool. This one is fed by the same
//! starts, and kept and taken over with all else that the level rests on: else two replicas would differ after a restart of one.

use std::time::Duration;

use super::constants::{START, START_LONGEST, START_MEAN, START_WEIGHT};

/// The mean start time: of the first few, then moving slowly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StartTime {
    /// Mean in seconds.
    pub(super) mean: f64,
    /// How many starts were seen.
    pub(super) seen: u32,
}

impl StartTime {
    pub(super) fn new() -> Self {
        Self { mean: START.as_secs_f64(), seen: 0 }
    }

    /// One more start; one that took more than an hour says nothing about the next.
    pub(super) fn observe(&mut self, took: Duration) {
        if took > START_LONGEST {
            return;
        }
        let took = took.as_secs_f64();
        self.seen = self.seen.saturating_add(1);
        let weight = if self.seen <= START_MEAN { 1.0 / f64::from(self.seen) } else { START_WEIGHT };
        self.mean += (took - self.mean) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_replaces_the_guess() {
        let mut start = StartTime::new();
        assert_eq!(start.mean, 300.0);
        start.observe(Duration::from_secs(100));
        assert_eq!(start.mean, 100.0);
        start.observe(Duration::from_secs(200));
        assert_eq!(start.mean, 150.0);
        start.observe(Duration::from_secs(100_000));
        assert_eq!((start.mean, start.seen), (150.0, 2));
    }
}
