//! Plugins in their order, run over the candidates.
//!
//! Endpoints whose load is known and those whose load is not are never weighed against each other: the known go first. A small
//! share of requests goes to an unknown one nevertheless, so that a server without readable metrics is not idle for ever.

use std::cmp::Ordering;
use std::sync::Arc;

use rand::{Rng, RngExt};
use tokio::time::Instant;

use super::candidate::{Candidate, SchedulingRequest};
use super::plugin::{ExtensionPoint, Filter, Observer, Picker, PluginName, Scorer};
use super::scratch::Buffers;

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
    /// Calls `run`, and tells how long it took.
    pub fn timed<T>(&mut self, point: ExtensionPoint, plugin: &PluginName, run: impl FnOnce(&mut dyn Rng) -> T) -> T {
        let start = (self.clock)();
        let result = run(self.rng);
        self.observer.plugin_ran(point, plugin, (self.clock)().saturating_duration_since(start));
        result
    }
}

/// What a run chose.
#[derive(Clone, Debug, Default)]
pub struct Selected<'a> {
    /// The chosen, best first; empty only if filters left nothing.
    pub endpoints: Vec<Candidate<'a>>,
    /// Whether the first is an unknown one that was chosen though known ones exist.
    pub explored: bool,
    /// The filter that left nothing.
    pub emptied_by: Option<Arc<str>>,
}

impl Profile {
    /// Chooses among `candidates`, which are left in any state. Nothing only where there are none, or a filter leaves none.
    pub fn run<'a>(
        &self,
        request: &SchedulingRequest<'_>,
        candidates: &mut Vec<Candidate<'a>>,
        buffers: &mut Buffers,
        cycle: &mut Cycle<'_>,
    ) -> Selected<'a> {
        for Named { name, plugin } in &self.filters {
            if candidates.is_empty() {
                break;
            }
            cycle.timed(ExtensionPoint::Filter, name, |rng| plugin.filter(request, candidates, rng));
            if candidates.is_empty() {
                return Selected { emptied_by: Some(name.name.clone()), ..Selected::default() };
            }
        }
        let most = self.picker.plugin.most().max(1);
        let (known, unknown) = known_first(candidates);
        let explored =
            !known.is_empty() && !unknown.is_empty() && self.exploration > 0.0 && cycle.rng.random::<f64>() < self.exploration;
        let mut selected = Selected { explored, ..Selected::default() };
        if explored {
            least_in_flight(unknown, 1, cycle.rng, &mut selected.endpoints);
        }
        let wanted = most - selected.endpoints.len();
        if wanted > 0 && !known.is_empty() {
            self.pick_known(request, known, wanted, buffers, cycle, &mut selected.endpoints);
        }
        let missing = most.saturating_sub(selected.endpoints.len());
        // Who was explored is the first of them.
        let others = unknown.get_mut(usize::from(explored)..).unwrap_or_default();
        if missing > 0 && !others.is_empty() {
            least_in_flight(others, missing, cycle.rng, &mut selected.endpoints);
        }
        selected
    }

    fn pick_known<'a>(
        &self,
        request: &SchedulingRequest<'_>,
        candidates: &[Candidate<'a>],
        most: usize,
        buffers: &mut Buffers,
        cycle: &mut Cycle<'_>,
        chosen: &mut Vec<Candidate<'a>>,
    ) {
        let Buffers { totals, scores, picked } = buffers;
        totals.clear();
        totals.resize(candidates.len(), 0.0);
        for Weighted { scorer: Named { name, plugin }, weight } in &self.scorers {
            scores.clear();
            scores.resize(candidates.len(), None);
            cycle.timed(ExtensionPoint::Scorer, name, |_| plugin.score(request, candidates, scores));
            add_weighted(totals, scores, *weight);
        }
        picked.clear();
        let Named { name, plugin } = &self.picker;
        cycle.timed(ExtensionPoint::Picker, name, |rng| plugin.pick(totals, most, rng, picked));
        chosen.extend(picked.iter().filter_map(|position| candidates.get(*position)));
    }
}

/// The known ones, in their order, and the others.
fn known_first<'all, 'a>(candidates: &'all mut [Candidate<'a>]) -> (&'all mut [Candidate<'a>], &'all mut [Candidate<'a>]) {
    let mut known = 0;
    for position in 0..candidates.len() {
        if candidates[position].load.is_some() {
            if position != known {
                candidates.swap(position, known);
            }
            known += 1;
        }
    }
    candidates.split_at_mut(known)
}

/// Adds `weight` times each score, held within 0 and 1. Who has none gets the lowest there is.
fn add_weighted(totals: &mut [f64], scores: &[Option<f64>], weight: f64) {
    let held = |score: f64| if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
    let lowest = scores.iter().flatten().map(|score| held(*score)).reduce(f64::min).unwrap_or(0.0);
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score.map_or(lowest, held);
    }
}

/// Appends up to `most` of `endpoints`, the least busy first, ties in any order, and puts them to the front.
fn least_in_flight<'a>(endpoints: &mut [Candidate<'a>], most: usize, rng: &mut dyn Rng, chosen: &mut Vec<Candidate<'a>>) {
    for front in 0..most.min(endpoints.len()) {
        let mut best = front;
        let mut equals = 1_u32;
        for position in front + 1..endpoints.len() {
            match endpoints[position].in_flight.cmp(&endpoints[best].in_flight) {
                Ordering::Less => (best, equals) = (position, 1),
                // Each further equal takes the place of the one before with probability 1/n.
                Ordering::Equal => {
                    equals += 1;
                    if rng.random_range(0..equals) == 0 {
                        best = position;
                    }
                }
                Ordering::Greater => {}
            }
        }
        endpoints.swap(front, best);
        chosen.push(endpoints[front]);
    }
}

#[cfg(test)]
mod tests;
