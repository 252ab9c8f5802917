//! What is around Envoy: model servers that record what reaches them, and the picker with a director of the test's own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use rand::{SeedableRng, rngs::StdRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_epp::exchange::Settings;
use weir_epp::frontend::{Certificate, Frontend, Servers};
use weir_epp::{Director, Failure, InferenceRequest, Pick, Refusal, Ticket, Usage};
use weir_serving::{Drain, Health, ServingMetrics};
use weir_tests::envoy::Envoy;
use weir_tests::eventually;

/// The model that a client may ask for, and what servers call it.
pub(crate) const ALIAS: [&str; 2] = ["alias", "a-name-of-the-server"];
/// The model whose requests wait for the gate.
pub(crate) const HELD: &str = "held";

/// What reached a model server.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) server: SocketAddr,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    gate: watch::Receiver<bool>,
}

/// Answers so many bytes as the header `x-answer-bytes` asks for, or events, the second once the gate is open.
async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or("none").to_owned();
    let size = parts.headers.get("x-answer-bytes").map_or(0, |size| size.to_str().unwrap().parse().unwrap());
    let received = Received { server: server.address, method: parts.method, headers: parts.headers, body };
    server.received.lock().unwrap().push(received);
    if asked["stream"] == true {
        let mut gate = server.gate.clone();
        let first = stream::iter([Ok::<_, std::io::Error>(event(&model, 1))]);
        let second = stream::once(async move {
            gate.wait_for(|open| *open).await.unwrap();
            Ok(format!("{}data: [DONE]\n\n", event(&model, 2)))
        });
        return ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(first.chain(second))).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json")], document(&model, size)).into_response()
}

pub(crate) fn event(model: &str, tokens: u64) -> String {
    format!("data: {{\"model\":\"{model}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{tokens}}}}}\n\n")
}

pub(crate) fn document(model: &str, size: usize) -> String {
    let text = "0123456789abcdef".repeat(size / 16 + 1);
    format!("{{\"model\":\"{model}\",\"text\":\"{}\",\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4}}}}", &text[..size])
}

/// Switches protocols with whoever asks, then echoes.
async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

/// What the picker did, in order.
type Log = Arc<Mutex<Vec<String>>>;

struct Chooser {
    endpoints: Vec<SocketAddr>,
    gate: watch::Receiver<bool>,
    waiting: Arc<watch::Sender<i64>>,
    log: Log,
}

struct Waits(Arc<watch::Sender<i64>>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[derive(Debug)]
struct Logged(Log);

impl Ticket for Logged {
    fn served_by(&mut self, endpoint: SocketAddr) {
        self.0.lock().unwrap().push(format!("served by {endpoint}"));
    }
    fn response_started(&mut self, status: u16, _at: tokio::time::Instant) {
        self.0.lock().unwrap().push(format!("started {status}"));
    }
    fn gateway_answered(&mut self, status: u16, why: Failure, _at: tokio::time::Instant) {
        self.0.lock().unwrap().push(format!("gateway answered {status} {why:?}"));
    }
    fn response_bytes(&mut self, _bytes: usize, _at: tokio::time::Instant) {}
    fn usage(&mut self, usage: Usage) {
        self.0.lock().unwrap().push(format!("usage {} {}", usage.prompt_tokens, usage.completion_tokens));
    }
    fn completed(&mut self, _at: tokio::time::Instant) {
        self.0.lock().unwrap().push("completed".into());
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("ended".into());
    }
}

impl Director for Chooser {
    /// The endpoint of the index that `test-epp-endpoint-selection` says, else the first.
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        Box::pin(async move {
            if request.model.as_deref() == Some(HELD) {
                self.waiting.send_modify(|waiting| *waiting += 1);
                let _waits = Waits(Arc::clone(&self.waiting));
                let mut gate = self.gate.clone();
                gate.wait_for(|open| *open).await.unwrap();
            }
            let index = request.test_selection.map_or(0, |index| index.parse().unwrap());
            let target_model = (request.model.as_deref() == Some(ALIAS[0])).then(|| ALIAS[1].into());
            Ok(Pick {
                endpoints: vec![self.endpoints[index]],
                target_model,
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                ticket: Box::new(Logged(Arc::clone(&self.log))),
            })
        })
    }

    fn refused(&self, _model: Option<&str>, refusal: &Refusal) {
        self.log.lock().unwrap().push(format!("refused {:?}", refusal.code));
    }

    fn ready(&self) -> bool {
        true
    }
}

/// Envoy, the picker behind it, two model servers.
pub(crate) struct Gateway {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) received: Arc<Mutex<Vec<Received>>>,
    pub(crate) log: Log,
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) waiting: watch::Receiver<i64>,
    pub(crate) picker: JoinHandle<()>,
    pub(crate) client: reqwest::Client,
    envoy: Envoy,
}

impl Gateway {
    pub(crate) async fn start(name: &str) -> Self {
        weir_serving::install_crypto_provider();
        let (gate, gated) = watch::channel(false);
        let (waiting, waits) = watch::channel(0);
        let received = Arc::default();
        let log = Log::default();
        let mut servers = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = Server { address, received: Arc::clone(&received), gate: gated.clone() };
            tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer).with_state(server)).await });
            servers.push(address);
        }
        let upgrading = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nobody listens there any more.
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let more = [upgrading.local_addr().unwrap(), refusing, closing.local_addr().unwrap()];
        let endpoints = [&servers[..], &more].concat();
        tokio::spawn(echo(upgrading));
        tokio::spawn(async move { while closing.accept().await.is_ok() {} });
        let director = Chooser { endpoints, gate: gated, waiting: Arc::new(waiting), log: Arc::clone(&log) };
        // Matters where no bodies are sent.
        let settings = Settings { ask_for_bodies: true, ..Settings::default() };
        let mut registry = prometheus_client::registry::Registry::default();
        let (random, leaving) = (StdRng::seed_from_u64(1), CancellationToken::new());
        let frontend = Frontend::new(Arc::new(director), settings, random, Health::new(), leaving, &mut registry).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = Servers::bind(
            frontend,
            any,
            any,
            Certificate::SelfMade,
            Drain::default(),
            ServingMetrics::default(),
            SystemTime::now(),
        );
        let picker = bind.await.unwrap();
        let picker_address = picker.ext_proc_addr();
        let picker = tokio::spawn(async move { drop(picker.serve(std::future::ready(())).await) });

        let (name, known) = (name.to_owned(), [servers[0], servers[1]]);
        let envoy = tokio::task::spawn_blocking(move || Envoy::start(&name, &[picker_address], &known)).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { servers, received, log, gate, waiting: waits, picker, client, envoy }
    }

    /// An address of this listener.
    pub(crate) fn url(&self, listener: &str, path: &str) -> String {
        format!("http://{}{path}", self.address(listener))
    }

    /// Where this listener listens.
    pub(crate) fn address(&self, listener: &str) -> &str {
        self.envoy.address(listener)
    }

    /// Posts a body, answered by so many bytes.
    pub(crate) fn post(
        &self,
        listener: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
        answer: usize,
    ) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url(listener, path)).header("content-type", "application/json");
        request.header("x-answer-bytes", answer).body(body)
    }

    /// What reached the servers since the last time.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// The picker's log once it ends with this line, taken.
    pub(crate) fn take_log(&self, last: &str) -> Vec<String> {
        eventually("the picker's log", || {
            let mut log = self.log.lock().unwrap();
            if log.last().is_some_and(|line| line == last) { Ok(std::mem::take(&mut *log)) } else { Err(format!("{log:?}")) }
        })
    }
}
