//! What many pools and pods cost. Figures are printed; what must hold at any speed is asserted.

use std::fs;
use std::sync::Arc;

use serde_json::json;

use super::apiserver::{ApiServer, PODS, V1};
use super::*;
use crate::kube::follow::Change;
use crate::kube::pods::{PodFacts, Pods};

const POOLS: usize = 1000;
const PODS_PER_POOL: usize = 5;

/// What the API server adds to a pod that runs: most of its bytes.
fn big_pod(number: usize) -> Value {
    let app = format!("app-{}", number / PODS_PER_POOL);
    let ip = format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1);
    let mut big = pod("n", &format!("vllm-{app}-7c9d8b6f4d-{number:05}"), &app, &ip);
    big["metadata"]["uid"] = json!(format!("00000000-0000-4000-8000-{number:012}"));
    big["metadata"]["labels"]["pod-template-hash"] = json!("7c9d8b6f4d");
    big["metadata"]["managedFields"] =
        json!([{ "manager": "kubelet", "fieldsV1": { "f:status": { "f:conditions": "x".repeat(3000) } } }]);
    big["spec"]["containers"][0]["args"] = json!(vec!["--some-argument=with-a-value"; 60]);
    big
}

/// CPU time of this thread, in milliseconds.
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn resident_kib() -> i64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a measurement: run alone with --release -- --ignored --nocapture"]
fn many_pools_and_pods_sync_in_few_rounds() {
    // The server has a thread of its own, so that this one's CPU time is discovery's.
    let (sender, receiver) = std::sync::mpsc::channel();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = ApiServer::start().await;
            server.put_all(V1, (0..POOLS).map(|number| pool("n", &format!("pool-{number}"), &format!("app-{number}"), &[8000])));
            server.put_all(PODS, (0..POOLS * PODS_PER_POOL).map(big_pod));
            let server = Arc::new(server);
            sender.send(server.clone()).unwrap();
            drop(wait.await);
        });
    });
    let server = receiver.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (before, memory) = (cpu_ms(), resident_kib());
        let rig = Rig::start(&server);
        let endpoints = || rig.pools.borrow().iter().map(|pool| pool.spec.endpoints.len()).sum::<usize>();
        eventually("all", || endpoints() == POOLS * PODS_PER_POOL).await;
        println!("initial sync: {:.0} ms of CPU, {} KiB more resident", cpu_ms() - before, resident_kib() - memory);
        assert_eq!(rig.metric("weir_kubernetes_updates_total"), 1.0);
        let before = cpu_ms();
        for number in 0..1000 {
            let gone = with(big_pod(number), "status.conditions", json!([{ "type": "Ready", "status": "False" }]));
            server.put(PODS, gone);
        }
        let unready = || {
            let pools = rig.pools.borrow();
            let states = pools.iter().flat_map(|pool| &pool.spec.endpoints).map(|endpoint| endpoint.state);
            states.filter(|state| *state == weir_datastore::EndpointState::Unready).count()
        };
        eventually("all changed", || unready() == 1000).await;
        let rounds = rig.metric("weir_kubernetes_updates_total") - 1.0;
        println!("1000 changes: {:.0} ms of CPU (some of it the test's), {rounds} rounds", cpu_ms() - before);
        assert!(rounds < 200.0, "changes are gathered: {rounds}");
        rig.stop().await;
    });
    drop(done);
    serving.join().unwrap();
}

#[test]
#[ignore = "a measurement: run alone with --release -- --ignored --nocapture"]
fn a_pod_costs_little_memory() {
    const COUNT: usize = 100_000;
    let facts = |number| PodFacts::of(serde_json::from_value(big_pod(number)).unwrap(), tokio::time::Instant::now(), 0);
    let mut pods = Pods::default();
    let before = resident_kib();
    for number in 0..COUNT {
        assert!(pods.apply(Change::Applied(facts(number))).is_some());
    }
    let bytes = (resident_kib() - before) * 1024 / COUNT as i64;
    println!("{bytes} bytes for each of {COUNT} pods, {PODS_PER_POOL} of a template");
    assert_eq!(pods.len(), COUNT);
    assert!(bytes < 2048, "{bytes}");
}
