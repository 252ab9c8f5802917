//! Leases and Events as a real API server takes them.

#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weir_k8s::{
    ClientOptions, Event, EventMetrics, EventRecorder, EventType, Leader, Leadership, LeaseMetrics, LeaseSettings, NotLeading,
    Reporter,
};
use weir_tests::cluster::{Cluster, skipped};

/// Longer than a holder that is silent counts.
const PATIENCE: Duration = Duration::from_secs(120);

/// The tests share a cluster, and one takes its API server away: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn leads(leader: &mut Leader, wanted: bool) {
    timeout(PATIENCE, leader.changed(!wanted)).await.unwrap_or_else(|_| panic!("leads: {wanted}"));
}

#[test]
fn one_leads_another_follows_and_an_api_server_that_is_away_ends_it() {
    if skipped("leadership") {
        return;
    }
    weir_serving::install_crypto_provider();
    let _alone = alone();
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("lease");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = ClientOptions { kubeconfig: Some(cluster.path("kubeconfig").into()), context: None };
        let client = options.connect().await.unwrap();
        let rng = &mut StdRng::seed_from_u64(1);
        let mut stand = || {
            let stop = CancellationToken::new();
            let settings = LeaseSettings::new(&namespace, "lock", LeaseSettings::identity("pod", rng));
            let leadership = Leadership::run(client.clone(), settings, LeaseMetrics::default(), stop.clone()).unwrap();
            (leadership.leader(), leadership, stop)
        };
        let lease = || cluster.get(&namespace, "lease/lock").unwrap();
        let (mut one, one_runs, one_stops) = stand();
        leads(&mut one, true).await;
        let (mut two, two_runs, two_stops) = stand();
        assert_eq!(lease()["spec"]["leaseDurationSeconds"], 15);

        // The first goes in order: the second is next.
        one_stops.cancel();
        one_runs.ended().await;
        leads(&mut two, true).await;
        assert_eq!(lease()["spec"]["leaseTransitions"], 1);
        assert_eq!(one.write(async {}).await, Err(NotLeading::Before));

        // Somebody deletes it, and somebody writes into it: it goes on.
        cluster.kubectl(&["delete", "lease/lock", "-n", &namespace]).unwrap();
        cluster.wait_for("a new Lease", || cluster.get(&namespace, "lease/lock"));
        cluster.kubectl(&["annotate", "lease/lock", "somebody=wrote", "-n", &namespace]).unwrap();
        let renewed = lease()["spec"]["renewTime"].clone();
        cluster.wait_for("renewals", || match lease() {
            lease if lease["spec"]["renewTime"] != renewed && lease["metadata"]["annotations"]["somebody"] == "wrote" => Ok(()),
            lease => Err(lease.to_string()),
        });
        assert!(two.leads());

        // The API server goes: the leader ends by itself, and leads again when it is back.
        cluster.command("stop kube-apiserver");
        leads(&mut two, false).await;
        assert_eq!(two.write(async {}).await, Err(NotLeading::Before));
        cluster.command("start kube-apiserver");
        leads(&mut two, true).await;

        // Whoever takes it by force has it.
        let patch = r#"{"spec":{"holderIdentity":"thief"}}"#;
        cluster.kubectl(&["patch", "lease/lock", "-n", &namespace, "--type=merge", "-p", patch]).unwrap();
        leads(&mut two, false).await;
        two_stops.cancel();
        two_runs.ended().await;
        assert_eq!(lease()["spec"]["holderIdentity"], "thief", "what is not the own is not released");
    });
}

#[test]
fn events_are_written_and_repeated() {
    if skipped("events") {
        return;
    }
    weir_serving::install_crypto_provider();
    let _alone = alone();
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("events");
    cluster.kubectl(&["create", "configmap", "thing", "-n", &namespace]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = ClientOptions { kubeconfig: Some(cluster.path("kubeconfig").into()), context: None };
        let reporter = Reporter { controller: "weir.internal/scaler".into(), instance: "pod-1".into() };
        let (recorder, written) = EventRecorder::start(options.connect().await.unwrap(), reporter, EventMetrics::default());
        let thing = cluster.get(&namespace, "configmap/thing").unwrap();
        let event = |note: &str| Event {
            regarding: serde_json::from_value(serde_json::json!({
                "apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "thing", "uid": thing["metadata"]["uid"],
            }))
            .unwrap(),
            type_: EventType::Warning,
            reason: "Woken".into(),
            action: "Scale".into(),
            note: note.into(),
        };
        for note in ["3 held", "3 held", "5 held", "3 held", &"ä".repeat(2000)] {
            recorder.tell(event(note));
        }
        drop(recorder);
        written.await.unwrap();
        let events = cluster.get(&namespace, "events.events.k8s.io").unwrap();
        let events: Vec<&Value> = events["items"].as_array().unwrap().iter().filter(|event| event["reason"] == "Woken").collect();
        assert_eq!(events.len(), 3, "{events:?}");
        let of = |note: &str| events.iter().find(|event| event["note"] == note).unwrap_or_else(|| panic!("{note}: {events:?}"));
        assert_eq!(of("3 held")["series"]["count"], 3);
        assert_eq!(of("5 held")["type"], "Warning");
        assert!(cluster.describe(&namespace, "configmap/thing").contains("5 held"));
    });
}
