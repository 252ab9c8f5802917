//! One load, one policy, one run: deterministic for a seed.

use std::collections::VecDeque;

use weir_hpa::{HpaSpec, Replicas};

use crate::load::Load;
use crate::model_size::ModelSize;
use crate::outcome::{Outcome, Recorder};
use crate::pods::Pods;
use crate::policy::{self, HpaPolicy, PolicyError, RequiredOptions, Running};
use crate::replica::{Happened, Job};
use crate::sample::PoolSample;

/// Requests are placed and servers looked at ten times a second.
const TICKS: u32 = 10;
/// Utilisation for which pods are there at the start, and which one who knows the load aims at.
const AT_START: f64 = 0.85;
const BY_PLAN: f64 = 0.9;
/// Spread (σ of the logarithm) of start times.
const START_SPREAD: f64 = 0.25;
/// Seconds after which a client without a first token leaves.
const PATIENCE: f64 = 120.0;
/// The controller's own default.
const SYNC_SECONDS: u64 = 15;
/// Over how many seconds what is needed is averaged.
const NEEDED_WINDOW: usize = 60;

/// The world in which a policy runs.
#[derive(Clone, Debug)]
pub struct Scenario<'load> {
    /// The servers.
    pub size: &'load ModelSize,
    /// The requests.
    pub load: &'load Load,
    /// Mean seconds from asking for a pod to its being ready.
    pub start: f64,
    /// Spread (σ of the logarithm) of these times; 0: they are all alike.
    pub start_spread: f64,
    /// Seconds between two decisions of a HorizontalPodAutoscaler (`--horizontal-pod-autoscaler-sync-period`).
    pub sync: u64,
    /// Replicas of an HPA at the start; `None`: as many as the load needs then.
    pub at_start: Option<u32>,
    /// Seconds after which a client without a first token leaves.
    pub patience: f64,
    /// Seed of the start times, and of the autoscaler's phase.
    pub seed: u64,
}

impl<'load> Scenario<'load> {
    /// A cluster as most are.
    pub fn new(size: &'load ModelSize, load: &'load Load, start: f64, seed: u64) -> Self {
        Self { size, load, start, start_spread: START_SPREAD, sync: SYNC_SECONDS, at_start: None, patience: PATIENCE, seed }
    }
}

/// Who decides, and what stands in front of the servers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How it is called.
    pub name: String,
    /// Who decides.
    pub scaler: Scaler,
    /// A picker that holds requests back while all servers are full, and for how long as a share of the service level: what is too late
    /// anyway is refused. `None`: requests wait at the servers, and in the picker only while there is none.
    pub expire: Option<f64>,
}

/// Who decides how many replicas there are.
#[derive(Clone, Debug)]
pub enum Scaler {
    /// As many as the peak needs, all the time.
    StaticPeak,
    /// One who knows the load and the start time beforehand.
    Clairvoyant,
    /// A HorizontalPodAutoscaler.
    Hpa(Box<HpaSpec>, Box<RequiredOptions>),
    /// Knative's autoscaler with 70 % of the concurrency of a full server, and its bounds.
    Knative {
        /// Fewest replicas.
        min: u32,
        /// Most replicas.
        max: u32,
    },
}

/// What a load needs, whatever a policy does.
#[derive(Clone, Debug)]
pub struct Needed {
    /// Full replicas' worth of work by the second.
    pub work: Vec<f64>,
    /// Replicas by the second, at 90 % utilisation.
    pub replicas: Vec<u32>,
    /// The most of them.
    pub peak: u32,
}

impl Needed {
    /// Of a load on servers of a size.
    pub fn of(load: &Load, size: &ModelSize) -> Self {
        let work = load.work(size, NEEDED_WINDOW);
        let replicas: Vec<u32> = work.iter().map(|work| (work / BY_PLAN).ceil() as u32).collect();
        let peak = replicas.iter().copied().max().unwrap_or(0).max(1);
        Self { work, replicas, peak }
    }

    fn at_start(&self) -> u32 {
        self.work.first().map_or(0, |work| (work / AT_START).ceil() as u32)
    }
}

/// Runs it.
///
/// # Errors
/// [`PolicyError`] for an HPA that cannot be simulated.
pub fn run(scenario: &Scenario<'_>, policy: &Policy, needed: &Needed) -> Result<Outcome, PolicyError> {
    let Scenario { size, load, .. } = scenario;
    let full_concurrency = f64::from(size.profile.max_sequences);
    let (mut running, at_start, bounds) = match &policy.scaler {
        Scaler::StaticPeak => (Running::Fixed, needed.peak, None),
        Scaler::Clairvoyant => {
            let wishes = policy::plan(&needed.replicas, scenario.start);
            let first = wishes.first().copied().unwrap_or(0);
            (Running::Planned(wishes), first, None)
        }
        Scaler::Hpa(spec, options) => {
            let (min, max) = (spec.min_replicas, spec.max_replicas);
            let policy = HpaPolicy::new((**spec).clone(), options, scenario.sync, scenario.seed * 7)?;
            let first = scenario.at_start.unwrap_or_else(|| needed.at_start());
            (Running::Hpa(Box::new(policy)), first.clamp(min, max), None)
        }
        Scaler::Knative { min, max } => {
            let max = (*max).max(*min);
            (Running::knative(full_concurrency), needed.at_start().clamp(*min, max), Some((*min, max)))
        }
    };
    let mut world = World::new(scenario, policy, at_start);
    let seconds = load.seconds.ceil() as u64;
    let mut known = PoolSample::default();
    for second in 0..seconds {
        let now = second as f64;
        let sample = world.sample(now);
        let (present, ready) = (world.pods.present(), world.pods.ready(now));
        // What is known is a second old.
        if second > 0 {
            let current = Replicas::partly_ready(present, ready);
            let wish = running.second(second, &known, &current);
            if let Some(replicas) = wish.replicas {
                let replicas = bounds.map_or(replicas, |(min, max)| replicas.clamp(min, max));
                world.pods.scale(now, replicas);
                world.recorder.wished(second, replicas, wish.decision.as_ref());
            }
        }
        world.recorder.second(second, world.pods.present(), world.pods.ready(now), &sample);
        known = sample;
        for tick in 0..TICKS {
            world.tick(now + f64::from(tick) / f64::from(TICKS), now + f64::from(tick + 1) / f64::from(TICKS));
        }
    }
    world.pods.count(load.seconds, &mut |_| {});
    let learned = match &running {
        Running::Hpa(policy) => policy.estimator().map(|estimator| estimator.learned()),
        _ => None,
    };
    let gpu_hours = world.pods.pod_seconds / 3600.0 * f64::from(size.profile.gpus);
    let most_allowed = match &policy.scaler {
        Scaler::Hpa(spec, _) => Some(spec.max_replicas),
        Scaler::Knative { max, .. } => Some(*max),
        Scaler::StaticPeak | Scaler::Clairvoyant => None,
    };
    Ok(Outcome { most_allowed, ..world.recorder.finish(policy.name.clone(), gpu_hours, needed, size.slo, learned) })
}

struct World<'run> {
    scenario: &'run Scenario<'run>,
    pods: Pods,
    held: VecDeque<Job>,
    recorder: Recorder<'run>,
    next: usize,
    prompt_tokens: f64,
    /// Whether requests are held while all servers are full, and how long any is held.
    flow_control: bool,
    hold_for: f64,
    sampled_at: f64,
}

impl<'run> World<'run> {
    fn new(scenario: &'run Scenario<'run>, policy: &Policy, at_start: u32) -> Self {
        Self {
            pods: Pods::new(at_start, scenario.start, scenario.start_spread, scenario.seed),
            held: VecDeque::new(),
            recorder: Recorder::new(scenario.load, scenario.size.slo),
            next: 0,
            prompt_tokens: 0.0,
            flow_control: policy.expire.is_some(),
            hold_for: policy.expire.map_or(scenario.patience, |share| share * scenario.size.slo),
            sampled_at: 0.0,
            scenario,
        }
    }

    fn sample(&mut self, now: f64) -> PoolSample {
        let recorder = &mut self.recorder;
        self.pods.count(now, &mut |event| recorder.happened(event));
        let pods = self.pods.sample(now, &self.scenario.size.profile);
        let started = self.pods.started(self.sampled_at, now);
        self.sampled_at = now;
        PoolSample {
            at: now,
            starting: self.pods.present() - self.pods.ready(now),
            pods,
            held: self.held.len(),
            arrivals: self.next as f64,
            prompt_tokens: self.prompt_tokens,
            started,
        }
    }

    fn tick(&mut self, from: f64, until: f64) {
        let profile = &self.scenario.size.profile;
        while let Some(job) = self.held.front().copied() {
            let any_ready = self.pods.ready(from) > 0;
            // While there is no server at all, clients wait for the first as long as they can.
            let hold_for = if any_ready { self.hold_for } else { self.scenario.patience };
            if from - job.arrived > hold_for {
                self.recorder.happened(Happened::Left { id: job.id });
            } else if !any_ready || !self.pods.send(from, job, profile, self.flow_control) {
                break;
            }
            self.held.pop_front();
        }
        let arrivals = &self.scenario.load.arrivals;
        while let Some(arrival) = arrivals.get(self.next).filter(|arrival| arrival.at < until) {
            let job = Job {
                id: self.next as u32,
                arrived: arrival.at,
                prompt: arrival.prompt,
                output: arrival.output.max(1),
                started: false,
            };
            self.next += 1;
            self.prompt_tokens += f64::from(arrival.prompt);
            if !self.held.is_empty() || !self.pods.send(from, job, profile, self.flow_control) {
                self.held.push_back(job);
            }
        }
        let recorder = &mut self.recorder;
        self.pods.advance(until, profile, self.scenario.patience, &mut |event| recorder.happened(event));
    }
}

#[cfg(test)]
mod tests;
