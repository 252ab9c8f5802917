//! What a pool's pods that start promise.

use std::time::Duration;

use super::PoolSnapshot;
use crate::measurement::{Measured, Measurement, Unknown};
use crate::start::{StartHistogram, StartPhase, StartingPod};

impl PoolSnapshot {
    /// How long the start of a pod is expected to take, from its creation until it is ready: the mean of the first ten, then each
    /// further one counts for a tenth.
    pub fn expected_start(&self) -> Option<Duration> {
        self.starts.expected()
    }

    /// [`Self::expected_start`] in seconds.
    pub fn expected_start_seconds(&self) -> Measurement {
        let expected = self.expected_start().ok_or(Unknown::NoStart)?;
        Ok(Measured { value: expected.as_secs_f64(), as_of: self.taken_at })
    }

    /// How long that phase of starts took.
    pub fn start_histogram(&self, phase: StartPhase) -> StartHistogram {
        self.starts.histogram(phase)
    }

    /// Pods that are not ready yet and have nothing in their way.
    pub fn coming(&self) -> impl Iterator<Item = &StartingPod> {
        let expected = self.expected_start();
        self.unready.iter().filter(move |pod| !pod.is_hindered(expected, self.taken_at))
    }

    /// Pods that are not ready and will not be by themselves.
    pub fn hindered(&self) -> impl Iterator<Item = &StartingPod> {
        let expected = self.expected_start();
        self.unready.iter().filter(move |pod| pod.is_hindered(expected, self.taken_at))
    }

    /// What stands in the way of the first of [`Self::hindered`].
    pub fn hindrance(&self) -> Option<String> {
        let expected = self.expected_start();
        self.unready.iter().find_map(|pod| pod.hindrance(expected, self.taken_at))
    }

    /// Whether a pod without an address will have one: none of those that something keeps from it.
    pub fn is_pending(&self) -> bool {
        let pending = || self.unready.iter().filter(|pod| pod.pending);
        self.pending > pending().count() || self.coming().any(|pod| pod.pending)
    }

    /// What remains of the expected start of the pod that began last.
    pub fn remaining_start(&self) -> Option<Duration> {
        let expected = self.expected_start()?;
        let began = self.coming().map(|pod| pod.start.began).max()?;
        Some(expected.saturating_sub(self.taken_at.saturating_duration_since(began)))
    }
}
