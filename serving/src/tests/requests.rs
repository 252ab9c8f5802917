use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::ConnectInfo,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::sync::Semaphore;

use super::support::*;
use crate::{AuditId, Authenticator, Caller, Decision, Health, RequestLabels, RequestLimits, Verdict};

/// `/held` answers once the gate has a permit; `started` gets one for each request that arrived.
struct Held {
    started: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

fn held() -> (Router, Held) {
    let [started, gate] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let held = Held { started: Arc::clone(&started), gate: Arc::clone(&gate) };
    let answer = move || {
        let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
        async move {
            started.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "done"
        }
    };
    (Router::new().route("/held", get(answer)), held)
}

/// Everyone on this machine is who their header says.
struct Named;

impl Authenticator for Named {
    fn name(&self) -> &'static str {
        "named"
    }
    fn authenticate<'a>(&'a self, request: &'a http::request::Parts, _now: std::time::SystemTime) -> Decision<'a> {
        let group = request.headers.get("x-group").and_then(|group| group.to_str().ok());
        let groups = group.map(String::from);
        Box::pin(std::future::ready(Verdict::Accepted(Caller::new("someone", groups))))
    }
}

#[tokio::test]
async fn above_the_in_flight_limit_requests_are_shed() {
    let (router, held) = held();
    let limits = RequestLimits { in_flight: 1, ..RequestLimits::default() };
    let named = crate::Authentication::AnyOf(vec![Arc::new(Named)]);
    let server = start(router, |builder| builder.request_limits(limits).authentication(named)).await;
    let url = server.url("/held");
    let ask = |group: &'static str| {
        let request = plain_client().get(&url).header("x-group", group);
        tokio::spawn(async move { request.send().await.unwrap() })
    };
    let first = ask("none");
    arrived(&held.started, 1).await;
    let in_flight = r#"apiserver_current_inflight_requests{component="test",request_kind="readOnly"}"#;
    assert_eq!(server.metric(in_flight), 1.0);

    let shed = ask("none").await.unwrap();
    assert_eq!(shed.status(), 429);
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(shed.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(body(shed).await, "Too many requests, please try again later.\n");
    assert_eq!(status(&server.url("/livez")).await, 200, "not counted");
    let master = ask("system:masters");
    arrived(&held.started, 1).await;
    held.gate.add_permits(2);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(master.await.unwrap().status(), 200);
    held.gate.add_permits(1);
    assert_eq!(ask("none").await.unwrap().status(), 200, "room again");
    assert_eq!(server.metric(in_flight), 0.0);
}

#[tokio::test]
async fn a_request_past_its_deadline_is_answered_504() {
    let (router, _held) = held();
    let limits = RequestLimits { deadline: Duration::from_millis(20), ..RequestLimits::default() };
    let server = start(router, |builder| builder.request_limits(limits)).await;
    let response = plain_client().get(server.url("/held")).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(
        body(response).await,
        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"Timeout: request did not complete within the allotted timeout\",\"reason\":\"Timeout\",\"code\":504}\n"
    );
}

#[tokio::test]
async fn a_panic_is_answered_500_without_its_text() {
    let router = Router::new().route(
        "/",
        get(|Extension(id): Extension<AuditId>| async move {
            assert!(id.as_str().is_empty(), "a secret");
        }),
    );
    let server = start(router, |builder| builder).await;
    let mut kept = tokio::net::TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        let answer = ask(&mut kept, "/", "\"code\":500}\n").await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("\"reason\":\"InternalError\""));
        assert!(!answer.contains("secret"), "{answer}");
    }
    assert_eq!(server.metric(r#"weir_serving_panics_total{component="test"}"#), 2.0);
}

#[tokio::test]
async fn every_answer_carries_the_common_headers() {
    let router = who().route("/cached", get(async || ([("cache-control", "max-age=5")], "x")));
    let server = start(router, |builder| builder).await;
    for path in ["/who", "/livez", "/unknown"] {
        let request = plain_client().get(server.url(path));
        let response = request.header("audit-id", "given-1").send().await.unwrap();
        assert_eq!(response.headers()["audit-id"], "given-1", "{path}");
        assert_eq!(response.headers()["cache-control"], "no-cache, private");
        let [one, two] = [(); 2].map(|()| plain_client().get(server.url(path)).send());
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        assert_eq!(one.headers()["audit-id"].len(), 36);
        assert_ne!(one.headers()["audit-id"], two.headers()["audit-id"]);
    }
    let cached = plain_client().get(server.url("/cached")).send().await;
    assert_eq!(cached.unwrap().headers()["cache-control"], "max-age=5");
}

#[tokio::test]
async fn bodies_are_bounded_announced_or_not() {
    let router = Router::new().route("/", post(async |body: Bytes| body.len().to_string())).route("/", get(async || "ignored"));
    let limits = RequestLimits { body_bytes: 4 << 20, ..RequestLimits::default() };
    let server = start(router, |builder| builder.request_limits(limits)).await;
    let post = |length: usize| plain_client().post(server.url("/")).body(vec![b'x'; length]);
    let fits = post(4 << 20).send().await.unwrap();
    assert_eq!(body(fits).await, (4 << 20).to_string(), "no smaller limit within");

    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let announced = format!("{head}content-length: 4194305\r\n\r\n");
    let answer = exchange(server.address, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("Request entity too large: limit is 4194304"));

    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{}1\r\nx\r\n0\r\n\r\n", chunk.repeat(4));
    let answer = exchange(server.address, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn requests_are_counted_by_route_or_by_the_handlers_labels() {
    let labels = RequestLabels { verb: "LIST", group: "external.metrics.k8s.io", version: "v1beta1", resource: "held".into() };
    let peer = |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move { peer.ip().to_string() };
    let router = Router::new()
        .route("/things/{name}", get(async || "x"))
        .route("/peer", get(peer))
        .route("/metric", get(|| async move { (Extension(labels), "x").into_response() }));
    let server = start(router, |builder| builder).await;
    for path in ["/things/a", "/things/b", "/metric", "/invented", "/readyz"] {
        status(&server.url(path)).await;
    }
    let invented = exchange(server.address, b"INVENTED /things/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(invented.await.starts_with("HTTP/1.1 405 "));
    let count = |labels: &str| server.metric(&format!(r#"apiserver_request_total{{component="test",{labels}}}"#));
    let plain = |verb: &str, route: &str, code: u16| {
        count(&format!(r#"verb="{verb}",group="",version="",resource="",subresource="{route}",code="{code}""#))
    };
    assert_eq!(plain("GET", "/things/{name}", 200), 2.0);
    assert_eq!(plain("GET", "/readyz", 200), 1.0);
    assert_eq!(plain("GET", "unmatched", 404), 1.0);
    assert_eq!(plain("OTHER", "/things/{name}", 405), 1.0);
    assert_eq!(
        count(r#"verb="LIST",group="external.metrics.k8s.io",version="v1beta1",resource="held",subresource="",code="200""#),
        1.0
    );
    let peer = plain_client().get(server.url("/peer")).send().await;
    assert_eq!(body(peer.unwrap()).await, "127.0.0.1");
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_499() {
    let (router, held) = held();
    let server = start(router, |builder| builder).await;
    let request = tokio::spawn(plain_client().get(server.url("/held")).send());
    arrived(&held.started, 1).await;
    request.abort();
    server
        .wait_for_metric(
            r#"apiserver_request_total{component="test",verb="GET",group="",version="",resource="",subresource="/held",code="499"}"#,
            1.0,
        )
        .await;
}

#[tokio::test]
async fn readiness_is_served_and_shadows_the_routers() {
    let health = Health::new();
    let synced = health.block("informer-sync");
    let router = Router::new().route("/readyz", get(async || "always"));
    let server = start(router, |builder| builder.health(health.clone())).await;
    let response = plain_client().get(server.url("/readyz")).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 500);
    assert!(body(response).await.contains("[-]informer-sync failed: reason withheld\n"));
    drop(synced);
    assert_eq!(status(&server.url("/readyz")).await, 200);
}
