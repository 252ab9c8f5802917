//! Reads of the metrics API go on, and are right, while replicas of weir, the API server, etcd, pools and pods come and go.

#![allow(clippy::unwrap_used)]

#[path = "cluster-bench/api.rs"]
mod api;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::workload::{MODEL_PORT, Users, deployment, inference_pool, model_servers};
use weir_tests::{go_module_file, installed};

use api::{Api, Connections};

const TOTAL: &str = "inference_pool_total_inflight_requests";

/// Requests that each server holds, at any time.
const EACH: i64 = 10;

/// Between two reads over one kind of connection: 25 a second.
const PAUSE: Duration = Duration::from_millis(40);

/// Reads that have to go well before a state counts as one that lasts.
const ENOUGH: usize = 100;

/// The tests share a cluster and stop parts of it: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Servers whose pages never change, and a pool of them.
fn constant_servers(name: &str, replicas: usize) -> String {
    let page = format!("vllm:num_requests_running {EACH}\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.5\n");
    let pages = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"page": page}});
    let mut deployment = deployment(
        name,
        replicas,
        json!({
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "server",
                "image": "page-server",
                "args": [format!("0.0.0.0:{MODEL_PORT}"), "/page/page"],
                "readinessProbe": {"httpGet": {"path": "/metrics", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
                "volumeMounts": [{"name": "page", "mountPath": "/page"}],
            }],
            "volumes": [{"name": "page", "configMap": {"name": name}}],
        }),
    );
    deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    json!({"apiVersion": "v1", "kind": "List", "items": [pages, deployment, inference_pool(name, name)]}).to_string()
}

/// A namespace with a pool `held` of constant servers, all of them read.
fn held(cluster: &Cluster, name: &str, replicas: usize) -> String {
    let namespace = cluster.namespace(name);
    cluster.apply(&namespace, &constant_servers("held", replicas));
    cluster.wait_for_pods(&namespace, "app=held", replicas);
    value_becomes(cluster, &namespace, "held", EACH * replicas as i64);
    namespace
}

/// Waits until a pool's total is this; as kubectl reads it.
fn value_becomes(cluster: &Cluster, namespace: &str, pool: &str, wanted: i64) {
    cluster.wait_for(&format!("{pool} reads {wanted}"), || match installed::external(cluster, namespace, TOTAL, pool)? {
        thousandths if thousandths == 1000 * wanted => Ok(()),
        other => Err(format!("{other} thousandths\n{}", installed::log_of_all(cluster))),
    });
}

/// One read: when it began and ended, and what came of it.
#[derive(Clone, Debug)]
struct Read {
    began: Instant,
    ended: Instant,
    value: Result<i64, String>,
}

/// A stream of reads of one pool's total, over kept and over new connections, until dropped.
struct Reads {
    all: Arc<Mutex<Vec<Read>>>,
    _runtime: Runtime,
}

impl Reads {
    fn start(cluster: &Cluster, namespace: &str, pool: &'static str) -> Self {
        Self::of(cluster, namespace, TOTAL, pool)
    }

    fn of(cluster: &Cluster, namespace: &str, metric: &'static str, pool: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let all = Arc::new(Mutex::new(Vec::new()));
        for connections in [Connections::Kept, Connections::New] {
            let (api, namespace, all) = (Api::new(cluster, connections).unwrap(), namespace.to_owned(), all.clone());
            runtime.spawn(async move {
                let mut ticks = tokio::time::interval(PAUSE);
                loop {
                    ticks.tick().await;
                    // A read that hangs must not keep others from being done.
                    let (api, namespace, all) = (api.clone(), namespace.clone(), all.clone());
                    tokio::spawn(async move {
                        let began = Instant::now();
                        let value = api.external(&namespace, metric, pool).await;
                        let read = Read { began, ended: Instant::now(), value };
                        all.lock().unwrap_or_else(PoisonError::into_inner).push(read);
                    });
                }
            });
        }
        let reads = Self { all, _runtime: runtime };
        reads.go_well(cluster);
        reads
    }

    fn so_far(&self) -> Vec<Read> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What began since `from`.
    fn since(&self, from: Instant) -> Vec<Read> {
        self.so_far().into_iter().filter(|read| read.began >= from).collect()
    }

    /// Waits until as many reads in a row as count as enough went well, from now on.
    fn go_well(&self, cluster: &Cluster) {
        self.all_are(cluster, "reads that go well", Result::is_ok);
    }

    /// Waits until as many reads in a row gave this number: they go to either replica.
    fn settle_on(&self, cluster: &Cluster, wanted: i64) {
        let began = Instant::now();
        self.all_are(cluster, &format!("{wanted} from every replica"), |value| *value == Ok(wanted));
        eprintln!("{wanted} in {ENOUGH} reads in a row after {:.1?}", began.elapsed());
    }

    /// Whether it does so in that time.
    fn settles_on(&self, wanted: i64, within: Duration) -> bool {
        let (began, mut from) = (Instant::now(), Instant::now());
        while began.elapsed() < within {
            let reads = self.since(from);
            if reads.iter().any(|read| read.value != Ok(wanted)) {
                from = Instant::now();
            } else if reads.len() >= ENOUGH {
                eprintln!("{wanted} in {ENOUGH} reads in a row after {:.1?}", began.elapsed());
                return true;
            }
            // The reads go on beside this.
            std::thread::sleep(PAUSE);
        }
        false
    }

    fn all_are(&self, cluster: &Cluster, what: &str, wanted: impl Fn(&Result<i64, String>) -> bool) {
        let mut from = Instant::now();
        cluster.wait_for(what, || {
            let reads = self.since(from);
            if let Some(other) = reads.iter().rfind(|read| !wanted(&read.value)) {
                from = Instant::now();
                return Err(format!("{other:?}\n{}", installed::log_of_all(cluster)));
            }
            if reads.len() >= ENOUGH { Ok(()) } else { Err(format!("{} reads", reads.len())) }
        });
    }

    /// Waits for as many reads from now on, however they go.
    fn take(&self, cluster: &Cluster, count: usize) {
        let from = Instant::now();
        cluster.wait_for("reads", || match self.since(from).len() {
            enough if enough >= count => Ok(()),
            few => Err(format!("{few} reads")),
        });
    }

    /// Says how a part of the stream went, and gives its failures.
    fn report(what: &str, reads: &[Read]) -> Vec<Read> {
        let mut values: Vec<i64> = reads.iter().filter_map(|read| read.value.clone().ok()).collect();
        values.sort_unstable();
        values.dedup();
        let failures: Vec<Read> = reads.iter().filter(|read| read.value.is_err()).cloned().collect();
        let slowest = reads.iter().map(|read| read.ended - read.began).max().unwrap_or_default();
        let first = reads.iter().map(|read| read.began).min();
        let last = reads.iter().map(|read| read.began).max();
        let length = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        eprintln!(
            "{what}: {} reads in {length:.1?}, slowest {slowest:.1?}, values {values:?}, {} failed",
            reads.len(),
            failures.len()
        );
        if let (Some(first), Some(last)) =
            (failures.iter().map(|read| read.began).min(), failures.iter().map(|read| read.ended).max())
        {
            eprintln!("  failures over {:.1?}, the first: {:?}", last - first, failures[0].value);
        }
        failures
    }

    /// Every value so far is one of these, whatever failed.
    fn never_read_other_than(&self, wanted: &[i64]) {
        let wrong: Vec<Read> =
            self.so_far().into_iter().filter(|read| read.value.as_ref().is_ok_and(|value| !wanted.contains(value))).collect();
        assert!(wrong.is_empty(), "{} values that are none of {wanted:?}: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

/// An autoscaler that takes every wrong number at once.
const EAGER: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: held}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: held}
  minReplicas: 1
  maxReplicas: 8
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
  metrics:
  - type: External
    external:
      metric: {name: inference_pool_total_inflight_requests, selector: {matchLabels: {name: held}}}
      target: {type: AverageValue, averageValue: "10"}
"#;

/// Waits until the autoscaler has a number to go by.
fn autoscaler_reads(cluster: &Cluster, namespace: &str) {
    cluster.wait_for("the autoscaler's number", || {
        let autoscaler = cluster.get(namespace, "hpa/held")?;
        let conditions = autoscaler.pointer("/status/conditions").and_then(Value::as_array).ok_or("no conditions yet")?;
        let active = conditions.iter().any(|one| one["type"] == "ScalingActive" && one["status"] == "True");
        if active { Ok(()) } else { Err(autoscaler["status"].to_string()) }
    });
}

/// Changes with every change of its replicas.
fn generation(cluster: &Cluster, namespace: &str) -> Value {
    let deployment = cluster.get(namespace, "deployment/held").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 3);
    deployment["metadata"]["generation"].clone()
}

/// Restarts of a replica's container, when the replica is Ready.
fn restarts(cluster: &Cluster, pod: &str) -> Result<u64, String> {
    let pod = cluster.get(installed::NAMESPACE, &format!("pod/{pod}"))?;
    let status = pod.pointer("/status/containerStatuses/0").ok_or("no status yet")?;
    if status["ready"] == true {
        status["restartCount"].as_u64().ok_or_else(|| status.to_string())
    } else {
        Err(status.to_string())
    }
}

/// Whether the API server may send reads to this address.
fn is_an_endpoint(cluster: &Cluster, address: &str) -> Result<bool, String> {
    let slices = cluster.get(installed::NAMESPACE, "endpointslices -l kubernetes.io/service-name=weir")?;
    let slices = slices["items"].as_array().ok_or("no list")?;
    let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    Ok(endpoints
        .into_iter()
        .any(|endpoint| endpoint["addresses"][0] == address && endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true))))
}

#[test]
fn one_of_two_replicas_stops_or_is_killed() {
    if skipped("replicas") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = held(cluster, "replicas", 3);
    cluster.apply(&namespace, EAGER);
    autoscaler_reads(cluster, &namespace);
    let before = generation(cluster, &namespace);
    let reads = Reads::start(cluster, &namespace, "held");

    // Told to stop: nobody notices.
    let pods = installed::pods(cluster).unwrap();
    assert_eq!(pods.len(), 2, "{pods:?}");
    let (stopped, _) = &pods[0];
    let from = Instant::now();
    cluster.kubectl(&["delete", "pod", "-n", installed::NAMESPACE, stopped, "--wait=false"]).unwrap();
    cluster.wait_for("the stopped replica to go", || {
        let left = cluster.kubectl(&["get", "pod", "-n", installed::NAMESPACE, stopped, "--ignore-not-found"])?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    installed::wait_until_it_answers(cluster);
    reads.go_well(cluster);
    let failures = Reads::report("stopped", &reads.since(from));
    assert!(failures.is_empty(), "{failures:?}\n{}", installed::log_of_all(cluster));

    // Killed: what was sent to it fails, until it is no endpoint any more.
    let (killed, address) = installed::pods(cluster).unwrap().remove(0);
    let (restarts_before, from) = (restarts(cluster, &killed).unwrap(), Instant::now());
    cluster.command(&format!("kill-pod {}/{killed}", installed::NAMESPACE));
    cluster.wait_for("the endpoint to go", || match is_an_endpoint(cluster, &address)? {
        true if restarts(cluster, &killed).is_ok_and(|now| now > restarts_before) => Ok(()),
        true => Err("still there".to_owned()),
        false => Ok(()),
    });
    eprintln!("killed: seen without its endpoint after {:.1?}", from.elapsed());
    reads.go_well(cluster);
    cluster.wait_for("the killed replica to come back", || match restarts(cluster, &killed)? {
        now if now > restarts_before && is_an_endpoint(cluster, &address)? => Ok(()),
        now => Err(format!("{now} restarts")),
    });
    let back = Instant::now();
    reads.go_well(cluster);
    Reads::report("killed", &reads.since(from));
    let failures = Reads::report("back", &reads.since(back));
    assert!(failures.is_empty(), "{failures:?}\n{}", installed::log_of_all(cluster));
    reads.never_read_other_than(&[3 * EACH]);
    autoscaler_reads(cluster, &namespace);
    assert_eq!(generation(cluster, &namespace), before, "the autoscaler changed the replicas");
}

#[test]
fn the_api_server_and_etcd_come_back() {
    if skipped("API server and etcd") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = held(cluster, "restarts", 3);
    let reads = Reads::start(cluster, &namespace, "held");
    let from = Instant::now();
    cluster.command("restart kube-apiserver");
    // Watches go on: of pods in an old pool, and of pools.
    cluster.wait_for("a change", || cluster.kubectl(&["scale", "deployment/held", "--replicas=2", "-n", &namespace]));
    reads.settle_on(cluster, 2 * EACH);
    cluster.apply(&namespace, &constant_servers("later", 1));
    value_becomes(cluster, &namespace, "later", EACH);
    Reads::report("API server restarted", &reads.since(from));

    let from = Instant::now();
    cluster.command("stop etcd");
    reads.take(cluster, ENOUGH);
    let away = reads.since(from);
    Reads::report("etcd away", &away);
    assert!(away.iter().all(|read| read.value.as_ref().is_ok_and(|value| *value == 2 * EACH) || read.value.is_err()), "{away:?}");
    let from = Instant::now();
    cluster.command("start etcd");
    cluster.wait_for("a change", || cluster.kubectl(&["scale", "deployment/held", "--replicas=3", "-n", &namespace]));
    reads.settle_on(cluster, 3 * EACH);
    cluster.apply(&namespace, &constant_servers("last", 1));
    value_becomes(cluster, &namespace, "last", EACH);
    Reads::report("etcd back", &reads.since(from));
    reads.never_read_other_than(&[2 * EACH, 3 * EACH]);
}

#[test]
fn pools_and_pods_are_replaced() {
    if skipped("pools and pods") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = held(cluster, "replaced", 3);
    let reads = Reads::start(cluster, &namespace, "held");

    // Three Ready pods at any time, a fourth for moments.
    let from = Instant::now();
    let old = cluster.ready_pods(&namespace, "app=held").unwrap();
    cluster.kubectl(&["rollout", "restart", "deployment/held", "-n", &namespace]).unwrap();
    cluster.wait_for("only new pods", || {
        let now = cluster.ready_pods(&namespace, "app=held")?;
        if now.len() == 3 && now.iter().all(|pod| !old.contains(pod)) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    reads.settle_on(cluster, 3 * EACH);
    // Pods may be replaced faster than their successors are read. Then there is no number, and the answer says why.
    let failures = Reads::report("rollout", &reads.since(from));
    let other =
        failures.iter().find(|read| !read.value.as_ref().is_err_and(|error| error.contains("ready endpoints have fresh metrics")));
    assert!(other.is_none(), "{other:?}");
    reads.never_read_other_than(&[3 * EACH, 4 * EACH]);

    // Other pods, by another selector.
    cluster.apply(&namespace, &constant_servers("other", 2));
    cluster.wait_for_pods(&namespace, "app=other", 2);
    let from = Instant::now();
    cluster.apply(&namespace, &inference_pool("held", "other").to_string());
    reads.settle_on(cluster, 2 * EACH);
    Reads::report("another selector", &reads.since(from));

    // Gone: no number rather than 0. And back.
    let from = Instant::now();
    cluster.kubectl(&["delete", "inferencepool/held", "-n", &namespace]).unwrap();
    cluster.wait_for("no number", || match installed::external(cluster, &namespace, TOTAL, "held") {
        Ok(value) => Err(value.to_string()),
        Err(_) => Ok(()),
    });
    cluster.apply(&namespace, &inference_pool("held", "held").to_string());
    reads.settle_on(cluster, 3 * EACH);
    Reads::report("deleted and created", &reads.since(from));
    reads.never_read_other_than(&[2 * EACH, 3 * EACH, 4 * EACH]);
}

#[test]
fn pools_of_the_old_group_count_as_soon_as_the_cluster_has_it() {
    if skipped("the old group") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = cluster.namespace("old-group");
    // v1.4.0 is the last release with this definition.
    let definition = go_module_file(
        "sigs.k8s.io/gateway-api-inference-extension",
        "v1.4.0",
        "config/crd/bases/inference.networking.x-k8s.io_inferencepools.yaml",
    );
    cluster.kubectl(&["apply", "--server-side", "-f", &definition.display().to_string()]).unwrap();
    cluster.apply(&namespace, &constant_servers("new", 2));
    let old = json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": "old"},
        "spec": {"selector": {"app": "new"}, "targetPortNumber": MODEL_PORT, "extensionRef": {"name": "old-epp"}},
    });
    cluster.wait_for("the definition", || cluster.kubectl_reading(&["apply", "-n", &namespace, "-f", "-"], &old.to_string()));
    value_becomes(cluster, &namespace, "old", 2 * EACH);
    value_becomes(cluster, &namespace, "new", 2 * EACH);
}

/// What every replica reads: requests of this pool take so many replica-seconds, whatever their length.
fn seed(cluster: &Cluster, pool: &str, seconds: f64) {
    let learned = json!({
        "version": 1,
        "fingerprint": "vllm:meta-llama/Llama-3.1-8B-Instruct",
        "secondsPerPromptToken": 1e-7,
        "secondsPerGeneratedToken": seconds / 100.0,
        "samples": 1,
        "busySeconds": 30.0,
        "healthyTokensPerSecond": 0.0,
        "startSeconds": 60.0,
        "starts": 3,
        "outputTokens": 100.0,
    });
    let config_map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "weir-learned"},
        "data": {pool: learned.to_string()},
    });
    cluster.apply(installed::NAMESPACE, &config_map.to_string());
}

/// The pod that leads, and how often the Lease has changed hands.
fn leader(cluster: &Cluster) -> Result<(String, Value), String> {
    let lease = cluster.get(installed::NAMESPACE, "lease/weir-learned")?;
    let holder = lease["spec"]["holderIdentity"].as_str().and_then(|holder| holder.rsplit_once('_')).ok_or("nobody leads")?;
    Ok((holder.0.to_owned(), lease["spec"]["leaseTransitions"].clone()))
}

#[test]
fn both_replicas_require_the_same_and_the_leaders_death_changes_nothing() {
    const REQUIRED: &str = "inference_pool_required_replicas";
    if skipped("required replicas") {
        return;
    }
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = cluster.namespace("required");
    cluster.apply(&namespace, &model_servers("required", 4, &["--profile=llama8b"]));
    let pods = cluster.wait_for("servers", || match cluster.ready_pods(&namespace, "app=required")? {
        pods if pods.len() == 4 => Ok(pods),
        pods => Err(format!("{pods:?}")),
    });
    let users = Users::new(50, 100);
    users.servers(pods.iter().map(|(_, address)| SocketAddr::new(address.parse().unwrap(), MODEL_PORT)).collect());
    users.in_flight(20);
    // How much arrives, so that what a request costs can be chosen.
    let served = || users.outcomes().served;
    cluster.wait_for("a start", || if served() >= 100 { Ok(()) } else { Err(served().to_string()) });
    let key = format!("{namespace}.required");
    let reads = Reads::of(cluster, &namespace, REQUIRED, "required");
    // On a machine that does other things too, the same users come less often: then it is chosen again.
    let requires = |level: f64, wanted: i64| {
        let settled = (0..8).any(|_| {
            let (from, before) = (Instant::now(), served());
            cluster.wait_for("requests", || if served() >= before + 200 { Ok(()) } else { Err(served().to_string()) });
            let rate = (served() - before) as f64 / from.elapsed().as_secs_f64();
            eprintln!("{rate:.1} requests a second");
            seed(cluster, &key, level * 0.85 / rate);
            reads.settles_on(wanted, Duration::from_secs(25))
        });
        assert!(settled, "{wanted} from every replica: {:?}\n{}", reads.so_far().last(), installed::log_of_all(cluster));
    };
    // Nothing is learned yet: what is there. With more than 4.7 the four would do more than their costs say they can, which is noticed.
    reads.settle_on(cluster, 4);
    requires(4.5, 5);
    requires(3.5, 4);

    // The leader is killed: the other goes on with the same number, and leads.
    let (killed, transitions) = leader(cluster).unwrap();
    let (restarts_before, from) = (restarts(cluster, &killed).unwrap(), Instant::now());
    cluster.command(&format!("kill-pod {}/{killed}", installed::NAMESPACE));
    let (leads, _) = cluster.wait_for("another leader", || match leader(cluster)? {
        (_, now) if now == transitions => Err(now.to_string()),
        leads => Ok(leads),
    });
    eprintln!("{killed} killed, {leads} leads after {:.1?}", from.elapsed());
    cluster.wait_for("the killed replica to come back", || match restarts(cluster, &killed)? {
        now if now > restarts_before => Ok(()),
        now => Err(format!("{now} restarts")),
    });
    reads.settle_on(cluster, 4);
    let during = reads.since(from);
    let failures = Reads::report("the leader killed", &during);
    eprintln!("{} of {} without a number", failures.len(), during.len());
    let wrong: Vec<&Read> = during.iter().filter(|read| read.value.as_ref().is_ok_and(|value| *value != 4)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");

    // Both still take over what is written, the one that was killed too; until somebody deletes it.
    requires(4.5, 5);
    let patch = json!([{"op": "remove", "path": format!("/data/{key}")}]).to_string();
    let patch = ["patch", "configmap", "weir-learned", "-n", installed::NAMESPACE, "--type=json", "-p", &patch];
    cluster.kubectl(&patch).unwrap();
    reads.settle_on(cluster, 4);
}
