//! A server that answers as it is told, and can be told otherwise while it runs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// 200 with this page; the connection stays.
    Page(String),
    /// These bytes as they are; then the connection is closed.
    Bytes(Vec<u8>),
    /// Nothing, for ever.
    Hang,
    /// These bytes, then one more every 50 ms.
    Drip(Vec<u8>),
    /// These bytes, then metrics without end.
    Endless(Vec<u8>),
}

impl Answer {
    /// A whole answer with a length, closed after it.
    pub(super) fn http(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

type Behaviour = dyn Fn(&str) -> Answer + Send + Sync;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    behaviour: Mutex<Arc<Behaviour>>,
    heads: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

/// What a vLLM server shows with `running` requests.
pub(super) fn page(running: u32) -> String {
    let labels = "{engine=\"0\",model_name=\"llama\"}";
    format!(
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{labels} {running}.0\nvllm:num_requests_waiting{labels} 1.0\nvllm:kv_cache_usage_perc{labels} 0.5\n"
    )
}

impl Server {
    /// A server with the page of `running` requests.
    pub(super) async fn with(running: u32) -> Self {
        Self::start(move |_| Answer::Page(page(running))).await
    }

    /// A server that answers each request head by `behaviour`.
    pub(super) async fn start(behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, behaviour).await
    }

    /// The same over TLS.
    pub(super) async fn start_tls(
        certificate: &CertifiedKey<KeyPair>,
        behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), behaviour).await
    }

    async fn listen(tls: Option<TlsAcceptor>, behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            heads: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Self { address, state, task }
    }

    /// From now on it answers otherwise.
    pub(super) fn set(&self, behaviour: impl Fn(&str) -> Answer + Send + Sync + 'static) {
        *self.state.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }

    /// The paths of all requests so far.
    pub(super) fn paths(&self) -> Vec<String> {
        let path = |head: &String| head.split(' ').nth(1).unwrap_or_default().to_owned();
        self.heads().iter().map(path).collect()
    }

    pub(super) fn requests(&self) -> usize {
        self.state.heads.lock().unwrap().len()
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Connections at present.
    pub(super) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends when dropped, and its connections with it.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        state.accepted.fetch_add(1, Ordering::SeqCst);
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            state.open.fetch_add(1, Ordering::SeqCst);
            match tls {
                None => serve(stream, &state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &state).await;
                    }
                }
            }
            state.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) {
    while let Some(head) = read_head(&mut stream).await {
        state.heads.lock().unwrap().push(head.clone());
        let behaviour = state.behaviour.lock().unwrap().clone();
        match behaviour(&head) {
            Answer::Page(page) => {
                let length = page.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n");
                if stream.write_all(format!("{head}{page}").as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Bytes(bytes) => {
                drop(stream.write_all(&bytes).await);
                drop(stream.shutdown().await);
                return;
            }
            Answer::Hang => {
                // Until the other side goes away.
                drop(stream.read(&mut [0; 64]).await);
                return;
            }
            Answer::Drip(bytes) => {
                let mut sent = stream.write_all(&bytes).await;
                while sent.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    sent = stream.write_all(b"#").await;
                }
                return;
            }
            Answer::Endless(bytes) => {
                let mut sent = stream.write_all(&bytes).await;
                let line = "vllm:num_requests_running 1\n".repeat(100);
                while sent.is_ok() {
                    sent = stream.write_all(line.as_bytes()).await;
                }
                return;
            }
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if head.len() < 16 * 1024 => head.push(byte),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
