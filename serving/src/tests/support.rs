//! A running server, and clients that read with a bound.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Extension, Router, routing::get};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{Caller, CertificateAuthority, DrainReport, Issued, Server, ServerBuilder, ServingMetrics};

/// Longer than anything here takes; only a broken test waits for it.
pub(super) const LONG: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 1 << 20;

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) ca_pem: Option<String>,
    pub(super) shutdown: CancellationToken,
    task: JoinHandle<DrainReport>,
    registry: Registry,
}

/// Binds and serves what `configure` makes of `router`.
pub(super) async fn start(router: Router, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Running {
    let mut registry = Registry::default();
    let builder = Server::builder(router)
        .name("test")
        .metrics(ServingMetrics::register(&mut registry))
        .reload_every(Duration::from_millis(20));
    let server = configure(builder).bind().await.unwrap();
    let shutdown = CancellationToken::new();
    Running {
        address: server.local_addr(),
        ca_pem: server.ca_pem().map(String::from),
        task: tokio::spawn(server.serve(shutdown.clone())),
        shutdown,
        registry,
    }
}

impl Running {
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// The value of one line of the metrics page, 0 while there is none.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }

    pub(super) async fn wait_for_metric(&self, series: &str, value: f64) {
        wait_until(series, async || self.metric(series) >= value).await;
    }

    /// Shuts down and waits for the report.
    pub(super) async fn end(self) -> DrainReport {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.unwrap().unwrap()
    }
}

pub(super) async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let outcome = tokio::time::timeout(LONG, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(outcome.await.is_ok(), "never happened: {what}");
}

/// `/who` answers with the caller and its groups.
pub(super) fn who() -> Router {
    let answer = |Extension(caller): Extension<Caller>| async move { format!("{} {}", caller.name, caller.groups.join(",")) };
    Router::new().route("/who", get(answer))
}

pub(super) async fn body(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
        assert!(bytes.len() <= MAX_BODY);
    }
    String::from_utf8(bytes).unwrap()
}

/// A client that trusts only this authority.
pub(super) fn trusting(ca_pem: &str) -> reqwest::ClientBuilder {
    crate::install_crypto_provider();
    reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap()]).timeout(LONG).no_proxy()
}

pub(super) fn plain_client() -> reqwest::Client {
    crate::install_crypto_provider();
    reqwest::Client::builder().timeout(LONG).no_proxy().build().unwrap()
}

/// Speaks HTTP/2 from the first byte, without TLS.
pub(super) fn http2_client() -> reqwest::Client {
    crate::install_crypto_provider();
    reqwest::Client::builder().http2_prior_knowledge().timeout(LONG).no_proxy().build().unwrap()
}

/// Waits for a handler to have told of this many requests.
pub(super) async fn arrived(started: &Semaphore, requests: u32) {
    let permits = tokio::time::timeout(LONG, started.acquire_many(requests)).await;
    permits.expect("no request arrived").unwrap().forget();
}

pub(super) async fn status(url: &str) -> u16 {
    plain_client().get(url).send().await.unwrap().status().as_u16()
}

/// Sends bytes over a connection of their own and reads until the server ends it.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

pub(super) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut limited = stream.take(MAX_BODY as u64);
    // A reset is an end, too.
    let read = tokio::time::timeout(LONG, limited.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server keeps the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends one HTTP/1.1 request on a connection that is kept, and reads its answer up to the end of a body that is
/// `end`.
pub(super) async fn ask<T>(stream: &mut T, path: &str, end: &str) -> String
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with(end) {
        let mut buffer = [0; 1024];
        let read = tokio::time::timeout(LONG, stream.read(&mut buffer)).await;
        let length = read.expect("no answer").unwrap();
        assert_ne!(length, 0, "closed after {answer:?}");
        answer += &String::from_utf8_lossy(&buffer[..length]);
    }
    answer
}

/// A folder with the files of a server certificate.
pub(super) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        replace(&self.path(name), content);
    }

    /// A new pair under `tls.crt` and `tls.key`; gives the authority that issued it.
    pub(super) fn write_pair(&self) -> CertificateAuthority {
        let now = SystemTime::now();
        let authority = CertificateAuthority::new(now).unwrap();
        let Issued { certificate_pem, key_pem, .. } = authority.issue_server(&[], now).unwrap();
        self.write("tls.crt", &certificate_pem);
        self.write("tls.key", &key_pem);
        authority
    }
}

/// As a mounted secret changes: all at once.
fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).unwrap();
    std::fs::rename(next, path).unwrap();
}

pub(super) fn authority() -> Arc<CertificateAuthority> {
    Arc::new(CertificateAuthority::new(SystemTime::now()).unwrap())
}
