//! One replica over HTTP: the OpenAI API, health, and the metrics page.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::json;

mod answer;
mod completions;
mod error;
pub(crate) mod faults;
mod metrics;
pub(crate) mod replica;
mod request;
mod words;

use crate::page::Engine;
use error::ApiError;
use replica::Replica;

/// The header that names the replica on every answer.
pub(crate) const POD_HEADER: &str = "x-inference-pod";

/// All routes of a replica.
pub(crate) fn router(replica: Arc<Replica>) -> Router {
    let mut router = Router::new()
        .route("/v1/chat/completions", post(completions::chat))
        .route("/v1/completions", post(completions::text))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/version", get(version))
        .route(replica.engine.metrics_path(), get(metrics::page));
    if replica.engine == Engine::Trtllm {
        router = router.route("/metrics", get(metrics::trtllm_iterations));
    }
    let pod = replica.pod_header.clone();
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(replica.max_body_bytes))
        .layer(middleware::map_response(move |mut response: Response| {
            response.headers_mut().insert(POD_HEADER, pod.clone());
            std::future::ready(response)
        }))
        .with_state(replica)
}

/// 503 while starting and while told to be unhealthy.
async fn health(State(replica): State<Arc<Replica>>) -> StatusCode {
    if replica.is_starting() || replica.is_unhealthy() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

async fn version(State(replica): State<Arc<Replica>>) -> Json<serde_json::Value> {
    Json(json!({ "version": replica.engine.version() }))
}

/// The served model and its adapters, which name it as their parent.
async fn models(State(replica): State<Arc<Replica>>) -> Json<serde_json::Value> {
    let created = replica.started_at.as_secs();
    let owner = replica.engine.as_str();
    let base = json!({
        "id": replica.model_name, "object": "model", "created": created, "owned_by": owner,
        "root": replica.model_name, "parent": null, "max_model_len": replica.max_model_len,
    });
    let adapters = replica.adapters.iter().map(|adapter| {
        json!({
            "id": adapter, "object": "model", "created": created, "owned_by": owner,
            "root": adapter, "parent": replica.model_name, "max_model_len": null,
        })
    });
    let data: Vec<_> = std::iter::once(base).chain(adapters).collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn unknown_path(method: Method, uri: Uri) -> Response {
    ApiError::not_found(&method, uri.path()).into_response()
}

async fn unknown_method(method: Method, uri: Uri) -> Response {
    ApiError::method_not_allowed(&method, uri.path()).into_response()
}
