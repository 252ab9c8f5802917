//! An idle pool takes its GPU node along, and the first request brings both back.

use serde_json::json;
use weir_tests::workload::inference_pool;
use weir_tests::{installed, text};

use super::chart::{POOL, chart, picker_service, role_with, rules_of_autoscalers, sleeping_autoscaler};
use super::now;
use super::scene::{SERVERS, Scene};

const FRONTEND_PORT: u16 = 8080;

/// The scaler takes idle servers to zero, Karpenter their node; a request that is held wakes the servers, which get a node and answer.
pub(crate) fn a_pool_sleeps_and_wakes_with_its_node(scene: &Scene) {
    let Scene { cluster, namespace, .. } = scene;
    installed::by_kustomize(cluster);
    cluster.apply(namespace, &role_with(true, &rules_of_autoscalers()));
    cluster.apply(namespace, &inference_pool(POOL, SERVERS).to_string());
    cluster.apply(namespace, &picker_service());
    let arguments = ["--metrics-endpoint-auth=false".to_owned(), format!("--http=0.0.0.0:{FRONTEND_PORT}")];
    cluster.apply(namespace, &chart(namespace, 1, &arguments.each_ref().map(String::as_str)));
    scene.scale(1);
    cluster.wait_for_pods(namespace, &format!("app={SERVERS}"), 1);
    assert_eq!(scene.nodes().unwrap().len(), 1);
    let (_, picker) = cluster.wait_for_pods(namespace, "app=epp", 1).remove(0);
    installed::scaler(cluster, &[namespace]);
    cluster.apply(namespace, &sleeping_autoscaler(SERVERS));
    let idle = now();
    scene.until_no_node();
    let asleep = idle.elapsed().as_secs_f64();
    let deployment = cluster.get(namespace, &format!("deployment/{SERVERS}")).unwrap();
    assert_eq!(deployment["spec"]["replicas"], 0, "the node went because its servers did");

    let asked = now();
    let body = json!({"model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": "who?", "max_tokens": 5}).to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (status, answer) = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://{picker}:{FRONTEND_PORT}/v1/completions"));
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (response.status(), text(response).await)
    });
    let why = || format!("{}\n{}", cluster.describe(namespace, "hpa"), installed::scaler_logs(cluster));
    assert_eq!(status, 200, "{answer:?}\n{}", why());
    assert!(answer.as_ref().is_ok_and(|answer| answer.contains("\"completion_tokens\":5")), "{answer:?}");
    let nodes = scene.nodes().unwrap();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let woken = asked.elapsed().as_secs_f64();
    eprintln!(
        "gpu nodes: idle, asleep and without a node after {asleep:.1} s; one request, and a node and its answer after {woken:.1} s"
    );
}
