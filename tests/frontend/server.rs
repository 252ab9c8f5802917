//! A model server that keeps the heads of what reaches it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

const PAGE: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n";
const ANSWER: &str = r#"{"model":"llama","choices":[{"text":"a"}],"usage":{"prompt_tokens":8,"completion_tokens":3}}"#;

type Heads = Arc<Mutex<Vec<HeaderMap>>>;

/// The server; it ends with the test.
pub(crate) struct ModelServer {
    pub(crate) address: SocketAddr,
    heads: Heads,
}

impl ModelServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, heads) = router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, heads }
    }

    /// The heads of the requests since the last time.
    pub(crate) fn heads(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

/// What it answers.
pub(crate) fn router() -> (Router, Heads) {
    let heads = Heads::default();
    let page = || async { ([(header::CONTENT_TYPE, "text/plain")], PAGE) };
    (Router::new().route("/metrics", get(page)).fallback(answer).with_state(heads.clone()), heads)
}

async fn answer(State(heads): State<Heads>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // A body that breaks off is none of its business.
    drop(axum::body::to_bytes(body, 64 << 20).await);
    heads.lock().unwrap().push(parts.headers);
    ([(header::CONTENT_TYPE, "application/json")], ANSWER).into_response()
}
