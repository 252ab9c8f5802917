//! A gateway's objects in a control plane without a gateway: its kinds as far as they are used here, and what a controller would
//! have written of them.

use serde_json::{Value, json};
use weir_tests::cluster::Cluster;

use super::chart::POOL;

const GROUP: &str = "gateway.networking.k8s.io";

fn kind(plural: &str, singular: &str, kind: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        // What an upstream group's definition must have.
        "metadata": {"name": format!("{plural}.{GROUP}"), "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/4530"}},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": plural, "singular": singular, "kind": kind},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

/// A gateway, a route of another namespace to the pool, and the grant for it.
pub(crate) fn apply(cluster: &Cluster, namespace: &str) {
    let kinds = [
        kind("gateways", "gateway", "Gateway", "v1"),
        kind("httproutes", "httproute", "HTTPRoute", "v1"),
        kind("referencegrants", "referencegrant", "ReferenceGrant", "v1beta1"),
    ];
    cluster.apply(namespace, &json!({"apiVersion": "v1", "kind": "List", "items": kinds}).to_string());
    let web = web(namespace);
    cluster.kubectl(&["create", "namespace", &web]).unwrap();
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    let gateway = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "Gateway", "metadata": {"name": "edge"},
        "spec": {"gatewayClassName": "some", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"}]},
        "status": {"conditions": [condition("Accepted"), condition("Programmed")]},
    });
    cluster.wait_for("the kinds of a gateway", || {
        cluster.kubectl_reading(&["apply", "-n", &web, "-f", "-"], &gateway.to_string())?;
        cluster.kubectl_reading(&["apply", "-n", &web, "-f", "-"], &route(namespace).to_string())?;
        cluster.kubectl_reading(&["apply", "-n", namespace, "-f", "-"], &grant(namespace).to_string())
    });
}

/// The route's namespace.
pub(crate) fn web(namespace: &str) -> String {
    format!("{namespace}-web")
}

pub(crate) fn route(namespace: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "HTTPRoute", "metadata": {"name": "chat"},
        "spec": {
            "parentRefs": [{"name": "edge"}], "hostnames": ["chat.example.com"],
            "rules": [{"backendRefs": [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": POOL, "namespace": namespace}]}],
        },
        "status": {"parents": [{"parentRef": {"name": "edge"}, "controllerName": "example.com/some", "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]},
    })
}

pub(crate) fn grant(namespace: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "ReferenceGrant", "metadata": {"name": "routes"},
        "spec": {
            "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": web(namespace)}],
            "to": [{"group": "inference.networking.k8s.io", "kind": "InferencePool"}],
        },
    })
}
