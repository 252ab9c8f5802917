//! `POST /v1/chat/completions` and `POST /v1/completions`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::answer::{Answer, answer_id};
use super::error::ApiError;
use super::replica::{Replica, Ticket};
use super::request::{self, CompletionRequest, Kind};
use crate::model::{FinishReason, Request};
use crate::page::HttpExchange;

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn chat(State(replica): State<Arc<Replica>>, body: Body) -> Response {
    complete(replica, Kind::Chat, "/v1/chat/completions", body).await
}

pub(super) async fn text(State(replica): State<Arc<Replica>>, body: Body) -> Response {
    complete(replica, Kind::Text, "/v1/completions", body).await
}

async fn complete(replica: Arc<Replica>, kind: Kind, handler: &'static str, body: Body) -> Response {
    let request_bytes = body.as_ref().map_or(0, Bytes::len);
    let mut timer = HttpTimer::new(Arc::clone(&replica), handler, request_bytes);
    match admit(&replica, kind, body) {
        Ok((request, tickets)) => {
            let answer = describe(&replica, kind, &request, timer);
            if request.stream {
                return answer.stream(tickets);
            }
            answer.whole(tickets).await.unwrap_or_else(ApiError::into_response)
        }
        Err(error) => {
            timer.answered(error.status().as_u16(), 0);
            error.into_response()
        }
    }
}

fn describe(replica: &Arc<Replica>, kind: Kind, request: &CompletionRequest, timer: HttpTimer) -> Answer {
    let number = replica.next_answer();
    Answer {
        kind,
        id: answer_id(kind, replica, number),
        number: replica.seed.wrapping_add(number),
        created: replica.unix_seconds(),
        model: request.model.clone(),
        prompt_tokens: request.prompts.iter().map(|prompt| u64::from(prompt.tokens)).sum(),
        include_usage: request.include_usage,
        timer,
    }
}

/// Reads the request and queues its choices. A refusal of one drops, and so aborts, those before it.
fn admit(replica: &Arc<Replica>, kind: Kind, body: Body) -> Result<(CompletionRequest, Vec<Ticket>), ApiError> {
    if replica.is_starting() {
        return Err(ApiError::starting());
    }
    let body = body.map_err(|rejection| ApiError::unread_body(rejection.status(), replica.max_body_bytes))?;
    let request = request::parse(kind, &body, replica.block_size)?;
    let adapter = replica.adapters.iter().position(|adapter| *adapter == request.model);
    if adapter.is_none() && request.model != replica.model_name {
        let served: Vec<&str> = std::iter::once(&replica.model_name).chain(&replica.adapters).map(String::as_str).collect();
        return Err(ApiError::unknown_model(&request.model, &served));
    }
    let finish = if request.max_tokens.is_some() { FinishReason::Length } else { FinishReason::Stop };
    let mut tickets = Vec::with_capacity(request.prompts.len());
    for prompt in &request.prompts {
        for _ in 0..request.choices {
            let submitted = replica.submit(Request {
                prompt_tokens: prompt.tokens,
                output_tokens: request.max_tokens.unwrap_or(0),
                finish,
                max_tokens: request.max_tokens,
                prefix: prompt.prefix.clone(),
                adapter,
                streaming: request.stream,
                choices: request.choices,
            });
            tickets.push(submitted.map_err(|error| ApiError::submit(&error, kind.prompt_field()))?);
        }
    }
    Ok((request, tickets))
}

/// Counts an exchange when dropped; one without an answer (the client left first) is not counted.
#[derive(Debug)]
pub(super) struct HttpTimer {
    replica: Arc<Replica>,
    handler: &'static str,
    started: Instant,
    request_bytes: usize,
    answer: Option<(u16, usize)>,
}

impl HttpTimer {
    fn new(replica: Arc<Replica>, handler: &'static str, request_bytes: usize) -> Self {
        Self { replica, handler, started: Instant::now(), request_bytes, answer: None }
    }

    /// Status and Content-Length of the answer; a stream has none: 0.
    pub(super) fn answered(&mut self, status: u16, response_bytes: usize) {
        self.answer = Some((status, response_bytes));
    }
}

impl Drop for HttpTimer {
    fn drop(&mut self) {
        let Some((status, response_bytes)) = self.answer else { return };
        self.replica.record_http(HttpExchange {
            handler: self.handler,
            method: "POST",
            status,
            request_bytes: self.request_bytes as u64,
            response_bytes: response_bytes as u64,
            duration: self.started.elapsed(),
        });
    }
}
