//! GPU nodes that cost nothing while nobody asks: real Karpenter takes the last one away and brings one back, and what keeps it from
//! that is named.

#![allow(clippy::unwrap_used)]

#[path = "gpu_nodes/asleep.rs"]
mod asleep;
#[path = "epp/chart.rs"]
#[allow(dead_code, reason = "shared with the picker's tests")]
mod chart;
#[path = "gpu_nodes/scene.rs"]
mod scene;

use std::time::Instant;

use scene::{NODE_LABEL, SERVERS, Scene, condition};
use serde_json::json;
use weir_tests::cluster::skipped;
use weir_tests::repository;

#[test]
fn gpu_nodes_come_with_the_first_pod_and_go_with_the_last() {
    if skipped("GPU nodes by Karpenter") {
        return;
    }
    let scene = Scene::new();
    assert!(scene.nodes().unwrap().is_empty());
    for file in ["cluster-autoscaler.yaml", "gke.yaml", "warm-node.yaml"] {
        let file = repository().join("manifests/gpu-nodes").join(file).display().to_string();
        let dry_run = ["apply", "--dry-run=server", "--validate=strict", "-n", &scene.namespace, "-f", &file];
        scene.cluster.kubectl(&dry_run).unwrap_or_else(|error| panic!("{error}"));
    }

    let selector = format!("app={SERVERS}");
    let wake = || {
        let began = now();
        scene.scale(1);
        scene.cluster.wait_for_pods(&scene.namespace, &selector, 1);
        let seconds = began.elapsed().as_secs_f64();
        let nodes = scene.nodes().unwrap();
        assert_eq!(nodes.len(), 1);
        assert!(condition(&nodes[0], "Ready"));
        assert_eq!(nodes[0]["status"]["allocatable"]["nvidia.com/gpu"], "8");
        assert!(nodes[0]["spec"]["taints"].as_array().unwrap().iter().any(|taint| taint["key"] == "nvidia.com/gpu"));
        seconds
    };
    let woken = wake();

    // A pod that is nobody's DaemonSet keeps the node, and this one is not to be moved.
    let pin = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pin", "labels": {"app": "pin"}, "annotations": {"karpenter.sh/do-not-disrupt": "true"}},
        "spec": {
            "nodeSelector": {NODE_LABEL: "gpu"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "nothing"}],
        },
    });
    scene.cluster.apply(&scene.namespace, &pin.to_string());
    scene.cluster.wait_for_pods(&scene.namespace, "app=pin", 1);
    scene.scale(0);
    let why = scene.until_event("Node", &["pin", "do-not-disrupt"]);
    eprintln!("gpu nodes: kept, and Karpenter says {why}");
    assert_eq!(scene.nodes().unwrap().len(), 1);

    // It may be moved now, but a budget forbids to evict it: a node that is told to go waits.
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "pin"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "pin"}}},
    });
    scene.cluster.apply(&scene.namespace, &budget.to_string());
    scene.until("the budget counts", || match scene.cluster.get(&scene.namespace, "pdb/pin")? {
        budget if budget["status"]["currentHealthy"] == 1 => Ok(()),
        budget => Err(budget["status"].to_string()),
    });
    scene.cluster.kubectl(&["annotate", "pod/pin", "karpenter.sh/do-not-disrupt-", "-n", &scene.namespace]).unwrap();
    scene.cluster.kubectl(&["delete", "nodeclaims", "--all", "--wait=false"]).unwrap();
    let why = scene.until_event("Node", &["Failed to drain"]);
    scene.until_eviction_is_refused();
    eprintln!("gpu nodes: a node that is to go waits, and Karpenter says {why}");
    assert_eq!(scene.nodes().unwrap().len(), 1);
    scene.cluster.kubectl(&["delete", "pdb/pin", "-n", &scene.namespace]).unwrap();
    scene.until_no_node();

    // Nothing in the way: Karpenter takes the empty node by itself.
    let again = wake();
    let began = now();
    scene.scale(0);
    scene.until_no_node();
    let gone = began.elapsed().as_secs_f64();
    eprintln!("gpu nodes: 0 to 1 pod Ready in {woken:.1} s and {again:.1} s, from 1 to no node in {gone:.1} s");

    asleep::a_pool_sleeps_and_wakes_with_its_node(&scene);
}

#[allow(clippy::disallowed_methods, reason = "a figure for people, which decides nothing")]
fn now() -> Instant {
    Instant::now()
}
