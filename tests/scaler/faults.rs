//! Faults while a request is held: it is answered all the same.

use std::time::Duration;

use tokio::time::Instant;
use weir_tests::cluster::Cluster;

use super::park::{SYSTEM, leader, relevant_logs};
use super::picked::Picked;
use super::scene::SERVERS;

/// For how many seconds the API server is away; without it, longer than a term of leadership lasts without an answer.
const OUTAGE: &str = "WEIR_TESTS_OUTAGE";

fn outage() -> Duration {
    let seconds = std::env::var(OUTAGE).map_or(14, |seconds| seconds.parse().unwrap_or_else(|error| panic!("{OUTAGE}: {error}")));
    Duration::from_secs(seconds)
}

pub(crate) fn the_leader_is_killed_while_a_request_is_held(picked: &Picked) {
    let cluster = Cluster::shared();
    picked.sleeps();
    let first = leader(cluster).unwrap();
    cluster.command(&format!("kill-pod {SYSTEM}/{first}"));
    let killed = Instant::now();
    let requests = vec![picked.ask(true), picked.ask(false)];
    picked.answered(requests);
    eprintln!("leader killed: answered {:.1?} later", killed.elapsed());
    cluster.wait_for_pods(picked.namespace(), &format!("app={SERVERS}"), 2);
}

pub(crate) fn the_api_server_is_away_while_a_request_is_held(picked: &Picked) {
    let cluster = Cluster::shared();
    picked.sleeps();
    cluster.command("stop kube-apiserver");
    let stopped = Instant::now();
    let requests = vec![picked.ask(true), picked.ask(false)];
    while stopped.elapsed() < outage() {
        assert!(requests.iter().all(|request| !request.is_finished()), "answered without a server");
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.command("start kube-apiserver");
    let back = Instant::now();
    cluster.wait_for("the wake", || match picked.replicas()? {
        0 => Err(relevant_logs(cluster)),
        _ => Ok(()),
    });
    eprintln!("API server away: scaled {:.1?} after it was back", back.elapsed());
    picked.answered(requests);
    eprintln!("API server away: answered {:.1?} after it was back", back.elapsed());
}
