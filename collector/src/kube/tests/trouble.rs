//! An API server that is away, forgets, refuses, or talks nonsense.

use serde_json::json;

use super::apiserver::{ApiServer, Mode, OLD, PODS, SERVICES, V1};
use super::*;

const V1_NAME: &str = "inferencepools.inference.networking.k8s.io";
const OLD_NAME: &str = "inferencepools.inference.networking.x-k8s.io";

#[tokio::test]
async fn a_group_that_is_not_served_is_looked_for_until_it_comes() {
    let server = small().await;
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert_eq!(rig.metric(&format!("weir_kubernetes_watch_state{{resource=\"{OLD_NAME}\",state=\"absent\"}}")), 1.0);
    assert_eq!(rig.metric("weir_kubernetes_synced"), 1.0);
    server.put(OLD, old_pool("n", "q", "x", 7000));
    server.mode(OLD, Mode::Served);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"]), ("n/q", &["10.0.0.1:7000 Ready"])]).await;
    assert_eq!(rig.metric(&format!("weir_kubernetes_watch_state{{resource=\"{OLD_NAME}\",state=\"watching\"}}")), 1.0);
    rig.stop().await;
}

#[tokio::test]
async fn a_group_that_may_not_be_read_does_not_keep_the_other_back() {
    let server = small().await;
    server.mode(OLD, Mode::Forbidden);
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert_eq!(rig.metric(&format!("weir_kubernetes_watch_state{{resource=\"{OLD_NAME}\",state=\"forbidden\"}}")), 1.0);
    rig.stop().await;
}

#[tokio::test]
async fn pods_that_may_not_be_listed_are_not_no_pods() {
    let server = small().await;
    server.mode(PODS, Mode::Forbidden);
    let rig = Rig::start(&server);
    let forbidden = "weir_kubernetes_watch_errors_total{resource=\"pods\",reason=\"forbidden\"}";
    eventually("refused thrice", || rig.metric(forbidden) >= 3.0).await;
    eventually("pools are listed", || server.watching(V1) == 1).await;
    assert!(!*rig.synced.borrow() && rig.shown().is_empty());
    server.mode(PODS, Mode::Served);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    eventually("synced", || *rig.synced.borrow()).await;
    rig.stop().await;
}

#[tokio::test]
async fn with_both_groups_forbidden_nothing_is_known() {
    let server = small().await;
    server.mode(OLD, Mode::Forbidden);
    server.mode(V1, Mode::Forbidden);
    let rig = Rig::start(&server);
    let refused =
        |name: &str| rig.metric(&format!("weir_kubernetes_watch_errors_total{{resource=\"{name}\",reason=\"forbidden\"}}"));
    eventually("both refused twice", || refused(V1_NAME) >= 2.0 && refused(OLD_NAME) >= 2.0).await;
    eventually("pods and Services are listed", || server.watching(PODS) == 1 && server.watching(SERVICES) == 1).await;
    assert!(!*rig.synced.borrow());
    rig.stop().await;
}

#[tokio::test]
async fn one_broken_object_leaves_the_others_alone() {
    let server = small().await;
    let broken =
        json!({ "metadata": { "namespace": "n", "name": "broken", "uid": "b" }, "spec": { "selector": 7, "targetPorts": "x" } });
    server.put(V1, broken.clone());
    server.put(V1, json!({ "metadata": { "namespace": "n", "name": "empty", "uid": "e" } }));
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert_eq!(rig.metric("weir_kubernetes_problems"), 5.0, "two of each, and the picker that is not there");
    // What was good stays until it is good again.
    server.put(V1, with(pool("n", "p", "y", &[8000]), "spec.targetPorts", json!([])));
    eventually("it is told", || rig.metric("weir_kubernetes_problems") == 6.0).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    server.put(V1, pool("n", "broken", "x", &[1]));
    rig.until(&[("n/broken", &["10.0.0.1:1 Ready"]), ("n/p", &["10.0.0.1:8000 Ready"])]).await;
    // A namesake of another uid does not inherit.
    server.delete(V1, "n", "broken");
    server.put(V1, broken);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_was_forgotten_is_listed_again() {
    let server = small().await;
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    let rig = Rig::synced(&server).await;
    eventually("watching", || server.watching(PODS) == 1).await;
    let lists = server.lists(PODS);
    // While nobody watches, one goes and one comes; then the history is gone too.
    server.mode(PODS, Mode::Forbidden);
    server.cut();
    server.delete(PODS, "n", "b");
    server.put(PODS, pod("n", "c", "x", "10.0.0.3"));
    server.compact();
    eventually("watches are refused", || rig.metric("weir_kubernetes_watch_state{resource=\"pods\",state=\"forbidden\"}") == 1.0)
        .await;
    server.mode(PODS, Mode::Served);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.3:8000 Ready"])]).await;
    assert!(rig.metric("weir_kubernetes_watch_errors_total{resource=\"pods\",reason=\"expired\"}") >= 1.0);
    assert!(server.lists(PODS) > lists);
    rig.stop().await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_goes_on_where_it_was() {
    let server = small().await;
    let rig = Rig::synced(&server).await;
    eventually("watching", || server.watching(PODS) == 1).await;
    let lists = server.lists(PODS);
    server.cut();
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready"])]).await;
    assert_eq!(server.lists(PODS), lists, "nothing was listed again");
    assert!(rig.metric("weir_kubernetes_requests_total{resource=\"pods\",verb=\"watch\"}") >= 2.0);
    rig.stop().await;
}

#[tokio::test]
async fn while_the_server_is_away_what_was_known_stays() {
    let mut server = small().await;
    let rig = Rig::synced(&server).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    server.stop().await;
    let failing = |resource: &str| rig.metric(&format!("weir_kubernetes_watch_state{{resource=\"{resource}\",state=\"failing\"}}"));
    eventually("both have failed", || failing("pods") == 1.0 && failing(V1_NAME) == 1.0).await;
    eventually("silence grows", || rig.metric("weir_kubernetes_silence_seconds{resource=\"pods\"}") > 0.5).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    assert!(*rig.synced.borrow(), "readiness is about us");
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    server.come_back().await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready"])]).await;
    assert_eq!(failing("pods"), 0.0);
    assert!(rig.metric("weir_kubernetes_silence_seconds{resource=\"pods\"}") < 20.0);
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_from_the_start_is_waited_for() {
    let mut server = small().await;
    server.stop().await;
    let rig = Rig::start(&server);
    let unreachable = "weir_kubernetes_watch_errors_total{resource=\"pods\",reason=\"unreachable\"}";
    eventually("tried twice", || rig.metric(unreachable) >= 2.0).await;
    assert!(!*rig.synced.borrow());
    server.come_back().await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    rig.stop().await;
}

#[tokio::test]
async fn nonsense_is_told_and_what_was_known_stays() {
    let server = small().await;
    let rig = Rig::synced(&server).await;
    eventually("watching", || server.watching(PODS) == 1).await;
    let malformed = || rig.metric("weir_kubernetes_watch_errors_total{resource=\"pods\",reason=\"malformed\"}");
    server.send(PODS, json!({ "type": "MODIFIED", "object": { "metadata": { "name": 7 } } }));
    eventually("seen", || malformed() >= 1.0).await;
    // A change that cannot be read may have been any: all is listed again.
    eventually("listed again", || server.lists(PODS) >= 2).await;
    eventually("watching again", || server.watching(PODS) == 1).await;
    server.mode(PODS, Mode::Garbage);
    server.compact();
    eventually("lists are nonsense", || malformed() >= 2.0).await;
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready"])]).await;
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    server.mode(PODS, Mode::Served);
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready"])]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_list_of_many_pages_is_seen_whole_or_not_at_all() {
    let server = ApiServer::start().await;
    server.put(V1, pool("n", "p", "x", &[8000]));
    server.put_all(
        PODS,
        (0..1200).map(|number| pod("n", &format!("p{number:04}"), "x", &format!("10.0.{}.{}", number / 250, number % 250 + 1))),
    );
    let rig = Rig::start(&server);
    let mut pools = rig.pools.clone();
    let mut sizes = Vec::new();
    while sizes.last() != Some(&1200) {
        pools.changed().await.unwrap();
        sizes.push(pools.borrow_and_update().first().map_or(0, |pool| pool.spec.endpoints.len()));
    }
    assert_eq!(sizes, [1200]);
    assert_eq!(server.lists(PODS), 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_hanging_server_does_not_keep_shutdown_waiting() {
    let server = small().await;
    server.mode(PODS, Mode::Hanging);
    let rig = Rig::start(&server);
    eventually("asked", || server.lists(PODS) == 1).await;
    rig.stop().await;
}
