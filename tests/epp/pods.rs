//! Pods come and go under load.

use weir_tests::cluster::skipped;

use super::alone;
use super::scene::{SERVERS, Scene, graceful_servers};

#[test]
fn no_request_fails_while_pods_come_go_and_are_replaced() {
    if skipped("pods come and go behind Envoy") {
        return;
    }
    let _alone = alone();
    let scene = Scene::new("pods", &[graceful_servers(2)], 2, 1);
    scene.reads(2);
    let users = scene.users(12, 25);
    let selector = format!("app={SERVERS}");
    let scale = |replicas: usize| {
        let replicas = format!("--replicas={replicas}");
        scene.cluster.kubectl(&["scale", &format!("deployment/{SERVERS}"), &replicas, "-n", &scene.namespace]).unwrap();
    };
    // Exactly these pods are left, those that terminate are gone, and each is given requests.
    let all_work = |count: usize, others_than: &[String]| {
        let names = scene.cluster.wait_for("only the pods wanted", || {
            let pods = scene.cluster.get(&scene.namespace, &format!("pods -l {selector}"))?["items"].as_array().map_or(0, Vec::len);
            let ready = scene.cluster.ready_pods(&scene.namespace, &selector)?;
            let names: Vec<String> = ready.into_iter().map(|(name, _)| name).collect();
            let as_wanted = pods == count && names.len() == count && names.iter().all(|name| !others_than.contains(name));
            if as_wanted { Ok(names) } else { Err(format!("{pods} pods, {names:?} ready")) }
        });
        scene.cluster.wait_for("requests to each", || match scene.attempts(0)? {
            attempts if attempts.len() == count && names.iter().all(|name| attempts.contains_key(name)) => Ok(()),
            attempts => Err(format!("{attempts:?} of {names:?}")),
        });
        scene.served(&users, 30);
        names
    };
    all_work(2, &[]);
    scale(5);
    all_work(5, &[]);
    scale(2);
    let old = all_work(2, &[]);
    scene.cluster.kubectl(&["rollout", "restart", &format!("deployment/{SERVERS}"), "-n", &scene.namespace]).unwrap();
    all_work(2, &old);
    let outcomes = users.outcomes();
    eprintln!("pods: {} requests served, {} failed", outcomes.served, outcomes.failed);
    assert_eq!(outcomes.failed, 0, "{:?}\n{}", outcomes.failures, scene.log(0));
}
