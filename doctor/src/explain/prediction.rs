//! An autoscaler's next turn, for programs.

use serde::Serialize;
use weir_hpa::{Decision, Hpa, HpaSpec, Limit, MetricReading, Outcome, Replicas, Stabilized};

use super::memory::{Case, Known};
use super::{Reading, lines};

/// What an autoscaler does in its next turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Replicas asked for now.
    pub current: u32,
    /// Replicas asked for after the turn.
    pub next: u32,
    /// How the turn goes: `computed`, `held` (metrics fail), `cut_to_maximum`, `raised_to_minimum`, `disabled` (at zero by another's
    /// hand), `ambiguous` (another autoscaler has the same pods).
    pub outcome: &'static str,
    /// What the metrics ask for together; none where they are not read, or fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u32>,
    /// The same after the stabilisation windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_windows: Option<u32>,
    /// Which window changed it: `up` or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stabilized: Option<&'static str>,
    /// Which limit cut it: `minReplicas`, `maxReplicas`, `scaleUp`, `scaleDown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// Why, in words.
    pub reason: String,
    /// One for each metric.
    pub metrics: Vec<MetricAnswer>,
    /// What comes instead, where that depends on what only the controller remembers; empty: `next` is sure as long as the inputs stay.
    pub otherwise: Vec<Otherwise>,
}

/// What one metric says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricAnswer {
    /// As the controller names it.
    pub metric: String,
    /// The sum of the items, or the mean over pods; in whole units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// How old the oldest item is, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Usage over target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Replicas it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Why it asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Another end of the same turn.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Otherwise {
    /// Replicas then.
    pub next: u32,
    /// When that is so.
    pub when: String,
}

/// One turn, in each case that the known memory leaves open: the likely one, and those that end otherwise.
pub(super) fn turns(
    spec: &HpaSpec,
    known: &Known,
    replicas: &Replicas,
    readings: &[MetricReading],
) -> Result<(Decision, Vec<Otherwise>), weir_hpa::SpecError> {
    let turn = |case: &Case| {
        let mut hpa = Hpa::new(spec.clone())?;
        hpa.set_scaled_to_zero(known.scaled_to_zero);
        if let Some(memory) = &case.memory {
            hpa.set_memory(memory);
        }
        Ok(hpa.sync(case.at, replicas, readings))
    };
    let likely = turn(&known.likely)?;
    let mut otherwise: Vec<Otherwise> = Vec::new();
    for case in &known.others {
        let decision = turn(case)?;
        if decision.desired != likely.desired && !otherwise.iter().any(|other| other.next == decision.desired) {
            otherwise.push(Otherwise { next: decision.desired, when: case.when.clone() });
        }
    }
    Ok((likely, otherwise))
}

/// The same for programs.
pub(super) fn prediction(decision: &Decision, otherwise: Vec<Otherwise>, readings: &[Reading]) -> Prediction {
    let metrics = decision.proposals.iter().enumerate().map(|(position, proposal)| {
        let ok = proposal.result.as_ref().ok();
        MetricAnswer {
            metric: proposal.metric.clone(),
            value: ok.map(|proposal| proposal.usage_milli as f64 / 1000.0),
            age_seconds: readings.get(position).and_then(|reading| reading.age).map(|age| age.as_secs_f64()),
            ratio: ok.map(|proposal| proposal.ratio).filter(|ratio| ratio.is_finite()),
            replicas: ok.map(|proposal| proposal.replicas),
            error: proposal.result.as_ref().err().map(ToString::to_string),
        }
    });
    Prediction {
        current: decision.current,
        next: decision.desired,
        outcome: match decision.outcome {
            Outcome::Disabled => "disabled",
            Outcome::CutToMaximum => "cut_to_maximum",
            Outcome::RaisedToMinimum => "raised_to_minimum",
            Outcome::Held => "held",
            Outcome::Computed => "computed",
        },
        wanted: decision.wanted,
        after_windows: decision.after_windows,
        stabilized: decision.stabilized.map(|stabilized| match stabilized {
            Stabilized::Up => "up",
            Stabilized::Down => "down",
        }),
        limit: match decision.limit {
            Limit::WithinRange => None,
            Limit::TooFewReplicas => Some("minReplicas"),
            Limit::TooManyReplicas => Some("maxReplicas"),
            Limit::ScaleUpLimit => Some("scaleUp"),
            Limit::ScaleDownLimit => Some("scaleDown"),
        },
        reason: decision.reason.clone(),
        metrics: metrics.collect(),
        otherwise,
    }
}

/// Where another autoscaler has pods of the same selector, the controller follows neither.
pub(super) fn ambiguous(current: u32, rivals: &[String]) -> Prediction {
    Prediction {
        current,
        next: current,
        outcome: "ambiguous",
        wanted: None,
        after_windows: None,
        stabilized: None,
        limit: None,
        reason: lines::ambiguous(rivals),
        metrics: Vec::new(),
        otherwise: Vec::new(),
    }
}
