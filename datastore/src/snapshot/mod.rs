//! A pool at one moment: computed when read, immutable, one pass over the endpoints.
//!
//! Truthful zero: zero, unknown and stale are never confused. A value is either [`Measured`] or [`Unknown`] with its cause; what
//! each family makes of no pods, no fresh pods and some fresh pods is said at the methods.

mod coverage;
mod slo;
mod starts;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use self::coverage::is_fresh;
pub use self::coverage::{Coverage, FRESH_AT_LEAST, FRESH_AT_MOST, Freshness};

use crate::cells::{Endpoint, Picker, PickersMeasured, Pool};
use crate::demand::RequiredReplicas;
use crate::load::{Combined, EndpointLoad, EndpointStatus, LoadSignal, PickerStatus};
use crate::measurement::{Measured, Measurement, Unknown};
use crate::options::RequiredOptions;
use crate::pool::{EndpointState, PoolId};
use crate::saturation::{Saturation, Thresholds};
use crate::selector::Selector;
use crate::start::{StartMemory, StartingPod};

/// One endpoint as the snapshot saw it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// What was discovered.
    pub endpoint: Arc<Endpoint>,
    /// What was read.
    pub status: Arc<EndpointStatus>,
    /// Whether it counts.
    pub freshness: Freshness,
}

impl EndpointView {
    /// The load, where the endpoint counts.
    pub fn fresh_load(&self) -> Option<&EndpointLoad> {
        self.status.load.as_deref().filter(|_| self.freshness == Freshness::Fresh)
    }
}

/// One picker as the snapshot saw it.
#[derive(Clone, Debug)]
pub struct PickerView {
    /// Its name.
    pub name: Arc<str>,
    /// What it said.
    pub status: Arc<PickerStatus>,
}

impl PickerView {
    fn of(picker: &Picker) -> Self {
        Self { name: picker.name.clone(), status: picker.status() }
    }
}

/// A signal over the fresh endpoints that carry it.
#[derive(Clone, Copy, Debug)]
struct Spread {
    endpoints: usize,
    sum: f64,
    hottest: f64,
    as_of: Instant,
}

impl Spread {
    fn new(now: Instant) -> Self {
        Self { endpoints: 0, sum: 0.0, hottest: 0.0, as_of: now }
    }

    fn add(&mut self, signal: Option<Combined>, read_at: Instant) {
        if let Some(signal) = signal {
            self.endpoints += 1;
            self.sum += signal.value;
            self.hottest = self.hottest.max(signal.hottest);
            self.as_of = self.as_of.min(read_at);
        }
    }
}

/// A pool at one moment.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// Which pool.
    pub id: PoolId,
    /// The moment.
    pub taken_at: Instant,
    /// Its endpoints, or those that the selector chose.
    pub endpoints: Vec<EndpointView>,
    /// How many are in which state.
    pub coverage: Coverage,
    /// Requests that wait in the pool's pickers. They belong to the pool as a whole, whatever endpoints a selector chose.
    pub held: Measurement,
    /// The pool's pickers, by name.
    pub pickers: Vec<PickerView>,
    /// Whether it has a picker at all, found or not.
    pub has_picker: bool,
    /// Pods that have no address yet.
    pub pending: usize,
    /// Pods that are not ready, as far as anybody tells of pods.
    pub unready: Arc<[StartingPod]>,
    /// Whether requests are to wait for the first endpoint whatever is known of one.
    pub hold: bool,
    /// How its required replicas are to be computed.
    pub options: RequiredOptions,
    starts: Arc<StartMemory>,
    measured: Arc<PickersMeasured>,
    /// Whose requests latencies are of; none: of all models together.
    model: Option<Arc<str>>,
    /// Whether `held` is part of the totals: some picker of the pool has told it.
    held_counts: bool,
    running: Spread,
    waiting: Spread,
    kv_cache_utilization: Spread,
    saturation: (usize, f64),
    last_active: Instant,
    /// What was computed last; none where a selector chose pods.
    required: Result<Option<Arc<RequiredReplicas>>, Unknown>,
}

impl PoolSnapshot {
    pub(crate) fn new(pool: &Pool, selector: &Selector, now: Instant) -> Self {
        let (held, held_counts, picker_active) = held(pool, now);
        let mut snapshot = Self {
            id: pool.id.clone(),
            taken_at: now,
            endpoints: Vec::with_capacity(pool.endpoints.len()),
            coverage: Coverage::default(),
            held,
            pickers: pool.pickers.iter().flatten().map(|picker| PickerView::of(picker)).collect(),
            has_picker: pool.pickers.is_some(),
            pending: pool.pending,
            unready: pool.unready.clone(),
            hold: pool.hold,
            options: pool.options,
            starts: pool.memory.starts.clone(),
            measured: pool.memory.measured.load_full(),
            model: None,
            held_counts,
            running: Spread::new(now),
            waiting: Spread::new(now),
            kv_cache_utilization: Spread::new(now),
            saturation: (0, 0.0),
            required: if selector.is_everything() { Ok(pool.memory.required.load_full()) } else { Err(Unknown::WholePool) },
            last_active: picker_active.into_iter().fold(**pool.memory.active_before.load(), Instant::max),
        };
        for endpoint in &pool.endpoints {
            if selector.matches(|label| endpoint.spec.labels.get(label).map(String::as_str)) {
                snapshot.add(endpoint, now);
            }
        }
        snapshot
    }

    fn add(&mut self, endpoint: &Arc<Endpoint>, now: Instant) {
        let status = endpoint.status();
        let freshness = Freshness::of(endpoint.spec.state, &status, now);
        self.coverage.add(freshness);
        self.last_active = status.last_active.into_iter().fold(self.last_active, Instant::max);
        if let Some(load) = status.load.as_deref().filter(|_| freshness == Freshness::Fresh) {
            self.running.add(load.running, load.scraped_at);
            self.waiting.add(load.waiting, load.scraped_at);
            self.kv_cache_utilization.add(load.kv_cache_utilization, load.scraped_at);
            if let Some(saturation) = Thresholds::default().endpoint(load) {
                self.saturation.0 += 1;
                self.saturation.1 += saturation;
            }
        }
        self.endpoints.push(EndpointView { endpoint: endpoint.clone(), status, freshness });
    }

    /// How many replicas the pool requires, as whoever computes that has written it down.
    pub fn required_replicas(&self) -> Measurement {
        match &self.required {
            Ok(Some(required)) => required.told(self.taken_at),
            Ok(None) => Err(Unknown::NotComputed),
            Err(unknown) => Err(unknown.clone()),
        }
    }

    /// The mean of `signal` per endpoint, over the fresh ready ones that carry it. No endpoints: 0.
    pub fn mean(&self, signal: LoadSignal) -> Measurement {
        let spread = match self.spread(signal)? {
            Some(spread) => spread,
            None => return Ok(self.zero()),
        };
        Ok(Measured { value: spread.sum / spread.endpoints as f64, as_of: spread.as_of })
    }

    /// The highest `signal` of any single engine of any fresh ready endpoint. No endpoints: 0.
    pub fn max(&self, signal: LoadSignal) -> Measurement {
        Ok(self.spread(signal)?.map_or(self.zero(), |spread| Measured { value: spread.hottest, as_of: spread.as_of }))
    }

    /// `signal` over all ready endpoints: the mean of the fresh ones stands for the rest, as long as half are fresh. No endpoints: 0.
    pub fn total(&self, signal: LoadSignal) -> Measurement {
        let Some(spread) = self.spread(signal)? else { return Ok(self.zero()) };
        let ready = self.coverage.ready();
        if 2 * spread.endpoints < ready {
            return Err(Unknown::BelowHalf { fresh: spread.endpoints, ready, problem: self.problem() });
        }
        let mean = spread.sum / spread.endpoints as f64;
        Ok(Measured { value: mean * ready as f64, as_of: spread.as_of })
    }

    /// Requests waiting in servers and pickers.
    pub fn total_queue_size(&self) -> Measurement {
        self.with_held(self.total(LoadSignal::Waiting))
    }

    /// Requests running or waiting in servers, and held in pickers.
    pub fn total_inflight(&self) -> Measurement {
        let running = self.total(LoadSignal::Running);
        let waiting = self.total(LoadSignal::Waiting);
        self.with_held(running.and_then(|running| {
            let waiting = waiting?;
            Ok(Measured { value: running.value + waiting.value, as_of: running.as_of.min(waiting.as_of) })
        }))
    }

    /// The pool's KV cache in use, in pods' worth: over pods, the sum of the mean over each pod's ranks. No endpoints: 0.
    pub fn total_kv_cache_utilization(&self) -> Measurement {
        let Some(spread) = self.spread(LoadSignal::KvCacheUtilization)? else { return Ok(self.zero()) };
        let ready = self.coverage.ready();
        if 2 * spread.endpoints < ready {
            return Err(Unknown::BelowHalf { fresh: spread.endpoints, ready, problem: self.problem() });
        }
        let pod_of = |view: &EndpointView| (view.endpoint.spec.pod.clone(), view.endpoint.spec.pod_uid.clone());
        let ready_pods: HashSet<_> =
            self.endpoints.iter().filter(|view| view.endpoint.spec.state == EndpointState::Ready).map(pod_of).collect();
        let mut per_pod: HashMap<_, (f64, f64)> = HashMap::new();
        for view in &self.endpoints {
            if let Some(utilization) = view.fresh_load().and_then(|load| load.kv_cache_utilization) {
                let (sum, ranks) = per_pod.entry(pod_of(view)).or_default();
                *sum += utilization.value;
                *ranks += 1.0;
            }
        }
        let mean_per_pod = per_pod.values().map(|(sum, ranks)| sum / ranks).sum::<f64>() / per_pod.len() as f64;
        Ok(Measured { value: mean_per_pod * ready_pods.len() as f64, as_of: spread.as_of })
    }

    /// How full the pool is: see [`Saturation`].
    pub fn saturation(&self) -> Saturation {
        let (endpoints, sum) = self.saturation;
        if self.coverage.present() == 0 {
            return Saturation::NoEndpoints { held: self.held.as_ref().map_or(0, |held| held.value as u64) };
        }
        match endpoints {
            0 => Saturation::Unknown(self.nothing_fresh().unwrap_or(Unknown::NoSignal {
                signal: "waiting requests or the KV cache utilization",
                fresh: self.coverage.fresh,
            })),
            _ => Saturation::Known(sum / endpoints as f64),
        }
    }

    /// Seconds since anything ran, waited, was held or arrived; since the pool was first seen where nothing ever did. Known only
    /// while every endpoint that may be doing something can be read.
    pub fn idle_seconds(&self) -> Measurement {
        let unreadable = |view: &&EndpointView| match view.freshness {
            Freshness::Fresh | Freshness::Unready => false,
            Freshness::Stale | Freshness::Unreachable => true,
            Freshness::Terminating => {
                !view.status.load.as_deref().is_some_and(|load| is_fresh(load.scraped_at, view.status.interval, self.taken_at))
            }
        };
        if self.endpoints.iter().any(|view| unreadable(&view)) {
            return Err(Unknown::NoneFresh {
                ready: self.coverage.ready() + self.coverage.terminating - self.coverage.fresh,
                last_read: self.last_read(),
                problem: self.problem(),
            });
        }
        match &self.held {
            Err(unknown) if self.held_counts => Err(unknown.clone()),
            _ => {
                let idle = self.taken_at.saturating_duration_since(self.last_active);
                Ok(Measured { value: idle.as_secs_f64(), as_of: self.oldest_sample().unwrap_or(self.taken_at) })
            }
        }
    }

    /// Age in seconds of the oldest page that counts.
    pub fn metrics_age_seconds(&self) -> Measurement {
        match self.oldest_sample() {
            Some(oldest) => {
                let age = self.taken_at.saturating_duration_since(oldest);
                Ok(Measured { value: age.as_secs_f64(), as_of: oldest })
            }
            None if self.coverage.present() == 0 => Ok(self.zero()),
            None => Err(self.nothing_fresh().unwrap_or(Unknown::NoneReady { endpoints: self.coverage.present() })),
        }
    }

    pub(crate) fn oldest_sample(&self) -> Option<Instant> {
        self.endpoints.iter().filter_map(EndpointView::fresh_load).map(|load| load.scraped_at).min()
    }

    fn last_read(&self) -> Option<Instant> {
        self.endpoints.iter().filter_map(|view| view.status.load.as_deref()).map(|load| load.scraped_at).max()
    }

    /// Zero because there is nothing: as true now as it can be.
    fn zero(&self) -> Measured {
        Measured { value: 0.0, as_of: self.taken_at }
    }

    /// The fresh endpoints' `signal`; none where the pool has no endpoints.
    fn spread(&self, signal: LoadSignal) -> Result<Option<Spread>, Unknown> {
        if self.coverage.present() == 0 {
            return Ok(None);
        }
        let spread = match signal {
            LoadSignal::Running => self.running,
            LoadSignal::Waiting => self.waiting,
            LoadSignal::KvCacheUtilization => self.kv_cache_utilization,
        };
        match (self.nothing_fresh(), spread.endpoints) {
            (Some(unknown), _) => Err(unknown),
            (None, 0) => Err(Unknown::NoSignal { signal: signal.key(), fresh: self.coverage.fresh }),
            (None, _) => Ok(Some(spread)),
        }
    }

    fn nothing_fresh(&self) -> Option<Unknown> {
        match (self.coverage.ready(), self.coverage.fresh) {
            (0, _) => Some(Unknown::NoneReady { endpoints: self.coverage.present() }),
            (ready, 0) => Some(Unknown::NoneFresh { ready, last_read: self.last_read(), problem: self.problem() }),
            _ => None,
        }
    }

    /// What the last attempt at some endpoint that should be fresh met with.
    fn problem(&self) -> Option<Arc<str>> {
        let failures = self.endpoints.iter().filter(|view| view.freshness == Freshness::Unreachable);
        failures.filter_map(|view| view.status.failure.as_ref()).map(|failure| failure.message.clone()).next()
    }

    /// A total with what pickers hold. Where the servers' part is unknown because nothing is ready or readable, a known demand
    /// above zero still is one: it is what wakes a pool.
    fn with_held(&self, in_servers: Measurement) -> Measurement {
        let held = match (&self.held, self.held_counts) {
            (held, true) => held.clone()?,
            (_, false) => return in_servers,
        };
        match in_servers {
            Ok(servers) => Ok(Measured { value: servers.value + held.value, as_of: servers.as_of.min(held.as_of) }),
            Err(Unknown::NoneReady { .. } | Unknown::NoneFresh { .. }) if held.value > 0.0 => Ok(held),
            Err(unknown) => Err(unknown),
        }
    }
}

/// What the pool's pickers hold, whether that belongs to the totals, and when one was last active.
fn held(pool: &Pool, now: Instant) -> (Measurement, bool, Option<Instant>) {
    let Some(pickers) = &pool.pickers else { return (Err(Unknown::NoPicker), false, None) };
    let shown = pool.memory.held_shown.load(Ordering::Relaxed);
    let mut sum = Measured { value: 0.0, as_of: now };
    let mut last_active = None;
    let mut silent = pickers.is_empty().then_some((None, None));
    for picker in pickers {
        let status = picker.status();
        last_active = last_active.max(status.last_active);
        match status.load {
            Some(load) if is_fresh(load.read_at, status.interval, now) => {
                sum = Measured { value: sum.value + load.held.unwrap_or(0) as f64, as_of: sum.as_of.min(load.read_at) };
            }
            load => {
                let problem = status.failure.as_ref().map(|failure| failure.message.clone());
                silent = Some((load.map(|load| load.read_at), problem));
            }
        }
    }
    let held = match silent {
        None => Ok(sum),
        Some(_) if !shown => Err(Unknown::NoPicker),
        Some((last_read, problem)) => Err(Unknown::HeldUnknown { last_read, problem }),
    };
    (held, shown, last_active)
}
