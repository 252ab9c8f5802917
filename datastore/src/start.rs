//! How pods start and how long that takes: the phases of a cold start, and the time that the next one is expected to take.
//!
//! Times of one pod come from three clocks (API server, scheduler, node) that need not agree, and to the second. So each phase is
//! taken by itself, one that cannot be true is left out, and where this process saw the pod come into being, the whole is measured
//! by its own clock.
//!
//! What is expected is of this process alone, and needs nothing else: a picker computes no level. The level's own mean is fed by the same
//! starts (`weir_hpa::required`), and kept over restarts.

use std::array;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// No start takes longer: what seems to is a clock or a pod that was mended.
const LONGEST: f64 = 3600.0;
/// The API server tells whole seconds: two of its times may be this much wrong together.
const ROUNDING: f64 = 2.0;
/// Starts of which the plain mean is taken.
const PLAIN: u32 = 10;
/// What a later start counts for.
const WEIGHT: f64 = 0.1;
/// A pod that is not ready for so long, and for three times the expected start, is no promise.
const PATIENCE: Duration = Duration::from_secs(600);

/// Upper bounds of the buckets in which starts are counted, in seconds.
pub const START_BUCKETS: [f64; 14] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0];

/// A part of a cold start, named by its end; it begins where the one before ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StartPhase {
    /// From the creation of the pod (`metadata.creationTimestamp`) until a node was found (condition `PodScheduled`).
    Scheduled,
    /// Until its init containers have ended (condition `Initialized`): volumes, sandbox, images of init containers.
    Initialized,
    /// Until the last of its containers runs (`state.running.startedAt`): images are pulled here.
    Started,
    /// Until it is ready (condition `Ready`): the model is loaded here.
    Ready,
    /// Until its metrics page was first read well; 0 where that was before.
    Scraped,
    /// From the placing of the first streamed request until the first bytes of its answer.
    FirstToken,
    /// From the creation of the pod until it is ready.
    All,
}

impl StartPhase {
    /// Every one, in their order.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Initialized, Self::Started, Self::Ready, Self::Scraped, Self::FirstToken, Self::All];

    /// The label `phase`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Initialized => "initialized",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Scraped => "first_scrape",
            Self::FirstToken => "first_token",
            Self::All => "all",
        }
    }
}

/// When what happened to a pod, by the clocks of whoever says so: seconds since 1970.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StartTimes {
    /// It was created.
    pub created: Option<i64>,
    /// It was given a node.
    pub scheduled: Option<i64>,
    /// Its init containers had ended.
    pub initialized: Option<i64>,
    /// The last of its containers ran.
    pub started: Option<i64>,
    /// It was ready.
    pub ready: Option<i64>,
}

impl StartTimes {
    /// The seconds of each phase that both ends of are known; none of those that cannot be true.
    fn phases(&self) -> impl Iterator<Item = (StartPhase, f64)> {
        let ends = [
            (StartPhase::Scheduled, self.created, self.scheduled),
            (StartPhase::Initialized, self.scheduled, self.initialized),
            (StartPhase::Started, self.initialized, self.started),
            (StartPhase::Ready, self.started, self.ready),
        ];
        ends.into_iter().filter_map(|(phase, from, to)| Some((phase, plausible(between(from, to)?)?)))
    }
}

fn between(from: Option<i64>, to: Option<i64>) -> Option<f64> {
    to?.checked_sub(from?).map(|seconds| seconds as f64)
}

fn plausible(seconds: f64) -> Option<f64> {
    (0.0..=LONGEST).contains(&seconds).then_some(seconds)
}

/// The start of a pod, as far as it is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodStart {
    /// When what happened.
    pub times: StartTimes,
    /// When it began, by the clock of this process.
    pub began: Instant,
    /// Whether this process saw the pod come into being, so that `began` owes nothing to other clocks.
    pub seen_from_creation: bool,
    /// Whether it was never ready before, as far as can be told.
    pub first: bool,
    /// Since when it is not ready; none: it is.
    pub unready_since: Option<Instant>,
    /// What keeps it from ever being ready unless somebody does something about it.
    pub obstacle: Option<Arc<str>>,
}

/// A pod of a pool and its start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StartingPod {
    /// Its name.
    pub pod: Arc<str>,
    /// Tells it from its namesake.
    pub uid: Arc<str>,
    /// Whether it has no address yet: it is no endpoint then.
    pub pending: bool,
    /// Its start.
    pub start: PodStart,
}

impl StartingPod {
    /// Whether [`Self::hindrance`] has something to tell.
    pub fn is_hindered(&self, expected: Option<Duration>, now: Instant) -> bool {
        self.start
            .unready_since
            .is_some_and(|since| self.start.obstacle.is_some() || now.saturating_duration_since(since) > patience(expected))
    }

    /// What stands in the way of its ever being ready, with `expected` as the time that starts take; none: it is to be expected.
    pub fn hindrance(&self, expected: Option<Duration>, now: Instant) -> Option<String> {
        let since = self.start.unready_since.filter(|_| self.is_hindered(expected, now))?;
        let minutes = now.saturating_duration_since(since).as_secs() / 60;
        Some(match &self.start.obstacle {
            Some(obstacle) => format!("pod {}: {obstacle}", self.pod),
            None => format!("pod {} has not been ready for {minutes} minutes", self.pod),
        })
    }
}

/// How long a pod may be unready and still be a promise.
fn patience(expected: Option<Duration>) -> Duration {
    expected.map_or(PATIENCE, |expected| PATIENCE.max(expected.saturating_mul(3)))
}

/// How often a phase took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StartHistogram {
    /// By the bounds of [`START_BUCKETS`]: those in between, not those below. The last has no bound.
    pub counts: [u64; START_BUCKETS.len() + 1],
    /// Seconds in all.
    pub sum: f64,
}

impl StartHistogram {
    /// Starts that were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn observe(&mut self, seconds: f64) {
        let bucket = START_BUCKETS.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
    }
}

/// What was learned of a pool's starts; it stays while endpoints come and go.
#[derive(Debug)]
pub(crate) struct StartMemory {
    phases: Arc<Phases>,
    /// Bits of the seconds that a start is expected to take; those of NaN before the first.
    expected: AtomicU64,
    learned: Mutex<Learned>,
}

#[derive(Debug)]
struct Phases(Mutex<[StartHistogram; StartPhase::ALL.len()]>);

impl Phases {
    fn count(&self, phase: StartPhase, seconds: f64) {
        if let Some(seconds) = plausible(seconds) {
            locked(&self.0)[phase as usize].observe(seconds);
        }
    }
}

#[derive(Debug, Default)]
struct Learned {
    /// Starts that went into what is expected, up to [`PLAIN`].
    starts: u32,
    /// Pods that are there and whose start was seen, by uid.
    seen: HashMap<Arc<str>, Arc<SeenStart>>,
}

impl Default for StartMemory {
    fn default() -> Self {
        Self {
            phases: Arc::new(Phases(Mutex::new(array::from_fn(|_| StartHistogram::default())))),
            expected: AtomicU64::new(f64::NAN.to_bits()),
            learned: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StartMemory {
    /// How long a start is expected to take.
    pub(crate) fn expected(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(f64::from_bits(self.expected.load(Ordering::Relaxed))).ok()
    }

    pub(crate) fn histogram(&self, phase: StartPhase) -> StartHistogram {
        locked(&self.phases.0)[phase as usize]
    }

    /// Learns from the pods of the pool as they are at `now`; forgets those that are gone.
    pub(crate) fn learn(&self, pods: &[StartingPod], now: Instant) {
        let mut learned = locked(&self.learned);
        let mut before = std::mem::take(&mut learned.seen);
        for StartingPod { uid, start, .. } in pods.iter().filter(|pod| pod.start.first && !pod.uid.is_empty()) {
            let known = before.remove(uid).or_else(|| {
                // Of a pod that was ready already nobody knows how often it was not since.
                let begins = start.unready_since.is_some() || start.seen_from_creation;
                begins.then(|| Arc::new(SeenStart::new(self.phases.clone())))
            });
            let Some(known) = known else { continue };
            if start.unready_since.is_none() && known.is_ready(now) {
                self.started(start, &mut learned.starts, now);
            }
            learned.seen.insert(uid.clone(), known);
        }
    }

    /// What was seen of the start of the pod with this uid.
    pub(crate) fn seen(&self, uid: &str) -> Option<Arc<SeenStart>> {
        locked(&self.learned).seen.get(uid).cloned()
    }

    fn started(&self, start: &PodStart, starts: &mut u32, now: Instant) {
        let own = now.saturating_duration_since(start.began).as_secs_f64();
        let told = between(start.times.created, start.times.ready);
        let Some(all) = plausible(if start.seen_from_creation { own } else { told.unwrap_or(-1.0) }) else { return };
        self.phases.count(StartPhase::All, all);
        // No part takes longer than the whole.
        for (phase, seconds) in start.times.phases().filter(|(_, seconds)| *seconds <= all + ROUNDING) {
            self.phases.count(phase, seconds);
        }
        let before = f64::from_bits(self.expected.load(Ordering::Relaxed));
        let weight = if *starts < PLAIN { 1.0 / f64::from(*starts + 1) } else { WEIGHT };
        let expected = if *starts == 0 { all } else { before + weight * (all - before) };
        *starts = PLAIN.min(*starts + 1);
        self.expected.store(expected.to_bits(), Ordering::Relaxed);
    }
}

/// A start of which the beginning was seen, for those who see the end of it.
#[derive(Debug)]
pub struct SeenStart {
    phases: Arc<Phases>,
    /// When the pod was seen ready, when a page of it was first read.
    ends: Mutex<(Option<Instant>, Option<Instant>)>,
    scraped: AtomicBool,
    placed: AtomicBool,
}

impl SeenStart {
    fn new(phases: Arc<Phases>) -> Self {
        Self { phases, ends: Mutex::default(), scraped: AtomicBool::new(false), placed: AtomicBool::new(false) }
    }

    /// The pod is ready; whether it was not before.
    fn is_ready(&self, now: Instant) -> bool {
        let mut ends = locked(&self.ends);
        let first = ends.0.is_none();
        if first {
            ends.0 = Some(now);
            self.settle(*ends);
        }
        first
    }

    /// A page that was asked for at `at` could be read.
    pub(crate) fn scraped(&self, at: Instant) {
        if !self.scraped.swap(true, Ordering::Relaxed) {
            let mut ends = locked(&self.ends);
            ends.1 = Some(at);
            self.settle(*ends);
        }
    }

    fn settle(&self, ends: (Option<Instant>, Option<Instant>)) {
        if let (Some(ready), Some(scraped)) = ends {
            self.phases.count(StartPhase::Scraped, scraped.saturating_duration_since(ready).as_secs_f64());
        }
    }

    /// A streamed request was placed there; whether it is the first.
    pub fn is_first(&self) -> bool {
        !self.placed.load(Ordering::Relaxed) && !self.placed.swap(true, Ordering::Relaxed)
    }

    /// The first bytes of the answer to the first request came so long after it was placed.
    pub fn first_token(&self, took: Duration) {
        self.phases.count(StartPhase::FirstToken, took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
