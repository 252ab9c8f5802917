//! An autoscaler's object as its arithmetic takes it.

use std::collections::BTreeMap;

use weir_hpa::{
    Behavior, HpaSpec, LabelRequirement, LabelSelector, MetricSource, MetricSpec, PodPhase, PodState, Pods, PolicyKind, Replicas,
    ScalingPolicy, ScalingRules, SelectPolicy, Target,
};

use crate::facts::Facts;
use crate::facts::meta::Selector;
use crate::facts::scaling::{AutoscalerSpec, Metric, Quantity, Rules};
use crate::facts::workload::Workload;
use crate::look::meta;

/// The spec of an HPA, as the controller reads it.
pub(super) fn spec(namespace: &str, object: &AutoscalerSpec) -> Result<HpaSpec, String> {
    let count = |field: &str, value: Option<i64>| {
        let value = value.ok_or_else(|| format!("spec.{field} is not known"))?;
        u32::try_from(value).map_err(|_| format!("spec.{field} is {value}"))
    };
    let metrics = object.metrics.iter().flatten().map(metric).collect::<Result<Vec<_>, _>>()?;
    let mut spec =
        HpaSpec::new(count("minReplicas", object.min_replicas.or(Some(1)))?, count("maxReplicas", object.max_replicas)?, metrics);
    spec.namespace = namespace.to_owned();
    spec.behavior = match &object.behavior {
        None => None,
        Some(behavior) => Some(Behavior {
            scale_up: rules(behavior.scale_up.as_ref(), ScalingRules::default_up())?,
            scale_down: rules(behavior.scale_down.as_ref(), ScalingRules::default_down())?,
        }),
    };
    spec.validate().map_err(|error| error.to_string())?;
    Ok(spec)
}

fn metric(metric: &Metric) -> Result<MetricSpec, String> {
    let kind = metric.r#type.as_deref().unwrap_or("?");
    let unknown = |what: &str| format!("{what} of a metric of type {kind} is not known");
    let source =
        metric.source().ok_or_else(|| format!("metrics of type {kind} come from metrics.k8s.io and are not explained here"))?;
    let identifier = source.metric.as_ref().ok_or_else(|| unknown("the name"))?;
    let target = source.target.as_ref().ok_or_else(|| unknown("the target"))?;
    let milli = |quantity: Option<&Quantity>| quantity.and_then(Quantity::milli).ok_or_else(|| unknown("the target"));
    let target = match target.r#type.as_deref() {
        Some("Value") => Target::Value(milli(target.value.as_ref())?),
        Some("AverageValue") => Target::AverageValue(milli(target.average_value.as_ref())?),
        _ => return Err(unknown("the target's type")),
    };
    let source = match kind {
        "External" => MetricSource::External,
        "Pods" => MetricSource::Pods,
        "Object" => {
            let described = source.described_object.as_ref().ok_or_else(|| unknown("describedObject"))?;
            MetricSource::Object {
                kind: described.kind.clone().unwrap_or_default(),
                name: described.name.clone().unwrap_or_default(),
            }
        }
        other => return Err(format!("metrics of type {other} are not explained")),
    };
    let name = identifier.name.clone().ok_or_else(|| unknown("the name"))?;
    Ok(MetricSpec { name, selector: identifier.selector.as_ref().map(selector), source, target })
}

fn selector(selector: &Selector) -> LabelSelector {
    let requirement = |expression: &crate::facts::meta::Expression| LabelRequirement {
        key: expression.key.clone().unwrap_or_default(),
        operator: expression.operator.clone().unwrap_or_default(),
        values: expression.values.clone().unwrap_or_default(),
    };
    LabelSelector {
        match_labels: selector.match_labels.clone().unwrap_or_default(),
        match_expressions: selector.match_expressions.iter().flatten().map(requirement).collect(),
    }
}

fn rules(object: Option<&Rules>, default: ScalingRules) -> Result<ScalingRules, String> {
    let Some(object) = object else { return Ok(default) };
    let number = |what: &str, value: Option<i64>| {
        value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| format!("{what} of a scaling policy is not known"))
    };
    let mut rules = default;
    if let Some(seconds) = object.stabilization_window_seconds {
        rules.stabilization_window_seconds = Some(number("stabilizationWindowSeconds", Some(seconds))?);
    }
    rules.select_policy = match object.select_policy.as_deref() {
        None | Some("Max") => SelectPolicy::Max,
        Some("Min") => SelectPolicy::Min,
        Some("Disabled") => SelectPolicy::Disabled,
        Some(other) => return Err(format!("selectPolicy {other} is not known")),
    };
    if let Some(policies) = &object.policies {
        let policy = |policy: &crate::facts::scaling::Policy| {
            let kind = match policy.r#type.as_deref() {
                Some("Pods") => PolicyKind::Pods,
                Some("Percent") => PolicyKind::Percent,
                _ => return Err("the type of a scaling policy is not known".to_owned()),
            };
            Ok(ScalingPolicy {
                kind,
                value: number("value", policy.value)?,
                period_seconds: number("periodSeconds", policy.period_seconds)?,
            })
        };
        rules.policies = policies.iter().map(policy).collect::<Result<_, String>>()?;
    }
    rules.tolerance = object.tolerance.as_ref().and_then(Quantity::number).or(rules.tolerance);
    Ok(rules)
}

/// What the target has: replicas asked for and there, and the pods under its selector.
pub(super) fn replicas(facts: &Facts, target: &Workload) -> Option<Replicas> {
    let own = meta(target.metadata.as_ref());
    let spec = target.spec.as_ref()?;
    let mut pods = BTreeMap::new();
    for pod in facts.pods.all_in(own.namespace())?.iter().filter(|pod| pod.meta().namespace() == own.namespace()) {
        let labels = pod.meta().labels.as_ref()?;
        let selected = match &spec.selector {
            Some(selector) => selector.matches(labels)?,
            None => crate::look::has_all(labels, target.pod_labels()?),
        };
        if selected {
            let phase = match pod.phase()? {
                "Pending" => PodPhase::Pending,
                "Succeeded" | "Failed" => PodPhase::Finished,
                _ => PodPhase::Running,
            };
            let state = PodState { phase, ready: pod.ready().unwrap_or(false), terminating: pod.meta().deleting() };
            pods.insert(pod.meta().name().to_owned(), state);
        }
    }
    let count = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    Some(Replicas {
        spec: count(spec.replicas)?,
        status: count(target.status.as_ref().map_or(Some(0), |status| status.replicas.or(Some(0))))?,
        pods: Pods::Named(pods),
    })
}
