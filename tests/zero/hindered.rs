//! Pools that nothing brings back: whoever asks is told at once, and why.

use std::time::Duration;

use serde_json::json;
use weir_tests::cluster::skipped;

use super::alone;
use super::scene::SERVERS;
use super::stage::{Stage, Way, slow_servers};

/// An autoscaler that may go to zero, of a Deployment that somebody else took there.
const BY_HAND: Way = Way {
    name: "by-hand",
    install: |_, _| (),
    objects: || {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "r"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": SERVERS}, "minReplicas": 0, "maxReplicas": 2,
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": "inference_pool_total_inflight_requests", "selector": {"matchLabels": {"name": "r"}}},
                    "target": {"type": "AverageValue", "averageValue": "64"},
                }}],
            },
        })
        .to_string()
    },
};

#[test]
fn a_zero_that_somebody_made_by_hand_and_a_pod_that_crashes_hold_nobody() {
    if skipped("a zero by hand behind Envoy") {
        return;
    }
    let _alone = alone();
    let stage = Stage::new(&BY_HAND, &slow_servers(0, Duration::ZERO), 0);
    let scene = &stage.scene;
    let refused = |what: &str, words: &[&str]| {
        scene.cluster.wait_for(what, || {
            let answer = stage.answers(stage.ask(1, 0)).remove(0);
            let body = answer.body.clone().unwrap_or_default();
            assert_eq!(answer.status, 503, "{answer:?}");
            if words.iter().all(|word| body.contains(word)) { Ok(answer) } else { Err(format!("{answer:?}\n{}", stage.why())) }
        })
    };
    let by_hand = refused(
        "the zero of somebody else",
        &["Deployment.apps/model has 0 replicas", "HorizontalPodAutoscaler r", "scale it to 1"],
    );
    assert_eq!((by_hand.retry_after.as_deref(), by_hand.reason.as_deref()), (Some("5"), Some("rejected-no-endpoints")));

    // Its servers cannot start: that they are wanted promises nothing.
    let broken =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["no-such-command"]}]).to_string();
    let deployment = format!("deployment/{SERVERS}");
    scene.cluster.kubectl(&["patch", &deployment, "-n", &scene.namespace, "--type=json", "-p", &broken]).unwrap();
    let hpa = r#"{"spec":{"minReplicas":1}}"#;
    scene.cluster.kubectl(&["patch", "hpa", "r", "-n", &scene.namespace, "--type=merge", "-p", hpa]).unwrap();
    scene.cluster.kubectl(&["scale", &deployment, "--replicas=1", "-n", &scene.namespace]).unwrap();
    scene.cluster.wait_for("word of what crashes", || {
        let answer = stage.answers(stage.ask(1, 0)).remove(0);
        let body = answer.body.clone().unwrap_or_default();
        if body.contains("pod model-") && body.contains("container server waits with CrashLoopBackOff") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
}
