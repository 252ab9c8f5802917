//! GPU nodes that stay though nobody uses them.

use crate::facts::Facts;
use crate::facts::workload::{Node, Pod};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::meta;

pub(crate) static CANNOT_DRAIN: Check = Check {
    code: "gpu-node-cannot-drain",
    title: "An idle GPU node cannot be taken away",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "No pod on it uses its GPUs, and a pod keeps the node autoscaler from draining it: one that says it must not be evicted, one \
            that nobody would make anew, or one whose disruption budget allows none. The GPUs are paid for.",
    elsewhere: Elsewhere::Outside("it is about nodes and Jobs, which weir's servers do not read."),
    needs: &["nodes", "pods", "disruptionBudgets"],
    run: cannot_drain,
};

/// How many GPUs a node has for pods.
pub(super) fn gpus(node: &Node) -> i64 {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable.and_then(|allocatable| allocatable.get("nvidia.com/gpu")?.parse().ok()).unwrap_or(0)
}

/// Why `pod` keeps its node, and what would let it go.
fn holds(facts: &Facts, pod: &Pod) -> Option<(String, String)> {
    let meta = pod.meta();
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    if owners.iter().any(|owner| matches!(owner.kind.as_deref(), Some("DaemonSet" | "Node") | None)) {
        return None;
    }
    let says = |key: &str, value: &str| meta.annotation(key) == Some(value);
    if says("cluster-autoscaler.kubernetes.io/safe-to-evict", "false") || says("karpenter.sh/do-not-disrupt", "true") {
        return Some((
            "its annotation forbids eviction".to_owned(),
            "take the annotation safe-to-evict: \"false\" (or do-not-disrupt) off the pod template".to_owned(),
        ));
    }
    let budgets = facts.disruption_budgets.iter().find(|budget| {
        let own = crate::look::meta(budget.metadata.as_ref());
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        own.namespace() == meta.namespace()
            && selector.zip(meta.labels.as_ref()).and_then(|(selector, labels)| selector.matches(labels)) == Some(true)
            && budget.status.as_ref().and_then(|status| status.disruptions_allowed) == Some(0)
    });
    if let Some(budget) = budgets {
        let own = crate::look::meta(budget.metadata.as_ref());
        return Some((
            format!("PodDisruptionBudget {} allows no disruption", own.path()),
            format!("kubectl -n {} edit pdb {}: maxUnavailable: 1, or one replica more", own.namespace(), own.name()),
        ));
    }
    // The API tells an empty list by leaving it out; what is recorded says so.
    if meta.owner_references.as_ref().is_some_and(Vec::is_empty) {
        return Some((
            "nobody would make it anew (it has no controller)".to_owned(),
            format!("kubectl -n {} delete pod {}", meta.namespace(), meta.name()),
        ));
    }
    None
}

fn cannot_drain(facts: &Facts) -> Vec<Finding> {
    let Some(pods) = facts.pods.all() else { return Vec::new() };
    let mut found = Vec::new();
    for node in facts.nodes.iter().filter(|node| gpus(node) > 0) {
        let name = meta(node.metadata.as_ref()).name();
        let here: Vec<_> = pods
            .iter()
            .filter(|pod| pod.counts() && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name))
            .collect();
        // One whose node or requests are not known may use them.
        let unknown = pods.iter().any(|pod| {
            pod.counts()
                && pod.phase() != Some("Pending")
                && (pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none())
                    || pod.containers().next().is_none()
                    || pod.containers().any(|container| container.resources.is_none()))
        });
        if unknown || here.iter().any(|pod| pod.requests("nvidia.com/gpu")) {
            continue;
        }
        let Some((pod, (why, remedy))) = here.iter().find_map(|pod| Some((pod, holds(facts, pod)?))) else { continue };
        let finding = Finding::new("Node", name, format!("its {} GPUs are idle, and it cannot be taken away", gpus(node)));
        found.push(finding.evidence(format!("pod {}: {why}", pod.meta().path())).remedy(remedy));
    }
    found
}
