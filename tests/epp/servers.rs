//! Servers that Kubernetes calls Ready and that are not what they should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};
use weir_tests::cluster::skipped;
use weir_tests::workload::MODEL_PORT;
use weir_tests::{Process, text};

use super::alone;
use super::chart::bare_pod;
use super::scene::{SERVERS, Scene, attempts, graceful_servers};

/// Requests of which the Go pickers sent each to the server that they could not read.
const REQUESTS: u64 = 752;

#[test]
fn a_ready_server_whose_page_was_never_readable_gets_no_more_than_the_share_of_exploration() {
    if skipped("a server without a page behind Envoy") {
        return;
    }
    let _alone = alone();
    let scene = Scene::new("unreadable", &[graceful_servers(2), bare_pod("unreadable", SERVERS)], 3, 1);
    let address = scene.cluster.pod_address(&scene.namespace, "unreadable").unwrap();
    let reached = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&reached);
    let answer = move || async move {
        counts.fetch_add(1, Ordering::Relaxed);
        r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#
    };
    let server =
        Router::new().route("/v1/completions", post(answer)).route("/metrics", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
    let listener = scene.runtime.block_on(TcpListener::bind((address.as_str(), MODEL_PORT))).unwrap();
    scene.runtime.spawn(async move { axum::serve(listener, server).await });
    scene.reads(2);

    let requests = stream::iter(0..REQUESTS).map(|_| async { scene.ask(1, false).send().await.unwrap().status() });
    let statuses: Vec<_> = scene.runtime.block_on(requests.buffer_unordered(8).collect());
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let attempts = scene.attempts(0).unwrap();
    assert_eq!(attempts.values().sum::<u64>(), REQUESTS, "{attempts:?}");
    let explored = attempts.get("unreadable").copied().unwrap_or(0);
    eprintln!("unreadable: {explored} of {REQUESTS} requests; {attempts:?}");
    assert_eq!(explored, reached.load(Ordering::Relaxed));
    scene.page_until(0, "all of them are exploration", |page| page.contains(&format!("weir_epp_explorations_total {explored}\n")));
    // 1 in 100 are 7.5; chance exceeds 24 less than once in 500,000 runs.
    assert!(explored <= 24, "{attempts:?}");
}

/// Users, and how many servers die under them: three ask now and then, sixteen keep every server at work.
const DEATHS: [(usize, usize); 2] = [(3, 5), (16, 5)];
/// How long a server that died is watched: until long after it must have lost its requests.
const WATCHED: Duration = Duration::from_secs(2);

#[test]
fn a_server_that_dies_loses_its_requests_within_a_second_though_kubernetes_calls_it_ready() {
    if skipped("a server dies behind Envoy") {
        return;
    }
    let _alone = alone();
    // Two are left at the end.
    let count = DEATHS.iter().map(|(_, deaths)| deaths).sum::<usize>() + 2;
    let names: Vec<String> = (0..count).map(|index| format!("server-{index}")).collect();
    let pods: Vec<String> = names.iter().map(|name| bare_pod(name, SERVERS)).collect();
    let scene = Scene::new("dies", &pods, count, 1);
    let start = |name: String| {
        let address = scene.cluster.pod_address(&scene.namespace, &name).unwrap();
        let process = Process::weir(&["simulate-server", "--listen", &format!("{address}:{MODEL_PORT}")]);
        process.line("its address", |line| line.contains("http://"));
        (name, process)
    };
    let mut servers: Vec<(String, Process)> = names.into_iter().map(start).collect();
    scene.reads(count);
    for (count, deaths) in DEATHS {
        let users = scene.users(count, 8);
        let mut lost = Vec::new();
        let mut before = 0;
        for (name, process) in servers.drain(..deaths) {
            let known = scene.attempts(0).unwrap().get(&name).copied();
            let died = Instant::now();
            drop(process);
            lost.push(scene.runtime.block_on(last_attempt(&scene, &name, known, died)));
            let failed = users.outcomes().failures.split_off(before);
            before += failed.len();
            let failed: Vec<_> = failed.iter().map(|failure| failure.status).collect();
            eprintln!("{count} users: {name}: last request {:.0?} after its death, failed: {failed:?}", lost[lost.len() - 1]);
        }
        lost.sort_unstable();
        eprintln!("{count} users: last requests after {lost:.0?}, median {:.0?}", lost[deaths / 2]);
        assert!(lost.iter().all(|after| *after < Duration::from_secs(1)), "{lost:?}\n{}", scene.log(0));
        scene.served(&users, 20);
    }
}

/// How long after `died` the picker sent this server its last request; `known` were counted before.
async fn last_attempt(scene: &Scene, name: &str, mut known: Option<u64>, died: Instant) -> Duration {
    let page = format!("http://{}:9090/metrics", scene.pickers[0].1);
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Duration::ZERO;
    while died.elapsed() < WATCHED {
        ticks.tick().await;
        let answer = scene.client.get(&page).send().await.unwrap();
        let now = attempts(&text(answer).await.unwrap()).get(name).copied();
        if now != known {
            (last, known) = (died.elapsed(), now);
        }
    }
    last
}
