//! The real HorizontalPodAutoscaler on weir's numbers: every file of `hpa-examples/`, under load and back.

#![allow(clippy::unwrap_used)]

use std::convert::identity;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::workload::{MODEL_PORT, Users, model_servers, picker_of_a_page, picker_service};
use weir_tests::{Folder, installed, repository, run};

/// One example at work: a Deployment, its pool, the autoscaler, users.
struct Scene {
    cluster: &'static Cluster,
    namespace: String,
    /// Name of the Deployment, the pool and the autoscaler.
    name: &'static str,
    users: Users,
}

impl Scene {
    /// Applies `hpa-examples/FILE` to one model server of `profile` without load. `change` is what the test needs otherwise.
    fn new(file: &str, name: &'static str, profile: &str, change: impl FnOnce(String) -> String, users: (usize, u32)) -> Self {
        let scene = Self::applied(file, name, profile, change, users);
        scene.reads_a_number();
        scene
    }

    fn applied(file: &str, name: &'static str, profile: &str, change: impl FnOnce(String) -> String, users: (usize, u32)) -> Self {
        let cluster = installed::shared();
        let namespace = cluster.namespace(file.trim_end_matches(".yaml"));
        cluster.apply(&namespace, &model_servers(name, 1, &[&format!("--profile={profile}")]));
        cluster.wait_for_pods(&namespace, &format!("app={name}"), 1);
        let example = std::fs::read_to_string(repository().join("hpa-examples").join(file)).unwrap();
        let changed = change(example);
        cluster.apply(&namespace, &changed);
        Self { cluster, namespace, name, users: Users::new(users.0, users.1) }
    }

    fn reads_a_number(&self) {
        self.wait("the autoscaler to read a number", |autoscaler| {
            let condition = condition(autoscaler, "ScalingActive")?;
            let value = autoscaler.pointer("/status/currentMetrics/0").ok_or("no number yet")?;
            if condition == "ValidMetricFound" { Ok(value.clone()) } else { Err(condition) }
        });
    }

    fn autoscaler(&self) -> Result<Value, String> {
        self.cluster.get(&self.namespace, &format!("hpa/{}", self.name))
    }

    /// Waits for something of the autoscaler, and lets users know of new servers meanwhile.
    fn wait<T>(&self, what: &str, mut condition: impl FnMut(&Value) -> Result<T, String>) -> T {
        self.cluster.wait_for(what, || {
            self.tell_users()?;
            let autoscaler = self.autoscaler()?;
            condition(&autoscaler).map_err(|last| {
                let outcomes = self.users.outcomes();
                format!("{last}; users: {outcomes:?}\n{}", self.cluster.describe(&self.namespace, &format!("hpa/{}", self.name)))
            })
        })
    }

    fn tell_users(&self) -> Result<usize, String> {
        let pods = self.cluster.ready_pods(&self.namespace, &format!("app={}", self.name))?;
        let servers: Vec<SocketAddr> =
            pods.iter().filter_map(|(_, address)| Some(SocketAddr::new(address.parse().ok()?, MODEL_PORT))).collect();
        let count = servers.len();
        self.users.servers(servers);
        Ok(count)
    }

    /// Waits until `wanted` replicas are asked for, and all of them are ready; says how long either took.
    fn wait_for_replicas(&self, what: &str, wanted: impl Fn(i64) -> bool) -> i64 {
        let began = SystemTime::now();
        let desired = self.wait(&format!("{what}: the decision"), |autoscaler| {
            let desired = autoscaler.pointer("/status/desiredReplicas").and_then(Value::as_i64).unwrap_or_default();
            if wanted(desired) { Ok(desired) } else { Err(format!("desired {desired}")) }
        });
        let decided = began.elapsed().unwrap_or_default();
        let ready = self.cluster.wait_for(&format!("{what}: ready"), || {
            let ready = self.tell_users()?;
            let deployment = self.cluster.get(&self.namespace, &format!("deployment/{}", self.name))?;
            let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or_default();
            if wanted(replicas) && ready as i64 == replicas { Ok(replicas) } else { Err(format!("{ready} of {replicas}")) }
        });
        let all = began.elapsed().unwrap_or_default();
        eprintln!("{} {what}: {desired} decided after {decided:?}, {ready} ready after {all:?}", self.namespace);
        ready
    }

    /// The load ends; and since no test waits ten minutes, the autoscaler is told to be quick about it.
    fn load_ends(&mut self) {
        self.users = Users::new(1, 1);
        let quick = r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0,"policies":[{"type":"Percent","value":100,"periodSeconds":1}]}}}}"#;
        self.cluster.kubectl(&["patch", "hpa", self.name, "-n", &self.namespace, "--type=merge", "-p", quick]).unwrap();
    }

    /// Users get answers, nearly all of them: a server that just came may refuse a connection or two.
    fn users_are_served(&self) {
        let outcomes = self.cluster.wait_for("answers", || match self.users.outcomes() {
            outcomes if outcomes.served >= 20 => Ok(outcomes),
            outcomes => Err(format!("{outcomes:?}")),
        });
        assert!(outcomes.failed * 10 <= outcomes.served, "{outcomes:?}");
    }
}

/// The reason of a condition that holds.
fn condition(autoscaler: &Value, wanted: &str) -> Result<String, String> {
    let conditions = autoscaler.pointer("/status/conditions").and_then(Value::as_array).ok_or("no conditions yet")?;
    let condition = conditions.iter().find(|condition| condition["type"] == wanted).ok_or("no such condition yet")?;
    Ok(condition["reason"].as_str().unwrap_or_default().to_owned())
}

/// Load takes the Deployment of an example from one replica to at least `most`, and its end back to one.
fn up_and_back(file: &str, name: &'static str, profile: &str, requests: usize, lengths: (usize, u32), most: i64) {
    if skipped(file) {
        return;
    }
    let mut scene = Scene::new(file, name, profile, identity, lengths);
    scene.users.in_flight(requests);
    scene.wait_for_replicas("up", |replicas| replicas >= most);
    scene.users_are_served();
    scene.load_ends();
    scene.wait_for_replicas("back", |replicas| replicas == 1);
}

#[test]
fn in_flight() {
    // 180 requests, 64 for each replica.
    up_and_back("in-flight.yaml", "vllm-llama3", "llama8b", 180, (50, 300), 3);
}

#[test]
fn slow_gpu() {
    // Two replicas a minute at most: what the first policy allows at once.
    up_and_back("slow-gpu.yaml", "vllm-llama3", "llama8b", 180, (50, 300), 3);
}

#[test]
fn queue() {
    // 8 run, 22 wait, 5 for each replica.
    up_and_back("queue.yaml", "vllm-llama3", "small", 30, (50, 100), 4);
}

#[test]
fn required_replicas() {
    let file = "required-replicas.yaml";
    if skipped(file) {
        return;
    }
    // 8 run and 22 wait: what a full server does is learned, and 30 requests fill 3.75 of them. Each number is one more than the servers
    // that are full, so it takes a step for each. Short answers, so that seconds suffice to tell a rate.
    let mut scene = Scene::new(file, "vllm-llama3", "small", identity, (50, 10));
    scene.users.in_flight(30);
    for most in 2..=4 {
        scene.wait_for_replicas(&format!("up to {most}"), |replicas| replicas >= most);
    }
    scene.users_are_served();
    let learned = || {
        let config_map = scene.cluster.get(installed::NAMESPACE, "configmap/weir-learned")?;
        let document = config_map["data"][format!("{}.vllm-llama3", scene.namespace)].as_str().ok_or("not there yet")?.to_owned();
        let document: Value = serde_json::from_str(&document).map_err(|error| error.to_string())?;
        if document["samples"].as_u64() > Some(0) { Ok(document) } else { Err(document.to_string()) }
    };
    let learned = scene.cluster.wait_for("what was learned to be kept", learned);
    eprintln!("learned: {learned}");
    scene.load_ends();
    scene.wait_for_replicas("back", |replicas| replicas == 1);
}

/// docs/required-replicas.md, "Moving from a queue HPA", from its third step on.
#[test]
fn from_a_queue_and_back() {
    if skipped("moving from a queue") {
        return;
    }
    let scene = Scene::new("queue.yaml", "vllm-llama3", "small", identity, (50, 100));
    let (cluster, namespace) = (scene.cluster, scene.namespace.as_str());
    let example = |file: &str| repository().join("hpa-examples").join(file).display().to_string();

    // As the API server has it, with what it and the controller added.
    let folder = Folder::new("moving");
    let mine = folder.write("mine.yaml", &cluster.kubectl(&["get", "hpa", scene.name, "-n", namespace, "-o", "yaml"]).unwrap());
    let required = example("required-replicas.yaml");
    let load = ["simulate", "--shape", "to-zero", "--scale", "0.2", "--servers", "70b", "--cold"];
    let compared = run(&[&load[..], &["--hpa", &mine.display().to_string(), "--compare", &required]].concat());
    let text = String::from_utf8_lossy(&compared.stdout);
    assert!(compared.status.success() && text.contains("mine") && text.contains("Take "), "{compared:?}");

    for (file, metric) in
        [("required-replicas.yaml", "inference_pool_required_replicas"), ("queue.yaml", "inference_pool_total_queue_size")]
    {
        cluster.kubectl(&["apply", "-n", namespace, "-f", &example(file)]).unwrap();
        scene.wait(metric, |autoscaler| {
            let metrics = autoscaler.pointer("/spec/metrics").and_then(Value::as_array).ok_or("no metrics")?;
            assert_eq!(metrics.len(), 1, "{metrics:?}");
            let read = autoscaler.pointer("/status/currentMetrics/0/external/metric/name").and_then(Value::as_str);
            if read == Some(metric) { condition(autoscaler, "ScalingActive") } else { Err(format!("{read:?}")) }
        });
    }
}

#[test]
fn ttft() {
    let file = "ttft.yaml";
    if skipped(file) {
        return;
    }
    // 8 run and 22 wait, each for seconds. There is no number before ten requests have had their first token.
    let scene = Scene::applied(file, "vllm-llama3", "small", identity, (50, 100));
    scene.users.in_flight(30);
    scene.reads_a_number();
    scene.wait_for_replicas("up", |replicas| replicas >= 2);
    scene.users_are_served();
}

#[test]
fn kv_cache() {
    // 8 × 830 of 8,192 tokens: 0.81 of the cache against a target of 0.6, while more requests wait to take its place.
    up_and_back("kv-cache.yaml", "vllm-llama3", "small", 30, (850, 60), 3);
}

#[test]
fn queue_and_kv_cache() {
    up_and_back("queue-and-kv-cache.yaml", "vllm-llama3", "small", 30, (850, 60), 4);
}

#[test]
fn object() {
    up_and_back("object.yaml", "vllm-llama3", "llama8b", 180, (50, 300), 3);
}

#[test]
fn pods() {
    up_and_back("pods.yaml", "vllm-llama3", "llama8b", 180, (50, 300), 3);
}

#[test]
fn the_gke_example_as_its_users_have_it() {
    up_and_back("gke-gemma.yaml", "vllm-gemma-3-1b", "small", 8, (850, 60), 3);
}

#[test]
fn a_mean_with_average_value_never_asks_for_more_than_two() {
    if skipped("the trap") {
        return;
    }
    let trap = |text: String| {
        let changed = text.replace("type: Value\n        value:", "type: AverageValue\n        averageValue:");
        assert_ne!(text, changed, "the example has another form");
        changed
    };
    let trapped = Scene::new("kv-cache.yaml", "vllm-llama3", "small", trap, (850, 60));
    let right = Scene::new("kv-cache.yaml", "vllm-llama3", "small", identity, (850, 60));
    for scene in [&trapped, &right] {
        scene.users.in_flight(60);
    }
    right.wait_for_replicas("Value", |replicas| {
        trapped.tell_users().unwrap();
        replicas >= 3
    });
    // Just as full, and stuck: ⌈0.81 ÷ 0.6⌉ is 2, however many replicas there are.
    let full = trapped.wait("two replicas, still full", |autoscaler| {
        let desired = autoscaler.pointer("/status/desiredReplicas").and_then(Value::as_i64);
        let mean =
            installed::external(trapped.cluster, &trapped.namespace, "inference_pool_average_kv_cache_utilization", "vllm-llama3")?;
        if desired == Some(2) && mean > 650 { Ok(mean) } else { Err(format!("{desired:?} {mean}")) }
    });
    assert!(full <= 1000, "{full}");
}

#[test]
fn to_zero_and_back_on_held_requests() {
    if skipped("zero") {
        return;
    }
    let mut scene = Scene::new("scale-to-zero.yaml", "vllm-llama3", "llama8b", identity, (50, 300));
    let (cluster, namespace) = (scene.cluster, scene.namespace.clone());
    let held = |requests: u32| {
        let page = format!(
            "inference_extension_flow_control_queue_size{{fairness_id=\"default\",priority=\"0\",inference_pool=\"vllm-llama3\"}} {requests}\n"
        );
        let page = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "epp-page"}, "data": {"page": page}});
        cluster.apply(&namespace, &page.to_string());
    };
    held(0);
    cluster.apply(&namespace, &picker_service("vllm-llama3-epp").to_string());
    cluster.apply(&namespace, &picker_of_a_page().to_string());
    cluster.wait_for_pods(&namespace, "app=epp", 1);
    let total = || installed::external(cluster, &namespace, "inference_pool_total_inflight_requests", "vllm-llama3");
    cluster.wait_for("the picker's page to count", || {
        let held = installed::external(cluster, &namespace, "inference_pool_held_requests", "vllm-llama3")?;
        if held == 0 { Ok(()) } else { Err(format!("held {held}")) }
    });
    scene.load_ends();
    scene.wait_for_replicas("to zero", |replicas| replicas == 0);
    assert_eq!(total(), Ok(0));
    let reason = scene.wait("what the autoscaler says of it", |autoscaler| condition(autoscaler, "ScaledToZero"));
    assert_eq!(reason, "ScaledToZero");
    held(100);
    scene.wait_for_replicas("awake", |replicas| replicas == 2);
    held(0);
    scene.wait_for_replicas("to zero again", |replicas| replicas == 0);
}
