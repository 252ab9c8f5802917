//! What an autoscaler will do next, and why.

use weir_hpa::{HpaSpec, MetricReading, Pods, Replicas};

use super::prediction::{ambiguous, prediction, turns};
use super::{ExplainError, Explanation, Reading, lines, memory, spec};
use crate::facts::Facts;
use crate::facts::scaling::Autoscaler;
use crate::look::meta;

const KIND: &str = "HorizontalPodAutoscaler";

/// Explains an autoscaler. `readings`: one for each of its metrics, in order.
///
/// # Errors
/// [`ExplainError`] where it is not there, or too little of it is known.
pub fn explain_autoscaler(facts: &Facts, namespace: &str, name: &str, readings: &[Reading]) -> Result<Explanation, ExplainError> {
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

    let mut told = vec![
        format!("{KIND} {path} scales {} {}", reference.kind.as_deref().unwrap_or("?"), reference.name.as_deref().unwrap_or("?")),
        format!(
            "replicas    {} asked for, {} there, {} Running and Ready; between {} and {}",
            replicas.spec,
            replicas.status,
            replicas.pods.ready(),
            hpa_spec.min_replicas,
            hpa_spec.max_replicas
        ),
    ];
    let known = memory::known(facts, autoscaler, &hpa_spec, replicas.spec);
    let plain: Vec<MetricReading> = readings.iter().map(|reading| reading.reading.clone()).collect();
    let (decision, otherwise) = turns(&hpa_spec, &known, &replicas, &plain).map_err(|error| unknown(error.to_string()))?;
    for (position, metric) in object.metrics.iter().flatten().enumerate() {
        lines::metric(metric, readings.get(position), decision.proposals.get(position), &hpa_spec, &mut told);
    }
    let rivals = rivals(facts, autoscaler, &replicas, &hpa_spec);
    let prediction = if rivals.is_empty() {
        lines::decision(&decision, &otherwise, &hpa_spec, &known, (autoscaler, facts), &mut told);
        prediction(&decision, otherwise, readings)
    } else {
        let prediction = ambiguous(replicas.spec, &rivals);
        told.push(format!("next        {} stays: {}", prediction.next, prediction.reason));
        prediction
    };
    Ok(Explanation { object: format!("{KIND} {path}"), lines: told, prediction: Some(prediction) })
}

/// Other autoscalers whose targets select a pod of this one's: the controller then reads no metrics for either of them.
fn rivals(facts: &Facts, autoscaler: &Autoscaler, replicas: &Replicas, spec: &HpaSpec) -> Vec<String> {
    let own = meta(autoscaler.metadata.as_ref());
    // Bounds are kept all the same, and a zero by another's hand stays one.
    let Pods::Named(pods) = &replicas.pods else { return Vec::new() };
    if replicas.spec == 0 || replicas.spec > spec.max_replicas || replicas.spec < spec.min_replicas {
        return Vec::new();
    }
    let labels: Vec<_> = facts
        .pods
        .iter()
        .filter(|pod| pod.meta().namespace() == own.namespace() && pods.contains_key(pod.meta().name()))
        .filter_map(|pod| pod.meta().labels.as_ref())
        .collect();
    let has_one = |other: &Autoscaler| {
        let reference = other.spec.as_ref()?.scale_target_ref.as_ref()?;
        let selector = facts.target(own.namespace(), reference)?.spec.as_ref()?.selector.as_ref()?;
        Some(labels.iter().any(|labels| selector.matches(labels) == Some(true)))
    };
    facts
        .autoscalers
        .iter()
        .filter(|other| {
            let other_meta = meta(other.metadata.as_ref());
            other_meta.namespace() == own.namespace() && other_meta.name() != own.name() && has_one(other) == Some(true)
        })
        .map(|other| meta(other.metadata.as_ref()).name().to_owned())
        .collect()
}
