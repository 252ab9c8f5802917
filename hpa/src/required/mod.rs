//! `inference_pool_required_replicas`: how many replicas a pool needs, as a level.
//!
//! A level depends on what arrives and on what a replica can do, not on how many replicas run or how long a queue has grown, so pods
//! that load for minutes do not raise it. Used with an External metric, `AverageValue: "1"`, and alone.
//!
//! One [`RequiredReplicas`] per pool takes one [`Second`] a second and answers a [`Level`] with its arithmetic:
//!
//! ```text
//! base  = arrivals × (prompt cost × prompt tokens + token cost × answer tokens) / 0.85
//! drain = (waiting + held) × cost of a request / 60 s, at most 0.2 base
//! level = the highest of base + drain over the last 1.5 start times (less the autoscaler's own 300 s), in whole pods
//! ```
//!
//! Arrivals are the pickers' count, or what the servers' counters and queues show; the costs are learned from replicas that are full
//! ([`Costs`]), the start time from pods. What is learned is bounded, can be taken out and put back as one document ([`Learned`]), and
//! forgotten. Every constant stands in [`constants`] with its reason. What is not known is answered as unknown with its cause.
//!
//! Modules in reading order: `input`, `flow` (counters → what happened), `history` (windows), `rate`, `mix`, `busy`, `cost`, `start`,
//! `daily`, `recurring` (bursts), `hold` (memory and rounding), `nets`, `level` (the answer), `learned`; `traffic` (what is
//! recorded of a load).

use std::time::Duration;

mod busy;
pub mod constants;
mod cost;
mod daily;
mod flow;
mod history;
mod hold;
mod input;
mod learned;
mod level;
mod mix;
mod nets;
mod rate;
mod recurring;
mod start;
#[cfg(test)]
mod tests;
mod traffic;

pub use cost::Costs;
pub use daily::Day;
pub use input::{Endpoint, Load, Picker, Pickers, Second};
pub use learned::{LEARNED_VERSION, Learned, LearnedError};
pub use level::{Basis, Cause, Known, Level};
pub use rate::Rate;
pub use traffic::{Arrived, Traffic};

use constants::{
    COVERAGE, DRAIN_AT_MOST, DRAIN_FROM_ZERO, DRAIN_SECONDS, LONG_WINDOW, MOST_SPARES, NOTHING, OLDEST, PROMPT_SHARE,
    SETTLE_SECONDS, UTILISATION,
};
use cost::CostLearning;
use daily::Daily;
use flow::{Counters, Flow};
use history::History;
use hold::{Hold, hold_seconds, whole};
use mix::Mix;
use nets::{Idleness, Net};
use recurring::Recurring;
use start::StartTime;

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Share of its capacity at which a replica is run, 0.3 to 1. 0.75 suits very long prompts on large models.
    pub utilisation: f64,
    /// Whether pods are asked for ahead of the hours at which the days before needed them.
    pub daily: bool,
    /// Whether the level of bursts that come again and again is kept between them.
    pub recurring: bool,
    /// Replicas asked for on top while the pool is not at zero.
    pub spares: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { utilisation: UTILISATION, daily: false, recurring: false, spares: 0 }
    }
}

impl Options {
    /// Within their bounds, whatever was given.
    fn bounded(self) -> Self {
        let utilisation = if self.utilisation.is_finite() { self.utilisation.clamp(0.3, 1.0) } else { UTILISATION };
        Self { utilisation, spares: self.spares.min(MOST_SPARES), ..self }
    }
}

/// The level of one pool. Memory is bounded: some minutes of sums, and an entry per picker and endpoint of the last turn.
#[derive(Clone, Debug)]
pub struct RequiredReplicas {
    options: Options,
    fingerprint: String,
    counters: Counters,
    arrivals: History,
    mix: Mix,
    costs: CostLearning,
    start: StartTime,
    daily: Daily,
    recurring: Recurring,
    hold: Hold,
    net: Net,
    idleness: Idleness,
    /// The first turn, and the last.
    began: Option<Duration>,
    last: Option<Known>,
}

/// What of a turn's input can be used.
struct Seen<'second> {
    pickers: &'second [Picker],
    endpoints: &'second [Endpoint],
    held: f64,
    waiting: f64,
    running: f64,
    ready: u32,
    readable: u32,
}

impl RequiredReplicas {
    /// A pool of which nothing is known. `fingerprint` says what its replicas are (image, arguments, kind of GPU): what is learned is
    /// true for that.
    pub fn new(fingerprint: impl Into<String>, options: Options) -> Self {
        Self {
            options: options.bounded(),
            fingerprint: fingerprint.into(),
            counters: Counters::default(),
            arrivals: History::new(),
            mix: Mix::new(),
            costs: CostLearning::new(),
            start: StartTime::new(),
            daily: Daily::default(),
            recurring: Recurring::default(),
            hold: Hold::default(),
            net: Net::default(),
            idleness: Idleness::default(),
            began: None,
            last: None,
        }
    }

    /// The same servers, called more precisely from now on.
    pub fn set_fingerprint(&mut self, fingerprint: impl Into<String>) {
        self.fingerprint = fingerprint.into();
    }

    /// From now on what a user chose meanwhile; what was learned and seen stays.
    pub fn set_options(&mut self, options: Options) {
        self.options = options.bounded();
        if !options.recurring {
            self.recurring.clear();
        }
    }

    /// What is in force.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Forgets everything that was learned, and goes on with what is running.
    pub fn reset(&mut self) {
        self.costs = CostLearning::new();
        self.start = StartTime::new();
        self.mix = Mix::new();
        self.daily = Daily::default();
        // What it added up to is not remembered either.
        self.hold.clear();
    }

    /// What was learned, to be kept over a restart.
    pub fn learned(&self) -> Learned {
        let costs = self.costs.costs();
        Learned {
            version: LEARNED_VERSION,
            fingerprint: self.fingerprint.clone(),
            seconds_per_prompt_token: costs.map(|costs| costs.prompt),
            seconds_per_generated_token: costs.map(|costs| costs.token),
            samples: self.costs.samples,
            busy_seconds: self.costs.busy_seconds,
            healthy_tokens_per_second: self.costs.healthy,
            start_seconds: (self.start.seen > 0).then_some(self.start.mean),
            starts: self.start.seen,
            prompt_tokens: self.mix.prompt(),
            output_tokens: self.mix.output(),
            days: self.daily.days(),
        }
    }

    /// Takes over what was learned before.
    ///
    /// # Errors
    /// [`LearnedError`] when it is for other servers or cannot be; nothing changes then.
    pub fn restore(&mut self, learned: &Learned) -> Result<(), LearnedError> {
        learned.check(&self.fingerprint)?;
        self.costs.set(learned.costs(), learned.samples, learned.busy_seconds, learned.healthy_tokens_per_second);
        if let Some(mean) = learned.start_seconds {
            self.start = StartTime { mean, seen: learned.starts };
        }
        self.mix.set(learned.prompt_tokens, learned.output_tokens);
        self.daily.set(learned.days.clone());
        Ok(())
    }

    /// One turn, once a second. A turn that cannot be computed answers with the last one for five seconds, then with the cause.
    pub fn turn(&mut self, second: &Second) -> Level {
        for took in &second.started {
            self.start.observe(*took);
        }
        match self.compute(second) {
            Ok(known) => {
                self.last = Some(known.clone());
                Level::Known(known)
            }
            Err(cause) => match &self.last {
                Some(last) if second.now.saturating_sub(last.at) <= OLDEST => Level::Known(last.clone()),
                _ => Level::Unknown(cause),
            },
        }
    }

    fn compute(&mut self, second: &Second) -> Result<Known, Cause> {
        let seen = Seen::of(second)?;
        let before = self.counters.last_turn();
        let flow = self.counters.advance(second.now, seen.pickers, seen.endpoints).ok_or(Cause::FirstMeasurement)?;
        let began = *self.began.get_or_insert(second.now.saturating_sub(Duration::from_secs_f64(flow.seconds)));
        let slots = second.now.as_secs().saturating_sub(before.unwrap_or(began).as_secs());
        let arrivals = flow.arrivals.ok_or(Cause::Arrivals)?;
        self.arrivals.push(slots, arrivals);
        self.mix.advance(slots, &flow);
        let traffic = self.arrivals.sum(LONG_WINDOW) > 0.5;
        self.costs.advance(slots, &flow, seen.held, traffic);
        Ok(self.level(second, &seen, &flow, began))
    }

    fn level(&mut self, second: &Second, seen: &Seen<'_>, flow: &Flow, began: Duration) -> Known {
        let now = second.now.as_secs_f64();
        let start = self.start.mean;
        let rate = rate::rate(&self.arrivals, start);
        let present = seen.ready.saturating_add(second.pending);
        let prompt = self.mix.prompt();
        let output = self.mix.output();
        let costs = self.costs.costs();
        let utilisation = self.options.utilisation;

        let base;
        let (mut drain, mut daily) = (0.0, 0.0);
        if let Some(costs) = costs {
            let request = costs.work(prompt.unwrap_or_default(), output);
            base = rate.expected * request / utilisation;
            let from_zero = if seen.ready == 0 { DRAIN_FROM_ZERO } else { 0.0 };
            drain = ((seen.waiting + seen.held) * request / DRAIN_SECONDS).min((DRAIN_AT_MOST * base).max(from_zero));
            if self.options.daily {
                daily = self.daily.ahead(second.now, start, costs).unwrap_or_default() / utilisation;
            }
        } else if self.costs.healthy > 0.0 {
            let tokens = rate.expected * (PROMPT_SHARE * prompt.unwrap_or_default() + output);
            base = (tokens / self.costs.healthy).min(f64::from(present));
        } else {
            // Nothing is known: what is there stays.
            base = f64::from(present);
        }
        if let Some(prompt) = prompt {
            let steady = self.arrivals.mean(LONG_WINDOW).max(0.0);
            self.daily.record(second.now, steady * prompt, steady * output);
        }
        let mut level = (base + drain).max(daily);
        if self.options.recurring && costs.is_some() {
            level = level.max(self.recurring.advance(now, base));
        }
        let net = self.net.advance(flow, seen.held, second.pending, seen.ready, costs.is_none());
        if net {
            level = level.max(f64::from(seen.ready) + 1.0);
        }
        let held = self.hold.highest(now, level, hold_seconds(start));

        let something = seen.held + seen.waiting + seen.running > 0.0 || flow.arrivals.is_some_and(|arrivals| arrivals > 0.0);
        let idle = self.idleness.advance(now, something || seen.readable < seen.ready);
        // A pool found without pods has been idle before: a restart of this process wakes nobody.
        let empty = present == 0 && !something && self.arrivals.sum(LONG_WINDOW) <= 0.0;
        let mut replicas = if (idle || empty) && daily < NOTHING {
            self.hold.clear();
            self.recurring.clear();
            0
        } else {
            whole(held, present).max(1).saturating_add(self.options.spares)
        };
        if now - began.as_secs_f64() < SETTLE_SECONDS {
            replicas = replicas.max(present);
        }
        let basis = match (costs, flow.counted) {
            (None, _) => Basis::CostsUnknown,
            (Some(_), true) => Basis::Full,
            (Some(_), false) => Basis::ServersOnly,
        };
        Known {
            replicas,
            at: second.now,
            basis,
            rate,
            prompt_tokens: prompt,
            output_tokens: output,
            costs,
            base,
            drain,
            daily,
            held,
            start_seconds: start,
            net,
            idle,
        }
    }
}

impl<'second> Seen<'second> {
    /// The usable part of the input, or why there is none.
    fn of(second: &'second Second) -> Result<Self, Cause> {
        let endpoints = second.endpoints.as_deref().ok_or(Cause::NoTopology)?;
        let pickers = match &second.pickers {
            Pickers::None => &[],
            Pickers::Unreadable => return Err(Cause::Pickers),
            Pickers::Read(pickers) if pickers.iter().all(Picker::is_sound) => pickers.as_slice(),
            Pickers::Read(_) => return Err(Cause::Pickers),
        };
        let count = |amount: usize| u32::try_from(amount).unwrap_or(u32::MAX);
        let ready = count(endpoints.len());
        let loads = || endpoints.iter().filter_map(|endpoint| endpoint.load.as_ref());
        if !loads().all(Load::is_sound) {
            let readable = count(loads().filter(|load| load.is_sound()).count());
            return Err(Cause::Coverage { ready, readable });
        }
        let readable = count(loads().count());
        if f64::from(readable) < COVERAGE * f64::from(ready) {
            return Err(Cause::Coverage { ready, readable });
        }
        // What cannot be read is taken for the mean of what can.
        let scale = f64::from(ready) / f64::from(readable.max(1));
        Ok(Self {
            pickers,
            endpoints,
            held: pickers.iter().map(|picker| picker.held).sum(),
            waiting: scale * loads().map(|load| load.waiting).sum::<f64>(),
            running: scale * loads().map(|load| load.running).sum::<f64>(),
            ready,
            readable,
        })
    }
}
