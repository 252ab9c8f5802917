//! What upstream's chart v1.5.0 installs beside an InferencePool, with weir's image; and pods for it to pick.

use serde_json::{Value, json};
use weir_tests::{repository, workload};

/// The pool.
pub(crate) const POOL: &str = "r";

/// The chart's rules, those of pods apart.
pub(crate) fn role(pods: bool) -> String {
    role_with(pods, &[])
}

/// The same, with further ones.
pub(crate) fn role_with(pods: bool, further: &[Value]) -> String {
    let read = ["get", "list", "watch"];
    let mut rules = vec![
        json!({"apiGroups": ["inference.networking.x-k8s.io"], "resources": ["inferenceobjectives", "inferencemodelrewrites"], "verbs": read}),
        json!({"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": read}),
    ];
    if pods {
        rules.push(json!({"apiGroups": [""], "resources": ["pods"], "verbs": read}));
    }
    rules.extend(further.iter().cloned());
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "epp"}, "rules": rules}).to_string()
}

/// The rules by which a picker knows what brings its pool back.
pub(crate) fn rules_of_autoscalers() -> [Value; 2] {
    [
        json!({"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list", "watch"]}),
        json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}),
    ]
}

/// The Service by which weir finds the pickers of the pool.
pub(crate) fn picker_service() -> String {
    workload::picker_service(&format!("{POOL}-epp")).to_string()
}

/// The autoscaler of the examples for a Deployment of the pool's servers; the scaler takes it to zero after ten seconds.
pub(crate) fn sleeping_autoscaler(deployment: &str) -> String {
    let example = std::fs::read_to_string(repository().join("hpa-examples/in-flight.yaml")).unwrap();
    let annotated =
        example.replacen("  name: vllm-llama3\n", "  name: vllm-llama3\n  annotations: {weir.internal/idle-after: 10s}\n", 1);
    let target = annotated.replace("    name: vllm-llama3\n  minReplicas", &format!("    name: {deployment}\n  minReplicas"));
    assert_ne!(target, annotated, "the example has another form");
    target.replace("name: vllm-llama3", &format!("name: {POOL}"))
}

/// All of the chart but its Role: so many replicas, with further arguments.
pub(crate) fn chart(namespace: &str, replicas: usize, arguments: &[&str]) -> String {
    let binding = |kind: &str, role: &str, role_kind: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": format!("{namespace}-epp")},
               "subjects": [{"kind": "ServiceAccount", "name": "epp", "namespace": namespace}],
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}})
    };
    let reviews = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": format!("{namespace}-epp")},
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
        ],
    });
    let config = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                  - type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\n";
    let mut line = vec![
        "--pool-name",
        POOL,
        "--pool-namespace",
        namespace,
        "--pool-group",
        "inference.networking.k8s.io",
        "--zap-encoder",
        "json",
        "--config-file",
        "/config/default-plugins.yaml",
        "--v",
        "1",
        "--tracing=false",
    ];
    line.extend(arguments);
    let grpc = json!({"grpc": {"port": 9003, "service": "inference-extension"}, "periodSeconds": 1, "timeoutSeconds": 5});
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "epp"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "epp"}}, "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {"app": "epp"}},
                "spec": {
                    "serviceAccountName": "epp", "terminationGracePeriodSeconds": 130,
                    "containers": [{
                        "name": "epp", "image": "weir", "command": ["/weir", "epp"],
                        "args": line,
                        "readinessProbe": grpc, "livenessProbe": grpc.clone(),
                        "env": [{"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
                        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "epp"}}],
                },
            },
        },
    });
    // A picker that is not ready is not to be restarted under the test's eyes.
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["grpc"]["service"] = json!("liveness");
    let named = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "epp"}});
    let mut configuration = named("ConfigMap");
    configuration["data"] = json!({"default-plugins.yaml": config});
    let items: [Value; 6] = [
        named("ServiceAccount"),
        configuration,
        binding("RoleBinding", "epp", "Role"),
        reviews,
        binding("ClusterRoleBinding", &format!("{namespace}-epp"), "ClusterRole"),
        deployment,
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// A pod with label `app: APP` that only counts as running, and is Ready: a test may listen at its address.
pub(crate) fn bare_pod(name: &str, app: &str) -> String {
    let container = json!({"name": "server", "image": "nothing"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": {"containers": [container]}})
        .to_string()
}
