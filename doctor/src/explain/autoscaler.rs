//! What an autoscaler will do next, and why.

use std::time::Duration;

use weir_datastore::catalog;
use weir_hpa::{Decision, Hpa, HpaSpec, Limit, MetricReading, Outcome, Stabilized, format_milli};

use super::{ExplainError, Explanation, Reading, spec};
use crate::facts::Facts;
use crate::facts::scaling::{Autoscaler, Metric};
use crate::look::{meta, shown};

/// The controller's turn.
const TURN: &str = "15 s";

/// Explains an autoscaler. `readings`: one for each of its metrics, in order.
///
/// # Errors
/// [`ExplainError`] where it is not there, or too little of it is known.
pub fn explain_autoscaler(facts: &Facts, namespace: &str, name: &str, readings: &[Reading]) -> Result<Explanation, ExplainError> {
    const KIND: &str = "HorizontalPodAutoscaler";
    let path = format!("{namespace}/{name}");
    let unknown = |reason: String| ExplainError::Unknown { kind: KIND, path: path.clone(), reason };
    let found = facts.autoscalers.iter().find(|autoscaler| meta(autoscaler.metadata.as_ref()).is(namespace, name));
    let Some(autoscaler) = found else {
        let mut names: Vec<_> =
            facts.autoscalers.iter().map(|autoscaler| meta(autoscaler.metadata.as_ref()).path()).take(8).collect();
        names.sort();
        let near = if names.is_empty() { String::new() } else { format!(" (there are {})", names.join(", ")) };
        return Err(ExplainError::Missing { kind: KIND, path, near });
    };
    let object = autoscaler.spec.as_ref().ok_or_else(|| unknown("its spec is not known".into()))?;
    let hpa_spec = spec::spec(namespace, object).map_err(unknown)?;
    let reference = object.scale_target_ref.as_ref().ok_or_else(|| unknown("its target is not known".into()))?;
    let target = facts
        .target(namespace, reference)
        .ok_or_else(|| unknown("its target is not there, or of a kind that is not read".into()))?;
    let replicas = spec::replicas(facts, target).ok_or_else(|| unknown("the pods of its target are not known".into()))?;

    let mut lines = vec![
        format!(
            "HorizontalPodAutoscaler {path} scales {} {}",
            reference.kind.as_deref().unwrap_or("?"),
            reference.name.as_deref().unwrap_or("?")
        ),
        format!(
            "replicas    {} asked for, {} there, {} Running and Ready; between {} and {}",
            replicas.spec,
            replicas.status,
            replicas.pods.ready(),
            hpa_spec.min_replicas,
            hpa_spec.max_replicas
        ),
    ];
    let mut hpa = Hpa::new(hpa_spec.clone()).map_err(|error| unknown(error.to_string()))?;
    let conditions = autoscaler.status.as_ref().and_then(|status| status.conditions.as_ref());
    hpa.set_scaled_to_zero(crate::facts::meta::condition(conditions, "ScaledToZero", "True").is_some());
    let plain: Vec<MetricReading> = readings.iter().map(|reading| reading.reading.clone()).collect();
    let decision = hpa.sync(Duration::ZERO, &replicas, &plain);
    for (position, metric) in object.metrics.iter().flatten().enumerate() {
        metric_lines(metric, readings.get(position), decision.proposals.get(position), &hpa_spec, &mut lines);
    }
    decision_lines(&decision, &hpa_spec, autoscaler, facts, &mut lines);
    let next = (decision.outcome != Outcome::Held).then_some(decision.desired);
    Ok(Explanation { lines, next: next.or(Some(decision.current)) })
}

fn metric_lines(
    metric: &Metric,
    reading: Option<&Reading>,
    proposal: Option<&weir_hpa::MetricProposal>,
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

fn decision_lines(decision: &Decision, spec: &HpaSpec, autoscaler: &Autoscaler, facts: &Facts, lines: &mut Vec<String>) {
    if let Some(wanted) = decision.wanted {
        let winner = decision
            .proposals
            .iter()
            .find(|proposal| proposal.result.as_ref().is_ok_and(|proposal| u32::try_from(proposal.replicas.max(0)) == Ok(wanted)));
        lines.push(format!(
            "wanted      {wanted}: the highest proposal{}",
            winner.map_or_else(String::new, |winner| format!(", of {}", winner.metric))
        ));
    }
    if let Some(error) = &decision.error {
        lines.push(format!("failing     {error}"));
    }
    let window = |rules: fn(&weir_hpa::Behavior) -> Option<u32>, default: Duration| {
        spec.behavior.as_ref().and_then(rules).map_or(default, |seconds| Duration::from_secs(u64::from(seconds)))
    };
    match decision.stabilized {
        Some(Stabilized::Down) => {
            let window = window(|behavior| behavior.scale_down.stabilization_window_seconds, spec.downscale_stabilization);
            lines.push(format!(
                "window      held at {}: down to the highest recommendation of the last {} (what the controller remembers cannot be seen; the present size counts)",
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
    if let Some(last) = autoscaler.status.as_ref().and_then(|status| facts.ago(status.last_scale_time.as_ref())) {
        lines.push(format!("last change {} ago", shown(last)));
    }
    let next = match decision.outcome {
        Outcome::Disabled => "nothing: at zero replicas by another's hand it is off; scale the target to 1".to_owned(),
        Outcome::CutToMaximum => format!("{} → {} within {TURN}: above maxReplicas", decision.current, decision.desired),
        Outcome::RaisedToMinimum => format!("{} → {} within {TURN}: below minReplicas", decision.current, decision.desired),
        Outcome::Held => format!("{} stays: a metric fails, and what is left must not be followed", decision.current),
        Outcome::Computed if decision.desired == decision.current => format!("{} stays: {}", decision.current, decision.reason),
        Outcome::Computed => format!("{} → {} within {TURN}: {}", decision.current, decision.desired, decision.reason),
    };
    lines.push(format!("next        {next}"));
}
