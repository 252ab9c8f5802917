//! The pool goes and is back under a picker that runs.

use weir_tests::cluster::skipped;
use weir_tests::text;
use weir_tests::workload::inference_pool;

use super::alone;
use super::chart::POOL;
use super::scene::{SERVERS, Scene, graceful_servers};

#[test]
fn a_deleted_pool_answers_503_with_the_reason_and_works_again_once_it_is_back() {
    if skipped("the pool is deleted behind Envoy") {
        return;
    }
    let _alone = alone();
    let scene = Scene::new("pool", &[graceful_servers(2)], 2, 1);
    scene.reads(2);
    let users = scene.users(8, 10);
    assert_eq!(users.outcomes().failed, 0, "{:?}", users.outcomes().failures);
    // An answer that is under way when the pool goes.
    let mut answer = scene.answer(200, true);
    assert!(scene.runtime.block_on(answer.chunk()).unwrap().is_some());

    let pool = format!("inferencepools.inference.networking.k8s.io/{POOL}");
    scene.cluster.kubectl(&["delete", &pool, "-n", &scene.namespace]).unwrap();
    scene.cluster.wait_for_pods(&scene.namespace, "app=epp", 0);
    let missing = format!("there is no InferencePool {}/{POOL}: create it", scene.namespace);
    let ready = scene.cluster.http(&format!("http://{}:9090/readyz", scene.pickers[0].1)).unwrap();
    assert!(ready.contains("[-]inference-pool failed") && ready.contains(&missing), "{ready}");
    scene.page_until(0, "the gauge", |page| page.contains("weir_epp_pool_known 0\n"));
    let log = scene.log(0);
    assert!(log.lines().any(|line| line.contains("no requests can be placed") && line.contains(&missing)), "{log}");
    let refused = scene.answer(1, false);
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refused.headers()["x-llm-d-request-dropped-reason"], "rejected-no-endpoints");
    let words = "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request";
    assert_eq!(scene.runtime.block_on(text(refused)).unwrap(), words);
    let rest = scene.runtime.block_on(text(answer)).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "the answer under way was cut: {rest}");

    scene.cluster.apply(&scene.namespace, &inference_pool(POOL, SERVERS).to_string());
    scene.cluster.wait_for_pods(&scene.namespace, "app=epp", 1);
    let back = users.outcomes().failed;
    scene.reads(2);
    scene.served(&users, 50);
    let outcomes = users.outcomes();
    assert!(outcomes.failures.iter().all(|failure| failure.what == format!("status 503: {words}")), "{:?}", outcomes.failures);
    assert!(outcomes.failed > 0);
    assert_eq!(outcomes.failed, back, "after the pool was back: {:?}", outcomes.failures.last());
    let pod = scene.cluster.get(&scene.namespace, "pods -l app=epp").unwrap();
    assert_eq!(pod["items"][0]["status"]["containerStatuses"][0]["restartCount"], 0);
}
