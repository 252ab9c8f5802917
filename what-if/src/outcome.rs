//! What a run came to, as numbers and over time.

use weir_hpa::Decision;
use weir_hpa::required::Learned;

use crate::load::Load;
use crate::replica::Happened;
use crate::run::Needed;
use crate::sample::{Metric, PoolSample};

/// Length of a stretch of the series, in seconds.
pub const STRETCH: usize = 15;
/// A change of direction within this many seconds is a flap.
const FLAP_SECONDS: u64 = 600;
/// Buckets of times to first token: a quarter of a power of two each, from 10 ms on.
const BUCKETS: usize = 64;
const FIRST_BUCKET: f64 = 0.01;

/// What came of a policy.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The policy.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Those with a first token in time.
    pub in_slo: u64,
    /// Those that never had one: clients left, or the picker refused.
    pub lost: u64,
    /// GPU hours of all pods, from creation to end, loading included.
    pub gpu_hours: f64,
    /// Most pods that were there at once.
    pub peak: u32,
    /// Most that were needed.
    pub needed_peak: u32,
    /// Most that the policy may ask for, if it says so (`maxReplicas`).
    pub most_allowed: Option<u32>,
    /// Changes of direction within ten minutes.
    pub flaps: u32,
    /// Times to first token in seconds: the median and the 95th percentile of those that had one.
    pub ttft: (f64, f64),
    /// The service level in seconds.
    pub slo: f64,
    /// What was asked for: from which second on how many replicas.
    pub steps: Vec<(u64, u32)>,
    /// Over time.
    pub series: Vec<Stretch>,
    /// What the metric learned on the way, if the policy uses it.
    pub learned: Option<Learned>,
    /// Seconds in which a whole pod too few was ready, and those of them in which enough were asked for already.
    pub short_seconds: u32,
    /// Of these, how many were waiting for pods to start.
    pub short_while_starting: u32,
}

impl Outcome {
    /// Share of the requests in the service level, 0 to 1; 1 without requests.
    pub fn in_slo_share(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { self.in_slo as f64 / self.requests as f64 }
    }

    /// Share that never had an answer.
    pub fn lost_share(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.lost as f64 / self.requests as f64 }
    }

    /// Most pods over most needed.
    pub fn overshoot(&self) -> f64 {
        f64::from(self.peak) / f64::from(self.needed_peak.max(1))
    }
}

/// A quarter of a minute.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// When it begins, in seconds.
    pub at: f64,
    /// Pods there at its end, ready or not.
    pub present: u32,
    /// Pods ready at its end.
    pub ready: u32,
    /// Pods needed, the most of it.
    pub needed: u32,
    /// Requests that arrived.
    pub arrived: u32,
    /// Those of them with a first token in time.
    pub in_slo: u32,
    /// Requests waiting at servers or held, at its end.
    pub waiting: f64,
    /// Mean KV cache use at its end.
    pub kv: f64,
    /// 95th percentile of the times to first token of those that arrived; `None` when none had one.
    pub ttft_p95: Option<f64>,
    /// Why the autoscaler did what it did, where it changed something.
    pub reason: Option<String>,
}

/// Takes notes during a run.
pub(crate) struct Recorder<'load> {
    load: &'load Load,
    slo: f64,
    in_slo: u64,
    lost: u64,
    seen: u64,
    peak: u32,
    flaps: u32,
    replicas: Option<u32>,
    steps: Vec<(u64, u32)>,
    last_change: Option<(u64, bool)>,
    series: Vec<Stretch>,
    /// Per stretch of arrival.
    histograms: Vec<[u32; BUCKETS]>,
    pods_by_second: Vec<(u32, u32)>,
}

impl<'load> Recorder<'load> {
    pub(crate) fn new(load: &'load Load, slo: f64) -> Self {
        let stretches = (load.seconds / STRETCH as f64).ceil().max(1.0) as usize;
        let mut series = vec![Stretch::default(); stretches];
        for (index, stretch) in series.iter_mut().enumerate() {
            stretch.at = (index * STRETCH) as f64;
        }
        Self {
            load,
            slo,
            in_slo: 0,
            lost: 0,
            seen: 0,
            peak: 0,
            flaps: 0,
            replicas: None,
            steps: Vec::new(),
            last_change: None,
            series,
            histograms: vec![[0; BUCKETS]; stretches],
            pods_by_second: Vec::with_capacity(load.seconds as usize + 1),
        }
    }

    fn stretch_of(&self, id: u32) -> usize {
        let at = self.load.arrivals.get(id as usize).map_or(0.0, |arrival| arrival.at);
        (at as usize / STRETCH).min(self.series.len() - 1)
    }

    pub(crate) fn happened(&mut self, event: Happened) {
        match event {
            Happened::FirstToken { id, seconds } => {
                self.seen += 1;
                let stretch = self.stretch_of(id);
                let bucket = ((seconds / FIRST_BUCKET).max(1.0).log2() * 4.0) as usize;
                self.histograms[stretch][bucket.min(BUCKETS - 1)] += 1;
                if seconds <= self.slo {
                    self.in_slo += 1;
                    self.series[stretch].in_slo += 1;
                }
            }
            Happened::Left { .. } => self.lost += 1,
        }
    }

    pub(crate) fn wished(&mut self, second: u64, replicas: u32, decision: Option<&Decision>) {
        let before = self.replicas.replace(replicas);
        let Some(before) = before.filter(|before| *before != replicas) else { return };
        self.steps.push((second, replicas));
        let up = replicas > before;
        if self.last_change.is_some_and(|(at, was_up)| was_up != up && second - at <= FLAP_SECONDS) {
            self.flaps += 1;
        }
        self.last_change = Some((second, up));
        let index = (second as usize / STRETCH).min(self.series.len() - 1);
        self.series[index].reason = decision.map(|decision| decision.reason.clone());
    }

    pub(crate) fn second(&mut self, second: u64, present: u32, ready: u32, sample: &PoolSample) {
        if self.replicas.is_none() {
            self.replicas = Some(present);
            self.steps.push((second, present));
        }
        self.peak = self.peak.max(present);
        self.pods_by_second.push((present, ready));
        let index = (second as usize / STRETCH).min(self.series.len() - 1);
        let stretch = &mut self.series[index];
        (stretch.present, stretch.ready) = (present, ready);
        stretch.waiting = sample.value(Metric::TotalQueue).unwrap_or_default();
        stretch.kv = sample.value(Metric::AverageKv).unwrap_or_default();
    }

    pub(crate) fn finish(mut self, name: String, gpu_hours: f64, needed: &Needed, slo: f64, learned: Option<Learned>) -> Outcome {
        // Those that came within the service level of the end may still be in time: they count for nothing.
        let last = self.load.seconds - slo;
        let mut requests = 0;
        let mut late = 0;
        for arrival in &self.load.arrivals {
            let index = (arrival.at as usize / STRETCH).min(self.series.len() - 1);
            self.series[index].arrived += 1;
            if arrival.at <= last {
                requests += 1;
            } else {
                late += 1;
            }
        }
        // Of the late ones those that were served count, the others are left out.
        let open = (requests + late as u64).saturating_sub(self.seen + self.lost);
        let left_out = open.min(late as u64);
        let requests = requests + late as u64 - left_out;
        let lost = requests.saturating_sub(self.seen);
        let mut all = [0_u32; BUCKETS];
        for (stretch, histogram) in self.series.iter_mut().zip(&self.histograms) {
            stretch.ttft_p95 = quantile(histogram, 0.95);
            let begin = stretch.at as usize;
            let end = (begin + STRETCH).min(needed.replicas.len());
            stretch.needed = needed.replicas.get(begin..end).and_then(|needed| needed.iter().copied().max()).unwrap_or(0);
            for (sum, count) in all.iter_mut().zip(histogram) {
                *sum += count;
            }
        }
        let pairs = || self.pods_by_second.iter().zip(&needed.replicas);
        let short = pairs().filter(|((_, ready), needed)| ready < needed).count() as u32;
        let short_while_starting = pairs().filter(|((present, ready), needed)| ready < needed && present >= needed).count() as u32;
        Outcome {
            name,
            requests,
            in_slo: self.in_slo,
            lost,
            gpu_hours,
            peak: self.peak,
            needed_peak: needed.peak,
            most_allowed: None,
            flaps: self.flaps,
            ttft: (quantile(&all, 0.5).unwrap_or_default(), quantile(&all, 0.95).unwrap_or_default()),
            slo,
            steps: self.steps,
            series: self.series,
            learned,
            short_seconds: short,
            short_while_starting,
        }
    }
}

/// The upper end of the bucket in which a quantile lies.
fn quantile(histogram: &[u32; BUCKETS], share: f64) -> Option<f64> {
    let total: u32 = histogram.iter().sum();
    let rank = (f64::from(total) * share).ceil().max(1.0) as u32;
    let mut sum = 0;
    for (index, count) in histogram.iter().enumerate() {
        sum += count;
        if sum >= rank {
            return Some(FIRST_BUCKET * ((index + 1) as f64 / 4.0).exp2());
        }
    }
    None
}
