//! A cluster whose GPU nodes come and go with the pods that need them: real Karpenter and kube-scheduler, made-up machines.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Options};
use weir_tests::workload::{MODEL_PORT, deployment};
use weir_tests::{Folder, Process, documents, repository};

/// Label that the pool's nodes carry.
pub(crate) const NODE_LABEL: &str = "inference.example/nodes";
/// Label `app` of the servers.
pub(crate) const SERVERS: &str = "model";
/// Karpenter looks every 10 s, looks again after 15 s, and ends a node in steps of 5 s.
const PATIENCE: Duration = Duration::from_secs(240);

/// The cluster, and a Deployment without replicas on a pool without nodes. Whoever sets its replicas is the test's choice.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    karpenter: Process,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let cluster = Cluster::start(&Options { scheduler: true, adopt_nodes: true, ..Options::default() });
        let folder = built();
        let run =
            |arguments: &[&str], input: &str| cluster.kubectl_reading(arguments, input).unwrap_or_else(|error| panic!("{error}"));
        run(&["apply", "--server-side", "-f", &folder.join("crds").display().to_string()], "");
        let class = json!({
            "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "machines"},
            "spec": {"nodeRegistrationDelay": "1s"},
        });
        let pool = node_pool();
        // The kinds are served a moment after they were applied.
        cluster.wait_for("the kinds of Karpenter", || {
            let objects = json!({"apiVersion": "v1", "kind": "List", "items": [class, pool]});
            cluster.kubectl_reading(&["apply", "-f", "-"], &objects.to_string())
        });
        let mut command = Command::new(folder.join("karpenter"));
        command.env("KUBECONFIG", cluster.path("kubeconfig"));
        command.env("INSTANCE_TYPES_FILE_PATH", repository().join("tests/karpenter/instance-types.json"));
        for (name, value) in [
            ("DISABLE_LEADER_ELECTION", "true"),
            ("METRICS_PORT", "18080"),
            ("HEALTH_PROBE_PORT", "18081"),
            ("BATCH_IDLE_DURATION", "200ms"),
            ("BATCH_MAX_DURATION", "2s"),
        ] {
            command.env(name, value);
        }
        let karpenter = cluster.network().within(|| Process::start(command));
        let namespace = cluster.namespace("gpu");
        let scene = Self { cluster, namespace, karpenter };
        scene.cluster.apply(&scene.namespace, &servers());
        scene.until("the pool is accepted", || match scene.cluster.get("default", "nodepool/gpu")? {
            pool if condition(&pool, "Ready") => Ok(()),
            pool => Err(pool["status"].to_string()),
        });
        scene
    }

    /// Sets the replicas of the servers, as a person would.
    pub(crate) fn scale(&self, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        self.cluster.kubectl(&["scale", &format!("deployment/{SERVERS}"), &replicas, "-n", &self.namespace]).unwrap();
    }

    /// The GPU nodes.
    pub(crate) fn nodes(&self) -> Result<Vec<Value>, String> {
        let nodes = self.cluster.get("default", &format!("nodes -l {NODE_LABEL}=gpu"))?;
        Ok(nodes["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until there is neither a GPU node nor a machine that becomes one.
    pub(crate) fn until_no_node(&self) {
        self.until("no GPU node", || {
            let claims = self.cluster.get("default", "nodeclaims")?;
            match (self.nodes()?, claims["items"].as_array().map_or(0, Vec::len)) {
                (nodes, 0) if nodes.is_empty() => Ok(()),
                (nodes, claims) => Err(format!("{claims} claims, nodes {nodes:?}")),
            }
        });
    }

    /// Waits for an Event about `kind` whose message holds `words`.
    pub(crate) fn until_event(&self, kind: &str, words: &[&str]) -> String {
        self.until(&format!("an event with {words:?}"), || {
            let events = self.cluster.kubectl(&["get", "events", "-A", "-o", "json"])?;
            let events: Value = serde_json::from_str(&events).map_err(|error| error.to_string())?;
            let of_kind = |event: &&Value| event["involvedObject"]["kind"] == kind;
            let messages =
                events["items"].as_array().into_iter().flatten().filter(of_kind).map(|event| event["message"].to_string());
            let messages: Vec<String> = messages.collect();
            let found = messages.iter().find(|message| words.iter().all(|word| message.contains(word)));
            found.cloned().ok_or_else(|| messages.join("\n"))
        })
    }

    /// Waits until the API server has refused Karpenter an eviction, as a budget wants it (429).
    pub(crate) fn until_eviction_is_refused(&self) {
        self.until("a refused eviction", || {
            let page = self.cluster.http("http://127.0.0.1:18080/metrics")?;
            let evictions: Vec<&str> = page.lines().filter(|line| line.contains("eviction_requests_total{")).collect();
            if evictions.iter().any(|line| line.contains("code=\"429\"")) { Ok(()) } else { Err(evictions.join("\n")) }
        });
    }

    /// Waits as long as Karpenter may take.
    pub(crate) fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
        let deadline = SystemTime::now() + PATIENCE;
        loop {
            match condition() {
                Ok(value) => return value,
                Err(last) if SystemTime::now() > deadline => {
                    let log = self.karpenter.output();
                    let log = &log[log.floor_char_boundary(log.len().saturating_sub(8000))..];
                    panic!("{what}: not in {PATIENCE:?}; last: {last}\n{log}");
                }
                // The cluster tells nobody: look again soon.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// Whether a condition of an object is True.
pub(crate) fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

/// The folder that tests/karpenter/install built.
fn built() -> std::path::PathBuf {
    let go_mod = std::fs::read_to_string(repository().join("tests/karpenter/go.mod")).unwrap();
    let version = go_mod.lines().find_map(|line| line.trim().strip_prefix("sigs.k8s.io/karpenter ")).unwrap();
    let version = version.split(' ').next().unwrap();
    let folder = repository().join(format!("target/tools/karpenter-{version}"));
    assert!(folder.join("karpenter").is_file(), "Karpenter is not built: run tests/karpenter/install");
    folder
}

/// The NodePool of the manifests; its machines are made up.
fn node_pool() -> Value {
    let text = std::fs::read_to_string(repository().join("manifests/gpu-nodes/karpenter.yaml")).unwrap();
    let mut pool = documents(&text).remove(0);
    pool["spec"]["template"]["spec"]["nodeClassRef"] =
        json!({"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "machines"});
    pool
}

/// Simulated servers without replicas, put onto GPU nodes by the component of the manifests.
fn servers() -> String {
    let folder = Folder::new("gpu-servers");
    let pod = json!({
        "terminationGracePeriodSeconds": 5,
        "containers": [{
            "name": "server", "image": "weir", "args": ["simulate-server", format!("--listen=0.0.0.0:{MODEL_PORT}")],
            "readinessProbe": {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
        }],
    });
    folder.write("servers.json", &deployment(SERVERS, 0, pod).to_string());
    let up = "../".repeat(folder.file("").canonicalize().unwrap().components().count() - 1);
    let component = repository().join("manifests/gpu-nodes/pods");
    let component = format!("{up}{}", component.strip_prefix("/").unwrap().display());
    folder.write("kustomization.yaml", &json!({"resources": ["servers.json"], "components": [component]}).to_string());
    let output = Command::new(weir_tests::kubectl()).arg("kustomize").arg(folder.file("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
