//! The metrics page over HTTP, whole or broken on purpose.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::faults::MetricsFault;
use super::replica::Replica;
use crate::page::{PageInput, render, trtllm_iteration};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const DRIP_BYTES: usize = 64;
const DRIP_INTERVAL: Duration = Duration::from_millis(200);
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>\n";

/// `GET /metrics` (TensorRT-LLM: `/prometheus/metrics`).
pub(super) async fn page(State(replica): State<Arc<Replica>>, uri: Uri) -> Response {
    let fault = replica.metrics_fault();
    if fault == MetricsFault::Hang {
        // Ends when the client leaves or the server stops.
        std::future::pending::<()>().await;
    }
    match fault {
        MetricsFault::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (status, "the metrics page is told to fail\n").into_response();
        }
        MetricsFault::Html => return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], HTML).into_response(),
        MetricsFault::Empty => return text(Body::empty()),
        _ => {}
    }
    let page = Bytes::from(render_page(&replica, &uri));
    match fault {
        MetricsFault::Drip => text(drip(page)),
        MetricsFault::Truncated => text(Body::from(page.slice(..within_a_line(&page)))),
        MetricsFault::CutOff => cut_off(&page),
        MetricsFault::Endless => text(endless(page)),
        _ => text(Body::from(page)),
    }
}

/// `GET /metrics` of TensorRT-LLM: the iterations since the last read, which it empties.
pub(super) async fn trtllm_iterations(State(replica): State<Arc<Replica>>) -> Json<Vec<serde_json::Value>> {
    let (iterations, view) = replica.take_iterations();
    Json(iterations.iter().map(|iteration| trtllm_iteration(iteration, &view)).collect())
}

fn render_page(replica: &Replica, uri: &Uri) -> String {
    let state = replica.page_state();
    let input = PageInput {
        view: &state.view,
        model_name: &replica.model_name,
        now: state.now,
        started_at: replica.started_at,
        http: &state.http,
        pad_to: replica.pad_page_to,
    };
    render(replica.engine, &input, &wanted_names(uri))
}

/// Values of `name[]`. As with Python's `parse_qs` an empty one does not count, and a query nobody understands restricts nothing.
fn wanted_names(uri: &Uri) -> Vec<String> {
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return Vec::new() };
    let names = parameters.into_iter().filter(|(key, value)| key == "name[]" && !value.is_empty());
    names.map(|(_, value)| value).collect()
}

fn text(body: Body) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

/// A position near the middle of the page that is not the end of a line.
fn within_a_line(page: &[u8]) -> usize {
    let middle = page.len() / 2;
    match page[..middle].iter().rposition(|byte| *byte != b'\n') {
        // The byte before the cut ends its line: leave that byte out too.
        Some(last) if last + 1 < middle => last,
        _ => middle,
    }
}

fn drip(page: Bytes) -> Body {
    Body::from_stream(stream::unfold(page, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(DRIP_INTERVAL).await;
        let drop = rest.split_to(DRIP_BYTES.min(rest.len()));
        Some((Ok::<_, io::Error>(drop), rest))
    }))
}

fn endless(page: Bytes) -> Body {
    // An empty page would be an endless loop without bytes: no reader could leave it.
    let page = if page.is_empty() { Bytes::from_static(b"simulator_endless 1.0\n") } else { page };
    Body::from_stream(stream::unfold(page, |page| async move { Some((Ok::<_, io::Error>(page.clone()), page)) }))
}

fn cut_off(page: &Bytes) -> Response {
    let half = page.slice(..page.len() / 2);
    let frames = stream::unfold(Some(half), |half| async move {
        if let Some(half) = half {
            return Some((Ok(half), None));
        }
        // Without a pause the connection would end before what it has so far is sent.
        tokio::task::yield_now().await;
        Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
    });
    let mut response = text(Body::from_stream(frames));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_empty_ones_ignored() {
        let names = |query: &str| wanted_names(&format!("/metrics?{query}").parse().unwrap());
        assert_eq!(names("name[]=a&name%5B%5D=vllm%3Ab&other=c&name[]="), ["a", "vllm:b"]);
        assert!(names("name[]=").is_empty());
        assert!(names("").is_empty());
    }

    #[test]
    fn a_cut_never_falls_on_the_end_of_a_line() {
        for page in ["a 1\nb 2\n", "a 1\nbb 2\n", "aaa 1\n\n\nb", "abcdef"] {
            let end = within_a_line(page.as_bytes());
            assert!(end > 0 && end < page.len());
            assert_ne!(page.as_bytes()[end - 1], b'\n', "{page:?} cut at {end}");
        }
    }
}
