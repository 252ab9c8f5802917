//! Installing and removing weir in a real control plane, in both ways that docs/install.md names.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use weir_tests::cluster::{Cluster, Options, skipped};
use weir_tests::installed::{self, API_SERVICES, NAMESPACE, available, external, run_helm, wait_until_it_answers};
use weir_tests::repository;
use weir_tests::workload::model_servers;

/// A pool with one server has a value through the API server.
fn a_pool_is_measured(cluster: &Cluster) -> String {
    let namespace = cluster.namespace("models");
    cluster.apply(&namespace, &model_servers("vllm-llama3", 1, &[]));
    cluster.wait_for_pods(&namespace, "app=vllm-llama3", 1);
    cluster.wait_for("a value", || external(cluster, &namespace, "inference_pool_total_inflight_requests", "vllm-llama3"));
    namespace
}

/// Namespaces can still be deleted: an APIService without its server would keep them.
fn nothing_is_left(cluster: &Cluster, models: &str) {
    for name in API_SERVICES {
        let found = cluster.kubectl(&["get", "apiservice", name, "--ignore-not-found"]).unwrap();
        assert!(found.is_empty(), "{found}");
    }
    let roles =
        cluster.kubectl(&["get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/name=weir", "-o", "name"]).unwrap();
    assert_eq!(roles.trim(), "", "rights are left");
    cluster.kubectl(&["delete", "namespace", models, "--wait=false"]).unwrap();
    cluster.wait_for("the namespace to go", || {
        match cluster.kubectl(&["get", "namespace", models, "--ignore-not-found"])?.trim() {
            "" => Ok(()),
            _ => Err(cluster.describe("default", &format!("namespace/{models}"))),
        }
    });
}

#[test]
fn by_kustomize_twice_and_away_again() {
    if skipped("kustomize") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    installed::by_kustomize(&cluster);
    let models = a_pool_is_measured(&cluster);
    // What weir wrote into the APIServices survives the manifests' being applied again.
    let bundle = || cluster.kubectl(&["get", "apiservice", API_SERVICES[0], "-o", "jsonpath={.spec.caBundle}"]).unwrap();
    let before = bundle();
    assert!(!before.is_empty());
    installed::by_kustomize(&cluster);
    assert_eq!(bundle(), before);
    // One authority for both replicas.
    let pods = installed::pods(&cluster).unwrap();
    assert_eq!(pods.len(), 2, "{pods:?}");
    // Applied by someone without rights on more than what is in the manifests: nothing runs as root.
    for (pod, _) in &pods {
        let answer = cluster.command(&format!("pod-pid {NAMESPACE}/{pod}"));
        let process = answer.pointer("/pids/weir").and_then(Value::as_u64).unwrap_or_else(|| panic!("{answer}"));
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert_eq!(line("Uid:").split_whitespace().nth(1), Some("65532"), "{status}");
        assert_eq!(line("CapEff:").split_whitespace().nth(1), Some("0000000000000000"), "{status}");
    }
    let base = repository().join("manifests/base");
    cluster.kubectl(&["delete", "-k", &base.display().to_string(), "--wait=false"]).unwrap();
    cluster.wait_for("weir to go", || {
        let left = cluster.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found"])?;
        if left.is_empty() { Ok(()) } else { Err(cluster.describe("default", &format!("namespace/{NAMESPACE}"))) }
    });
    nothing_is_left(&cluster, &models);
}

#[test]
fn by_helm_upgraded_and_away_again() {
    if skipped("helm") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    let install = ["install", "weir", "manifests/helm/weir", "--namespace", NAMESPACE, "--create-namespace", "--wait"];
    run_helm(&cluster, &install).unwrap_or_else(|error| panic!("{error}\n{}", installed::log_of_all(&cluster)));
    wait_until_it_answers(&cluster);
    let models = a_pool_is_measured(&cluster);
    let bundle = || cluster.kubectl(&["get", "apiservice", API_SERVICES[0], "-o", "jsonpath={.spec.caBundle}"]).unwrap();
    let before = bundle();
    assert!(!before.is_empty());
    // The other API goes to another owner; what weir wrote into this one stays.
    run_helm(
        &cluster,
        &["upgrade", "weir", "manifests/helm/weir", "--namespace", NAMESPACE, "--set", "metricsApis={external}", "--wait"],
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bundle(), before);
    assert_eq!(cluster.kubectl(&["get", "apiservice", API_SERVICES[1], "--ignore-not-found"]).unwrap(), "");
    cluster.wait_for("a value after the upgrade", || {
        external(&cluster, &models, "inference_pool_total_inflight_requests", "vllm-llama3")
    });
    // A second release would share names with the first: Helm says so.
    let second =
        run_helm(&cluster, &["install", "again", "manifests/helm/weir", "--namespace", "other", "--create-namespace"]).unwrap_err();
    assert!(second.contains("invalid ownership metadata"), "{second}");
    run_helm(&cluster, &["uninstall", "weir", "--namespace", NAMESPACE, "--wait"]).unwrap_or_else(|error| panic!("{error}"));
    nothing_is_left(&cluster, &models);
}

#[test]
fn an_api_service_of_another_owner_is_left_alone_and_named() {
    if skipped("another owner") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    installed::by_kustomize(&cluster);
    // Somebody else takes the group over.
    let name = API_SERVICES[0];
    let theirs =
        r#"{"spec":{"service":{"name":"keda-metrics-apiserver","namespace":"keda"},"caBundle":null,"insecureSkipTLSVerify":true}}"#;
    cluster.kubectl(&["patch", "apiservice", name, "--type=merge", "-p", theirs]).unwrap();
    let words = "APIService v1beta1.external.metrics.k8s.io belongs to Service keda/keda-metrics-apiserver, so HorizontalPodAutoscalers \
                 read external.metrics.k8s.io there and not from weir-system/weir: leave it to it with --metrics-apis custom, or take it \
                 over with --take-over-apiservices";
    cluster.wait_for("weir's words", || {
        let log = installed::log_of_all(&cluster);
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
    let (status, reason) = cluster.wait_for("the API server's words", || {
        let (status, reason) = available(&cluster, name)?;
        if status == "False" { Ok((status, reason)) } else { Err(reason) }
    });
    assert!(reason.starts_with("ServiceNotFound: service/keda-metrics-apiserver in \"keda\" is not present"), "{status} {reason}");
    // The other groups are still weir's.
    assert_eq!(available(&cluster, API_SERVICES[2]).unwrap().0, "True");
    // Told to, weir takes it.
    let arguments = r#"[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--take-over-apiservices"}]"#;
    cluster.kubectl(&["patch", "deployment", "weir", "-n", NAMESPACE, "--type=json", "-p", arguments]).unwrap();
    wait_until_it_answers(&cluster);
}

#[test]
fn what_prometheus_operators_read_is_accepted_by_their_own_definitions() {
    if skipped("monitoring resources") {
        return;
    }
    let cluster = Cluster::start(&Options { crds: false, ..Options::default() });
    for (module, version, path) in [
        (
            "github.com/prometheus-operator/prometheus-operator",
            "v0.87.1",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        ),
        (
            "github.com/GoogleCloudPlatform/prometheus-engine",
            "v0.17.2",
            "charts/operator/crds/monitoring.googleapis.com_podmonitorings.yaml",
        ),
    ] {
        let file = weir_tests::go_module_file(module, version, path);
        cluster.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()]).unwrap_or_else(|error| panic!("{error}"));
    }
    cluster.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
    cluster.kubectl(&["create", "namespace", "gmp-system"]).unwrap();
    let folder = repository().join("manifests/monitoring");
    for file in ["metrics-reader.yaml", "service-monitor.yaml", "pod-monitoring.yaml"] {
        let path = folder.join(file).display().to_string();
        cluster.wait_for(file, || cluster.kubectl(&["apply", "--server-side", "--validate=strict", "-f", &path]));
    }
    // The token is made, and the role is bound.
    cluster.wait_for("the token", || {
        let secret = cluster.get(NAMESPACE, "secret/weir-metrics-reader")?;
        secret.pointer("/data/token").map(drop).ok_or_else(|| secret.to_string())
    });
}
