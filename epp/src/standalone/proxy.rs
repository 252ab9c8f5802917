//! A request's way through the standalone frontend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header, request};
use hyper::body::Body as _;
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use weir_serving::ConnectionInfo;

use super::comments;
use super::head;
use super::metrics::{ProxyMetrics, Refused};
use super::placing::{Placed, Placing};
use super::relay::Relay;
use super::upstream::{Trouble, Upstream};
use crate::conversation::Conversation;
use crate::exchange::{Head, HeadReply, Immediate, Incoming, Message, Reply};
use crate::frontend::Frontend;
use crate::journal::Door;

/// What can be set of a [`Proxy`].
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// How long it may take to connect to an endpoint, 2 s; then the next one is tried.
    pub connect: Duration,
    /// How endpoints are spoken to over TLS; in plain text where none.
    pub server_tls: Option<Arc<ClientConfig>>,
    /// Whether clients come over TLS.
    pub client_tls: bool,
    /// How long a client may send nothing of a body that it has begun, 30 s.
    pub body_idle: Duration,
    /// How long a body that is to be read as a whole may take, 10 min.
    pub body_whole: Duration,
    /// How long an endpoint may say nothing, before its answer and within it, 10 min.
    pub patience: Duration,
    /// After how long, and how often from then on, a client that waits for a streamed answer is sent a comment, 15 s; never where
    /// none. From the first comment on the answer's status is 200, and a refusal comes as an event.
    pub comments: Option<Duration>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            server_tls: None,
            client_tls: false,
            body_idle: Duration::from_secs(30),
            body_whole: Duration::from_secs(600),
            patience: Duration::from_secs(600),
            comments: Some(Duration::from_secs(15)),
        }
    }
}

/// A reverse proxy that places requests as its [`Frontend`] does; cloning shares all of it.
#[derive(Clone, Debug)]
pub struct Proxy {
    frontend: Frontend,
    settings: Arc<ProxySettings>,
    upstream: Upstream,
    metrics: ProxyMetrics,
}

impl Proxy {
    /// A proxy that asks what `frontend` asks, its metrics exposed by `registry`.
    pub fn new(frontend: Frontend, settings: ProxySettings, registry: &mut Registry) -> Self {
        let metrics = ProxyMetrics::register(registry);
        let upstream = Upstream::new(&settings, metrics.clone());
        Self { frontend, settings: Arc::new(settings), upstream, metrics }
    }

    /// Every path goes to the model servers.
    pub fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }

    /// Sends what was placed, and passes the answer on.
    async fn go_on(self, conversation: Conversation, parts: request::Parts, placed: Placed) -> Response {
        let id = id(&conversation, &parts);
        let mut response = self.answer(conversation, parts, placed).await;
        if let Some(id) = id {
            response.headers_mut().entry(head::REQUEST_ID).or_insert(id);
        }
        response
    }

    async fn answer(self, mut conversation: Conversation, mut parts: request::Parts, placed: Placed) -> Response {
        let (changes, body) = match placed {
            Placed::Picked(changes, body) => (changes, body),
            Placed::Answered(answer) => return refused(&answer),
            Placed::Gone => {
                // Nobody reads it.
                self.metrics.refused(Refused::BrokenBody);
                return failure(StatusCode::BAD_REQUEST, "the request's body broke off");
            }
            Placed::Slow => {
                self.metrics.refused(Refused::SlowBody);
                let mut answer = failure(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly: nothing of it is kept");
                // What is left of it is not read.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                return answer;
            }
        };
        let endpoints = endpoints(&changes);
        head::pass_on(&mut parts);
        let client = parts.extensions.get::<ConnectionInfo>().map(|connection| connection.peer().ip());
        head::forward(&mut parts.headers, client, if self.settings.client_tls { "https" } else { "http" });
        head::change(&mut parts.headers, &changes);
        let (endpoint, response) = match self.upstream.send(&mut conversation, endpoints, &parts, body).await {
            Ok(answer) => answer,
            Err((endpoint, trouble)) => return unanswered(&mut conversation, endpoint, &trouble),
        };
        let (mut parts, body) = response.into_parts();
        let told = head::of_response(&parts, body.is_end_stream());
        response_head(&mut conversation, told, Some(endpoint), None);
        head::strip(&mut parts.headers);
        while let Some(reply) = conversation.reply() {
            if let Reply::ResponseHeaders(changes) = reply {
                head::change(&mut parts.headers, &changes);
                break;
            }
        }
        let relay = Relay { conversation, body, patience: self.settings.patience, metrics: self.metrics.clone() };
        Response::from_parts(parts, relay.into_body())
    }
}

async fn handle(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(answer) = not_spoken(&parts) {
        proxy.metrics.refused(Refused::NotSpoken);
        return answer;
    }
    let Some(conversation) = proxy.frontend.conversation(Door::Http) else {
        proxy.metrics.refused(Refused::TooMany);
        let most = proxy.frontend.most_streams();
        return failure(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{most} requests are open, as many as the picker's limit allows"),
        );
    };
    let mut placing = Placing::new(conversation.keeping(), &parts, body, &proxy.settings);
    let placed = match proxy.settings.comments {
        None => placing.run().await,
        Some(every) => match timeout(every, placing.run()).await {
            Ok(placed) => placed,
            Err(_elapsed) if placing.conversation.is_waiting() && placing.conversation.streaming() => {
                let metrics = proxy.metrics.clone();
                let id = id(&placing.conversation, &parts);
                let answer = async move {
                    let placed = placing.run().await;
                    proxy.go_on(placing.conversation, parts, placed).await
                };
                let mut response = comments::until(Box::pin(answer), every, metrics);
                response.headers_mut().extend(id.map(|id| (head::REQUEST_ID, id)));
                return response;
            }
            Err(_elapsed) => placing.run().await,
        },
    };
    proxy.go_on(placing.conversation, parts, placed).await
}

/// What the request is called in its answer.
fn id(conversation: &Conversation, parts: &request::Parts) -> Option<HeaderValue> {
    let known = conversation.request_id().and_then(|id| HeaderValue::from_str(id).ok());
    known.or_else(|| parts.headers.get(head::REQUEST_ID).cloned())
}

/// What a proxy without upgrades and tunnels refuses.
fn not_spoken(parts: &request::Parts) -> Option<Response> {
    let what = match (parts.method == http::Method::CONNECT, parts.headers.contains_key(header::UPGRADE)) {
        (true, _) => "CONNECT",
        (_, true) => "an upgraded connection (WebSocket)",
        _ => return None,
    };
    let way_out = "reach the pool through a gateway, whose requests the ext_proc port places";
    Some(failure(StatusCode::NOT_IMPLEMENTED, &format!("{what} cannot be passed on here: {way_out}")))
}

/// The endpoints picked, as a gateway is told them.
fn endpoints(changes: &HeadReply) -> Vec<SocketAddr> {
    let told = changes.metadata.as_ref().map_or("", |pick| pick.0.as_str());
    told.split(',').filter_map(|endpoint| endpoint.parse().ok()).collect()
}

/// Tells of a response's head.
fn response_head(conversation: &mut Conversation, head: Head, endpoint: Option<SocketAddr>, code_details: Option<&str>) {
    let incoming = Incoming {
        message: Some(Message::ResponseHeaders(head)),
        upstream_address: endpoint.map(|endpoint| endpoint.to_string()),
        code_details: code_details.map(str::to_owned),
        ..Incoming::default()
    };
    conversation.message(incoming, Instant::now());
}

/// The answer where no endpoint brought one, as a gateway makes it.
fn unanswered(conversation: &mut Conversation, endpoint: Option<SocketAddr>, trouble: &Trouble) -> Response {
    let status = match trouble {
        Trouble::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        Trouble::Unreached(_) | Trouble::Broken(_) => StatusCode::SERVICE_UNAVAILABLE,
        Trouble::Client => StatusCode::REQUEST_TIMEOUT,
    };
    let head = Head { headers: vec![(":status".into(), status.as_str().into())], end: true };
    response_head(conversation, head, endpoint, Some(trouble.code_details()));
    // Counts what is to be counted.
    while conversation.reply().is_some() {}
    let endpoint = endpoint.map_or_else(|| "the endpoint".to_owned(), |endpoint| endpoint.to_string());
    let mut response = failure(status, &format!("{endpoint} {trouble}"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A refusal in the form that clients of OpenAI's API read.
fn refused(answer: &Immediate) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = failure(status, &answer.body);
    let changes = HeadReply {
        set: answer.headers.iter().filter(|(name, _)| *name != "content-type").cloned().collect(),
        ..HeadReply::default()
    };
    head::change(response.headers_mut(), &changes);
    response
}

fn failure(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(error_body(status, message))).into_response()
}

/// An error as OpenAI's API tells it.
pub(super) fn error_body(status: StatusCode, message: &str) -> Value {
    let kind = status.canonical_reason().unwrap_or("error");
    json!({ "error": { "message": message, "type": kind, "param": null, "code": status.as_u16() } })
}
