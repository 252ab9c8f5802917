//! One turn of the controller's loop (every 15 s by default).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::behavior::{History, Limit, Memory, Normalized, Stabilized};
use crate::calculator::{Surroundings, propose};
use crate::condition::{Condition, ConditionKind, Event, Reason};
use crate::proposal::MetricProposal;
use crate::replicas::{MetricReading, Replicas};
use crate::spec::{HpaSpec, SpecError};
use crate::zero::{AtZero, at_zero, lift_to_minimum};

/// One HPA and what the controller remembers about it.
#[derive(Debug, Clone)]
pub struct Hpa {
    spec: HpaSpec,
    history: History,
    conditions: BTreeMap<ConditionKind, Condition>,
}

/// What one turn decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// `scale.spec.replicas` as found.
    pub current: u32,
    /// The replicas after this turn; equal to `current` when nothing is done.
    pub desired: u32,
    /// How the turn went.
    pub outcome: Outcome,
    /// One per metric in the spec's order; empty when metrics were not read.
    pub proposals: Vec<MetricProposal>,
    /// The highest proposal of the usable metrics, not below 0; `None` when there was none to follow.
    pub wanted: Option<u32>,
    /// `wanted` after the stabilisation windows.
    pub after_windows: Option<u32>,
    /// Which window changed it.
    pub stabilized: Option<Stabilized>,
    /// Which limit cut it.
    pub limit: Limit,
    /// Why the size changes or does not, in words.
    pub reason: String,
    /// The summary of failing metrics, also when the others were followed.
    pub error: Option<String>,
    /// All conditions after this turn, those of earlier turns included.
    pub conditions: Vec<Condition>,
    /// Events of this turn in order.
    pub events: Vec<Event>,
}

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// At zero replicas by someone else's hand: off, metrics not read.
    Disabled,
    /// Above `maxReplicas`: cut without reading metrics.
    CutToMaximum,
    /// Below `minReplicas`: raised without reading metrics.
    RaisedToMinimum,
    /// Metrics failed, and what is left must not be followed: nothing is done.
    Held,
    /// The metrics were followed.
    Computed,
}

impl Decision {
    /// The condition of a type, once a turn has set it.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// What the metrics ask for together.
struct Wanted {
    replicas: i64,
    metric: String,
}

impl Hpa {
    /// A new HPA without memory.
    pub fn new(spec: HpaSpec) -> Result<Self, SpecError> {
        spec.validate()?;
        Ok(Self { spec, history: History::default(), conditions: BTreeMap::new() })
    }

    /// The spec in force.
    pub fn spec(&self) -> &HpaSpec {
        &self.spec
    }

    /// Changes the spec as an edit of the object would: the memory stays. A refused spec leaves the
    /// old one.
    pub fn set_spec(&mut self, spec: HpaSpec) -> Result<(), SpecError> {
        spec.validate()?;
        self.spec = spec;
        Ok(())
    }

    /// Takes over a memory in place of the own one. The size of the next turn then does not count as recommended, as it does in the
    /// first turn of a controller.
    pub fn set_memory(&mut self, memory: &Memory) {
        self.history = History::of(memory, &self.spec);
    }

    /// Takes over the condition `ScaledToZero` of an existing HPA: whether its zero is its own.
    pub fn set_scaled_to_zero(&mut self, scaled_to_zero: bool) {
        self.set(Condition::zero(scaled_to_zero));
    }

    /// Whether the HPA itself went to zero.
    pub fn is_scaled_to_zero(&self) -> bool {
        self.conditions.get(&ConditionKind::ScaledToZero).is_some_and(|condition| condition.status)
    }

    /// One turn: `readings` has one entry per metric in the spec's order; a missing one is a failing
    /// metric. `now` counts from the caller's epoch.
    pub fn sync(&mut self, now: Duration, current: &Replicas, readings: &[MetricReading]) -> Decision {
        let found = current.spec;
        self.set(Condition::scale_read());
        self.history.seed(now, i64::from(found));

        if found == 0 {
            return match at_zero(self.is_scaled_to_zero()) {
                AtZero::ReadMetrics => self.follow_metrics(now, current, readings),
                AtZero::Disabled => {
                    let disabled = Condition::disabled();
                    let reason = disabled.message.clone();
                    self.set(disabled);
                    self.finish(Decision::unchanged(found, Outcome::Disabled, reason))
                }
            };
        }
        let (bound, outcome, why) = if found > self.spec.max_replicas {
            (self.spec.max_replicas, Outcome::CutToMaximum, "Current number of replicas above Spec.MaxReplicas")
        } else if found < self.spec.min_replicas {
            (self.spec.min_replicas, Outcome::RaisedToMinimum, "Current number of replicas below Spec.MinReplicas")
        } else {
            return self.follow_metrics(now, current, readings);
        };
        let mut decision = Decision::unchanged(found, outcome, why.to_owned());
        self.rescale(now, &mut decision, bound, why);
        self.finish(decision)
    }

    fn follow_metrics(&mut self, now: Duration, current: &Replicas, readings: &[MetricReading]) -> Decision {
        let found = current.spec;
        let mut decision = Decision::unchanged(found, Outcome::Held, String::new());
        decision.proposals = self.propose_all(current, readings);
        let Some(wanted) = self.combine(found, &mut decision) else {
            return self.finish(decision);
        };
        self.set(Condition::metric_found(&wanted.metric));

        let proposed = wanted.replicas.max(0);
        let before = i64::from(found);
        let Normalized { after_windows, stabilized, desired, limit } = self.history.normalize(now, &self.spec, before, proposed);
        self.set(Condition::windows(stabilized));
        self.set(Condition::limited(limit));
        let lifted = lift_to_minimum(&self.spec, before, desired);

        // The controller leaves the reason empty when only the past moves the size.
        let why = if proposed > before {
            format!("{} above target", wanted.metric)
        } else if proposed < before {
            "All metrics below target".to_owned()
        } else if lifted > desired {
            "Current number of replicas below Spec.MinReplicas".to_owned()
        } else {
            String::new()
        };
        decision.outcome = Outcome::Computed;
        decision.wanted = Some(on_scale(proposed));
        decision.after_windows = Some(on_scale(after_windows));
        decision.stabilized = stabilized;
        decision.limit = limit;
        let desired = on_scale(lifted);
        decision.reason = in_words(&why, found, desired, stabilized, limit);
        if desired != found {
            self.rescale(now, &mut decision, desired, &why);
        }
        self.finish(decision)
    }

    fn propose_all(&self, current: &Replicas, readings: &[MetricReading]) -> Vec<MetricProposal> {
        let surroundings = Surroundings { current, tolerances: self.spec.tolerances() };
        self.spec
            .metrics
            .iter()
            .enumerate()
            .map(|(index, metric)| MetricProposal {
                metric: metric.described(),
                result: propose(metric, readings.get(index), &surroundings),
            })
            .collect()
    }

    /// The highest proposal, unless failing metrics forbid to follow it; then the decision says why.
    fn combine(&mut self, found: u32, decision: &mut Decision) -> Option<Wanted> {
        let namespace = &self.spec.namespace;
        let mut wanted: Option<Wanted> = None;
        let mut first_failure: Option<(Condition, String)> = None;
        let mut failures = 0_usize;
        for (spec, proposal) in self.spec.metrics.iter().zip(&decision.proposals) {
            match &proposal.result {
                Ok(answer) => {
                    let replicas = i64::from(answer.replicas);
                    // A highest of exactly 0 gives way to whatever follows, as in the controller.
                    let replaces = wanted.as_ref().is_none_or(|best| best.replicas == 0 || replicas > best.replicas);
                    if replaces {
                        wanted = Some(Wanted { replicas, metric: proposal.metric.clone() });
                    }
                }
                Err(error) => {
                    failures += 1;
                    let text = error.in_condition(spec, namespace);
                    let reason = Reason::failed_get(&spec.source);
                    decision.events.push(Event::warning(reason, text.clone()));
                    if first_failure.is_none() {
                        first_failure = Some((Condition::metric_failed(&spec.source, &text), error.in_summary(spec, namespace)));
                    }
                }
            }
        }
        let Some((condition, first)) = first_failure else {
            return wanted;
        };
        let count = self.spec.metrics.len();
        let summary = format!("invalid metrics ({failures} invalid out of {count}), first error is: {first}");
        decision.error = Some(summary.clone());
        if let Some(wanted) = wanted
            && wanted.replicas >= i64::from(found)
        {
            return Some(wanted);
        }
        decision.reason = condition.message.clone();
        self.set(condition);
        decision.events.push(Event::warning(Reason::FailedComputeMetricsReplicas, summary));
        None
    }

    fn rescale(&mut self, now: Duration, decision: &mut Decision, desired: u32, why: &str) {
        let found = decision.current;
        decision.desired = desired;
        self.set(Condition::rescaled(desired));
        decision.events.push(Event::rescaled(desired, why));
        self.history.record_scale(now, &self.spec, i64::from(found), i64::from(desired));
        // Set at every change of size, and only then: a hand on the scale leaves it alone.
        self.set(Condition::zero(desired == 0));
    }

    fn set(&mut self, condition: Condition) {
        self.conditions.insert(condition.kind, condition);
    }

    fn finish(&self, mut decision: Decision) -> Decision {
        decision.conditions = self.conditions.values().cloned().collect();
        decision
    }
}

impl Decision {
    fn unchanged(current: u32, outcome: Outcome, reason: String) -> Self {
        Self {
            current,
            desired: current,
            outcome,
            proposals: Vec::new(),
            wanted: None,
            after_windows: None,
            stabilized: None,
            limit: Limit::WithinRange,
            reason,
            error: None,
            conditions: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// Replicas as the scale subresource holds them.
fn on_scale(replicas: i64) -> u32 {
    u32::try_from(replicas.max(0)).unwrap_or(u32::MAX)
}

/// The reason with what held it back, for a reader without the conditions at hand.
fn in_words(why: &str, found: u32, desired: u32, stabilized: Option<Stabilized>, limit: Limit) -> String {
    let mut parts = Vec::new();
    if !why.is_empty() {
        parts.push(why);
    }
    if let Some(stabilized) = stabilized {
        parts.push(stabilized.message());
    }
    if limit != Limit::WithinRange {
        parts.push(limit.message());
    }
    if parts.is_empty() && found == desired {
        parts.push("recommended size matches current size");
    }
    parts.join("; ")
}
