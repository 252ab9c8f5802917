//! `weir doctor` in a real control plane: a healthy pool, what hurts most broken in it one after the other, and mended again.

#![allow(clippy::unwrap_used)]

#[path = "doctor/breaks.rs"]
mod breaks;
#[allow(dead_code)]
#[path = "epp/chart.rs"]
mod chart;
#[path = "doctor/kubelet.rs"]
mod kubelet;
#[path = "doctor/routes.rs"]
mod routes;

use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::installed;
use weir_tests::workload::{inference_pool, model_servers};

use self::breaks::BREAKS;
use self::chart::{POOL, chart, role};

/// One run of the program: what it returns, and what it says.
struct Told {
    code: i32,
    told: Value,
}

impl Told {
    fn codes(&self) -> Vec<&str> {
        self.told["findings"].as_array().into_iter().flatten().filter_map(|finding| finding["code"].as_str()).collect()
    }

    fn unknown(&self) -> Vec<&str> {
        self.told["not_known"].as_array().into_iter().flatten().filter_map(|missing| missing["facts"].as_str()).collect()
    }
}

/// A namespace with a pool, its servers, its picker and an autoscaler.
struct Scene {
    cluster: &'static Cluster,
    namespace: String,
}

impl Scene {
    fn new() -> Self {
        // One after the other: all make the same kinds.
        static LOGS: OnceLock<Mutex<Option<Runtime>>> = OnceLock::new();
        let cluster = installed::shared();
        let mut logs = LOGS.get_or_init(Mutex::default).lock().unwrap();
        logs.get_or_insert_with(|| kubelet::serve_logs(cluster));
        let namespace = cluster.namespace("doctor");
        cluster.apply(&namespace, &role(true));
        cluster.apply(&namespace, &model_servers(POOL, 2, &[]));
        cluster.apply(&namespace, &chart(&namespace, 1, &["--metrics-endpoint-auth=false"]));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{POOL}-epp")}, "spec": {
            "selector": {"app": "epp"}, "ports": [{"name": "grpc-ext-proc", "port": 9002}],
        }});
        cluster.apply(&namespace, &service.to_string());
        cluster.apply(&namespace, &autoscaler(POOL).to_string());
        routes::apply(cluster, &namespace);
        cluster.wait_for_pods(&namespace, &format!("app={POOL}"), 2);
        cluster.wait_for_pods(&namespace, "app=epp", 1);
        Self { cluster, namespace }
    }

    fn kubectl(&self, arguments: &[&str]) {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(arguments);
        self.cluster.kubectl(&all).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    }

    /// Changes an object by a JSON patch.
    fn patch(&self, what: &str, patch: &Value) {
        self.kubectl(&["patch", what, "--type=json", "-p", &patch.to_string()]);
    }

    fn apply(&self, object: &Value) {
        self.cluster.apply(&self.namespace, &object.to_string());
    }

    fn doctor(&self, further: &[&str]) -> Told {
        let kubeconfig = self.cluster.path("kubeconfig").display().to_string();
        let mut command = Command::new(weir_tests::weir());
        command.args(["doctor", "--output=json", "--kubeconfig", &kubeconfig, "--namespace", &self.namespace]).args(further);
        command.stdin(Stdio::null());
        let output = self.cluster.network().within(|| command.output()).unwrap();
        let told = serde_json::from_slice(&output.stdout);
        let told = told.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Told { code: output.status.code().unwrap(), told }
    }

    /// Waits until nothing is found.
    fn is_healthy(&self) {
        self.cluster.wait_for("nothing to be found", || {
            let told = self.doctor(&[]);
            if told.code == 0 && told.codes().is_empty() { Ok(()) } else { Err(format!("{:#}", told.told["findings"])) }
        });
    }

    /// Waits until `code` is found, and only what may come of it beside.
    fn finds(&self, code: &str, beside: &[&str]) {
        let pool = format!("{}/{POOL}", self.namespace);
        let told = self.cluster.wait_for(code, || {
            let told = self.doctor(&["--pool", &pool]);
            let others: Vec<_> = told.codes().into_iter().filter(|found| *found != code && !beside.contains(found)).collect();
            match told.codes().contains(&code) && others.is_empty() {
                true => Ok(told),
                false => Err(format!("{others:?} {:#}", told.told["findings"])),
            }
        });
        let findings = told.told["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["code"] == code).unwrap();
        eprintln!("doctor: {code}: {}: {} | {} | {}", finding["object"], finding["what"], finding["evidence"], finding["remedy"]);
        assert!(told.code == if finding["severity"] == "error" { 2 } else { told.code } && told.code > 0, "{}", told.code);
    }
}

/// The autoscaler that the documentation recommends.
fn autoscaler(name: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": POOL},
            "minReplicas": 2, "maxReplicas": 8,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "inference_pool_total_inflight_requests", "selector": {"matchLabels": {"name": POOL}}},
                "target": {"type": "AverageValue", "averageValue": "64"},
            }}],
        },
    })
}

#[test]
fn what_hurts_most_is_found_broken_and_not_found_mended() {
    if skipped("weir doctor in a control plane") {
        return;
    }
    let scene = Scene::new();
    scene.is_healthy();
    let healthy = scene.doctor(&[]);
    assert_eq!(healthy.unknown(), Vec::<&str>::new(), "{:#}", healthy.told);
    assert_eq!(healthy.told["pools"], 1);
    for (code, beside, break_it, mend_it) in BREAKS {
        break_it(&scene);
        scene.finds(code, beside);
        mend_it(&scene);
        scene.is_healthy();
    }

    // What was seen is written down, and says the same without the cluster.
    let folder = weir_tests::Folder::new("doctor");
    let file = folder.file("facts.json").display().to_string();
    scene.patch("inferencepool/r", &json!([{"op": "replace", "path": "/spec/targetPorts/0/number", "value": 8001}]));
    let live = scene.doctor(&["--record", &file]);
    let recorded = weir_tests::run(&["doctor", "--from", &file, "--output", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&recorded.stdout).unwrap(), live.told);
    assert_eq!(recorded.status.code(), Some(live.code));
}

#[test]
fn what_is_explained_is_what_happens_next() {
    if skipped("weir explain in a control plane") {
        return;
    }
    let scene = Scene::new();
    scene.is_healthy();
    let kubeconfig = scene.cluster.path("kubeconfig").display().to_string();
    let explain = |kind: &str| {
        let mut command = Command::new(weir_tests::weir());
        command.args(["explain", kind, POOL, "--kubeconfig", &kubeconfig, "--namespace", &scene.namespace]).stdin(Stdio::null());
        let output = scene.cluster.network().within(|| command.output()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let pool = explain("pool");
    assert!(pool.contains("coverage    2 of 2 Ready servers can be read") && pool.contains("0 running, 0 waiting"), "{pool}");
    let quiet = explain("hpa");
    eprintln!("{pool}{quiet}");
    // Nobody asks for anything, and it waits before it shrinks.
    assert!(
        quiet.contains("  value     0, ") && quiet.contains("wanted      0") && quiet.contains("next        2 stays"),
        "{quiet}"
    );
    // Its bounds move, and it follows within a turn.
    scene.patch("hpa/r", &json!([{"op": "replace", "path": "/spec/minReplicas", "value": 3}]));
    scene.cluster.wait_for("a third replica", || {
        let deployment = scene.cluster.get(&scene.namespace, "deployment/r")?;
        if deployment["spec"]["replicas"] == 3 { Ok(()) } else { Err(deployment["spec"]["replicas"].to_string()) }
    });
    scene.cluster.wait_for("an explanation of three", || {
        let told = explain("hpa");
        if told.contains("3 asked for") && told.contains("next        3 stays") { Ok(()) } else { Err(told) }
    });
}

#[test]
fn whoever_may_read_little_is_told_what_is_missing() {
    if skipped("weir doctor with few rights") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("few");
    cluster.apply(&namespace, &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "few"}}).to_string());
    let account = format!("system:serviceaccount:{namespace}:few");
    let admin = std::fs::read_to_string(cluster.path("kubeconfig")).unwrap();
    let mut config: Value = weir_tests::documents(&admin).remove(0);
    config["users"][0]["user"]["as"] = json!(account);
    let folder = weir_tests::Folder::new("doctor-few");
    let file = folder.write("kubeconfig", &config.to_string());
    let mut command = Command::new(weir_tests::weir());
    command.args(["doctor", "-o", "json", "--kubeconfig"]).arg(&file).stdin(Stdio::null());
    let output = cluster.network().within(|| command.output()).unwrap();
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((output.status.code(), &told["findings"]), (Some(0), &json!([])));
    let missing = told["not_known"].as_array().unwrap();
    let pods = missing.iter().find(|missing| missing["facts"] == "pods").unwrap();
    assert!(pods["why"].as_str().unwrap().starts_with("forbidden: list pods in "), "{pods}");
    assert!(pods["checks"].as_array().unwrap().contains(&json!("pool-no-pods")), "{pods}");
}

#[test]
fn fifty_pools_are_examined_in_seconds() {
    if skipped("weir doctor over fifty pools") {
        return;
    }
    let scene = Scene::new();
    let mut objects = Vec::new();
    for number in 0..49 {
        let mut pool = inference_pool(&format!("p{number}"), POOL);
        pool["spec"]["endpointPickerRef"]["name"] = json!(format!("{POOL}-epp"));
        objects.push(pool);
    }
    scene.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}));
    let begin = Instant::now();
    let told = scene.doctor(&[]);
    eprintln!("doctor: {} pools in {:.1?}, {:?}", told.told["pools"], begin.elapsed(), told.codes());
    assert_eq!(told.told["pools"], 50);
}
