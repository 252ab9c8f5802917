//! The keeper against an API server that refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use weir_datastore::RequiredOptions;
use weir_k8s::Leader;

use crate::tests::{Rig, SECOND};
use crate::{ConfigMapKeeper, ConfigMapSettings, DemandMetrics, Ledger};

/// What was asked, and an API server without the ConfigMap that lets it be read if `readable`, and never written.
fn server(readable: bool) -> (Client, Arc<Mutex<Vec<Method>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        told.lock().unwrap().push(request.method().clone());
        let watches = request.uri().query().is_some_and(|query| query.contains("watch="));
        async move {
            if readable && request.method() == Method::GET {
                if watches {
                    std::future::pending::<()>().await;
                }
                let list = r#"{"apiVersion":"v1","kind":"ConfigMapList","metadata":{"resourceVersion":"1"},"items":[]}"#;
                return Ok::<_, std::convert::Infallible>(Response::new(Body::from(list.as_bytes().to_vec())));
            }
            let status =
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no right","code":403}"#;
            let mut refusal = Response::new(Body::from(status.as_bytes().to_vec()));
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            Ok(refusal)
        }
    });
    (Client::new(service, "weir-system"), asked)
}

/// A ledger that has learned something, kept for two minutes by that server: what is counted.
async fn kept(readable: bool, leader: Leader) -> (Rig, Ledger, String, Vec<Method>) {
    let mut registry = Registry::default();
    let ledger = Ledger::new(RequiredOptions::default(), DemandMetrics::register(&mut registry));
    let rig = Rig::full(&ledger);
    let (client, asked) = server(readable);
    let settings = ConfigMapSettings { namespace: "weir-system".into(), name: "weir-learned".into() };
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(ConfigMapKeeper::new(client, settings, ledger.clone(), leader).run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(120)).await;
    stop.cancel();
    keeper.await.unwrap();
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    let asked = asked.lock().unwrap().clone();
    (rig, ledger, page, asked)
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_read_it_goes_on_unlearned_and_writes_nothing() {
    let (mut rig, ledger, page, asked) = kept(false, Leader::always()).await;
    assert!(page.contains("weir_demand_documents_readable 0"), "{page}");
    assert!(asked.len() > 1 && asked.iter().all(|method| *method == Method::GET), "tried again, never blind: {asked:?}");
    rig.elapsed += SECOND;
    rig.turn(&ledger);
    assert!(rig.level().is_ok(), "{:?}", rig.level());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_refused_is_tried_again_no_sooner_than_after_half_a_minute() {
    let (_, _, page, asked) = kept(true, Leader::always()).await;
    assert!(page.contains("weir_demand_documents_readable 1"), "{page}");
    let writes = asked.iter().filter(|method| **method == Method::POST).count();
    assert!((1..=5).contains(&writes), "{asked:?}");
    assert!(page.contains(&format!("weir_demand_writes_total{{result=\"forbidden\"}} {writes}")), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_writes_nothing() {
    let (_, _, page, asked) = kept(true, Leader::never()).await;
    assert!(asked.iter().all(|method| *method == Method::GET), "{asked:?}");
    assert!(!page.contains("weir_demand_writes_total{"), "{page}");
}
