//! What is not done, and the words that say why.

use serde_json::json;
use weir_tests::Process;
use weir_tests::workload::{MODEL_PORT, deployment};

use super::park::{Park, allow, asks, autoscaler, relevant_logs};

pub(crate) fn each_is_told_with_its_way_out(park: &Park) {
    let apply = |object: serde_json::Value| park.cluster.apply(&park.namespace, &object.to_string());
    // Pods that no pool selects.
    apply(deployment("stranger", 1, json!({"containers": [{"name": "server", "image": "nothing"}]})));
    apply(autoscaler("stranger", "stranger", asks(), 1));
    // The HPA's own zero.
    park.pool("own-zero");
    apply(autoscaler("own-zero", "own-zero", asks(), 0));
    // KEDA's.
    park.pool("kedas");
    let mut labelled = autoscaler("kedas", "kedas", asks(), 1);
    labelled["metadata"]["labels"] = json!({"scaledobject.keda.sh/name": "so"});
    apply(labelled);
    // Two for one target.
    park.pool("twice");
    apply(autoscaler("twice", "twice", asks(), 1));
    apply(autoscaler("twice-more", "twice", json!({}), 1));
    // A server without a page.
    apply(deployment("silent", 1, json!({"containers": [{"name": "server", "image": "nothing"}]})));
    park.follow("silent", "silent");
    apply(autoscaler("silent", "silent", asks(), 1));
    // Nothing to scale.
    apply(autoscaler("absent", "absent", asks(), 1));
    let mut unfit = autoscaler("unfit", "epp", asks(), 1);
    unfit["spec"]["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "epp"});
    apply(unfit);

    park.told("stranger", "NoPool: no InferencePool of the namespace selects the labels of the target's pod template");
    park.told("own-zero", "MinReplicasZero: minReplicas is 0, so the HPA goes to zero and back by itself: remove the annotation");
    park.told("kedas", "ScaledByKeda: KEDA scales the target (ScaledObject so)");
    park.told("twice", "SecondAutoscaler: HPA twice-more scales the same target");
    park.told("silent", "IdlenessUnknown: whether pool");
    park.told("silent", &format!(":{MODEL_PORT}"));
    park.told("absent", "UnreadableTarget: Deployment");
    park.told("absent", "absent does not exist: create it, or correct scaleTargetRef");
    park.told("unfit", "epp: the kind DaemonSet has no /scale");
    // Another one has gone to zero meanwhile; these have not.
    park.asking_pool("refusals-witness");
    park.until_replicas("refusals-witness", 0);
    for name in ["stranger", "own-zero", "kedas", "twice", "silent"] {
        assert_eq!(park.replicas(name), Ok(1), "{name}\n{}", relevant_logs(park.cluster));
    }
}

/// In a namespace of its own, outside of the cluster as an administrator.
pub(crate) fn a_dry_run_writes_nothing(park: &Park) {
    park.asking_pool("watched");
    let kubeconfig = park.cluster.path("kubeconfig").display().to_string();
    let scaler = Process::weir(&[
        "scaler",
        "--dry-run",
        "--namespace",
        &park.namespace,
        "--kubeconfig",
        &kubeconfig,
        "--lease-namespace",
        &park.namespace,
        "--listen",
        "127.0.0.1:0",
        "--identity",
        "dry",
    ]);
    park.told("watched", "DryRun: dry run: would scale Deployment.apps/watched from 1 to 0: pool");
    assert_eq!(park.replicas("watched"), Ok(1));
    assert!(scaler.output().contains("dry run: would scale from 1 to 0"), "{}", scaler.output());
    let (ended_well, output) = scaler.terminate();
    assert!(ended_well, "{output}");
    let lease = park.cluster.get(&park.namespace, "lease/weir-scaler").unwrap();
    assert!(lease.pointer("/spec/holderIdentity").and_then(|holder| holder.as_str()).is_none_or(str::is_empty), "{lease}");
    assert_eq!(park.managers("watched").iter().filter(|manager| manager.contains("weir")).count(), 0);
}

/// A Role without the right to scale.
pub(crate) fn a_missing_rule_is_named_and_needs_no_restart(park: &Park) {
    let change = r#"[{"op":"replace","path":"/rules/5/verbs","value":["get"]}]"#;
    park.kubectl(&["patch", "role/weir-scaler", "--type=json", "-p", change]);
    park.asking_pool("ruled");
    let rule = format!(
        "ruled may not be scaled: add to the Role in namespace {}: {{apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: \
         [\"patch\"]}}",
        park.namespace
    );
    park.told("ruled", "FailedScale: Deployment.apps/ruled was to go to zero (pool");
    park.told("ruled", &rule);
    assert_eq!(park.replicas("ruled"), Ok(1));
    allow(park.cluster, &park.namespace);
    park.until_replicas("ruled", 0);
}
