//! What requests took, over the last minute: told to other weirs and served as the pool's quantiles.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::latency::{Latency, Meter, PickerLatencies};

/// The picker's one meter. Clones share it; its lock is held for one observation, or for one summing-up every 10 s.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Arc<Mutex<Meter>>);

impl Latencies {
    pub(super) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Meter::new(now))))
    }

    pub(super) fn observe(&self, model: &Arc<str>, signal: Latency, took: Duration) {
        self.lock().observe(model, signal, took.as_secs_f64());
    }

    pub(super) fn prompt(&self, model: &Arc<str>, tokens: u64) {
        self.lock().prompt(model, tokens);
    }

    /// What was measured in the last minute, where 10 s have passed since the last time.
    pub(crate) fn due(&self, now: Instant) -> Option<PickerLatencies> {
        let mut meter = self.lock();
        (now >= meter.due()).then(|| meter.close(now))
    }

    fn lock(&self) -> MutexGuard<'_, Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
