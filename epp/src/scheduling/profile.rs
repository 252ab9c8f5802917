//! Plugins in their order, run over the candidates.
//!
//! Endpoints whose load is known and those whose load is not are never weighed against each other: the known go first. A small
//! share of requests goes to an unknown one nevertheless, so that a server without readable metrics is not idle for ever.

use std::sync::Arc;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::candidate::{Candidate, SchedulingRequest};
use super::plugin::{ExtensionPoint, Filter, Observer, Picker, PluginName, Scorer};

/// A plugin with its name.
#[derive(Debug)]
pub struct Named<P: ?Sized> {
    /// As configured.
    pub name: PluginName,
    /// What it does.
    pub plugin: Arc<P>,
}

impl<P: ?Sized> Clone for Named<P> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), plugin: self.plugin.clone() }
    }
}

/// A scorer with its weight.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// Which.
    pub scorer: Named<dyn Scorer>,
    /// What its score is multiplied by; the sum is not divided by the weights.
    pub weight: f64,
}

/// Filters, scorers and a picker.
#[derive(Clone, Debug)]
pub struct Profile {
    /// As configured.
    pub name: Arc<str>,
    /// Run in this order.
    pub filters: Vec<Named<dyn Filter>>,
    /// Added up.
    pub scorers: Vec<Weighted>,
    /// Chooses at last.
    pub picker: Named<dyn Picker>,
    /// The share of requests, 0..1, that goes to an unknown endpoint while known ones exist.
    pub exploration: f64,
}

/// What a run needs beside the request.
pub struct Cycle<'a> {
    /// Random numbers.
    pub rng: &'a mut dyn Rng,
    /// The clock that plugins' durations are taken with.
    pub clock: &'a dyn Fn() -> Instant,
    /// Who is told the durations.
    pub observer: &'a dyn Observer,
}

impl Cycle<'_> {
    fn timed<T>(&mut self, point: ExtensionPoint, plugin: &PluginName, run: impl FnOnce(&mut dyn Rng) -> T) -> T {
        let start = (self.clock)();
        let result = run(self.rng);
        self.observer.plugin_ran(point, plugin, (self.clock)().saturating_duration_since(start));
        result
    }
}

/// What a run chose.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selected {
    /// [`Candidate::index`] of the chosen, best first; empty only if filters left nothing.
    pub indices: Vec<usize>,
    /// Whether the first is an unknown one that was chosen though known ones exist.
    pub explored: bool,
    /// The filter that left nothing.
    pub emptied_by: Option<Arc<str>>,
}

impl Profile {
    /// Chooses among `candidates`. Nothing only where there are none, or a filter leaves none.
    pub fn run(&self, request: &SchedulingRequest<'_>, mut candidates: Vec<Candidate<'_>>, mut cycle: Cycle<'_>) -> Selected {
        for Named { name, plugin } in &self.filters {
            if candidates.is_empty() {
                break;
            }
            cycle.timed(ExtensionPoint::Filter, name, |_| plugin.filter(request, &mut candidates));
            if candidates.is_empty() {
                return Selected { emptied_by: Some(name.name.clone()), ..Selected::default() };
            }
        }
        let most = self.picker.plugin.most().max(1);
        let unknown: Vec<_> = candidates.iter().filter(|one| one.load.is_none()).map(|one| (one.in_flight, one.index)).collect();
        candidates.retain(|one| one.load.is_some());
        let explored =
            !candidates.is_empty() && !unknown.is_empty() && self.exploration > 0.0 && cycle.rng.random::<f64>() < self.exploration;
        let mut selected = Selected { explored, ..Selected::default() };
        if explored {
            selected.indices.extend(least_in_flight(unknown.clone(), 1, cycle.rng));
        }
        let wanted = most - selected.indices.len();
        if wanted > 0 && !candidates.is_empty() {
            self.pick_known(request, &candidates, wanted, &mut cycle, &mut selected.indices);
        }
        let missing = most.saturating_sub(selected.indices.len());
        if missing > 0 && !unknown.is_empty() {
            let others = unknown.into_iter().filter(|(_, index)| !selected.indices.contains(index)).collect();
            selected.indices.extend(least_in_flight(others, missing, cycle.rng));
        }
        selected
    }

    fn pick_known(
        &self,
        request: &SchedulingRequest<'_>,
        candidates: &[Candidate<'_>],
        most: usize,
        cycle: &mut Cycle<'_>,
        indices: &mut Vec<usize>,
    ) {
        let mut totals = vec![0.0; candidates.len()];
        let mut scores = vec![None; candidates.len()];
        for Weighted { scorer: Named { name, plugin }, weight } in &self.scorers {
            scores.fill(None);
            cycle.timed(ExtensionPoint::Scorer, name, |_| plugin.score(request, candidates, &mut scores));
            add_weighted(&mut totals, &scores, *weight);
        }
        let mut picked = Vec::with_capacity(most.min(candidates.len()));
        let Named { name, plugin } = &self.picker;
        cycle.timed(ExtensionPoint::Picker, name, |rng| plugin.pick(&totals, most, rng, &mut picked));
        indices.extend(picked.iter().filter_map(|position| candidates.get(*position)).map(|candidate| candidate.index));
    }
}

/// Adds `weight` times each score, held within 0 and 1. Who has none gets the lowest there is.
fn add_weighted(totals: &mut [f64], scores: &[Option<f64>], weight: f64) {
    let held = |score: f64| if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
    let lowest = scores.iter().flatten().map(|score| held(*score)).reduce(f64::min).unwrap_or(0.0);
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score.map_or(lowest, held);
    }
}

/// Up to `most` of (requests in flight, index), the least busy first, ties in any order.
fn least_in_flight(mut endpoints: Vec<(u64, usize)>, most: usize, rng: &mut dyn Rng) -> impl Iterator<Item = usize> {
    use rand::seq::SliceRandom;
    endpoints.shuffle(rng);
    endpoints.sort_by_key(|(in_flight, _)| *in_flight);
    endpoints.into_iter().take(most).map(|(_, index)| index)
}

#[cfg(test)]
mod tests;
