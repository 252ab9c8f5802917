//! Over real sockets, with a real client.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::server::POD_HEADER;
use crate::server::faults::{Hold, MetricsFault};

mod api;
mod lifecycle;
mod metrics;

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest body a test reads.
const BODY_LIMIT: usize = 4 << 20;
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// Exact and quick: two milliseconds a token.
fn quick() -> ServerProfile {
    ServerProfile {
        jitter: 0.0,
        time_factor_under_load: 1.0,
        prefill_overhead: Duration::from_millis(1),
        prefill_time_per_token: Duration::ZERO,
        inter_token_latency: Duration::from_millis(2),
        ..ServerProfile::small_demo()
    }
}

/// Never done while a test looks.
fn slow() -> ServerProfile {
    ServerProfile { inter_token_latency: Duration::from_millis(200), ..quick() }
}

async fn start(profile: ServerProfile) -> Server {
    Server::start(ServerConfig { profile, ..ServerConfig::default() }).await.unwrap()
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.addr())
}

async fn get(server: &Server, path: &str) -> Response {
    timeout(PATIENCE, Client::new().get(url(server, path)).send()).await.unwrap().unwrap()
}

async fn post(server: &Server, path: &str, body: impl ToString) -> Response {
    let request = Client::new().post(url(server, path)).body(body.to_string());
    timeout(PATIENCE, request.send()).await.unwrap().unwrap()
}

async fn chat(server: &Server, body: Value) -> Response {
    post(server, "/v1/chat/completions", body).await
}

fn chat_body(content: &str, max_tokens: u32) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": content }], "max_tokens": max_tokens })
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// The whole body, or what the connection broke with.
async fn try_text(mut response: Response) -> Result<String, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = timeout(PATIENCE, response.chunk()).await.unwrap()? {
        bytes.extend_from_slice(&chunk);
        assert!(bytes.len() <= BODY_LIMIT);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

async fn text(response: Response) -> String {
    try_text(response).await.unwrap()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// The events of a stream; the last must be `[DONE]`.
async fn events(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let body = text(response).await;
    let data: Vec<&str> = body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("an event")).collect();
    let (last, chunks) = data.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// The value of a series without `le`, summed over its labels.
fn value_on(page: &str, name: &str) -> f64 {
    let samples = page.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
