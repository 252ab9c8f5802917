//! Sends a request to the endpoints picked, in their order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::{Request, Response, Uri, header, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::ProxySettings;
use super::metrics::ProxyMetrics;
use super::placing::RequestBody;
use crate::conversation::Conversation;

/// Uvicorn closes connections that were idle for 5 s.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept to each endpoint, at most.
const IDLE_CONNECTIONS: usize = 256;
/// Endpoints that are tried, unless a pick names more.
const MOST_TRIES: usize = 4;

/// Why an endpoint brought no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection.
    Unreached(String),
    /// The connection ended, or what came over it is not HTTP.
    Broken(String),
    /// Nothing came for too long.
    TimedOut(Duration),
    /// The client did not send its body.
    Client,
}

impl Trouble {
    pub(super) const REASONS: [&str; 4] = ["unreached", "broken", "timed_out", "client"];

    /// Label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreached(_) => Self::REASONS[0],
            Self::Broken(_) => Self::REASONS[1],
            Self::TimedOut(_) => Self::REASONS[2],
            Self::Client => Self::REASONS[3],
        }
    }

    /// As Envoy calls it (`response.code_details`): the director counts it against the endpoint, but for the client's own.
    pub(super) fn code_details(&self) -> &'static str {
        match self {
            Self::Unreached(_) => "upstream_reset_before_response_started{connection_failure}",
            Self::Broken(_) => "upstream_reset_before_response_started{connection_termination}",
            Self::TimedOut(_) => "upstream_response_timeout",
            Self::Client => "downstream_remote_disconnect",
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreached(why) => write!(formatter, "cannot be reached: {why}"),
            Self::Broken(why) => write!(formatter, "broke off before its answer: {why}"),
            Self::TimedOut(after) => write!(formatter, "said nothing for {after:?}"),
            Self::Client => formatter.write_str("did not get the whole request: its body came too slowly, or broke off"),
        }
    }
}

/// Connections to endpoints.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    connections: Connections,
    patience: Duration,
    body_idle: Duration,
    metrics: ProxyMetrics,
}

#[derive(Clone, Debug)]
enum Connections {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Connections {
    fn scheme(&self) -> &'static str {
        match self {
            Self::Plain(_) => "http",
            Self::Tls(_) => "https",
        }
    }

    fn request(&self, request: Request<Body>) -> ResponseFuture {
        match self {
            Self::Plain(client) => client.request(request),
            Self::Tls(client) => client.request(request),
        }
    }
}

impl Upstream {
    /// Connects, and waits for an answer's head, as long as `settings` say.
    pub(super) fn new(settings: &ProxySettings, metrics: ProxyMetrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_CONNECTIONS);
        let connections = match &settings.server_tls {
            None => Connections::Plain(builder.build(connector)),
            Some(tls) => {
                connector.enforce_http(false);
                Connections::Tls(builder.build(HttpsConnector::from((connector, tls.clone()))))
            }
        };
        Self { connections, patience: settings.patience, body_idle: settings.body_idle, metrics }
    }

    /// The first answer of `endpoints`; where none can be reached, of those that `conversation` names instead. Only what did not reach
    /// an endpoint is sent to the next one: a model server may have begun to work on anything else.
    ///
    /// # Errors
    /// The last endpoint tried, and why it brought none.
    pub(super) async fn send(
        &self,
        conversation: &mut Conversation,
        mut endpoints: Vec<SocketAddr>,
        head: &request::Parts,
        body: RequestBody,
    ) -> Result<(SocketAddr, Response<Incoming>), (Option<SocketAddr>, Trouble)> {
        let (whole, mut passing) = match body {
            RequestBody::Whole(bytes) => (Some(bytes), None),
            RequestBody::Passing(begin, rest) => (None, Some(ClientBody::new(begin, rest, self.body_idle))),
        };
        let mut tried = Vec::new();
        let mut last = (None, Trouble::Unreached("no endpoint was picked".into()));
        loop {
            if tried.len() >= endpoints.len() {
                if tried.is_empty() || tried.len() >= MOST_TRIES {
                    break;
                }
                endpoints.extend(conversation.instead(&tried));
            }
            let Some(endpoint) = endpoints.get(tried.len()).copied() else { break };
            // What passes piece by piece is there once.
            let Some(body) = whole.clone().map(Body::from).or_else(|| passing.as_mut().and_then(|client| client.body.take()))
            else {
                break;
            };
            let trouble = match self.attempt(endpoint, head, whole.is_some(), body).await {
                Ok(response) => return Ok((endpoint, response)),
                // A client's fault is none of the endpoint's.
                Err(_) if passing.as_ref().is_some_and(ClientBody::failed) => Trouble::Client,
                Err(trouble) => trouble,
            };
            self.metrics.failed(&trouble);
            tracing::debug!(%endpoint, %trouble, "an endpoint brought no answer");
            let again = matches!(trouble, Trouble::Unreached(_));
            last = (Some(endpoint), trouble);
            tried.push(endpoint);
            if !again {
                break;
            }
        }
        Err(last)
    }

    async fn attempt(
        &self,
        endpoint: SocketAddr,
        head: &request::Parts,
        whole: bool,
        body: Body,
    ) -> Result<Response<Incoming>, Trouble> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme(self.connections.scheme()).authority(endpoint.to_string()).path_and_query(path).build();
        let uri = uri.map_err(|error| Trouble::Broken(error.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers.clone();
        if whole {
            // As long as it is now.
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        match timeout(self.patience, self.connections.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(trouble(&error)),
            Err(_elapsed) => Err(Trouble::TimedOut(self.patience)),
        }
    }
}

fn trouble(error: &Error) -> Trouble {
    if error.is_connect() { Trouble::Unreached(root(error)) } else { Trouble::Broken(root(error)) }
}

/// What a client still sends.
struct ClientBody {
    body: Option<Body>,
    failed: Arc<AtomicBool>,
}

impl ClientBody {
    /// `begin`, then what comes of `rest`: each piece within `idle`.
    fn new(begin: Bytes, rest: Body, idle: Duration) -> Self {
        let failed = Arc::new(AtomicBool::new(false));
        let told = failed.clone();
        let begin = futures_util::stream::iter((!begin.is_empty()).then_some(Ok(begin)));
        let rest = unfold(Some(rest), move |rest| {
            let told = told.clone();
            async move {
                let mut rest = rest?;
                loop {
                    let wrong = match timeout(idle, rest.frame()).await {
                        Ok(None) => return None,
                        Ok(Some(Ok(frame))) => match frame.into_data() {
                            Ok(data) => return Some((Ok(data), Some(rest))),
                            // Trailers say nothing that a model server reads.
                            Err(_trailers) => continue,
                        },
                        Ok(Some(Err(error))) => io::Error::other(error),
                        Err(_elapsed) => io::ErrorKind::TimedOut.into(),
                    };
                    told.store(true, Ordering::Relaxed);
                    return Some((Err(wrong), None));
                }
            }
        });
        Self { body: Some(Body::from_stream(begin.chain(rest))), failed }
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What an error comes from: the wrapping says nothing.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
