//! How often replicas may be written, over all targets.

use std::time::Duration;

use tokio::time::Instant;

/// Writes at once.
const BURST: f64 = 20.0;
/// Writes a second from then on.
const RATE: f64 = 2.0;
/// What is left for waking when targets go to zero: a fault that empties everything at once must not also keep it so.
const KEPT_FOR_WAKING: f64 = 10.0;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// Takes what one write costs; whether there was as much.
    pub(crate) fn take(&mut self, wakes: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.tokens = (self.tokens + RATE * passed.as_secs_f64()).min(BURST);
        self.at = self.at.max(now);
        let least = if wakes { 1.0 } else { 1.0 + KEPT_FOR_WAKING };
        let enough = self.tokens >= least;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// How long to wait after so many failures of a target in a row: soon again, for requests wait for it.
pub(crate) fn back_off(failures: u32) -> Duration {
    (Duration::from_millis(250) * 2u32.saturating_pow(failures.saturating_sub(1).min(10))).min(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_burst_is_kept_for_waking() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!((0..100).filter(|_| budget.take(false, now)).count(), 10);
        assert_eq!((0..100).filter(|_| budget.take(true, now)).count(), 10);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..100).filter(|_| budget.take(false, later)).count(), 0);
        assert_eq!((0..100).filter(|_| budget.take(true, later)).count(), 6);
        // A clock that seems to go back gives nothing.
        assert!(!budget.take(true, now));
        assert_eq!((0..100).filter(|_| budget.take(true, later + Duration::from_secs(3600))).count(), 20);
    }

    #[test]
    fn a_target_that_fails_is_tried_again_within_seconds() {
        let waits: Vec<_> = (1..8).map(|failures| back_off(failures).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(back_off(u32::MAX), Duration::from_secs(5));
    }
}
