//! What is written about latencies and tokens, beside the loads.

use std::sync::Arc;

use tokio::time::Instant;

use super::{EndpointWriter, PickerWriter};
use crate::cells::PickersMeasured;
use crate::latency::{COUNTS_FOR, LatencyPage, PickerLatencies};
use crate::load::EndpointLoad;

/// Pickers of one pool whose measurements are kept.
const MOST_PICKERS: usize = 1024;

impl EndpointWriter {
    /// Whether the next page is to be read for its histograms too: every 10 s, and only of a pool whose requests no picker measures.
    pub fn wants_latencies(&self, now: Instant) -> bool {
        self.latencies.is_due(now) && !self.memory.measured.load().values().any(|told| counts(told, now))
    }

    /// The histograms of a page that was asked for at `asked_at`.
    pub fn latencies(&mut self, page: LatencyPage, asked_at: Instant) {
        let learnt = self.latencies.learn(page, asked_at);
        self.slo.latencies.store(Some(Arc::new(learnt)));
    }

    pub(super) fn learn_tokens(&mut self, load: &EndpointLoad) {
        if let Some(rates) = self.tokens.learn(load) {
            self.slo.tokens.store(Some(Arc::new(rates)));
        }
    }
}

impl PickerWriter {
    /// The picker called `picker`, this one or one that this one tells of, measured its requests. The youngest word of it counts.
    pub fn measured(&self, picker: &Arc<str>, told: PickerLatencies) {
        let known = self.memory.measured.load();
        let younger = known.get(picker).is_none_or(|known| known.as_of < told.as_of);
        if !younger || (known.len() >= MOST_PICKERS && !known.contains_key(picker)) {
            return;
        }
        let (now, told) = (told.as_of, Arc::new(told));
        self.memory.measured.rcu(|known| {
            let others = known.iter().filter(|(name, other)| *name != picker && counts(other, now));
            let mut all: PickersMeasured = others.map(|(name, other)| (name.clone(), other.clone())).collect();
            all.insert(picker.clone(), told.clone());
            all
        });
        self.memory.changed();
    }
}

/// Whether what was told says something of now.
pub(crate) fn counts(told: &PickerLatencies, now: Instant) -> bool {
    now.saturating_duration_since(told.as_of) <= COUNTS_FOR
}
