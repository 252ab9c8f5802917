//! From a pool's picker reference to the pods of its picker.

use serde_json::json;
use weir_datastore::Scheme;

use super::apiserver::{ApiServer, Mode, OLD, PODS, SERVICES, V1};
use super::*;
use crate::kube::PickerPages;

fn service(ports: Value) -> Value {
    json!({ "metadata": { "namespace": "n", "name": "p-epp", "uid": "s" },
            "spec": { "selector": { "app": "epp" }, "ports": ports, "type": "ClusterIP" } })
}

fn urls(rig: &Rig) -> Option<Vec<String>> {
    let pool = rig.pool("n/p")?;
    let names = pool.spec.pickers?;
    assert_eq!(names, pool.pickers.iter().map(|picker| picker.name.clone()).collect::<Vec<_>>());
    Some(pool.pickers.iter().map(|picker| format!("{} {}", picker.name, picker.url)).collect())
}

async fn until(rig: &Rig, expected: &[&str]) {
    eventually(&format!("{expected:?}"), || urls(rig).is_some_and(|urls| urls == expected)).await;
}

async fn start(ports: Value) -> ApiServer {
    let server = small().await;
    server.put(SERVICES, service(ports));
    server.put(PODS, pod("n", "epp-0", "epp", "10.0.1.1"));
    server
}

#[tokio::test]
async fn every_ready_pod_behind_the_service_is_a_picker() {
    let server = start(json!([{ "name": "grpc", "port": 9002 }])).await;
    let rig = Rig::synced(&server).await;
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics"]).await;
    assert_eq!(rig.metric("weir_kubernetes_problems"), 0.0);
    let named = json!([{ "name": "c", "ports": [{ "name": "http-metrics", "containerPort": 9100 }] }]);
    server.put(PODS, with(pod("n", "epp-1", "epp", "fd00::2"), "spec.containers", named));
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics", "epp-1 http://[fd00::2]:9100/metrics"]).await;
    // A standby, and one that goes.
    server.put(
        PODS,
        with(pod("n", "epp-0", "epp", "10.0.1.1"), "status.conditions", json!([{ "type": "Ready", "status": "False" }])),
    );
    until(&rig, &["epp-1 http://[fd00::2]:9100/metrics"]).await;
    server.put(PODS, with(pod("n", "epp-1", "epp", "fd00::2"), "metadata.deletionTimestamp", json!("2026-11-21T00:00:00Z")));
    until(&rig, &[]).await;
    assert_eq!(rig.metric("weir_kubernetes_problems"), 1.0, "no picker is ready");
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    rig.stop().await;
}

#[tokio::test]
async fn the_metrics_port_is_found_by_its_name() {
    let server = start(json!([{ "name": "http-metrics", "port": 80, "targetPort": 9191 }])).await;
    let rig = Rig::synced(&server).await;
    until(&rig, &["epp-0 http://10.0.1.1:9191/metrics"]).await;
    server.put(SERVICES, service(json!([{ "name": "http-metrics", "port": 80, "targetPort": "page" }])));
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics"]).await;
    let named = json!([{ "name": "c", "ports": [{ "name": "page", "containerPort": 9292 }] }]);
    server.put(PODS, with(pod("n", "epp-0", "epp", "10.0.1.1"), "spec.containers", named));
    until(&rig, &["epp-0 http://10.0.1.1:9292/metrics"]).await;
    server.put(SERVICES, service(json!([{ "name": "http-metrics", "port": 9393 }])));
    until(&rig, &["epp-0 http://10.0.1.1:9393/metrics"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_service_that_leads_nowhere_leaves_the_pool_with_a_picker_unknown() {
    let server = small().await;
    let rig = Rig::synced(&server).await;
    until(&rig, &[]).await;
    assert_eq!(rig.metric("weir_kubernetes_problems"), 1.0);
    server.put(PODS, pod("n", "epp-0", "epp", "10.0.1.1"));
    server.put(SERVICES, service(json!([])));
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics"]).await;
    assert_eq!(rig.metric("weir_kubernetes_problems"), 0.0);
    server.put(SERVICES, with(service(json!([])), "spec.selector", json!(null)));
    until(&rig, &[]).await;
    server.put(SERVICES, service(json!([])));
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics"]).await;
    server.delete(SERVICES, "n", "p-epp");
    until(&rig, &[]).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    rig.stop().await;
}

#[tokio::test]
async fn services_that_may_not_be_read_do_not_keep_the_pools_back() {
    let server = start(json!([])).await;
    server.mode(SERVICES, Mode::Forbidden);
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    until(&rig, &[]).await;
    assert_eq!(rig.metric("weir_kubernetes_watch_state{resource=\"services\",state=\"forbidden\"}"), 1.0);
    server.mode(SERVICES, Mode::Served);
    until(&rig, &["epp-0 http://10.0.1.1:9090/metrics"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn pickers_that_nobody_wants_read_are_not_looked_for() {
    let server = start(json!([])).await;
    let pickers = PickerPages { read: false, ..PickerPages::default() };
    let rig = Rig::with(&server, KubeDiscoveryConfig { pickers, ..KubeDiscoveryConfig::default() });
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert_eq!(rig.pool("n/p").unwrap().spec.pickers, None);
    assert!(server.requests("services").is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn a_token_goes_to_pickers_in_the_clear_and_tls_settings_do_not() {
    let server = start(json!([])).await;
    server.put(V1, pool("n", "p", "x", &[8000]));
    let access = crate::Access { bearer_token_file: Some("token".into()), ca_file: Some("ca".into()), ..Default::default() };
    for (scheme, ca_file) in [(Scheme::Http, None), (Scheme::Https, access.ca_file.clone())] {
        let pickers = PickerPages { access: access.clone(), scheme, ..PickerPages::default() };
        let rig = Rig::with(&server, KubeDiscoveryConfig { pickers, ..KubeDiscoveryConfig::default() });
        eventually("a picker", || rig.pool("n/p").is_some_and(|pool| !pool.pickers.is_empty())).await;
        let wanted = rig.pool("n/p").unwrap();
        assert_eq!(
            (&wanted.pickers[0].access.ca_file, &wanted.pickers[0].access.bearer_token_file),
            (&ca_file, &access.bearer_token_file)
        );
        assert_eq!(wanted.access, crate::Access::default(), "endpoints are none of it");
        rig.stop().await;
    }
    server.mode(OLD, Mode::Served);
}
