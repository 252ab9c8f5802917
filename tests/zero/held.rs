//! Idle, zero, held requests, woken: whoever takes the pool there and back.

use std::time::Duration;

use tokio::time::Instant;
use weir_tests::cluster::skipped;
use weir_tests::{installed, repository};

use super::alone;
use super::chart::{POOL, sleeping_autoscaler};
use super::scene::SERVERS;
use super::stage::{Stage, Way, slow_servers};

/// How long a server takes to start.
const START: Duration = Duration::from_secs(20);
const REQUESTS: usize = 40;
const STREAMED: usize = 10;

/// The autoscaler of Kubernetes itself, with `minReplicas: 0`, quick about going there.
const AUTOSCALER: Way = Way {
    name: "zero",
    install: |_, _| (),
    objects: || {
        let example = std::fs::read_to_string(repository().join("hpa-examples/scale-to-zero.yaml")).unwrap();
        let of_this_pool = example.replace("    name: vllm-llama3\n  minReplicas", &format!("    name: {SERVERS}\n  minReplicas"));
        let quick = of_this_pool.replace("stabilizationWindowSeconds: 600", "stabilizationWindowSeconds: 0");
        assert_ne!(quick, of_this_pool, "the example has another form");
        quick.replace("name: vllm-llama3", &format!("name: {POOL}"))
    },
};

/// weir's scaler, beside an autoscaler that keeps at least one.
const SCALER: Way = Way {
    name: "zero-by-scaler",
    install: |cluster, namespace| installed::scaler(cluster, &[namespace]),
    objects: || sleeping_autoscaler(SERVERS),
};

#[test]
fn an_idle_pool_goes_to_zero_and_loses_no_request_on_its_way_back_by_the_scaler() {
    if skipped("zero and back behind Envoy, by the scaler") {
        return;
    }
    let _alone = alone();
    there_and_back(&SCALER);
}

#[test]
fn an_idle_pool_goes_to_zero_and_loses_no_request_on_its_way_back_by_min_replicas_0() {
    if skipped("zero and back behind Envoy") {
        return;
    }
    let _alone = alone();
    there_and_back(&AUTOSCALER);
}

#[test]
fn whoever_waits_when_the_picker_ends_hears_of_it_and_the_next_one_serves() {
    if skipped("pickers that end while they hold") {
        return;
    }
    let _alone = alone();
    let stage = Stage::new(&SCALER, &slow_servers(1, START), 1);
    let Stage { scene } = &stage;

    // The picker is killed while it holds: whoever it held learns of it at once, and may come again.
    stage.is_empty();
    let asked = stage.ask(5, 2);
    stage.holds(5);
    let killed = Instant::now();
    scene.cluster.command(&format!("kill-pod {}/{}", scene.namespace, scene.pickers[0].0));
    for answer in stage.answers(asked) {
        eprintln!("{}: picker killed: {} after {:.2?}: {:?}", SCALER.name, answer.status, answer.at - killed, answer.body);
        assert_eq!(answer.status, 503);
        assert!(answer.at - killed < START, "not once a server is there");
    }
    scene.cluster.wait_for_pods(&scene.namespace, "app=epp", 1);
    let again = scene.cluster.wait_for("the next ones to be served", || {
        let answers = stage.answers(stage.ask(5, 2));
        if answers.iter().all(super::stage::Answer::is_whole) { Ok(answers) } else { Err(format!("{answers:?}")) }
    });
    eprintln!("{}: picker killed: next ones whole after {:.2?}", SCALER.name, again[0].at - killed);

    // The picker is told to go while it holds: whoever it holds is told to come again, to another one.
    stage.is_empty();
    let asked = stage.ask(5, 2);
    stage.holds(5);
    scene.cluster.kubectl(&["delete", "pod", "-n", &scene.namespace, &scene.pickers[0].0, "--wait=false"]).unwrap();
    for answer in stage.answers(asked) {
        assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")));
        assert_eq!(answer.reason.as_deref(), Some("rejected-shutting-down"));
    }
}

/// The whole way, by whatever `way` scales.
fn there_and_back(way: &Way) {
    let stage = Stage::new(way, &slow_servers(1, START), 1);
    let Stage { scene } = &stage;
    stage.is_empty();
    let api = |metric: &str| installed::external(scene.cluster, &scene.namespace, metric, POOL);
    scene.cluster.wait_for("nothing held by the API", || {
        match (api("inference_pool_held_requests")?, api("inference_pool_idle_seconds")?) {
            (0, idle) if idle > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // A picker that was slower than the first server did not see it start.
    let starts_before = stage.starts();

    // Held until the server is there.
    let scales = stage.scales();
    let began = Instant::now();
    let asked = stage.ask(REQUESTS, STREAMED);
    stage.holds(REQUESTS);
    let scaled = scales.until("1");
    let answers = stage.answers(asked);
    assert!(answers.iter().all(super::stage::Answer::is_whole), "{answers:?}\n{}\n{}", stage.why(), scene.log(0));
    let last = answers.iter().map(|answer| answer.at).max().unwrap();
    assert!(last - began >= START, "a server of this Deployment starts in no less");
    scene.cluster.wait_for("the servers' own count", || match stage.served() {
        served if served >= REQUESTS as u64 => Ok(()),
        served => Err(format!("{served} of {REQUESTS}")),
    });
    assert_eq!(stage.served(), REQUESTS as u64, "none lost, none doubled");
    eprintln!(
        "{}: scaled {:.2?} after the first request, all {REQUESTS} answered after {:.2?}",
        way.name,
        scaled - began,
        last - began
    );
    for phase in ["scheduled", "started", "ready", "all", "first_scrape", "first_token"] {
        let seen = starts_before.get(phase).copied().unwrap_or_default() + 1;
        scene.cluster.wait_for(&format!("a start's phase {phase}"), || match stage.starts() {
            starts if starts.get(phase) == Some(&seen) => Ok(()),
            starts => Err(format!("{starts:?}, before {starts_before:?}")),
        });
    }
}
