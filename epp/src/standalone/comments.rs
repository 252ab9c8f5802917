//! What a client that waits for a streamed answer hears meanwhile: comments of its event stream, so that nobody between takes the
//! silence for an end. (Server-sent events: a line that begins with a colon is passed over by every client.)

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, to_bytes};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::{StatusCode, header};
use tokio::time::{Instant, sleep_until};

use super::metrics::ProxyMetrics;

/// What is said while nothing happens.
const COMMENT: &[u8] = b": waiting for an endpoint\n\n";
/// The end of a stream, by OpenAI's API.
const DONE: &str = "data: [DONE]\n\n";
/// Bytes of a refusal that are told.
const REFUSAL: usize = 64 << 10;

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

enum State {
    Waiting(Answer, Instant),
    Passing(BodyDataStream),
    Over,
}

/// An event stream that begins at once, says a comment now and each `every`, and goes on as `answer` once that is there. What is no
/// event stream by itself, a refusal above all, becomes an event: the status has gone out already.
pub(super) fn until(answer: Answer, every: Duration, metrics: ProxyMetrics) -> Response {
    let state = State::Waiting(answer, Instant::now());
    let stream = unfold(state, move |mut state| {
        let metrics = metrics.clone();
        async move {
            loop {
                state = match state {
                    State::Over => return None,
                    State::Waiting(mut answer, due) => {
                        let response = tokio::select! {
                            biased;
                            response = &mut answer => response,
                            () = sleep_until(due) => {
                                metrics.commented();
                                let next = State::Waiting(answer, Instant::now() + every);
                                return Some((Ok::<_, axum::Error>(Bytes::from_static(COMMENT)), next));
                            }
                        };
                        if is_event_stream(&response) {
                            State::Passing(response.into_body().into_data_stream())
                        } else {
                            return Some((Ok(as_event(response).await), State::Over));
                        }
                    }
                    State::Passing(mut body) => return body.next().await.map(|piece| (piece, State::Passing(body))),
                };
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (StatusCode::OK, headers, Body::from_stream(stream)).into_response()
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    response.status() == StatusCode::OK && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

async fn as_event(response: Response) -> Bytes {
    let status = response.status();
    let body = to_bytes(response.into_body(), REFUSAL).await.unwrap_or_default();
    let told = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(told) => told,
        Err(_) => super::proxy::error_body(status, String::from_utf8_lossy(&body).trim()),
    };
    format!("data: {told}\n\n{DONE}").into()
}
