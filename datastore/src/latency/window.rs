//! What one server's histograms grew by in the last minute.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::histogram::ByBounds;
use super::page::{LatencyPage, LatencySeries, MOST_BUCKETS_IN_ALL};
use super::{APART, Histogram, Latency, SLOTS, WINDOW};

/// The growth of one endpoint's histograms, page by page.
///
/// Bounded: at most 4,096 buckets of a page are kept, each as its last count (8 bytes), 6 differences (4 bytes each) and in the sum
/// that is published (8 bytes): 160 KB and a name per model at the worst. A vLLM server with one model has 88: 3.5 KB.
#[derive(Debug, Default)]
pub struct EndpointWindow {
    /// When the last page was asked for.
    last_at: Option<Instant>,
    last: Vec<LatencySeries>,
    /// Whether the last page had histograms that could not be read: what is new on the next one may be older than it looks.
    refused: bool,
    steps: VecDeque<Step>,
    /// Bounds in use, shared by what is published.
    bounds: Vec<Arc<[f64]>>,
}

/// What was added between two pages.
#[derive(Debug)]
struct Step {
    from: Instant,
    to: Instant,
    grown: Vec<Grown>,
}

#[derive(Debug)]
struct Grown {
    model: Option<Arc<str>>,
    signal: Latency,
    bounds: Arc<[f64]>,
    counts: Box<[u32]>,
}

/// What an endpoint's requests took in the minute before its last page with histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointLatencies {
    /// When that page was asked for; none before the second one.
    pub as_of: Option<Instant>,
    /// The time that the differences cover, in seconds.
    pub seconds: f64,
    /// By model and signal; several of one where bounds differ.
    pub(crate) histograms: Vec<(Option<Arc<str>>, Latency, Histogram)>,
}

impl EndpointWindow {
    /// Whether another page is due at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.last_at.is_none_or(|last| now.saturating_duration_since(last) >= APART)
    }

    /// Learns the histograms of a page that was asked for at `asked_at`, and sums up the last minute.
    ///
    /// A count that is smaller than before began at 0, as does a series that was not there before. What was added over more than a
    /// minute cannot be told to be of the last one, and is left out.
    pub fn learn(&mut self, page: LatencyPage, asked_at: Instant) -> EndpointLatencies {
        let before = std::mem::replace(&mut self.last, page.series);
        let complete = !std::mem::replace(&mut self.refused, page.refused > 0);
        if let Some(from) = self.last_at.replace(asked_at).filter(|from| *from < asked_at && asked_at - *from <= WINDOW) {
            let grown = self.grown(&before, complete);
            self.steps.push_back(Step { from, to: asked_at, grown });
        }
        self.keep_gone(before);
        let in_window = |step: &Step| asked_at.saturating_duration_since(step.from) <= WINDOW + APART / 2;
        while self.steps.len() > SLOTS || self.steps.front().is_some_and(|step| !in_window(step)) {
            self.steps.pop_front();
        }
        self.summed_up()
    }

    fn grown(&mut self, before: &[LatencySeries], complete: bool) -> Vec<Grown> {
        let mut grown: Vec<Grown> = Vec::new();
        for (place, series) in self.last.iter().enumerate() {
            let bounds = match self.bounds.iter().find(|known| known[..] == series.bounds[..]) {
                Some(known) => known.clone(),
                None => {
                    let bounds: Arc<[f64]> = series.bounds.clone().into();
                    self.bounds.push(bounds.clone());
                    bounds
                }
            };
            // Pages keep their order: look in the same place first.
            let is_it = |known: &&LatencySeries| known.identity == series.identity && known.bounds == series.bounds;
            let known = before.get(place).filter(is_it).or_else(|| before.iter().find(is_it));
            if known.is_none() && !complete {
                continue;
            }
            let added = added(known.map(|known| &known.cumulative[..]), &series.cumulative);
            let same = |grown: &&mut Grown| {
                grown.signal == series.signal && grown.model == series.model && Arc::ptr_eq(&grown.bounds, &bounds)
            };
            match grown.iter_mut().find(same) {
                Some(sum) => sum.counts.iter_mut().zip(added).for_each(|(count, more)| *count = count.saturating_add(more)),
                None => {
                    grown.push(Grown { model: series.model.clone(), signal: series.signal, bounds, counts: added.collect() });
                }
            }
        }
        grown
    }

    /// A series that is missing from one page may be on the next with all that it ever counted: its last counts are kept.
    fn keep_gone(&mut self, before: Vec<LatencySeries>) {
        let on_page = self.last.len();
        let mut left = MOST_BUCKETS_IN_ALL.saturating_sub(self.last.iter().map(|series| series.cumulative.len()).sum());
        for gone in before {
            let buckets = gone.cumulative.len();
            if buckets <= left && !self.last[..on_page].iter().any(|series| series.identity == gone.identity) {
                left -= buckets;
                self.last.push(gone);
            }
        }
    }

    fn summed_up(&mut self) -> EndpointLatencies {
        let Some(newest) = self.steps.back() else { return EndpointLatencies::default() };
        let as_of = Some(newest.to);
        let seconds = self.steps.iter().map(|step| (step.to - step.from).as_secs_f64()).sum();
        let mut histograms: Vec<(Option<Arc<str>>, Latency, Histogram)> = Vec::new();
        for grown in self.steps.iter().flat_map(|step| &step.grown) {
            let same = |(model, signal, histogram): &(Option<Arc<str>>, Latency, Histogram)| {
                *signal == grown.signal && *model == grown.model && Arc::ptr_eq(histogram.bounds(), &grown.bounds)
            };
            let place = histograms.iter().position(same).unwrap_or_else(|| {
                histograms.push((grown.model.clone(), grown.signal, Histogram::empty(grown.bounds.clone())));
                histograms.len() - 1
            });
            let (.., sum) = &mut histograms[place];
            grown.counts.iter().enumerate().for_each(|(bucket, more)| sum.count_in(bucket, u64::from(*more)));
        }
        self.bounds.retain(|bounds| Arc::strong_count(bounds) > 1);
        EndpointLatencies { as_of, seconds, histograms }
    }
}

/// What was added per bucket from one cumulative count to the next.
fn added<'counts>(before: Option<&'counts [u64]>, after: &'counts [u64]) -> impl Iterator<Item = u32> + 'counts {
    // One that fell anywhere is of a server that began again.
    let before = before.filter(|before| before.iter().zip(after).all(|(before, after)| before <= after));
    let grown = move |bucket: usize| after[bucket] - before.map_or(0, |before| before[bucket]);
    (0..after.len()).map(move |bucket| {
        let below = if bucket == 0 { 0 } else { grown(bucket - 1) };
        // Processes that are read one after the other may be apart by a request.
        u32::try_from(grown(bucket).saturating_sub(below)).unwrap_or(u32::MAX)
    })
}

impl EndpointLatencies {
    /// The histograms of `signal`, of `model` or of all.
    pub(crate) fn add_to(&self, all: &mut ByBounds, signal: Latency, model: Option<&str>) {
        let wanted = |of: &Option<Arc<str>>| model.is_none_or(|model| of.as_deref() == Some(model));
        self.histograms.iter().filter(|(of, kind, _)| *kind == signal && wanted(of)).for_each(|(.., found)| all.add(found));
    }

    /// The models that its histograms are of.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Arc<str>> {
        self.histograms.iter().filter_map(|(model, ..)| model.as_ref())
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
