//! Autoscalers at a bound.

use super::hpa_metric::metrics;
use crate::facts::Facts;
use crate::facts::meta::condition;
use crate::facts::scaling::Autoscaler;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static AT_MAX: Check = Check {
    code: "hpa-at-max",
    title: "An HPA wants more than maxReplicas",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "The demand asks for more replicas than it may have: requests queue up. Raise `maxReplicas` if there are GPUs for it.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers"],
    run: at_max,
};

pub(crate) static OFF_AT_ZERO: Check = Check {
    code: "hpa-off-at-zero",
    title: "A target at zero replicas that nobody wakes",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "At 0 replicas an HPA is off (`ScalingDisabled`) unless it went there itself: held requests wait until they are refused. KEDA, \
            weir's scaler, or a person must bring the first replica back.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scaler_targets{state="foreign_zero"}"# },
    needs: &["autoscalers", "deployments", "scaledObjects"],
    run: off_at_zero,
};

pub(crate) static MIN_ZERO: Check = Check {
    code: "hpa-min-zero",
    title: "minReplicas 0 where the cluster does not support it",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "Before Kubernetes 1.37 the feature gate `HPAScaleToZero` is off unless both kube-apiserver and kube-controller-manager set it. \
            Where only the API server has it, the object is taken and the controller never wakes the target.",
    elsewhere: Elsewhere::Outside(
        "the API server refuses the object, or its controller reads no metrics: no request reaches weir.",
    ),
    needs: &["autoscalers"],
    run: min_zero,
};

/// Whether KEDA made it, or weir's scaler is asked to wake its target.
fn somebody_wakes(facts: &Facts, autoscaler: &Autoscaler) -> bool {
    let own = meta(autoscaler.metadata.as_ref());
    let keda = own.owner_references.iter().flatten().any(|owner| owner.kind.as_deref().is_none_or(|kind| kind == "ScaledObject"));
    let idle_after = format!("{}idle-after", weir_k8s::ANNOTATION_PREFIX);
    let label = own.labels.as_ref().is_some_and(|labels| labels.contains_key("scaledobject.keda.sh/name"));
    let named = facts
        .scaled_objects
        .iter()
        .any(|scaled| scaled.status.as_ref().and_then(|status| status.hpa_name.as_deref()) == Some(own.name()));
    keda || label || named || own.annotation(&idle_after).is_some()
}

fn at_max(facts: &Facts) -> Vec<Finding> {
    let found = facts.autoscalers.iter().filter_map(|autoscaler| {
        let own = meta(autoscaler.metadata.as_ref());
        let status = autoscaler.status.as_ref()?;
        let limited = condition(status.conditions.as_ref(), "ScalingLimited", "True")?;
        let max = autoscaler.spec.as_ref()?.max_replicas?;
        if limited.reason.as_deref() != Some("TooManyReplicas") || status.current_replicas? < max {
            return None;
        }
        let values: Vec<_> = status
            .current_metrics
            .iter()
            .flatten()
            .filter_map(|metric| {
                let current = metric.source()?.current.as_ref()?;
                let quantity = current.value.as_ref().or(current.average_value.as_ref())?;
                Some(format!("{} {}", metric.name()?, weir_hpa::format_milli(quantity.milli()?)))
            })
            .collect();
        let values = if values.is_empty() { String::new() } else { format!("; now {}", values.join(", ")) };
        let finding = Finding::new("HorizontalPodAutoscaler", own.path(), "wants more replicas than it may have")
            .evidence(format!("{max} replicas are maxReplicas, {}{values}", limited.told()))
            .remedy(format!(
                "kubectl -n {} patch hpa {} --type merge -p '{{\"spec\":{{\"maxReplicas\":{}}}}}', if there are GPUs for it",
                own.namespace(),
                own.name(),
                max * 2
            ));
        Some(match facts.pool_of_autoscaler(autoscaler) {
            Some(pool) => finding.pool(path(pool)),
            None => finding,
        })
    });
    found.collect()
}

fn off_at_zero(facts: &Facts) -> Vec<Finding> {
    let found = facts.autoscalers.iter().filter_map(|autoscaler| {
        let own = meta(autoscaler.metadata.as_ref());
        autoscaler.metadata.as_ref()?;
        let off = condition(autoscaler.status.as_ref()?.conditions.as_ref(), "ScalingActive", "False")?;
        if off.reason.as_deref() != Some("ScalingDisabled") || somebody_wakes(facts, autoscaler) {
            return None;
        }
        let target = autoscaler.spec.as_ref()?.scale_target_ref.as_ref()?;
        let (kind, name) = (target.kind.as_deref()?, target.name.as_deref()?);
        let finding = Finding::new("HorizontalPodAutoscaler", own.path(), "is off: its target is at zero, and nobody brings the first replica back")
            .evidence(off.told())
            .remedy(format!(
                "kubectl -n {} scale {} {name} --replicas=1; to go to zero and back by itself: annotation {}idle-after with weir's scaler, or KEDA",
                own.namespace(),
                kind.to_lowercase(),
                weir_k8s::ANNOTATION_PREFIX
            ));
        Some(match facts.pool_of_autoscaler(autoscaler) {
            Some(pool) => finding.pool(path(pool)),
            None => finding,
        })
    });
    found.collect()
}

/// Minor version of `v1.34.4-gke.1`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.trim_start_matches('v').strip_prefix("1.")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

fn min_zero(facts: &Facts) -> Vec<Finding> {
    let Some(version) = facts.kubernetes.as_deref().filter(|version| minor(version).is_some_and(|minor| minor < 37)) else {
        return Vec::new();
    };
    let found = facts.autoscalers.iter().filter_map(|autoscaler| {
        let own = meta(autoscaler.metadata.as_ref());
        if autoscaler.spec.as_ref()?.min_replicas != Some(0) || somebody_wakes(facts, autoscaler) {
            return None;
        }
        // A target that came back by itself shows that the controller has the gate.
        let conditions = autoscaler.status.as_ref().and_then(|status| status.conditions.as_ref());
        let proven = conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition.r#type.as_deref() == Some("ScaledToZero")));
        if proven || metrics(autoscaler).next().is_none() {
            return None;
        }
        let finding = Finding::new("HorizontalPodAutoscaler", own.path(), "may go to zero and never come back")
            .evidence(format!("minReplicas is 0, and Kubernetes {version} has HPAScaleToZero off unless both kube-apiserver and kube-controller-manager set it"))
            .remedy("minReplicas: 1, with weir's scaler or KEDA for zero; or --feature-gates=HPAScaleToZero=true on both");
        Some(match facts.pool_of_autoscaler(autoscaler) {
            Some(pool) => finding.pool(path(pool)),
            None => finding,
        })
    });
    found.collect()
}
