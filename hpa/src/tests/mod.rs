//! The rules of the controller, row by row, then properties over arbitrary inputs.

mod formulas;
mod pods;
mod policies;
mod properties;
mod several;
mod trap;
mod turn;
mod windows;
mod zero;

use std::time::Duration;

use crate::*;

/// `value` whole units as milli-units.
const fn units(value: i64) -> i64 {
    value * 1000
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hpa(spec: HpaSpec) -> Hpa {
    Hpa::new(spec).expect("test specs are valid")
}

fn spec_of(metric: MetricSpec) -> HpaSpec {
    HpaSpec::new(1, 1000, vec![metric])
}

/// The first turn of a fresh HPA.
fn first_turn(spec: HpaSpec, current: &Replicas, reading: MetricReading) -> Decision {
    hpa(spec).sync(at(0), current, &[reading])
}

/// What one metric asks for, before stabilisation and limits.
fn proposal(metric: MetricSpec, current: &Replicas, reading: MetricReading) -> Proposal {
    try_proposal(metric, current, reading).expect("the metric is usable")
}

fn try_proposal(metric: MetricSpec, current: &Replicas, reading: MetricReading) -> Result<Proposal, MetricError> {
    let mut decision = first_turn(spec_of(metric), current, reading);
    decision.proposals.remove(0).result
}

/// A behaviour that holds nothing back: windows 0, policies wider than any test.
fn free_behavior() -> Behavior {
    let rules = ScalingRules {
        stabilization_window_seconds: Some(0),
        select_policy: SelectPolicy::Max,
        policies: vec![ScalingPolicy::pods(1_000_000, 15)],
        tolerance: None,
    };
    Behavior { scale_up: rules.clone(), scale_down: rules }
}

/// A total queue with `AverageValue` 1: the proposal is the reading.
fn follow(min: u32, max: u32, behavior: Option<Behavior>) -> Hpa {
    let metric = MetricSpec::external("wish", Target::AverageValue(units(1)));
    let mut spec = HpaSpec::new(min, max, vec![metric]);
    spec.behavior = behavior;
    spec.tolerance = 0.0;
    hpa(spec)
}

/// One turn at `size` replicas in which the metrics ask for `wish`.
fn turn(hpa: &mut Hpa, seconds: u64, size: u32, wish: i64) -> Decision {
    let reading = MetricReading::item(units(wish));
    hpa.sync(at(seconds), &Replicas::settled(size), &[reading])
}

fn reason_of(decision: &Decision, kind: ConditionKind) -> Reason {
    decision.condition(kind).expect("condition is set").reason
}
