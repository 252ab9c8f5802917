//! Objects that speak of requests: followed where they can be, done without where not.

use std::sync::Arc;

use serde_json::json;
use weir_datastore::PoolId;
use weir_k8s::RequestResource;

use super::apiserver::{ApiServer, Mode, PODS};
use super::*;
use crate::kube::{Obstacles, RequestRules, Scope};

const OBJECTIVES: &str = "/apis/inference.networking.x-k8s.io/v1alpha2/inferenceobjectives";
const OBJECTIVES_LLMD: &str = "/apis/llm-d.ai/v1alpha2/inferenceobjectives";
const REWRITES: &str = "/apis/inference.networking.x-k8s.io/v1alpha2/inferencemodelrewrites";
const REWRITES_LLMD: &str = "/apis/llm-d.ai/v1alpha2/inferencemodelrewrites";
const MODELS: &str = "/apis/inference.networking.x-k8s.io/v1alpha2/inferencemodels";

fn objective(name: &str, priority: Value) -> Value {
    json!({ "metadata": { "namespace": "n", "name": name, "uid": name }, "spec": { "priority": priority, "poolRef": { "name": "p" } } })
}

struct RuleRig {
    rig: Rig,
    rules: watch::Receiver<Arc<RequestRules>>,
    obstacles: watch::Receiver<Obstacles>,
}

fn start(server: &ApiServer) -> RuleRig {
    let mut registry = Registry::default();
    let config = KubeDiscoveryConfig { rules: true, scope: Scope::Pool(PoolId::new("n", "p")), ..KubeDiscoveryConfig::default() };
    let (discovery, pools) = KubeDiscovery::new(server.client(), config, &mut registry).unwrap();
    let discovery = discovery.ask_again_every(Duration::from_millis(50));
    let (synced, shutdown) = (discovery.synced(), CancellationToken::new());
    let (rules, obstacles) = (discovery.rules(), discovery.obstacles());
    let task = tokio::spawn(discovery.run(shutdown.clone()));
    RuleRig { rig: Rig { pools, synced, registry, shutdown, task }, rules, obstacles }
}

impl RuleRig {
    fn priorities(&self) -> Vec<(String, i32)> {
        self.rules.borrow().objectives.iter().map(|objective| (objective.name.to_string(), objective.priority)).collect()
    }

    async fn until(&self, expected: &[(&str, i32)]) {
        let expected: Vec<_> = expected.iter().map(|(name, priority)| ((*name).to_owned(), *priority)).collect();
        eventually(&format!("{expected:?}"), || self.priorities() == expected).await;
    }
}

#[tokio::test]
async fn objects_are_followed_as_they_change() {
    let server = small().await;
    for absent in [OBJECTIVES_LLMD, REWRITES_LLMD] {
        server.mode(absent, Mode::Absent);
    }
    server.put(OBJECTIVES, objective("batch", json!(-10)));
    server.put(
        REWRITES,
        json!({ "metadata": { "namespace": "n", "name": "r", "uid": "r" },
                "spec": { "poolRef": { "name": "p" }, "rules": [{ "targets": [{ "modelRewrite": "x" }] }] } }),
    );
    server.put(
        MODELS,
        json!({ "metadata": { "namespace": "n", "name": "m", "uid": "m" }, "spec": { "poolRef": { "name": "p" }, "modelName": "food" } }),
    );
    let rules = start(&server);
    eventually("synced", || *rules.rig.synced.borrow()).await;
    assert_eq!(rules.priorities(), [("batch".to_owned(), -10)], "known no later than the pool");
    assert_eq!((rules.rules.borrow().rewrites.len(), rules.rules.borrow().models.len()), (1, 1));
    server.put(OBJECTIVES, objective("batch", json!(7)));
    server.put(OBJECTIVES, objective("chat", json!(1)));
    rules.until(&[("batch", 7), ("chat", 1)]).await;
    // What is broken stays as it was while it was good, and leaves the others alone.
    let problems = rules.rig.metric("weir_kubernetes_problems");
    server.put(OBJECTIVES, objective("batch", json!("high")));
    server.put(OBJECTIVES, objective("new", json!("low")));
    eventually("told", || rules.rig.metric("weir_kubernetes_problems") == problems + 2.0).await;
    rules.until(&[("batch", 7), ("chat", 1)]).await;
    server.delete(OBJECTIVES, "n", "new");
    server.delete(OBJECTIVES, "n", "batch");
    rules.until(&[("chat", 1)]).await;
    assert_eq!(rules.rig.metric("weir_kubernetes_problems"), problems);
    // The newer group, once there, counts alone.
    server.put(OBJECTIVES_LLMD, objective("newer", json!(3)));
    server.mode(OBJECTIVES_LLMD, Mode::Served);
    rules.until(&[("newer", 3)]).await;
    rules.rig.stop().await;
}

#[tokio::test]
async fn kinds_that_are_missing_forbidden_or_broken_keep_nobody_back() {
    let server = small().await;
    for resource in RequestResource::ALL {
        let (plural, group) = resource.name().split_once('.').unwrap();
        let mode = match resource {
            RequestResource::Model => Mode::Absent,
            RequestResource::RewriteLlmd => Mode::Garbage,
            _ => Mode::Forbidden,
        };
        server.mode(&format!("/apis/{group}/v1alpha2/{plural}"), mode);
    }
    let rules = start(&server);
    eventually("synced", || *rules.rig.synced.borrow()).await;
    assert!(rules.rules.borrow().objectives.is_empty());
    let state = |resource: &str, state: &str| {
        rules.rig.metric(&format!("weir_kubernetes_watch_state{{resource=\"{resource}\",state=\"{state}\"}}"))
    };
    assert_eq!(state("inferenceobjectives.llm-d.ai", "forbidden"), 1.0);
    assert_eq!(state("inferencemodels.inference.networking.x-k8s.io", "absent"), 1.0);
    let in_the_way = || rules.obstacles.borrow().keys().copied().collect::<Vec<_>>();
    assert_eq!(in_the_way(), ["inferencepools.inference.networking.x-k8s.io"], "what can be done without is no obstacle");
    // One that becomes readable later counts then.
    server.put(OBJECTIVES, objective("batch", json!(-1)));
    server.mode(OBJECTIVES, Mode::Served);
    rules.until(&[("batch", -1)]).await;
    rules.rig.stop().await;
}

#[tokio::test]
async fn what_keeps_the_pool_back_is_told_with_the_way_out_until_it_is_gone() {
    let server = small().await;
    server.mode(PODS, Mode::Forbidden);
    let rules = start(&server);
    eventually("told", || rules.obstacles.borrow().contains_key("pods")).await;
    let rule = "add to the Role in namespace n: {apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"list\", \"watch\"]}";
    assert!(rules.obstacles.borrow()["pods"].contains(rule), "{:?}", rules.obstacles.borrow());
    server.mode(PODS, Mode::Served);
    eventually("no longer", || !rules.obstacles.borrow().contains_key("pods")).await;
    rules.rig.stop().await;
}
