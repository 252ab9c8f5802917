//! An autoscaler's turn in words, a line each.

use std::time::Duration;

use weir_datastore::catalog;
use weir_hpa::{Decision, HpaSpec, Limit, MetricProposal, MetricReading, Outcome, Stabilized, format_milli};

use super::memory::{Known, TURN};
use super::{Otherwise, Reading};
use crate::facts::Facts;
use crate::facts::scaling::{Autoscaler, Metric};
use crate::look::shown;

/// Changes of size that are told.
const CHANGES: usize = 5;

/// Why nothing happens where several autoscalers have the same pods.
pub(super) fn ambiguous(rivals: &[String]) -> String {
    format!(
        "its pods are also those of {}: the controller follows neither (AmbiguousSelector); delete all but one, or give their targets selectors apart",
        rivals.join(", ")
    )
}

/// A metric: what it is, its value, what it asks for.
pub(super) fn metric(
    metric: &Metric,
    reading: Option<&Reading>,
    proposal: Option<&MetricProposal>,
    spec: &HpaSpec,
    lines: &mut Vec<String>,
) {
    let name = metric.name().unwrap_or("?");
    let selector = metric
        .source()
        .and_then(|source| source.metric.as_ref()?.selector.as_ref())
        .map_or_else(String::new, |selector| format!("{{{}}}", selector.shown()));
    lines.push(format!("metric      {name}{selector}"));
    if let Some(family) = catalog::find(name) {
        let fits = family.kind.target_type().map_or_else(|| "not to scale on".to_owned(), |kind| format!("target type {kind}"));
        lines.push(format!("            {} ({}; {fits})", family.help, family.unit.as_str()));
    }
    let age = reading.and_then(|reading| reading.age).map_or_else(String::new, |age| format!(", {:.1} s old", age.as_secs_f64()));
    let value = match reading.map(|reading| &reading.reading) {
        None => "not asked".to_owned(),
        Some(MetricReading::Error(error)) => format!("none: {error}"),
        Some(MetricReading::Items(items)) => match items.as_slice() {
            [one] => format_milli(*one),
            several => format!(
                "{} items: {}",
                several.len(),
                several.iter().map(|item| format_milli(*item)).collect::<Vec<_>>().join(" + ")
            ),
        },
        Some(MetricReading::PerPod(pods)) => {
            pods.iter().map(|(pod, value)| format!("{pod} {}", format_milli(*value))).collect::<Vec<_>>().join(", ")
        }
    };
    lines.push(format!("  value     {value}{age}"));
    match proposal.map(|proposal| &proposal.result) {
        Some(Ok(proposal)) => {
            let tolerances = spec.tolerances();
            lines.push(format!("  proposal  {proposal} (tolerance {} down, {} up)", tolerances.down, tolerances.up));
        }
        Some(Err(error)) => lines.push(format!("  proposal  none: {error}")),
        None => lines.push("  proposal  none: metrics are not read now".to_owned()),
    }
}

/// From what the metrics ask for to what is done, and when.
pub(super) fn decision(
    decision: &Decision,
    otherwise: &[Otherwise],
    spec: &HpaSpec,
    known: &Known,
    (autoscaler, facts): (&Autoscaler, &Facts),
    lines: &mut Vec<String>,
) {
    if let Some(wanted) = decision.wanted {
        let winner = decision
            .proposals
            .iter()
            .find(|proposal| proposal.result.as_ref().is_ok_and(|proposal| u32::try_from(proposal.replicas.max(0)) == Ok(wanted)));
        lines.push(format!(
            "wanted      {wanted}: the highest proposal{}",
            winner.map_or_else(String::new, |winner| format!(", of {}", short(&winner.metric, spec)))
        ));
    }
    if let Some(error) = &decision.error {
        lines.push(format!("failing     {}", short(error, spec)));
    }
    let window = |rules: fn(&weir_hpa::Behavior) -> Option<u32>, default: Duration| {
        spec.behavior.as_ref().and_then(rules).map_or(default, |seconds| Duration::from_secs(u64::from(seconds)))
    };
    match decision.stabilized {
        Some(Stabilized::Down) => {
            let window = window(|behavior| behavior.scale_down.stabilization_window_seconds, spec.downscale_stabilization);
            lines.push(format!(
                "window      held at {}: down to the highest recommendation of the last {}",
                decision.after_windows.unwrap_or(decision.current),
                shown(window)
            ));
        }
        Some(Stabilized::Up) => {
            let window = window(|behavior| behavior.scale_up.stabilization_window_seconds, Duration::ZERO);
            lines.push(format!(
                "window      held at {}: up to the lowest recommendation of the last {}",
                decision.after_windows.unwrap_or(decision.current),
                shown(window)
            ));
        }
        None => {}
    }
    let limit = match decision.limit {
        Limit::WithinRange => None,
        Limit::TooFewReplicas => Some(format!("minReplicas {}", spec.min_replicas)),
        Limit::TooManyReplicas => Some(format!("maxReplicas {}", spec.max_replicas)),
        Limit::ScaleUpLimit => Some("the scale-up policies (without behaviour: twice the size, or 4)".to_owned()),
        Limit::ScaleDownLimit => Some("the scale-down policies".to_owned()),
    };
    if let Some(limit) = limit {
        lines.push(format!("limit       cut to {} by {limit}", decision.desired));
    }
    if known.first_turn() {
        lines.push("memory      the controller has not had a turn: the present size will count as recommended".to_owned());
    }
    for (ago, from, to) in known.rescales.iter().rev().take(CHANGES).rev() {
        let from = from.map_or_else(|| "?".to_owned(), |from| from.to_string());
        lines.push(format!("changed     {from} → {to}, {} ago", shown(*ago)));
    }
    if let Some(last) = autoscaler.status.as_ref().and_then(|status| facts.ago(status.last_scale_time.as_ref())) {
        lines.push(format!("last change {} ago", shown(last)));
    }
    let turn = shown(TURN);
    let next = match decision.outcome {
        Outcome::Disabled => "nothing: at zero replicas by another's hand it is off; scale the target to 1".to_owned(),
        Outcome::CutToMaximum => format!("{} → {} within {turn}: above maxReplicas", decision.current, decision.desired),
        Outcome::RaisedToMinimum => format!("{} → {} within {turn}: below minReplicas", decision.current, decision.desired),
        Outcome::Held => format!("{} stays: a metric fails, and what is left must not be followed", decision.current),
        Outcome::Computed if decision.desired == decision.current => format!("{} stays: {}", decision.current, decision.reason),
        Outcome::Computed => format!("{} → {} within {turn}: {}", decision.current, decision.desired, decision.reason),
    };
    lines.push(format!("next        {}", short(&next, spec)));
    for other in otherwise {
        lines.push(format!("  unless    {}: then {}", other.when, other.next));
    }
}

/// The controller's words with the names of metrics alone: it writes selectors as Go prints them.
fn short(text: &str, spec: &HpaSpec) -> String {
    spec.metrics.iter().fold(text.to_owned(), |text, metric| text.replace(&metric.described(), &metric.name))
}
