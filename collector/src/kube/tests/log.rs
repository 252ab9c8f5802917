//! Transitions are logged once, with the object and the way out.

use serde_json::json;

use super::apiserver::{Mode, OLD, PODS, V1};
use super::*;
use crate::tests::log::Log;

#[tokio::test]
async fn each_transition_is_one_line_with_the_way_out() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // With only one subscriber in the process, tracing asks that of the thread that meets a line first, and tests beside have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    // The runtime of this test has one thread, and it is this one.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = small().await;
    server.mode(OLD, Mode::Forbidden);
    server.put(V1, with(pool("n", "p", "x", &[8000]), "metadata.annotations", json!({ "weir.internal/engine": "vlm" })));
    let rig = Rig::synced(&server).await;
    let forbidden = format!(
        "weir_kubernetes_watch_errors_total{{resource=\"{}\",reason=\"forbidden\"}}",
        super::super::resource_name(weir_k8s::PoolVersion::V1Alpha2)
    );
    eventually("refused thrice", || rig.metric(&forbidden) >= 3.0).await;
    server.put(PODS, pod("n", "b", "x", "10.0.0.2"));
    rig.until(&[("n/p", &["10.0.0.1:8000 Ready", "10.0.0.2:8000 Ready"])]).await;
    server.put(V1, pool("n", "p", "x", &[8000]));
    eventually("good again", || rig.metric("weir_kubernetes_problems") == 1.0).await;
    server.mode(OLD, Mode::Served);
    eventually("readable", || server.watching(OLD) == 1).await;
    println!("{:#?}", log.lines(""));
    eventually("told", || log.lines("watch works again").len() == 1).await;
    rig.stop().await;

    let refused = log.lines("may not be read");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let rule = "add to the ClusterRole: {apiGroups: [\\\"inference.networking.x-k8s.io\\\"], resources: [\\\"inferencepools\\\"], verbs: [\\\"list\\\", \\\"watch\\\"]}";
    assert!(refused[0].contains("WARN") && refused[0].contains(rule), "{}", refused[0]);
    let slips = log.lines("metadata.annotations[weir.internal/engine]");
    assert_eq!(slips.len(), 2, "once when it comes up, once when it is gone: {slips:?}");
    assert!(slips[0].contains("WARN") && slips[0].contains("InferencePool n/p (inference.networking.k8s.io/v1)"), "{}", slips[0]);
    assert!(slips[0].contains("unknown engine `vlm`") && slips[1].contains("INFO"), "{slips:?}");
    assert_eq!(log.lines("everything was listed once").len(), 1);
}
