//! Sends a request to the endpoints picked, in their order.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response, Uri, header, request};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::metrics::ProxyMetrics;
use super::placing::RequestBody;

/// Uvicorn closes connections that were idle for 5 s.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept to each endpoint, at most.
const IDLE_CONNECTIONS: usize = 256;

/// Why an endpoint brought no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection.
    Unreached(String),
    /// The connection ended, or what came over it is not HTTP.
    Broken(String),
    /// Nothing came for too long.
    TimedOut(Duration),
}

impl Trouble {
    pub(super) const REASONS: [&str; 3] = ["unreached", "broken", "timed_out"];

    /// Label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreached(_) => Self::REASONS[0],
            Self::Broken(_) => Self::REASONS[1],
            Self::TimedOut(_) => Self::REASONS[2],
        }
    }

    /// As Envoy calls it (`response.code_details`): the director counts it against the endpoint.
    pub(super) fn code_details(&self) -> &'static str {
        match self {
            Self::Unreached(_) => "upstream_reset_before_response_started{connection_failure}",
            Self::Broken(_) => "upstream_reset_before_response_started{connection_termination}",
            Self::TimedOut(_) => "upstream_response_timeout",
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreached(why) => write!(formatter, "cannot be reached: {why}"),
            Self::Broken(why) => write!(formatter, "broke off before its answer: {why}"),
            Self::TimedOut(after) => write!(formatter, "said nothing for {after:?}"),
        }
    }
}

/// Connections to endpoints.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: Client<HttpConnector, Body>,
    patience: Duration,
    metrics: ProxyMetrics,
}

impl Upstream {
    /// Connects within `connect`, waits for an answer's head as long as `patience`.
    pub(super) fn new(connect: Duration, patience: Duration, metrics: ProxyMetrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client, patience, metrics }
    }

    /// The first answer of `endpoints`. Only what did not reach an endpoint is sent to the next one: a model server may have begun to
    /// work on anything else.
    ///
    /// # Errors
    /// The last endpoint tried, and why it brought none.
    pub(super) async fn send(
        &self,
        endpoints: &[SocketAddr],
        head: &request::Parts,
        body: RequestBody,
    ) -> Result<(SocketAddr, Response<Incoming>), (Option<SocketAddr>, Trouble)> {
        let (whole, mut passing) = match body {
            RequestBody::Whole(bytes) => (Some(bytes), None),
            RequestBody::Passing(begin, rest) => (None, Some(passing(begin, rest))),
        };
        let mut last = (None, Trouble::Unreached("no endpoint was picked".into()));
        for endpoint in endpoints {
            // What passes piece by piece is there once.
            let Some(body) = whole.clone().map(Body::from).or_else(|| passing.take()) else { break };
            let trouble = match self.attempt(*endpoint, head, whole.is_some(), body).await {
                Ok(response) => return Ok((*endpoint, response)),
                Err(trouble) => trouble,
            };
            self.metrics.failed(&trouble);
            tracing::debug!(%endpoint, %trouble, "an endpoint brought no answer");
            let again = matches!(trouble, Trouble::Unreached(_));
            last = (Some(*endpoint), trouble);
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
        let uri = Uri::builder().scheme("http").authority(endpoint.to_string()).path_and_query(path).build();
        let uri = uri.map_err(|error| Trouble::Broken(error.to_string()))?;
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers.clone();
        if whole {
            // As long as it is now.
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        match timeout(self.patience, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(Trouble::Unreached(root(&error))),
            Ok(Err(error)) => Err(Trouble::Broken(root(&error))),
            Err(_elapsed) => Err(Trouble::TimedOut(self.patience)),
        }
    }
}

fn passing(begin: Bytes, rest: Body) -> Body {
    let begin = futures_util::stream::iter((!begin.is_empty()).then_some(Ok(begin)));
    Body::from_stream(begin.chain(rest.into_data_stream().map_err(axum::Error::into_inner)))
}

/// What an error comes from: the wrapping says nothing.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
