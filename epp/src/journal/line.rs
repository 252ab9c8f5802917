//! One line of JSON for a request. No word of a prompt or an answer is in it.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::entry::Told;

/// What a line holds; what is not known is left out.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    frontend: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    streaming: bool,
    queue_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    total_ms: f64,
    request_bytes: usize,
    response_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
}

/// The line of a request that came at `wall`, with its end.
pub(super) fn of(told: &Told<'_>, wall: SystemTime) -> Vec<u8> {
    let Told { entry, steps, answer, ended, trace_id } = told;
    let request = entry.request.as_ref();
    let since = |at: Instant| milliseconds(at.saturating_duration_since(entry.began).as_micros());
    let line = Line {
        time: Timestamp::try_from(wall).map_or_else(|_| String::new(), |at| format!("{at:.3}")),
        frontend: entry.door.label(),
        request_id: request.map(|request| request.id.as_str()),
        trace_id: trace_id.as_deref(),
        method: &entry.method,
        path: &entry.path,
        model: request.and_then(|request| request.model.as_deref()),
        target_model: steps.target_model.as_deref(),
        objective: request.and_then(|request| request.objective.as_deref()),
        priority: steps.priority,
        flow: request.and_then(|request| request.flow.as_deref()),
        endpoint: answer.endpoint.map(|endpoint| endpoint.to_string()),
        status: answer.status,
        reason: told.reason(),
        streaming: request.is_some_and(|request| request.streaming),
        queue_ms: milliseconds(told.waited().as_micros()),
        ttft_ms: answer.first_bytes.map(since),
        total_ms: since(*ended),
        request_bytes: request.map_or(0, |request| request.bytes),
        response_bytes: answer.bytes,
        prompt_tokens: answer.usage.map(|usage| usage.prompt_tokens),
        cached_tokens: answer.usage.map(|usage| usage.cached_tokens),
        completion_tokens: answer.usage.map(|usage| usage.completion_tokens),
    };
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
    text.push(b'\n');
    text
}

fn milliseconds(micros: u128) -> f64 {
    micros as f64 / 1000.0
}
