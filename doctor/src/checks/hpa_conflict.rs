//! Several that scale one thing.

use std::collections::BTreeMap;

use super::hpa_metric::metrics;
use crate::facts::Facts;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static TWO_SCALERS: Check = Check {
    code: "two-scalers",
    title: "Two autoscalers on one target",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "Two HPAs, or an HPA and a ScaledObject (which makes an HPA of its own), write the same number of replicas in turn: it goes up \
            and down for ever.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scaler_targets{state="second_autoscaler"}"# },
    needs: &["autoscalers", "scaledObjects"],
    run: two_scalers,
};

pub(crate) static SHARED_DEMAND: Check = Check {
    code: "two-hpas-one-demand",
    title: "Two HPAs of one pool each answer its whole demand",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "Several Deployments back one pool, and each HPA asks for enough replicas for all requests: twice what is needed. A selector \
            with `pod.<label>` counts only what the pods with that label carry.",
    elsewhere: Elsewhere::Outside(
        "a metrics request does not tell who asks, so the same demand asked for twice looks like one autoscaler.",
    ),
    needs: &["autoscalers", "pools", "deployments"],
    run: shared_demand,
};

/// One that scales: what kind, and which.
type Scaler = (&'static str, String);

fn two_scalers(facts: &Facts) -> Vec<Finding> {
    let mut by_target: BTreeMap<(String, String, String), Vec<Scaler>> = BTreeMap::new();
    for autoscaler in facts.autoscalers.iter() {
        let own = meta(autoscaler.metadata.as_ref());
        let reference = autoscaler.spec.as_ref().and_then(|spec| spec.scale_target_ref.as_ref());
        let Some((kind, name)) = reference.and_then(|reference| Some((reference.kind.clone()?, reference.name.clone()?))) else {
            continue;
        };
        // KEDA's HPA is the ScaledObject's hand.
        let of_keda = own.owner_references.iter().flatten().any(|owner| owner.kind.as_deref() == Some("ScaledObject"))
            || own.labels.as_ref().is_some_and(|labels| labels.contains_key("scaledobject.keda.sh/name"))
            || facts.scaled_objects.iter().any(|scaled| {
                let scaled_meta = meta(scaled.metadata.as_ref());
                scaled_meta.namespace() == own.namespace()
                    && (scaled.status.as_ref().and_then(|status| status.hpa_name.as_deref()) == Some(own.name())
                        || own.name() == format!("keda-hpa-{}", scaled_meta.name()))
            });
        if !of_keda && !own.deleting() && own.namespace.is_some() {
            by_target.entry((own.namespace().to_owned(), kind, name)).or_default().push(("HorizontalPodAutoscaler", own.path()));
        }
    }
    for scaled in facts.scaled_objects.iter() {
        let own = meta(scaled.metadata.as_ref());
        let Some(reference) = scaled.spec.as_ref().and_then(|spec| spec.scale_target_ref.as_ref()) else { continue };
        let (kind, Some(name)) = (reference.kind.clone().unwrap_or_else(|| "Deployment".to_owned()), reference.name.clone()) else {
            continue;
        };
        by_target.entry((own.namespace().to_owned(), kind, name)).or_default().push(("ScaledObject", own.path()));
    }
    let found = by_target.into_iter().filter(|(_, scalers)| scalers.len() > 1).map(|((namespace, kind, name), scalers)| {
        let shown: Vec<_> = scalers.iter().map(|(kind, path)| format!("{kind} {path}")).collect();
        let (extra_kind, extra) = &scalers[0];
        let extra = extra.rsplit('/').next().unwrap_or(extra);
        Finding::new(&kind, format!("{namespace}/{name}"), "is scaled by two at once: its replicas go up and down for ever")
            .evidence(shown.join(", "))
            .remedy(format!(
                "kubectl -n {namespace} delete {} {extra}, or the other; one autoscaler may have several metrics",
                extra_kind.to_lowercase()
            ))
    });
    found.collect()
}

fn shared_demand(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        let pool_meta = meta(pool.metadata.as_ref());
        let mut whole: Vec<(String, String)> = Vec::new();
        for autoscaler in facts.autoscalers.iter() {
            let own = meta(autoscaler.metadata.as_ref());
            let total = metrics(autoscaler).find(|metric| {
                let is_total = metric
                    .name()
                    .and_then(weir_datastore::catalog::find)
                    .is_some_and(|family| family.kind == weir_datastore::catalog::Kind::Total);
                let partial = metric.selector_labels().is_some_and(|labels| labels.keys().any(|key| key.starts_with("pod.")))
                    || metric
                        .source()
                        .and_then(|source| source.metric.as_ref()?.selector.as_ref()?.match_expressions.as_ref())
                        .is_some();
                is_total && !partial && metric.pool() == Some(pool_meta.name()) && own.namespace() == pool_meta.namespace()
            });
            let target =
                autoscaler.spec.as_ref().and_then(|spec| spec.scale_target_ref.as_ref()).and_then(|target| target.name.clone());
            if let (Some(metric), Some(target)) = (total, target) {
                let name = metric.name().unwrap_or("?");
                if !whole.iter().any(|(_, other)| *other == target) {
                    whole.push((format!("{} ({name})", own.name()), target));
                }
            }
        }
        // A prefill and a decode pool are two; two targets of one pool share its requests.
        if whole.len() < 2 {
            continue;
        }
        let shown: Vec<_> = whole.iter().map(|(autoscaler, target)| format!("{autoscaler} for {target}")).collect();
        let finding = Finding::new("InferencePool", pool_meta.path(), format!("{} HPAs each answer its whole demand", whole.len()))
            .evidence(shown.join("; "))
            .remedy(
                "metric.selector.matchLabels: {name: …, pod.<label key>: <value>}, with a label that tells the Deployments apart",
            );
        found.push(finding.pool(path(pool)));
    }
    found
}
