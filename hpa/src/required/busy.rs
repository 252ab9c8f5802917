//! Which endpoints work as hard as they can: only they show what a replica is worth.

use std::collections::HashMap;

use super::constants::{BUSY_GROWING, BUSY_KV, BUSY_MEAN, BUSY_READY, BUSY_WAITING};
use super::flow::{EndpointFlow, Flow};

/// What is remembered of an endpoint.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// For how long something has been waiting, in seconds.
    waiting_for: f64,
    /// The mean of what runs.
    running: f64,
}

/// Watches the endpoints of the last turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy {
    watched: HashMap<u64, Watch>,
}

impl Busy {
    /// The busy endpoints of this turn. A gap breaks all waiting.
    pub(super) fn advance<'flow>(&mut self, flow: &'flow Flow, held: f64) -> Vec<&'flow EndpointFlow> {
        let weight = 1.0 - (-flow.seconds / BUSY_MEAN).exp();
        let mut watched = HashMap::with_capacity(flow.endpoints.len());
        let mut busy = Vec::new();
        for endpoint in &flow.endpoints {
            let load = &endpoint.load;
            let before = self.watched.get(&endpoint.id).copied();
            let mut watch = before.unwrap_or(Watch { waiting_for: 0.0, running: load.running });
            let waits = load.waiting >= 1.0 || (held >= 1.0 && load.kv >= BUSY_KV);
            watch.waiting_for = if waits && !flow.gap && before.is_some() { watch.waiting_for + flow.seconds } else { 0.0 };
            watch.running += (load.running - watch.running) * weight;
            let steady = load.running <= BUSY_GROWING * watch.running;
            if endpoint.ready_for >= BUSY_READY && watch.waiting_for >= BUSY_WAITING && steady {
                busy.push(endpoint);
            }
            watched.insert(endpoint.id, watch);
        }
        self.watched = watched;
        busy
    }
}
