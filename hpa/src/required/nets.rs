//! What holds when the arithmetic is wrong: two nets against too few, and the rule for zero.

use super::constants::{COLD_KV, COLD_RUNNING, IDLE_SECONDS, NET_SECONDS};
use super::flow::Flow;

/// Every endpoint waits and none is coming: one more, whatever was learned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Net {
    full_for: f64,
}

impl Net {
    /// Whether one replica more than there are ready ones is needed. `unlearned`: no replica was ever seen full, so running requests and
    /// KV cache use count as well.
    pub(super) fn advance(&mut self, flow: &Flow, held: f64, pending: u32, ready: u32, unlearned: bool) -> bool {
        let loads = || flow.endpoints.iter().map(|endpoint| endpoint.load);
        let count = flow.endpoints.len() as f64;
        let waits = held > 0.0 || (count > 0.0 && loads().all(|load| load.waiting >= 1.0));
        let warm = count > 0.0
            && (loads().map(|load| load.running).sum::<f64>() > COLD_RUNNING * count
                || loads().map(|load| load.kv).sum::<f64>() > COLD_KV * count);
        let full = pending == 0 && ready > 0 && (waits || (unlearned && warm));
        self.full_for = if full { self.full_for + flow.seconds } else { 0.0 };
        self.full_for >= NET_SECONDS
    }
}

/// Since when there is nothing to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Idleness {
    since: Option<f64>,
}

impl Idleness {
    /// Whether nothing has been there for a minute.
    pub(super) fn advance(&mut self, now: f64, something: bool) -> bool {
        if something {
            self.since = None;
            return false;
        }
        now - *self.since.get_or_insert(now) >= IDLE_SECONDS
    }
}
