//! A namespace of many small pools, each with a Deployment, an HPA, and a picker whose page the test writes.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::kubectl;
use weir_tests::workload::{inference_pool, model_servers, picker_of_a_page, picker_service};

pub(crate) use weir_tests::installed::{NAMESPACE as SYSTEM, allow_scaler as allow, scaler as install, scaler_logs as logs};
/// The shortest there is.
pub(crate) const IDLE_AFTER: &str = "10s";

/// The lines of it that are about scaling and leading.
pub(crate) fn relevant_logs(cluster: &Cluster) -> String {
    let logs = logs(cluster);
    let about = |line: &&str| line.contains("weir_scaler::") || line.contains("weir_k8s::") || !line.starts_with('{');
    logs.lines().filter(about).collect::<Vec<_>>().join("\n")
}

/// The pod that leads.
pub(crate) fn leader(cluster: &Cluster) -> Result<String, String> {
    let lease = cluster.get(SYSTEM, "lease/weir-scaler")?;
    let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str).ok_or("nobody holds the Lease")?;
    Ok(holder.rsplit_once('_').map_or(holder, |(pod, _)| pod).to_owned())
}

/// An HPA `name` of the Deployment `target`, whose metric nobody serves: by itself it changes nothing between its bounds.
pub(crate) fn autoscaler(name: &str, target: &str, annotations: Value, min: u32) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "minReplicas": min, "maxReplicas": 4,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "nobody_serves_this"}, "target": {"type": "AverageValue", "averageValue": "1"},
            }}],
        },
    })
}

/// The annotation that asks for zero.
pub(crate) fn asks() -> Value {
    json!({"weir.internal/idle-after": IDLE_AFTER})
}

/// A namespace of many small pools with one picker.
pub(crate) struct Park {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: String,
    held: Mutex<BTreeMap<String, u32>>,
}

impl Park {
    pub(crate) fn new(cluster: &'static Cluster, name: &str) -> Self {
        let park = Self { cluster, namespace: cluster.namespace(name), held: Mutex::default() };
        park.holds("nothing", 0);
        cluster.apply(&park.namespace, &picker_service("epp").to_string());
        cluster.apply(&park.namespace, &picker_of_a_page().to_string());
        cluster.wait_for_pods(&park.namespace, "app=epp", 1);
        park
    }

    /// A Deployment with one model server and a pool, both called `name`.
    pub(crate) fn pool(&self, name: &str) {
        self.cluster.apply(&self.namespace, &model_servers(name, 1, &[]));
        self.follow(name, name);
        self.cluster.wait_for_pods(&self.namespace, &format!("app={name}"), 1);
    }

    /// The pool `name` of the pods of `app`, with the park's picker.
    pub(crate) fn follow(&self, name: &str, app: &str) {
        let mut pool = inference_pool(name, app);
        pool["spec"]["endpointPickerRef"]["name"] = json!("epp");
        self.cluster.apply(&self.namespace, &pool.to_string());
    }

    /// The same as [`Self::pool`], with an HPA of that name that asks for zero.
    pub(crate) fn asking_pool(&self, name: &str) {
        self.pool(name);
        self.cluster.apply(&self.namespace, &autoscaler(name, name, asks(), 1).to_string());
    }

    /// The picker holds so many requests for `pool` from now on.
    pub(crate) fn holds(&self, pool: &str, requests: u32) {
        let mut held = self.held.lock().unwrap();
        held.insert(pool.to_owned(), requests);
        let series = |(pool, held): (&String, &u32)| {
            format!("inference_extension_flow_control_queue_size{{fairness_id=\"default\",inference_pool=\"{pool}\"}} {held}\n")
        };
        let page: String = held.iter().map(series).chain(["inference_extension_info{commit=\"x\"} 1\n".to_owned()]).collect();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "epp-page"}, "data": {"page": page}});
        self.cluster.apply(&self.namespace, &map.to_string());
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        self.cluster.kubectl(&all).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn replicas(&self, deployment: &str) -> Result<u64, String> {
        let deployment = self.cluster.get(&self.namespace, &format!("deployment/{deployment}"))?;
        deployment["spec"]["replicas"].as_u64().ok_or_else(|| deployment.to_string())
    }

    pub(crate) fn until_replicas(&self, deployment: &str, wanted: u64) {
        self.cluster.wait_for(&format!("{deployment} at {wanted}"), || match self.replicas(deployment)? {
            replicas if replicas == wanted => Ok(()),
            replicas => Err(format!("{replicas}; {}", self.events(deployment).unwrap_or_else(|error| error))),
        });
    }

    /// Reasons and notes of the Events about an object of this name.
    pub(crate) fn events(&self, name: &str) -> Result<String, String> {
        let events = self.cluster.get(&self.namespace, "events.events.k8s.io")?;
        let about = |event: &&Value| event["regarding"]["name"] == name && event["action"] == "Scale";
        let line = |event: &Value| {
            format!(
                "{} {}: {}",
                event["regarding"]["kind"],
                event["reason"].as_str().unwrap_or(""),
                event["note"].as_str().unwrap_or("")
            )
        };
        Ok(events["items"].as_array().into_iter().flatten().filter(about).map(line).collect::<Vec<_>>().join("\n"))
    }

    /// Waits until an Event about `name` has these words.
    pub(crate) fn told(&self, name: &str, words: &str) {
        self.cluster.wait_for(&format!("an Event of {name} with {words}"), || match self.events(name)? {
            events if events.contains(words) => Ok(()),
            events => Err(format!("{events}\n{}", self.cluster.describe(&self.namespace, &format!("hpa/{name}")))),
        });
    }

    /// Who owns the number of replicas of a Deployment.
    pub(crate) fn managers(&self, deployment: &str) -> Vec<String> {
        managers(self.cluster, &self.namespace, deployment)
    }
}

/// The managers of `spec.replicas`, as `MANAGER OPERATION SUBRESOURCE`.
pub(crate) fn managers(cluster: &Cluster, namespace: &str, deployment: &str) -> Vec<String> {
    let arguments = ["get", "deployment", deployment, "-n", namespace, "--show-managed-fields", "-o", "json"];
    let object: Value = serde_json::from_str(&cluster.kubectl(&arguments).unwrap()).unwrap();
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array).unwrap();
    let owners = entries.iter().filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some());
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut names: Vec<_> = owners
        .map(|entry| format!("{} {} {}", text(&entry["manager"]), text(&entry["operation"]), text(&entry["subresource"])))
        .collect();
    names.sort();
    names
}

/// The changes of `spec.replicas` of a Deployment as they come: a line each, by a watch.
pub(crate) fn replicas_watch(cluster: &Cluster, namespace: &str, deployment: &str) -> weir_tests::Process {
    let mut command = Command::new(kubectl());
    command.args([
        "get",
        "deployment",
        deployment,
        "-n",
        namespace,
        "--watch",
        "-o",
        "jsonpath=replicas {.spec.replicas}{\"\\n\"}",
    ]);
    command.arg("--cache-dir").arg(cluster.state().join("kubectl-cache")).env("KUBECONFIG", cluster.path("kubeconfig"));
    weir_tests::Process::start(command)
}
