use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use tokio::{net::TcpStream, sync::Semaphore};

use super::support::*;
use crate::{Drain, DrainReport, Health};

struct Work {
    started: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

/// `/task` ends when the gate opens.
fn work() -> (Router, Work) {
    let [started, gate] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let work = Work { started: Arc::clone(&started), gate: Arc::clone(&gate) };
    let answer = move || {
        let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
        async move {
            started.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "done"
        }
    };
    let router = Router::new().route("/task", get(answer)).route("/", get(async || "page"));
    (router, work)
}

#[tokio::test]
async fn a_running_request_finishes_and_new_connections_are_refused() {
    let (router, work) = work();
    let server = start(router, |builder| builder).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    ask(&mut idle, "/", "page").await;
    let request = tokio::spawn(plain_client().get(server.url("/task")).send());
    arrived(&work.started, 1).await;

    server.shutdown.cancel();
    assert_eq!(read_to_end(&mut idle).await, "", "idle connections end");
    wait_until("new connections are refused", async || TcpStream::connect(server.address).await.is_err()).await;
    assert!(!request.is_finished());
    work.gate.add_permits(1);
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(body(response).await, "done");
    let report = server.end().await;
    assert_eq!(DrainReport { took: Duration::ZERO, ..report }, DrainReport { connections_finished: 2, ..DrainReport::default() });
}

#[tokio::test]
async fn an_http2_request_finishes_too() {
    let (router, work) = work();
    let server = start(router, |builder| builder).await;
    let h2 = http2_client();
    let request = tokio::spawn(h2.get(server.url("/task")).send());
    arrived(&work.started, 1).await;
    server.shutdown.cancel();
    wait_until("new connections are refused", async || TcpStream::connect(server.address).await.is_err()).await;
    work.gate.add_permits(1);
    assert_eq!(body(request.await.unwrap().unwrap()).await, "done");
    let report = server.end().await;
    assert_eq!((report.connections_finished, report.requests_cut), (1, 0));
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_cut_and_told() {
    let (router, work) = work();
    let drain = Drain { grace: Duration::from_millis(50), ..Drain::default() };
    let server = start(router, |builder| builder.drain(drain)).await;
    let h2 = http2_client();
    let requests = [(); 2].map(|()| tokio::spawn(h2.get(server.url("/task")).send()));
    arrived(&work.started, 2).await;
    let report = server.end().await;
    assert_eq!((report.connections_cut, report.requests_cut), (1, 2), "{report}");
    assert!(report.took >= Duration::from_millis(50));
    for request in requests {
        assert!(request.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn readiness_fails_before_connections_are_refused() {
    let (router, _work) = work();
    let health = Health::new();
    let drain = Drain { delay: Duration::from_millis(1500), ..Drain::default() };
    let server = start(router, |builder| builder.drain(drain).health(health.clone())).await;
    assert_eq!(status(&server.url("/readyz")).await, 200);
    server.shutdown.cancel();
    wait_until("not ready", async || !health.not_ready().is_empty()).await;
    let response = plain_client().get(server.url("/readyz")).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 500);
    assert!(body(response).await.contains("[-]shutdown failed: reason withheld\n"));
    assert_eq!(status(&server.url("/")).await, 200, "still serving");
    let report = server.end().await;
    assert_eq!(report.requests_cut, 0);
}
