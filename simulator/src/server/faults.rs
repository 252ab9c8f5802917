//! What a test can break on a running replica.

use std::sync::Arc;

use super::replica::Replica;
use crate::model::ModelView;

/// How the metrics page misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsFault {
    /// It does not.
    #[default]
    Normal,
    /// The connection is accepted, an answer never comes.
    Hang,
    /// The page comes a few bytes at a time, minutes in all.
    Drip,
    /// This status and a short text; 500 if it is no valid status.
    Status(u16),
    /// 200 and an HTML page, as from a proxy's login.
    Html,
    /// 200 and the first half of the page, cut within a line; HTTP says all is well.
    Truncated,
    /// The page's length is announced, half of it sent, the connection closed.
    CutOff,
    /// Well-formed lines without end.
    Endless,
    /// 200 and no byte.
    Empty,
}

/// Values the metrics page holds on to, whatever the model does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Hold {
    /// None: the page shows the model.
    #[default]
    Nothing,
    /// All as they are at this moment: the same bytes on every scrape.
    Page,
    /// These three; counters and histograms go on.
    Gauges {
        /// Requests running.
        running: u32,
        /// Requests waiting.
        waiting: u32,
        /// Share of the KV cache in use; taken into 0 to 1.
        kv_cache_usage: f64,
    },
}

/// The switches of one replica, usable at any time and from any task.
#[derive(Clone, Debug)]
pub struct Faults {
    replica: Arc<Replica>,
}

impl Faults {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self { replica }
    }

    /// Breaks the metrics page, or mends it.
    pub fn set_metrics(&self, fault: MetricsFault) {
        self.replica.lock().metrics_fault = fault;
    }

    /// Makes `/health` answer 503, or 200 again. Requests are still served.
    pub fn set_unhealthy(&self, unhealthy: bool) {
        self.replica.lock().unhealthy = unhealthy;
    }

    /// Holds values of the metrics page.
    pub fn hold(&self, hold: Hold) {
        let now = self.replica.now();
        self.replica.lock().hold(hold, now);
    }
}

/// The view with the held gauges in place of the model's.
pub(super) fn apply_gauges(view: &mut ModelView, running: u32, waiting: u32, kv_cache_usage: f64) {
    view.running = running;
    view.waiting = waiting;
    view.kv_cache_usage = if kv_cache_usage.is_nan() { 0.0 } else { kv_cache_usage.clamp(0.0, 1.0) };
    view.used_blocks = (f64::from(view.profile.kv_blocks) * view.kv_cache_usage).round() as u32;
    // Parts of what is held: they must not exceed it.
    view.waiting_deferred = 0;
    view.waiting_preempted = 0;
    view.prefilling = 0;
}
