//! PodMonitors by which no Prometheus reads a page.

use super::monitor::nobody_takes;
use crate::facts::Facts;
use crate::facts::monitoring::{NamespaceSelector, PodMonitor};
use crate::facts::workload::Pod;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{has_all, meta};

pub(crate) static SELECTS_NOTHING: Check = Check {
    code: "pod-monitor-selects-nothing",
    title: "A PodMonitor selects no pod, or a port that none has",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Prometheus reads nothing by it and says nothing. It selects pods by their own labels, in its own namespace unless \
            `namespaceSelector` says otherwise; `podMetricsEndpoints[].port` is the *name* of a container's port, a number belongs in \
            `portNumber`.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["podMonitors", "pods", "deployments", "statefulSets", "leaderWorkerSets"],
    run: selects_nothing,
};

pub(crate) static NOT_TAKEN: Check = Check {
    code: "pod-monitor-not-taken",
    title: "No Prometheus takes a PodMonitor",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Each Prometheus takes monitors with certain labels only (`podMonitorSelector`); that of kube-prometheus-stack wants \
            `release: <name of the release>`.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["podMonitors", "prometheuses"],
    run: not_taken,
};

/// PodMonitors in namespaces with pools: others are not this program's business.
fn ours(facts: &Facts) -> impl Iterator<Item = &PodMonitor> {
    facts.pod_monitors.iter().filter(|monitor| {
        let namespace = meta(monitor.metadata.as_ref()).namespace();
        let spec = monitor.spec.as_ref().and_then(|spec| spec.namespace_selector.as_ref());
        let looks_at = |other: &str| {
            namespace == other
                || spec.is_some_and(|names| names.any == Some(true) || names.match_names.iter().flatten().any(|name| name == other))
        };
        !namespace.is_empty() && facts.every_pool().any(|pool| looks_at(meta(pool.metadata.as_ref()).namespace()))
    })
}

/// The pods that a monitor selects; none where some may be unknown.
fn selected<'facts>(facts: &'facts Facts, monitor: &PodMonitor) -> Option<Vec<&'facts Pod>> {
    let own = meta(monitor.metadata.as_ref());
    let spec = monitor.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    let namespaces = spec.namespace_selector.as_ref();
    let elsewhere = namespaces.is_some_and(|namespaces| namespaces.any == Some(true) || namespaces.match_names.is_some());
    let pods = if elsewhere { facts.pods.all()? } else { facts.pods.all_in(own.namespace())? };
    let mut selected = Vec::new();
    for pod in pods.iter().filter(|pod| pod.counts()) {
        let pod_meta = pod.meta();
        if NamespaceSelector::looks_into(namespaces, own.namespace(), pod_meta.namespace())
            && selector.matches(pod_meta.labels.as_ref()?)?
        {
            selected.push(pod);
        }
    }
    Some(selected)
}

fn selects_nothing(facts: &Facts) -> Vec<Finding> {
    ours(facts).filter_map(|monitor| of_one(facts, monitor)).collect()
}

fn of_one(facts: &Facts, monitor: &PodMonitor) -> Option<Finding> {
    let own = meta(monitor.metadata.as_ref());
    let pods = selected(facts, monitor)?;
    let spec = monitor.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    if pods.is_empty() {
        // Pods that will be there once something is scaled up.
        let labels = selector.match_labels.as_ref()?;
        let at_zero = facts.workloads().any(|(_, workload)| {
            let replicas = workload.spec.as_ref().and_then(|spec| spec.replicas);
            replicas.is_none_or(|replicas| replicas == 0) && workload.pod_labels().is_none_or(|own| has_all(own, labels))
        });
        let finding = Finding::new("PodMonitor", own.path(), "selects no pod: Prometheus reads nothing")
            .evidence(format!("no pod in its namespaces has {}", selector.shown()))
            .remedy(format!("kubectl -n {} get pods --show-labels; then spec.selector.matchLabels", own.namespace()));
        return (!at_zero).then_some(finding);
    }
    let ports: Vec<_> = pods.iter().flat_map(|pod| pod.containers()).map(|container| container.ports.as_deref()).collect();
    // A container that names no ports may have any: nothing is concluded.
    let ports: Vec<_> = ports.into_iter().collect::<Option<Vec<_>>>()?.concat();
    let names: Vec<_> = ports.iter().map(|port| port.name.as_deref()).collect::<Option<_>>()?;
    let named = spec.pod_metrics_endpoints.iter().flatten().filter_map(|endpoint| endpoint.port.as_deref());
    let missing = named.into_iter().find(|port| !names.contains(port))?;
    if names.is_empty() {
        return None;
    }
    let finding = Finding::new("PodMonitor", own.path(), format!("names port {missing}, which none of its pods has"))
        .evidence(format!("the containers' ports are {}", names.join(", ")));
    let right = names.iter().find(|name| name.contains("metrics")).or(names.first());
    Some(finding.remedy(format!("spec.podMetricsEndpoints[].port: {}", right.unwrap_or(&"the port's name"))))
}

fn not_taken(facts: &Facts) -> Vec<Finding> {
    ours(facts)
        .filter_map(|monitor| {
            nobody_takes(facts, meta(monitor.metadata.as_ref()), ("PodMonitor", "PodMonitors"), |spec| {
                spec.pod_monitor_selector.as_ref()
            })
        })
        .collect()
}
