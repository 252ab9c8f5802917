//! What is broken, what may be found beside, and how it is mended.

use serde_json::{Value, json};
use weir_tests::installed;

use super::chart::{POOL, role};
use super::{Scene, autoscaler, routes};

type Act = fn(&Scene);

const POOL_OBJECT: &str = "inferencepool/r";
const HPA: &str = "hpa/r";

fn replace(scene: &Scene, what: &str, path: &str, value: Value) {
    scene.patch(what, &json!([{"op": "replace", "path": path, "value": value}]));
}

fn mended_autoscaler(scene: &Scene) {
    scene.kubectl(&["delete", "hpa", "--all"]);
    scene.apply(&autoscaler(POOL));
}

fn metric(scene: &Scene, name: &str, target: Value) {
    let metric = json!({"type": "External", "external": {"metric": {"name": name, "selector": {"matchLabels": {"name": POOL}}}, "target": target}});
    replace(scene, HPA, "/spec/metrics", json!([metric]));
}

/// A pod beside the servers that the pool selects too.
fn server(scene: &Scene, container: Value) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd", "labels": {"app": POOL}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}});
    scene.apply(&pod);
}

fn without_server(scene: &Scene) {
    scene.kubectl(&["delete", "pod", "odd", "--wait=true"]);
}

fn route(scene: &Scene, change: impl Fn(&mut Value)) {
    let mut route = routes::route(&scene.namespace);
    change(&mut route);
    scene.cluster.apply(&routes::web(&scene.namespace), &route.to_string());
}

/// Code, what may come of it beside, how it is broken, how it is mended.
pub(crate) const BREAKS: &[(&str, &[&str], Act, Act)] = &[
    (
        "route-no-grant",
        &[],
        |scene| scene.kubectl(&["delete", "referencegrants.gateway.networking.k8s.io", "routes"]),
        |scene| scene.apply(&routes::grant(&scene.namespace)),
    ),
    (
        "route-pool-missing",
        // The grant is for the other kind of pools.
        &["route-no-grant"],
        |scene| route(scene, |route| route["spec"]["rules"][0]["backendRefs"][0]["group"] = json!("inference.networking.x-k8s.io")),
        |scene| route(scene, |_| ()),
    ),
    (
        "route-hostname-unmatched",
        &[],
        |scene| route(scene, |route| route["spec"]["hostnames"] = json!(["chat.example.org"])),
        |scene| route(scene, |_| ()),
    ),
    (
        "pool-no-pods",
        &["hpa-metric-failed", "picker-not-ready"],
        |scene| replace(scene, POOL_OBJECT, "/spec/selector/matchLabels", json!({"app": "nobody"})),
        |scene| replace(scene, POOL_OBJECT, "/spec/selector/matchLabels", json!({"app": POOL})),
    ),
    (
        "server-port-refused",
        &["hpa-metric-failed"],
        |scene| replace(scene, POOL_OBJECT, "/spec/targetPorts/0/number", json!(8001)),
        |scene| replace(scene, POOL_OBJECT, "/spec/targetPorts/0/number", json!(8000)),
    ),
    (
        "picker-service-missing",
        // A picker that holds requests and cannot be read leaves the demand unknown.
        &["hpa-metric-failed"],
        |scene| replace(scene, POOL_OBJECT, "/spec/endpointPickerRef/name", json!("r-eppp")),
        |scene| replace(scene, POOL_OBJECT, "/spec/endpointPickerRef/name", json!("r-epp")),
    ),
    (
        "picker-service-port",
        &["hpa-metric-failed"],
        |scene| replace(scene, POOL_OBJECT, "/spec/endpointPickerRef/port/number", json!(9003)),
        |scene| replace(scene, POOL_OBJECT, "/spec/endpointPickerRef/port/number", json!(9002)),
    ),
    (
        "picker-forbidden",
        &["hpa-metric-failed", "picker-not-ready"],
        |scene| {
            scene.cluster.apply(&scene.namespace, &role(false));
            scene.kubectl(&["delete", "pod", "-l", "app=epp", "--grace-period=1"]);
        },
        |scene| {
            scene.cluster.apply(&scene.namespace, &role(true));
            // What its log said is forgotten with it.
            scene.kubectl(&["delete", "pod", "-l", "app=epp", "--grace-period=1"]);
        },
    ),
    (
        "picker-no-pods",
        &["hpa-metric-failed"],
        |scene| scene.patch("service/r-epp", &json!([{"op": "replace", "path": "/spec/selector", "value": {"app": "nobody"}}])),
        |scene| scene.patch("service/r-epp", &json!([{"op": "replace", "path": "/spec/selector", "value": {"app": "epp"}}])),
    ),
    (
        "server-crash-loop",
        &["hpa-metric-failed"],
        |scene| server(scene, json!({"name": "server", "image": "weir", "args": ["simulate-server", "--no-such-flag"]})),
        without_server,
    ),
    (
        "hpa-metric-misspelt",
        &[],
        |scene| metric(scene, "inference_pool_total_inflight_request", json!({"type": "AverageValue", "averageValue": "64"})),
        mended_autoscaler,
    ),
    (
        "hpa-selects-no-pool",
        &[],
        |scene| replace(scene, HPA, "/spec/metrics/0/external/metric/selector/matchLabels", json!({"name": "vllm"})),
        mended_autoscaler,
    ),
    (
        "hpa-mean-average-value",
        &[],
        |scene| {
            metric(scene, "inference_pool_average_kv_cache_utilization", json!({"type": "AverageValue", "averageValue": "500m"}))
        },
        mended_autoscaler,
    ),
    ("two-scalers", &["hpa-metric-failed"], |scene| scene.apply(&autoscaler("second")), mended_autoscaler),
    (
        "job-stuck",
        &[],
        |scene| {
            let container = json!({"name": "load", "image": "weir", "args": ["--no-such-flag"]});
            let pod =
                json!({"metadata": {"labels": {"job": "load"}}, "spec": {"restartPolicy": "Never", "containers": [container]}});
            scene.apply(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "load"}, "spec": {"backoffLimit": 0, "template": pod}}));
        },
        |scene| scene.kubectl(&["delete", "job", "load"]),
    ),
    (
        "apiservice-unavailable",
        &["hpa-metric-failed"],
        |scene| drop(scene.cluster.kubectl(&["-n", installed::NAMESPACE, "scale", "deployment/weir", "--replicas=0"]).unwrap()),
        |scene| {
            scene.cluster.kubectl(&["-n", installed::NAMESPACE, "scale", "deployment/weir", "--replicas=2"]).unwrap();
            installed::wait_until_it_answers(scene.cluster);
        },
    ),
];
