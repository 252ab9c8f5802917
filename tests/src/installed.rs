//! weir in a test's cluster, installed as its users install it.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{helm, repository};

/// Where weir is installed.
pub const NAMESPACE: &str = "weir-system";

/// The APIServices that belong to weir.
pub const API_SERVICES: [&str; 3] =
    ["v1beta1.external.metrics.k8s.io", "v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"];

/// The cluster that all tests of this process share, with weir installed by kustomize.
pub fn shared() -> &'static Cluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = Cluster::shared();
    INSTALLED.get_or_init(|| by_kustomize(cluster));
    cluster
}

/// Installs weir as docs/install.md says, and waits until it answers.
///
/// # Panics
///
/// When it does not.
pub fn by_kustomize(cluster: &Cluster) {
    let base = repository().join("manifests/base");
    cluster.kubectl(&["apply", "-k", &base.display().to_string()]).unwrap_or_else(|error| panic!("{error}"));
    wait_until_it_answers(cluster);
}

/// Runs helm as an administrator: what it prints, or what it complains about.
///
/// # Errors
///
/// When helm fails: its error output.
pub fn run_helm(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm());
    command.args(arguments).env("KUBECONFIG", cluster.path("kubeconfig")).current_dir(repository());
    for (variable, folder) in
        [("HELM_CACHE_HOME", "helm-cache"), ("HELM_CONFIG_HOME", "helm-config"), ("HELM_DATA_HOME", "helm-data")]
    {
        command.env(variable, cluster.state().join(folder));
    }
    let output = cluster.network().within(|| command.output()).map_err(|error| format!("helm: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("helm {arguments:?}: {}", text(&output.stderr))) }
}

/// Waits for both replicas, and for the API server to find them.
///
/// # Panics
///
/// When that takes too long.
pub fn wait_until_it_answers(cluster: &Cluster) {
    cluster.wait_for("weir's replicas", || {
        let deployment = cluster.get(NAMESPACE, "deployment/weir")?;
        let status = &deployment["status"];
        let wanted = &deployment["spec"]["replicas"];
        let current = status["observedGeneration"] == deployment["metadata"]["generation"] && &status["updatedReplicas"] == wanted;
        if current && &status["readyReplicas"] == wanted && &status["replicas"] == wanted {
            return Ok(());
        }
        Err(format!("{status}\n{}\n{}", cluster.describe(NAMESPACE, "pods"), log_of_all(cluster)))
    });
    for name in API_SERVICES {
        cluster.wait_for(name, || {
            let (status, message) = available(cluster, name)?;
            if status == "True" { Ok(()) } else { Err(format!("{message}\n{}", log_of_all(cluster))) }
        });
    }
}

/// The condition `Available` of an APIService: its status, then its reason and message.
///
/// # Errors
///
/// As long as it has none.
pub fn available(cluster: &Cluster, name: &str) -> Result<(String, String), String> {
    let service = cluster.get("default", &format!("apiservice/{name}"))?;
    let conditions = service.pointer("/status/conditions").and_then(Value::as_array).ok_or("no conditions yet")?;
    let condition = conditions.iter().find(|condition| condition["type"] == "Available").ok_or("not judged yet")?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), format!("{}: {}", text("reason"), text("message"))))
}

/// Names and addresses of weir's ready pods.
///
/// # Errors
///
/// When kubectl fails.
pub fn pods(cluster: &Cluster) -> Result<Vec<(String, String)>, String> {
    cluster.ready_pods(NAMESPACE, "app.kubernetes.io/name=weir")
}

/// What all replicas wrote to their logs, those that are gone left out.
pub fn log_of_all(cluster: &Cluster) -> String {
    let names = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).unwrap_or_default();
    let log = |name: &str| cluster.logs(NAMESPACE, name.trim_start_matches("pod/"), "weir").unwrap_or_else(|error| error);
    names.lines().map(log).collect::<Vec<_>>().join("\n")
}

/// The value of an external metric of one pool, as the API server hands it on; in thousandths.
///
/// # Errors
///
/// When it has none: the words that an autoscaler gets.
pub fn external(cluster: &Cluster, namespace: &str, metric: &str, pool: &str) -> Result<i64, String> {
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}?labelSelector=name%3D{pool}");
    let list: Value = serde_json::from_str(&cluster.raw(&path)?).map_err(|error| error.to_string())?;
    let value = list.pointer("/items/0/value").and_then(Value::as_str).ok_or_else(|| format!("no item: {list}"))?;
    milli(value).ok_or_else(|| format!("no quantity: {value}"))
}

/// A quantity in thousandths, in the forms that the metrics API writes.
fn milli(quantity: &str) -> Option<i64> {
    let (digits, factor) = match quantity.strip_suffix('m') {
        Some(digits) => (digits, 1),
        None => match quantity.strip_suffix('k') {
            Some(digits) => (digits, 1_000_000),
            None => (quantity, 1_000),
        },
    };
    digits.parse::<i64>().ok().map(|number| number * factor)
}

/// Gives the scaler its rights in a namespace.
///
/// # Panics
///
/// When the API server refuses.
pub fn allow_scaler(cluster: &Cluster, namespace: &str) {
    let role = repository().join("manifests/scaler/namespace").display().to_string();
    cluster.kubectl(&["apply", "-k", &role, "-n", namespace]).unwrap_or_else(|error| panic!("{error}"));
}

/// Installs the scaler for these namespaces as docs/scale-to-zero.md says, and waits until both replicas are ready.
///
/// # Panics
///
/// When that fails or takes too long.
pub fn scaler(cluster: &Cluster, namespaces: &[&str]) {
    let apply = |path: &str, namespace: &str| {
        let path = repository().join(path).display().to_string();
        let arguments = ["apply", if path.ends_with(".yaml") { "-f" } else { "-k" }, &path, "-n", namespace];
        cluster.kubectl(&arguments).unwrap_or_else(|error| panic!("{error}"));
    };
    apply("manifests/base/namespace.yaml", "default");
    for namespace in namespaces {
        allow_scaler(cluster, namespace);
    }
    apply("manifests/scaler", NAMESPACE);
    let change = json!({"data": {"namespaces": namespaces.join(",")}}).to_string();
    cluster
        .kubectl(&["patch", "configmap", "weir-scaler", "-n", NAMESPACE, "--type=merge", "-p", &change])
        .unwrap_or_else(|error| panic!("{error}"));
    cluster.kubectl(&["rollout", "restart", "deployment/weir-scaler", "-n", NAMESPACE]).unwrap_or_else(|error| panic!("{error}"));
    cluster.wait_for("both scalers", || {
        let deployment = cluster.get(NAMESPACE, "deployment/weir-scaler")?;
        let status = &deployment["status"];
        let current = status["observedGeneration"] == deployment["metadata"]["generation"];
        match current && status["updatedReplicas"] == 2 && status["readyReplicas"] == 2 && status["replicas"] == 2 {
            true => Ok(()),
            false => Err(format!("{status}\n{}\n{}", cluster.describe(NAMESPACE, "pods"), scaler_logs(cluster))),
        }
    });
}

/// What the scalers wrote.
pub fn scaler_logs(cluster: &Cluster) -> String {
    let pods = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "name"]).unwrap_or_default();
    let log = |name: &str| cluster.logs(NAMESPACE, name.trim_start_matches("pod/"), "scaler").unwrap_or_else(|error| error);
    pods.lines().map(log).collect::<Vec<_>>().join("\n---\n")
}
