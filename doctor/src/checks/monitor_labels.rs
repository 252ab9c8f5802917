//! Labels that Prometheus replaces, and pages that nobody reads.

use super::monitor::selected;
use crate::facts::Facts;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::meta;

pub(crate) static SWALLOWED: Check = Check {
    code: "monitor-labels-swallowed",
    title: "Prometheus replaces the pool's namespace by weir's",
    severity: Severity::Warning,
    family: Family::Scraping,
    about: "Without `honorLabels: true` the `namespace` of a pool's series becomes that of weir's Service, and the pool's own goes to \
            `exported_namespace`: boards, rules and autoscalers over Prometheus find no pool.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["serviceMonitors", "services"],
    run: swallowed,
};

pub(crate) static DCGM_MISSING: Check = Check {
    code: "dcgm-missing",
    title: "No DCGM exporter runs on the GPU nodes",
    severity: Severity::Note,
    family: Family::Scraping,
    about: "Nothing tells of the GPUs themselves: use, memory, temperature, faults (XID). Scaling needs none of it, looking for a slow \
            server does.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["nodes", "pods"],
    run: dcgm_missing,
};

fn swallowed(facts: &Facts) -> Vec<Finding> {
    let found = facts.service_monitors.iter().filter_map(|monitor| {
        let own = meta(monitor.metadata.as_ref());
        let services = selected(facts, monitor)?;
        // weir's page alone tells of pools of other namespaces.
        let ours = services.iter().any(|service| {
            let labels = meta(service.metadata.as_ref()).labels.as_ref();
            labels.is_some_and(|labels| labels.get("app.kubernetes.io/name").is_some_and(|name| name == "weir"))
        });
        let swallows = monitor.spec.as_ref()?.endpoints.as_ref()?.iter().any(|endpoint| endpoint.honor_labels == Some(false));
        if !ours || !swallows {
            return None;
        }
        let finding = Finding::new("ServiceMonitor", own.path(), "Prometheus replaces the pools' namespace by weir's")
            .evidence("spec.endpoints[].honorLabels is not true");
        Some(finding.remedy("spec.endpoints[].honorLabels: true"))
    });
    found.collect()
}

fn dcgm_missing(facts: &Facts) -> Vec<Finding> {
    let (Some(nodes), Some(pods)) = (facts.nodes.all(), facts.pods.all()) else { return Vec::new() };
    let gpus: Vec<_> = nodes.iter().filter(|node| super::nodes::gpus(node) > 0).collect();
    let runs = pods
        .iter()
        .any(|pod| pod.containers().any(|container| container.image.as_deref().is_none_or(|image| image.contains("dcgm"))));
    // Where containers of a pod are not known, one of them may be it.
    let unknown = pods.iter().any(|pod| pod.containers().next().is_none());
    if gpus.is_empty() || runs || unknown {
        return Vec::new();
    }
    let first = meta(gpus[0].metadata.as_ref());
    let finding = Finding::new("Node", first.name(), "nothing tells of its GPUs")
        .evidence(format!("{} nodes have nvidia.com/gpu, and no pod runs a DCGM exporter", gpus.len()))
        .remedy("install dcgm-exporter (part of NVIDIA's GPU operator) as a DaemonSet");
    vec![finding]
}
