//! The HTTP client that pages, pickers and streams are read with.
//!
//! It asks for one thing and follows nothing: what a redirect, a status or an encoding means is decided where the answer is read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as PooledClient, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;
use url::Url;

/// What pages are asked for as. Without it Python servers may answer OpenMetrics, with other counter names.
const PAGES: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4");
/// A compressed page costs a server in Python more than it saves.
const UNPACKED: HeaderValue = HeaderValue::from_static("identity");
const WEIR: HeaderValue = HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION")));
/// Python servers close an idle connection after 5 s; one of ours never gets that old.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);
/// How often a silent connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections to servers that are reached alike. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pooled: PooledClient<Connector, Empty<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// What [`Url`] lets pass and HTTP does not.
    #[error("not a URL that can be asked for: {0}")]
    Url(#[from] http::uri::InvalidUri),
    /// No connection, or no answer over it.
    #[error("no answer")]
    Client(#[from] ClientError),
}

/// No connection in time.
#[derive(Clone, Copy, Debug, Error)]
#[error("no connection in time")]
pub(crate) struct ConnectTimeout;

impl Client {
    /// A client that gives a connection `connect_timeout` to stand, TLS included, which is as `tls` says.
    pub(crate) fn new(tls: ClientConfig, connect_timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        let connector = Connector { https: HttpsConnector::from((tcp, Arc::new(tls))), timeout: connect_timeout };
        let mut builder = PooledClient::builder(TokioExecutor::new());
        builder.pool_idle_timeout(IDLE_CONNECTION).pool_max_idle_per_host(1).pool_timer(TokioTimer::new());
        Self { pooled: builder.build(connector) }
    }

    /// Asks for the page at `url`.
    ///
    /// # Errors
    /// [`AskError`] where no head of an answer came.
    pub(crate) async fn get(&self, url: &Url, authorization: Option<&HeaderValue>) -> Result<Response<Incoming>, AskError> {
        self.get_as(PAGES, url, authorization).await
    }

    /// The same, for something else than a page.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn get_as(
        &self,
        accept: HeaderValue,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, AskError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(url[..url::Position::AfterQuery].to_owned())?;
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert(ACCEPT, accept);
        headers.insert(ACCEPT_ENCODING, UNPACKED);
        headers.insert(USER_AGENT, WEIR);
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(self.pooled.request(request).await?)
    }
}

/// The next bytes of `body`; none at its end. Nothing is lost where the future is dropped.
///
/// # Errors
/// Where the transfer breaks off.
pub(crate) async fn chunk(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        // What is no data is a trailer.
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// TCP, with TLS where the URL says so, within a time.
#[derive(Clone, Debug)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.timeout, self.https.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(outcome) => outcome,
                Err(_) => Err(ConnectTimeout.into()),
            }
        })
    }
}
