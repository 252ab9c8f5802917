//! Metrics that an autoscaler cannot read.

use weir_datastore::catalog;

use crate::facts::Facts;
use crate::facts::meta::{Condition, Meta};
use crate::facts::scaling::{Autoscaler, Metric, POOL_KEYS};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static FAILED: Check = Check {
    code: "hpa-metric-failed",
    title: "An HPA cannot read a metric",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "It holds its replicas: nothing is scaled, up or down. The message is the API's own and names the cause; a pool whose servers \
            cannot be read is answered with 503 on purpose, since 0 would scale it down.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_metric_troubles_total{code="hpa-metric-failed"}"# },
    needs: &["autoscalers"],
    run: failed,
};

pub(crate) static MISSPELT: Check = Check {
    code: "hpa-metric-misspelt",
    title: "An HPA asks for a metric that does not exist",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "The name begins as those of a pool's metrics do and is none of them: the API answers 404, and the HPA holds its replicas.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_metric_troubles_total{code="hpa-metric-misspelt"}"# },
    needs: &["autoscalers"],
    run: misspelt,
};

pub(crate) static SELECTS_NO_POOL: Check = Check {
    code: "hpa-selects-no-pool",
    title: "An HPA's metric selector matches no pool",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "The metric is asked for a pool that is not there. The label `name` is the *pool's* name, not that of the Deployment, and an \
            HPA asks in its own namespace.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_metric_troubles_total{code="hpa-selects-no-pool"}"# },
    needs: &["autoscalers", "pools", "oldPools"],
    run: selects_no_pool,
};

/// The condition by which an autoscaler says that a metric fails.
pub(super) fn failing(autoscaler: &Autoscaler) -> Option<&Condition> {
    let conditions = autoscaler.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| {
        condition.is("ScalingActive", "False")
            && condition
                .reason
                .as_deref()
                .is_some_and(|reason| reason.starts_with("FailedGet") || reason.starts_with("InvalidMetric"))
    })
}

/// A pool's metric whose name is none: the name, and the one that is probably meant.
fn wrong_name(metric: &Metric) -> Option<(&str, Option<&'static str>)> {
    let name = metric.name()?;
    if !name.starts_with("inference_pool_")
        || catalog::find(name).is_some()
        || name == catalog::ENDPOINTS.0
        || name == catalog::PER_POD_QUEUE_SIZE.0
    {
        return None;
    }
    let scored = catalog::FAMILIES.iter().map(|family| (strsim::normalized_damerau_levenshtein(family.name, name), family.name));
    let near = scored.filter(|(likeness, _)| *likeness > 0.7).max_by(|(one, _), (other, _)| one.total_cmp(other));
    Some((name, near.map(|(_, name)| name)))
}

/// The metrics of an autoscaler.
pub(super) fn metrics(autoscaler: &Autoscaler) -> impl Iterator<Item = &Metric> {
    autoscaler.spec.iter().flat_map(|spec| spec.metrics.iter().flatten())
}

/// The pool that a metric of `own`'s namespace names, where there is none.
fn missing_pool<'facts>(facts: &Facts, own: &Meta, metric: &'facts Metric) -> Option<&'facts str> {
    let name = metric.name()?;
    let label = metric.pool()?;
    let ours = name.starts_with("inference_pool_") && own.namespace.is_some();
    // A selector may name another namespace.
    let elsewhere = metric.selector_labels().is_some_and(|labels| labels.keys().any(|key| key.contains("namespace")));
    (ours && !elsewhere && facts.has_pool(own.namespace(), label) == Some(false)).then_some(label)
}

fn of_pool(facts: &Facts, autoscaler: &Autoscaler, finding: Finding) -> Finding {
    match facts.pool_of_autoscaler(autoscaler) {
        Some(pool) => finding.pool(path(pool)),
        None => finding,
    }
}

fn failed(facts: &Facts) -> Vec<Finding> {
    let found = facts.autoscalers.iter().filter_map(|autoscaler| {
        let own = meta(autoscaler.metadata.as_ref());
        let condition = failing(autoscaler)?;
        // Each of these has a check that says more.
        let explained = metrics(autoscaler).any(|metric| {
            wrong_name(metric).is_some()
                || missing_pool(facts, own, metric).is_some()
                || super::api_service::group_of(metric).is_some_and(|group| super::api_service::is_unavailable(facts, group))
        });
        if explained {
            return None;
        }
        let message = condition.message.as_deref().unwrap_or("");
        let remedy = if message.contains("forbidden") {
            "let the autoscaler read it: a ClusterRole over the metrics API for ServiceAccount kube-system/horizontal-pod-autoscaler".to_owned()
        } else if message.contains("exactly one") || message.contains("several pools") {
            "metric.selector.matchLabels.name: one pool".to_owned()
        } else if message.contains("could not find the requested resource") || message.contains("the server could not find") {
            "install the adapter that serves this metrics API: kubectl get apiservices | grep metrics".to_owned()
        } else {
            format!("weir doctor --pool …: findings of page-… and picker-… name why the pool cannot be read; kubectl -n {} describe hpa {}", own.namespace(), own.name())
        };
        let finding = Finding::new("HorizontalPodAutoscaler", own.path(), "cannot read its metric and holds its replicas").evidence(condition.told()).remedy(remedy);
        Some(of_pool(facts, autoscaler, finding))
    });
    found.collect()
}

fn misspelt(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for autoscaler in facts.autoscalers.iter() {
        for (name, near) in metrics(autoscaler).filter_map(wrong_name) {
            let finding = Finding::new(
                "HorizontalPodAutoscaler",
                meta(autoscaler.metadata.as_ref()).path(),
                "asks for a metric that does not exist and holds its replicas",
            )
            .evidence(format!("metric.name is {name}"))
            .remedy(match near {
                Some(near) => format!("metric.name: {near}"),
                None => "metric.name: one of docs/metrics.md, such as inference_pool_total_inflight_requests".to_owned(),
            });
            found.push(of_pool(facts, autoscaler, finding));
        }
    }
    found
}

fn selects_no_pool(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for autoscaler in facts.autoscalers.iter() {
        let own = meta(autoscaler.metadata.as_ref());
        for metric in metrics(autoscaler) {
            let Some(label) = missing_pool(facts, own, metric) else { continue };
            let candidates = || facts.every_pool().map(|pool| meta(pool.metadata.as_ref()));
            let here = candidates().filter(|meta| meta.namespace() == own.namespace());
            let scaled = autoscaler
                .spec
                .as_ref()
                .and_then(|spec| facts.target(own.namespace(), spec.scale_target_ref.as_ref()?)?.pod_labels());
            let of_target = scaled.and_then(|labels| {
                facts.every_pool().find(|pool| {
                    let wanted = pool.spec.as_ref().and_then(|spec| spec.selector.as_ref()?.labels());
                    meta(pool.metadata.as_ref()).namespace() == own.namespace()
                        && wanted.is_some_and(|wanted| crate::look::has_all(labels, &wanted))
                })
            });
            let near = of_target.map(|pool| meta(pool.metadata.as_ref()).name()).or_else(|| {
                here.filter(|meta| strsim::normalized_damerau_levenshtein(meta.name(), label) > 0.5).map(Meta::name).next()
            });
            let elsewhere = candidates().find(|meta| meta.name() == label);
            let (evidence, remedy) = match (near, elsewhere) {
                (Some(near), _) => (
                    format!("there is no pool {}/{label}, but there is {near}", own.namespace()),
                    format!("metric.selector.matchLabels.name: {near}"),
                ),
                (None, Some(elsewhere)) => (
                    format!("there is no pool {}/{label}, but there is {}", own.namespace(), elsewhere.path()),
                    format!("metadata.namespace: {} (an HPA asks in its own namespace)", elsewhere.namespace()),
                ),
                (None, None) => (
                    format!(
                        "there is no pool {}/{label} (selector keys that name a pool: {})",
                        own.namespace(),
                        POOL_KEYS.join(", ")
                    ),
                    format!("kubectl -n {} get inferencepools; then metric.selector.matchLabels.name", own.namespace()),
                ),
            };
            let finding =
                Finding::new("HorizontalPodAutoscaler", own.path(), "asks for a pool that does not exist and holds its replicas")
                    .evidence(evidence)
                    .remedy(remedy);
            found.push(of_pool(facts, autoscaler, finding));
        }
    }
    found
}
