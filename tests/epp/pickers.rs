//! Two pickers at once, and the end of either.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;
use weir_tests::cluster::skipped;

use super::alone;
use super::scene::{Scene, graceful_servers};

/// Users with a request each.
const USERS: usize = 16;

#[test]
fn two_pickers_share_the_requests_and_only_what_a_killed_one_held_fails() {
    if skipped("two pickers behind Envoy") {
        return;
    }
    let _alone = alone();
    let scene = Scene::new("pickers", &[graceful_servers(4)], 4, 2);
    scene.reads(4);
    let users = scene.users(USERS, 10);
    scene.served(&users, 200);
    let (one, other) = (scene.attempts(0).unwrap(), scene.attempts(1).unwrap());
    let mut both: BTreeMap<String, u64> = one.clone();
    other.iter().for_each(|(pod, attempts)| *both.entry(pod.clone()).or_default() += attempts);
    eprintln!("pickers: {one:?} and {other:?}");
    let all: u64 = both.values().sum();
    for each in [&one, &other] {
        assert!(each.values().sum::<u64>() >= all / 4, "{one:?}, {other:?}");
    }
    // A quarter each, give or take half of that.
    assert!(both.len() == 4 && both.values().all(|attempts| (all / 8..=all * 3 / 8).contains(attempts)), "{both:?}");
    assert_eq!(users.outcomes().failed, 0, "{:?}", users.outcomes().failures);

    // Killed: whose request it held notices, once; the other takes the next ones.
    let killed = Instant::now();
    scene.cluster.command(&format!("kill-pod {}/{}", scene.namespace, scene.pickers[0].0));
    scene.served(&users, 100);
    let failures = users.outcomes().failures;
    for failure in &failures {
        let began = failure.began.saturating_duration_since(killed);
        eprintln!("pickers: one killed: user {} {began:.0?} after: {:?} {:.150}", failure.user, failure.status, failure.what);
    }
    assert!(failures.iter().map(|failure| failure.user).collect::<BTreeSet<_>>().len() == failures.len(), "twice: {failures:?}");
    // 503 as the gateway's `status_on_error` says, or an answer that was under way and cut.
    assert!(failures.iter().all(|failure| matches!(failure.status, Some(200 | 503))), "{failures:?}");
    scene.cluster.wait_for_pods(&scene.namespace, "app=epp", 2);
    scene.cluster.wait_for("requests to the one that is back", || match scene.attempts(0)? {
        attempts if attempts.values().sum::<u64>() > 20 => Ok(()),
        attempts => Err(format!("{attempts:?}")),
    });

    // Told to go: nobody notices.
    let failed = users.outcomes().failed;
    let (leaving, _) = &scene.pickers[1];
    scene.cluster.kubectl(&["delete", "pod", "-n", &scene.namespace, leaving, "--wait=false"]).unwrap();
    scene.cluster.wait_for("its end", || {
        let left = scene.cluster.kubectl(&["get", "pod", "-n", &scene.namespace, leaving, "--ignore-not-found"])?;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    scene.served(&users, 50);
    let outcomes = users.outcomes();
    eprintln!("pickers: {} requests served, {} failed", outcomes.served, outcomes.failed);
    assert_eq!(outcomes.failed, failed, "{:?}", outcomes.failures);
}
