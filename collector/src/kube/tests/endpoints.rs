//! From pods to endpoints.

use serde_json::json;
use weir_datastore::engine::Engine;
use weir_datastore::{PoolId, Scheme};
use weir_k8s::PoolVersion;

use super::apiserver::{ApiServer, Mode, OLD, PODS, SERVICES, V1};
use super::*;
use crate::kube::{PickerPages, PodMetrics, PodsScope, PoolGroups, Scope};

const ACTIVE: &str = "inference.networking.k8s.io/active-ports";

#[tokio::test]
async fn pods_become_endpoints_by_what_they_say_of_themselves() {
    let server = small().await;
    let not_ready = json!([{ "type": "Ready", "status": "False" }]);
    server.put(PODS, with(pod("n", "b", "x", "10.0.0.2"), "status.conditions", not_ready));
    server.put(PODS, with(pod("n", "c", "x", "10.0.0.3"), "metadata.deletionTimestamp", json!("2026-11-21T00:00:00Z")));
    server.put(PODS, with(pod("n", "d", "x", "10.0.0.4"), "status.phase", json!("Failed")));
    server.put(PODS, with(pod("n", "e", "x", "10.0.0.5"), "status.phase", json!("Succeeded")));
    server.put(PODS, with(pod("n", "f", "x", "10.0.0.6"), "status.podIP", json!(null)).tap_remove_ip());
    server.put(PODS, pod("n", "g", "other", "10.0.0.7"));
    server.put(PODS, pod("elsewhere", "h", "x", "10.0.0.8"));
    server.put(PODS, pod("n", "i", "x", "fd00::1"));
    let rig = Rig::synced(&server).await;
    let expected = ["10.0.0.1:8000 Ready", "10.0.0.2:8000 Unready", "10.0.0.3:8000 Terminating", "[fd00::1]:8000 Ready"];
    rig.until(&[("n/p", &expected)]).await;
    assert_eq!(rig.pool("n/p").unwrap().spec.pending, 1, "f, which has no address yet");
    // And what changes of them.
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    server.delete(PODS, "n", "c");
    server.put(PODS, pod("n", "f", "x", "10.0.0.6"));
    server.put(PODS, pod("n", "i", "other", "fd00::1"));
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready", "10.0.0.6:8000 Ready"])]).await;
    assert_eq!(rig.metric("weir_kubernetes_objects{resource=\"pods\"}"), 6.0, "pods that can be endpoints");
    let wanted = rig.pool("n/p").unwrap();
    assert_eq!(wanted.spec.pending, 0);
    let first = &wanted.spec.endpoints[0];
    assert_eq!((&*first.pod, &*first.pod_uid, first.rank), ("a", "uid-a", 0));
    assert_eq!(first.labels["app"], "x");
    rig.stop().await;
}

trait RemoveIp {
    fn tap_remove_ip(self) -> Self;
}

impl RemoveIp for Value {
    /// As the API server writes it: absent.
    fn tap_remove_ip(mut self) -> Self {
        self["status"].as_object_mut().unwrap().remove("podIP");
        self
    }
}

#[tokio::test]
async fn target_ports_are_ranks_and_may_be_inactive() {
    let server = ApiServer::start().await;
    server.put(V1, pool("n", "p", "x", &[8000, 8001, 8002]));
    let annotated =
        |name: &str, ip: &str, text: &str| with(pod("n", name, "x", ip), "metadata.annotations", json!({ ACTIVE: text }));
    server.put(PODS, annotated("a", "10.0.0.1", " 8002, 8000,8000, 9999"));
    server.put(PODS, annotated("b", "10.0.0.2", ""));
    server.put(PODS, annotated("c", "10.0.0.3", "8001,-1,70000,x"));
    server.put(PODS, annotated("d", "10.0.0.4", &"9,".repeat(10_000)));
    server.put(PODS, pod("n", "e", "x", "10.0.0.5"));
    let rig = Rig::synced(&server).await;
    let all = [
        "10.0.0.1:8000 Ready",
        "10.0.0.1:8002 Ready",
        "10.0.0.3:8001 Ready",
        "10.0.0.5:8000 Ready",
        "10.0.0.5:8001 Ready",
        "10.0.0.5:8002 Ready",
    ];
    rig.until(&[("n/p", &all)]).await;
    let ranks: Vec<_> = rig.pool("n/p").unwrap().spec.endpoints.iter().map(|endpoint| endpoint.rank).collect();
    assert_eq!(ranks, [0, 2, 1, 0, 1, 2]);
    // The entries that are no ports of c, the ports of d that are not the pool's, and the picker that is not there.
    assert_eq!(rig.metric("weir_kubernetes_problems"), 3.0);
    server.put(PODS, annotated("c", "10.0.0.3", "8001"));
    server.put(V1, pool("n", "p", "x", &[8001]));
    rig.until(&[("n/p", &["10.0.0.3:8001 Ready", "10.0.0.5:8001 Ready"])]).await;
    eventually("fewer problems", || rig.metric("weir_kubernetes_problems") == 3.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn an_address_that_changes_hands_is_the_living_pods() {
    let server = small().await;
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    server.put(PODS, with(pod("n", "a", "x", "10.0.0.1"), "metadata.deletionTimestamp", json!("2026-11-21T00:00:00Z")));
    rig.until(&[("n/p", &["10.0.0.1:8000 Terminating"])]).await;
    server.put(PODS, pod("n", "b", "x", "10.0.0.1"));
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert_eq!(&*rig.pool("n/p").unwrap().spec.endpoints[0].pod_uid, "uid-b");
    // A namesake of the pod with the same address is another pod.
    server.delete(PODS, "n", "a");
    server.delete(PODS, "n", "b");
    server.put(PODS, with(pod("n", "b", "x", "10.0.0.1"), "metadata.uid", json!("another")));
    eventually("the other pod", || {
        rig.pool("n/p").is_some_and(|pool| pool.spec.endpoints.first().is_some_and(|endpoint| &*endpoint.pod_uid == "another"))
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn pools_come_change_and_go() {
    let server = small().await;
    server.put(PODS, pod("n", "b", "y", "10.0.0.2"));
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    server.put(V1, pool("n", "p", "y", &[8000]));
    rig.until(&[("n/p", &["10.0.0.2:8000 Ready"])]).await;
    server.put(V1, pool("m", "q", "y", &[1]));
    rig.until(&[("m/q", &[]), ("n/p", &["10.0.0.2:8000 Ready"])]).await;
    server.delete(V1, "n", "p");
    rig.until(&[("m/q", &[])]).await;
    server.put(V1, with(pool("n", "p", "x", &[9]), "metadata.uid", json!("second")));
    rig.until(&[("m/q", &[]), ("n/p", &["10.0.0.1:9 Ready"])]).await;
    assert_eq!(rig.metric("weir_kubernetes_objects{resource=\"inferencepools.inference.networking.k8s.io\"}"), 2.0);
    rig.stop().await;
}

#[tokio::test]
async fn of_a_pool_in_both_groups_v1_counts() {
    let server = ApiServer::start().await;
    server.put(V1, pool("n", "p", "x", &[8000]));
    server.put(OLD, old_pool("n", "p", "x", 7000));
    server.put(OLD, old_pool("n", "q", "x", 7001));
    server.put(PODS, pod("n", "a", "x", "10.0.0.1"));
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"]), ("n/q", &["10.0.0.1:7001 Ready"])]).await;
    server.delete(V1, "n", "p");
    rig.until(&[("n/p", &["10.0.0.1:7000 Ready"]), ("n/q", &["10.0.0.1:7001 Ready"])]).await;
    rig.stop().await;

    let config = KubeDiscoveryConfig { groups: PoolGroups::Only(PoolVersion::V1), ..KubeDiscoveryConfig::default() };
    let before = server.requests(OLD).len();
    let rig = Rig::with(&server, config);
    eventually("synced", || *rig.synced.borrow()).await;
    assert_eq!((rig.shown().len(), server.requests(OLD).len()), (0, before), "the old group is not asked");
    rig.stop().await;
}

#[tokio::test]
async fn annotations_and_labels_say_how_pages_are_read() {
    let server = small().await;
    let annotations =
        json!({ "weir.internal/engine": "sglang", "weir.internal/metrics-port": "9100", "weir.internal/metrics-path": "/m" });
    server.put(V1, with(pool("n", "p", "x", &[8000]), "metadata.annotations", annotations));
    let labels = json!({ "app": "x", "inference.networking.k8s.io/engine-type": "vllm" });
    server.put(PODS, with(pod("n", "b", "x", "10.0.0.2"), "metadata.labels", labels));
    let metrics = PodMetrics { path: "/default".into(), scheme: Scheme::Https, ..PodMetrics::default() };
    let rig = Rig::with(&server, KubeDiscoveryConfig { metrics, ..KubeDiscoveryConfig::default() });
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready"])]).await;
    let wanted = rig.pool("n/p").unwrap();
    assert_eq!((&*wanted.spec.metrics.path, wanted.spec.metrics.scheme), ("/m", Scheme::Https));
    assert_eq!((wanted.spec.metrics.engine, wanted.access.port), (Some(Engine::Sglang), Some(9100)));
    assert_eq!(wanted.spec.endpoints[1].labelled_engine(), Some(Engine::Vllm));
    assert_eq!(rig.metric("weir_kubernetes_problems"), 1.0, "the picker that is not there");
    let labels = json!({ "app": "x", "inference.networking.k8s.io/engine-type": "vlm" });
    server.put(PODS, with(pod("n", "b", "x", "10.0.0.2"), "metadata.labels", labels));
    eventually("the slip is seen", || rig.metric("weir_kubernetes_problems") == 2.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn no_more_is_asked_than_the_scope_needs() {
    let server = small().await;
    server.put(V1, pool("n", "q", "x", &[8001]));
    server.put(V1, pool("m", "p", "x", &[8000]));
    let namespace = KubeDiscoveryConfig { scope: Scope::Namespace("n".into()), ..KubeDiscoveryConfig::default() };
    let rig = Rig::with(&server, namespace);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"]), ("n/q", &["10.0.0.1:8001 Ready"])]).await;
    rig.stop().await;
    let of_one = KubeDiscoveryConfig { scope: Scope::Pool(PoolId::new("n", "q")), ..KubeDiscoveryConfig::default() };
    let rig = Rig::with(&server, of_one);
    rig.until(&[("n/q", &["10.0.0.1:8001 Ready"])]).await;
    rig.stop().await;
    assert!(server.requests("").iter().all(|request| request.contains("/namespaces/n/")), "{:?}", server.requests(""));
    for collection in [SERVICES, PODS, V1, OLD] {
        let plural = collection.rsplit('/').next().unwrap();
        assert!(!server.requests(plural).is_empty(), "{plural}");
    }
    server.mode(OLD, Mode::Served);
}

#[tokio::test]
async fn pods_can_be_a_pool_without_an_inference_pool() {
    let server = ApiServer::start().await;
    for collection in [V1, OLD] {
        server.mode(collection, Mode::Forbidden);
    }
    server.put(PODS, pod("n", "a", "x", "10.0.0.1"));
    server.put(PODS, pod("n", "b", "y", "10.0.0.2"));
    let scope = PodsScope {
        pool: PoolId::new("n", "vllm"),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        target_ports: vec![8000, 8001],
    };
    let pickers = PickerPages { read: false, ..PickerPages::default() };
    let rig = Rig::with(&server, KubeDiscoveryConfig { scope: Scope::Pods(scope), pickers, ..KubeDiscoveryConfig::default() });
    rig.until(&[("n/vllm", &["10.0.0.1:8000 Ready", "10.0.0.1:8001 Ready"])]).await;
    server.put(PODS, pod("n", "c", "x", "10.0.0.3"));
    server.delete(PODS, "n", "a");
    rig.until(&[("n/vllm", &["10.0.0.3:8000 Ready", "10.0.0.3:8001 Ready"])]).await;
    assert!(server.requests("inferencepools").is_empty(), "nobody asks for what is not meant to be there");
    rig.stop().await;
}
