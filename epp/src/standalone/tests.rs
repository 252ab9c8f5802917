//! Over real sockets: a client, the proxy, model servers that say what the test wants, a director of the test's own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weir_serving::Health;

use super::{Proxy, ProxySettings};
use crate::exchange::Settings;
use crate::frontend::Frontend;
use crate::{Code, Director, Failure, InferenceRequest, Pick, Refusal, Ticket, Usage};

const CHAT: &str = r#"{"model":"llama","messages":[{"role":"user","content":"hi"}]}"#;
const STREAMED: &str = r#"{"model":"llama","prompt":"hi","stream":true}"#;

/// What the director was told.
type Told = Arc<Mutex<Vec<String>>>;

/// Picks these endpoints once the gate is open; refuses the model `nobody`.
struct Known {
    endpoints: Vec<SocketAddr>,
    /// What it names in their place.
    others: Vec<SocketAddr>,
    open: watch::Receiver<bool>,
    told: Told,
}

#[derive(Debug)]
struct Listening(Told);

impl Listening {
    fn hears(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Ticket for Listening {
    fn served_by(&mut self, endpoint: SocketAddr) {
        self.hears(format!("served by port {}", endpoint.port()));
    }
    fn response_started(&mut self, status: u16, _at: tokio::time::Instant) {
        self.hears(format!("started {status}"));
    }
    fn gateway_answered(&mut self, status: u16, why: Failure, _at: tokio::time::Instant) {
        self.hears(format!("gateway {status} {why:?}"));
    }
    fn response_bytes(&mut self, _bytes: usize, _at: tokio::time::Instant) {}
    fn usage(&mut self, usage: Usage) {
        self.hears(format!("{} tokens", usage.completion_tokens));
    }
    fn completed(&mut self, _at: tokio::time::Instant) {
        self.hears("completed".into());
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.hears("over".into());
    }
}

impl Director for Known {
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        let mut open = self.open.clone();
        Box::pin(async move {
            open.wait_for(|open| *open).await.unwrap();
            if request.model.as_deref() == Some("nobody") {
                let message = "nobody serves it".into();
                return Err(Refusal { code: Code::ServiceUnavailable, message, reason: Some("none"), retry_after: Some(7) });
            }
            Ok(Pick {
                endpoints: self.endpoints.clone(),
                target_model: request.model.map(|_| "llama-8b".into()),
                request_headers: vec![("x-picked", Some("yes".into()))],
                response_headers: Vec::new(),
                ticket: Box::new(Listening(Arc::clone(&self.told))),
            })
        })
    }

    fn instead(&self, _request: &InferenceRequest, unreached: &[SocketAddr]) -> Vec<SocketAddr> {
        let next = self.others.iter().find(|other| !unreached.contains(other));
        // A director may name one that was tried: nobody asks it again.
        next.into_iter().chain(&self.endpoints).copied().collect()
    }

    fn refused(&self, _model: Option<&str>, refusal: &Refusal) {
        self.told.lock().unwrap().push(format!("refused {:?}", refusal.code));
    }

    fn ready(&self) -> bool {
        true
    }
}

struct Rig {
    address: SocketAddr,
    open: watch::Sender<bool>,
    told: Told,
    registry: Registry,
    leaving: CancellationToken,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Body>,
}

async fn eventually(what: &str, met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), met).await.is_ok(), "{what}");
}

/// Answers on a free port of the loopback.
async fn listening(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A port where nobody listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Rig {
    async fn start(endpoints: Vec<SocketAddr>, open: bool, settings: ProxySettings) -> Self {
        Self::start_with(endpoints, Vec::new(), open, settings).await
    }

    async fn start_with(endpoints: Vec<SocketAddr>, others: Vec<SocketAddr>, open: bool, settings: ProxySettings) -> Self {
        let (open, opened) = watch::channel(open);
        let told = Told::default();
        let director = Known { endpoints, others, open: opened, told: Arc::clone(&told) };
        let mut registry = Registry::default();
        let leaving = CancellationToken::new();
        let several = Settings { several_endpoints: true, ..Settings::default() };
        let random = StdRng::seed_from_u64(1);
        let frontend = Frontend::new(Arc::new(director), several, random, Health::new(), leaving.clone(), &mut registry).unwrap();
        let proxy = Proxy::new(frontend, settings, &mut registry);
        let address = listening(proxy.router()).await;
        Self { address, open, told, registry, leaving, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    fn request(&self, path: &str, body: impl Into<Body>) -> http::Request<Body> {
        let request = http::Request::post(format!("http://{}{path}", self.address)).header("content-type", "application/json");
        request.body(body.into()).unwrap()
    }

    async fn ask(&self, path: &str, body: &'static str) -> (http::response::Parts, String) {
        let (parts, body) = self.client.request(self.request(path, body)).await.unwrap().into_parts();
        (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    /// Waits until the director was told this.
    async fn told(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?}"), || *self.told.lock().unwrap() == wanted).await;
    }

    fn counted(&self, series: &str) -> Option<u64> {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

/// A model server that answers with what it was asked, and how.
async fn echo() -> SocketAddr {
    listening(Router::new().fallback(async |request: Request| {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let asked =
            format!("{} {} {:?} {:?}", parts.method, parts.uri, header("x-picked"), header("x-gateway-inference-objective"));
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Response::builder().header("x-asked", asked).header("keep-alive", "timeout=9");
        // What is JSON names the client's model again on its way back.
        let answer = answer.header("x-body", http::HeaderValue::from_bytes(&body[..body.len().min(100)]).unwrap());
        answer.body(Body::from(body)).unwrap()
    }))
    .await
}

#[tokio::test]
async fn a_request_reaches_the_endpoint_as_a_gateway_would_send_it() {
    let server = echo().await;
    let rig = Rig::start(vec![server], true, ProxySettings::default()).await;
    let mut request = rig.request("/v1/chat/completions?a=b", CHAT);
    request.headers_mut().insert("x-gateway-inference-objective", "premium".parse().unwrap());
    let (parts, body) = rig.client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(parts.status, 200);
    assert_eq!(parts.headers["x-asked"], "POST /v1/chat/completions?a=b Some(\"yes\") None", "no control header goes on");
    assert_eq!(parts.headers["x-went-into-resp-headers"], "true");
    assert!(!parts.headers.contains_key("keep-alive"), "that is between proxy and server");
    assert_eq!(parts.headers["x-body"], CHAT.replace("llama", "llama-8b"), "the model that was picked, and no byte else");
    assert_eq!(body, CHAT, "and the model that was asked for");
    rig.told(&[&format!("served by port {}", server.port()), "started 200", "completed", "over"]).await;

    let list = http::Request::get(format!("http://{}/v1/models", rig.address)).body(Body::empty()).unwrap();
    let answer = rig.client.request(list).await.unwrap();
    assert_eq!(answer.headers()["x-asked"], "GET /v1/models Some(\"yes\") None");
}

#[tokio::test]
async fn what_did_not_reach_an_endpoint_goes_to_the_next_and_counts_against_the_last() {
    let (gone, server) = (nowhere().await, echo().await);
    let rig = Rig::start(vec![gone, server], true, ProxySettings::default()).await;
    let (parts, _) = rig.ask("/v1/completions", STREAMED).await;
    assert_eq!(parts.status, 200);
    assert_eq!(rig.counted("weir_epp_http_failures_total{reason=\"unreached\"}"), Some(1));
    rig.told(&[&format!("served by port {}", server.port()), "started 200", "completed", "over"]).await;

    let rig = Rig::start(vec![gone], true, ProxySettings::default()).await;
    let (parts, body) = rig.ask("/v1/completions", STREAMED).await;
    assert_eq!((parts.status.as_u16(), parts.headers["retry-after"].to_str().unwrap()), (503, "1"));
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["error"]["message"], format!("{gone} cannot be reached: Connection refused (os error 111)"));
    rig.told(&[&format!("served by port {}", gone.port()), "gateway 503 Unreached", "completed", "over"]).await;
}

#[tokio::test]
async fn once_all_that_were_picked_are_unreached_the_director_names_others_a_few_times() {
    let gone = [nowhere().await, nowhere().await, nowhere().await, nowhere().await, nowhere().await];
    let server = echo().await;
    let rig = Rig::start_with(vec![gone[0]], vec![gone[1], server], true, ProxySettings::default()).await;
    let (parts, _) = rig.ask("/v1/completions", STREAMED).await;
    assert_eq!(parts.status, 200);
    assert_eq!(rig.counted("weir_epp_http_failures_total{reason=\"unreached\"}"), Some(2));
    rig.told(&[&format!("served by port {}", server.port()), "started 200", "completed", "over"]).await;
    assert_eq!(rig.counted("weir_ext_proc_events_total{kind=\"served_elsewhere\"}"), Some(0));

    let rig = Rig::start_with(vec![gone[0]], gone[1..].to_vec(), true, ProxySettings::default()).await;
    let (parts, _) = rig.ask("/v1/completions", STREAMED).await;
    assert_eq!(parts.status, 503);
    assert_eq!(rig.counted("weir_epp_http_failures_total{reason=\"unreached\"}"), Some(4), "each of four endpoints once");
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up_and_no_server_is_blamed() {
    let settings = ProxySettings { body_idle: Duration::from_millis(50), ..ProxySettings::default() };
    let rig = Rig::start(vec![echo().await], true, settings).await;
    let still = || {
        let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("{"))]);
        Body::from_stream(begin.chain(futures_util::stream::pending()))
    };
    let answer = rig.client.request(rig.request("/v1/completions", still())).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(rig.counted("weir_epp_http_refusals_total{reason=\"slow_body\"}"), Some(1));
    let mut upload = rig.request("/upload", still());
    upload.headers_mut().insert("content-type", "application/octet-stream".parse().unwrap());
    let answer = rig.client.request(upload).await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(rig.counted("weir_epp_http_failures_total{reason=\"client\"}"), Some(1));
    eventually("the server has no part in it", || rig.told.lock().unwrap().iter().any(|told| told == "gateway 408 Elsewhere"))
        .await;
}

#[tokio::test]
async fn a_body_that_comes_drop_by_drop_is_given_up_in_the_end() {
    let settings = ProxySettings { body_whole: Duration::from_millis(100), ..ProxySettings::default() };
    let rig = Rig::start(vec![echo().await], true, settings).await;
    let drops = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from(" ")), ()))
    });
    let answer = rig.client.request(rig.request("/v1/completions", Body::from_stream(drops))).await.unwrap();
    assert_eq!(answer.status(), 408);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_after_a_while() {
    let mute = listening(Router::new().fallback(async || std::future::pending::<Response>().await)).await;
    let settings = ProxySettings { patience: Duration::from_millis(50), ..ProxySettings::default() };
    let rig = Rig::start(vec![mute, echo().await], true, settings).await;
    let (parts, body) = rig.ask("/v1/completions", STREAMED).await;
    assert_eq!(parts.status, 504);
    assert!(body.contains("said nothing for 50ms"), "{body}");
    assert_eq!(
        rig.counted("weir_epp_http_failures_total{reason=\"timed_out\"}"),
        Some(1),
        "it may have begun to work: no other is asked"
    );
}

#[tokio::test]
async fn a_refusal_is_an_error_of_the_api() {
    let rig = Rig::start(vec![], true, ProxySettings::default()).await;
    let (parts, body) = rig.ask("/v1/completions", r#"{"model":"nobody","prompt":"a"}"#).await;
    assert_eq!((parts.status.as_u16(), parts.headers["retry-after"].to_str().unwrap()), (503, "7"));
    assert_eq!(parts.headers["x-llm-d-request-dropped-reason"], "none");
    assert_eq!(parts.headers["content-type"], "application/json");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["error"]["message"], "inference error: ServiceUnavailable - nobody serves it");
    assert_eq!(told["error"]["code"], 503);

    let (parts, _) = rig.ask("/v1/completions", "{").await;
    assert_eq!(parts.status, 400);
    let mut upgrade = rig.request("/v1/realtime", "");
    upgrade.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let answer = rig.client.request(upgrade).await.unwrap();
    assert_eq!(answer.status(), 501);
}

/// A model server whose streamed answer has two events, then ends, or breaks off as soon as `dies` says so.
async fn events(dies: Option<Arc<Notify>>) -> SocketAddr {
    listening(Router::new().fallback(move || {
        let dies = dies.clone();
        async move {
            let event = |text: &str| Ok::<_, std::io::Error>(Bytes::from(format!("data: {{\"text\":\"{text}\"}}\n\n")));
            let end = futures_util::stream::once(async move {
                match dies {
                    None => Ok(Bytes::from("data: [DONE]\n\n")),
                    Some(dies) => {
                        dies.notified().await;
                        Err(std::io::Error::other("the server died"))
                    }
                }
            });
            let body = Body::from_stream(futures_util::stream::iter([event("a"), event("b")]).chain(end));
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    }))
    .await
}

#[tokio::test]
async fn who_waits_for_a_streamed_answer_hears_that_it_goes_on() {
    let settings = ProxySettings { comments: Some(Duration::from_millis(5)), ..ProxySettings::default() };
    let rig = Rig::start(vec![events(None).await], false, settings).await;
    let answer = rig.client.request(rig.request("/v1/completions", STREAMED)).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, "text/event-stream"));
    let mut body = answer.into_body().into_data_stream();
    for _ in 0..2 {
        assert_eq!(body.next().await.unwrap().unwrap(), ": waiting for an endpoint\n\n");
    }
    rig.open.send_replace(true);
    let mut rest = String::new();
    while let Some(piece) = body.next().await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let rest = rest.replace(": waiting for an endpoint\n\n", "");
    assert_eq!(rest, "data: {\"text\":\"a\"}\n\ndata: {\"text\":\"b\"}\n\ndata: [DONE]\n\n");
    assert!(rig.counted("weir_epp_http_comments_total") >= Some(2));
}

#[tokio::test]
async fn a_refusal_after_a_comment_is_an_event() {
    let settings = ProxySettings { comments: Some(Duration::from_millis(5)), ..ProxySettings::default() };
    let rig = Rig::start(vec![], false, settings).await;
    let answer = rig.client.request(rig.request("/v1/completions", STREAMED)).await.unwrap();
    let mut body = answer.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), ": waiting for an endpoint\n\n");
    rig.leaving.cancel();
    let mut rest = String::new();
    while let Some(piece) = body.next().await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let rest = rest.replace(": waiting for an endpoint\n\n", "");
    let event = rest.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\ndata: [DONE]\n\n")).unwrap();
    let told: Value = serde_json::from_str(event).unwrap();
    assert_eq!(told["error"]["message"], "inference error: ServiceUnavailable - the picker is shutting down");
}

#[tokio::test]
async fn who_does_not_wait_for_a_stream_hears_nothing_before_the_answer() {
    let settings = ProxySettings { comments: Some(Duration::from_millis(5)), ..ProxySettings::default() };
    let rig = Rig::start(vec![echo().await], false, settings).await;
    let asked = rig.client.request(rig.request("/v1/chat/completions", CHAT));
    let early = tokio::time::timeout(Duration::from_millis(50), asked).await;
    assert!(early.is_err(), "nothing is said while it waits");
    // The client has gone with that.
    eventually("that is noticed", || rig.counted("weir_ext_proc_events_total{kind=\"gone_before_pick\"}") == Some(1)).await;
    rig.open.send_replace(true);
    let (parts, _) = rig.ask("/v1/chat/completions", CHAT).await;
    assert_eq!(parts.status, 200);
    assert_eq!(rig.counted("weir_epp_http_comments_total"), Some(0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let dies = Arc::new(Notify::new());
    let rig = Rig::start(vec![events(Some(Arc::clone(&dies))).await], true, ProxySettings::default()).await;
    let answer = rig.client.request(rig.request("/v1/completions", STREAMED)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    dies.notify_one();
    assert!(body.collect().await.is_err(), "a clean end would look like a whole answer");
    assert_eq!(rig.counted("weir_epp_http_failures_total{reason=\"broken\"}"), Some(1));
    assert_eq!(rig.told.lock().unwrap().iter().filter(|told| *told == "completed").count(), 0);
}

#[tokio::test]
async fn a_body_of_an_unknown_kind_passes_piece_by_piece() {
    let rig = Rig::start(vec![echo().await], true, ProxySettings::default()).await;
    let pieces = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'a'; 10_000]))));
    let mut request = rig.request("/upload", Body::from_stream(pieces));
    request.headers_mut().insert("content-type", "application/octet-stream".parse().unwrap());
    let answer = rig.client.request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1_000_000);
}
