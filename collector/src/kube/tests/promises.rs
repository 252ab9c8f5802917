//! What brings a pool back from zero: followed where it can be, done without where not.

use serde_json::json;
use weir_datastore::PoolId;
use weir_k8s::SCALER_MANAGER;

use super::apiserver::{ApiServer, Mode, PODS};
use super::*;
use crate::kube::{Promise, Scope};

const AUTOSCALERS: &str = "/apis/autoscaling/v2/horizontalpodautoscalers";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";

fn autoscaler(name: &str, target: &str, least: u32) -> Value {
    json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": { "namespace": "n", "name": name, "uid": name },
            "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": target },
                      "minReplicas": least, "maxReplicas": 4 } })
}

/// A Deployment with so many replicas, of pods of the app, whose number this manager wrote.
fn deployment(name: &str, app: &str, replicas: u32, manager: &str) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "namespace": "n", "name": name, "uid": name,
                          "managedFields": [{ "manager": manager, "operation": "Apply", "subresource": "scale",
                                              "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } } }] },
            "spec": { "replicas": replicas, "template": { "metadata": { "labels": { "app": app } } } } })
}

struct Promises {
    rig: Rig,
    promise: watch::Receiver<Promise>,
}

fn start(server: &ApiServer) -> Promises {
    let mut registry = Registry::default();
    let config =
        KubeDiscoveryConfig { promises: true, scope: Scope::Pool(PoolId::new("n", "p")), ..KubeDiscoveryConfig::default() };
    let (discovery, pools) = KubeDiscovery::new(server.client(), config, &mut registry).unwrap();
    let discovery = discovery.ask_again_every(Duration::from_millis(50));
    let (synced, promise, shutdown) = (discovery.synced(), discovery.promise(), CancellationToken::new());
    let task = tokio::spawn(discovery.run(shutdown.clone()));
    Promises { rig: Rig { pools, synced, registry, shutdown, task }, promise }
}

impl Promises {
    async fn until(&self, expected: &str) {
        let shown = || match &*self.promise.borrow() {
            Promise::Nothing => "nothing".to_owned(),
            Promise::Endpoint(what) => format!("yes: {what}"),
            Promise::Pods(what) => format!("pods: {what}"),
            Promise::Hindered(why) => format!("no: {why}"),
        };
        eventually(expected, || shown().contains(expected)).await;
    }
}

#[tokio::test]
async fn autoscalers_of_the_pools_own_pods_are_followed_as_they_change() {
    let server = small().await;
    server.delete(PODS, "n", "a");
    for (name, app, least) in [("other", "y", 0), ("busy", "x", 1)] {
        server.put(AUTOSCALERS, autoscaler(name, name, least));
        server.put(DEPLOYMENTS, deployment(name, app, 0, "kube-controller-manager"));
    }
    let promises = start(&server);
    eventually("synced", || *promises.rig.synced.borrow()).await;
    eventually("the target of the other pool read", || server.requests("/deployments/other").len() == 1).await;
    assert_eq!(*promises.promise.borrow(), Promise::Nothing);
    assert!(server.requests("/deployments/busy").is_empty(), "what never comes back from zero is not asked for");
    // One appears whose pods are the pool's.
    server.put(DEPLOYMENTS, deployment("d", "x", 0, "kube-controller-manager"));
    server.put(AUTOSCALERS, autoscaler("a", "d", 0));
    promises.until("yes: HorizontalPodAutoscaler a scales Deployment.apps/d from 0").await;
    let mut by_hand = autoscaler("a", "d", 0);
    by_hand["status"] =
        json!({ "conditions": [{ "type": "ScalingActive", "status": "False", "reason": "ScalingDisabled", "message": "m" }] });
    server.put(AUTOSCALERS, by_hand);
    promises.until("no: Deployment.apps/d has 0 replicas").await;
    // With weir's scaler in its place.
    let mut annotated = autoscaler("a", "d", 1);
    annotated["metadata"]["annotations"] = json!({ "weir.internal/idle-after": "10m" });
    server.put(DEPLOYMENTS, deployment("d", "x", 0, SCALER_MANAGER));
    server.put(AUTOSCALERS, annotated);
    promises.until("yes: weir's scaler wakes Deployment.apps/d").await;
    // It is woken, which the pool's pods tell.
    server.put(DEPLOYMENTS, deployment("d", "x", 1, SCALER_MANAGER));
    let starting = with(pod("n", "b", "x", "10.0.0.2"), "status.conditions", json!([{ "type": "Ready", "status": "False" }]));
    server.put(PODS, starting);
    promises.until("pods: Deployment.apps/d wants 1 replicas").await;
    server.delete(AUTOSCALERS, "n", "a");
    promises.until("nothing").await;
    assert!(promises.rig.metric("weir_kubernetes_scale_target_reads_total{outcome=\"ok\"}") >= 4.0);
    promises.rig.stop().await;
}

#[tokio::test]
async fn without_the_rights_nothing_is_promised_and_nothing_else_suffers() {
    let server = small().await;
    server.mode(AUTOSCALERS, Mode::Forbidden);
    let promises = start(&server);
    promises.rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    let state = "weir_kubernetes_watch_state{resource=\"horizontalpodautoscalers.autoscaling\",state=\"forbidden\"}";
    eventually("forbidden", || promises.rig.metric(state) == 1.0).await;
    assert_eq!(*promises.promise.borrow(), Promise::Nothing);
    // The right to read autoscalers comes, that to read what they scale does not.
    server.mode(&format!("{DEPLOYMENTS}/d"), Mode::Forbidden);
    server.put(DEPLOYMENTS, deployment("d", "x", 0, "kube-controller-manager"));
    server.put(AUTOSCALERS, autoscaler("a", "d", 0));
    server.mode(AUTOSCALERS, Mode::Served);
    eventually("asked for in vain", || !server.requests("/deployments/d").is_empty()).await;
    eventually("counted", || promises.rig.metric(state) == 0.0).await;
    assert_eq!(*promises.promise.borrow(), Promise::Nothing);
    assert_eq!(promises.rig.metric("weir_kubernetes_scale_target_reads_total{outcome=\"forbidden\"}"), 1.0);
    promises.rig.stop().await;
}
