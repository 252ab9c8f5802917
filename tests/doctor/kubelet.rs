//! The logs of a cluster's pods as a kubelet serves them: the tests' own keeps files alone.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weir_tests::cluster::Cluster;

/// Where the API server asks a node's kubelet.
const PORT: u16 = 10250;

struct Tls(TcpListener, TlsAcceptor);

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Serves the logs of `cluster` at the addresses of all its nodes, as long as the runtime lives. In the network that the calling thread is in.
pub(crate) fn serve_logs(cluster: &'static Cluster) -> Runtime {
    weir_serving::install_crypto_provider();
    let made = rcgen::generate_simple_self_signed(["kubelet".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind(("0.0.0.0", PORT))).unwrap();
    let logs = move |Path((namespace, pod, container)): Path<(String, String, String)>,
                     Query(wanted): Query<HashMap<String, String>>| async move {
        let log = tokio::task::spawn_blocking(move || cluster.logs(&namespace, &pod, &container)).await.unwrap();
        let log = log.map_err(|error| (StatusCode::NOT_FOUND, error))?;
        let lines: Vec<_> = log.lines().collect();
        let first = lines.len().saturating_sub(wanted.get("tailLines").and_then(|lines| lines.parse().ok()).unwrap_or(usize::MAX));
        Ok::<_, (StatusCode, String)>(lines[first..].join("\n") + "\n")
    };
    let router = Router::new().route("/containerLogs/{namespace}/{pod}/{container}", get(logs));
    let listener = Tls(listener, TlsAcceptor::from(Arc::new(config)));
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    runtime
}
