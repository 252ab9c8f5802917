//! What the datastore knows, for Prometheus and for people.
//!
//! [`register`] adds the pools to a metrics registry, computed when the page is asked for: no value outlives what it was made of.
//! [`router`] serves
//!
//! - `/metrics`: everything in the registry, as Prometheus text or OpenMetrics by `Accept` ([`page`]);
//! - `/api/v1/pools`, `/api/v1/pools/{namespace}/{name}`: the same with endpoints, ages and causes, as JSON ([`json`]).

pub mod json;
pub mod page;
mod pools;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use weir_datastore::{Datastore, PoolId, Selector};

pub use pools::PoolSeries;

/// Adds the pools of `datastore` to `registry`, with at most `endpoint_series` series per pool that name an endpoint (0: none).
pub fn register(registry: &mut Registry, datastore: Datastore, endpoint_series: usize) {
    registry.register_collector(Box::new(PoolSeries::new(datastore, endpoint_series)));
}

/// The exporter's routes.
pub fn router(datastore: Datastore, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/pools", get(pools_json))
        .route("/api/v1/pools/{namespace}/{name}", get(pool_json))
        .with_state(Exporter { datastore, registry })
}

#[derive(Clone)]
struct Exporter {
    datastore: Datastore,
    registry: Arc<Registry>,
}

async fn metrics(State(exporter): State<Exporter>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = page::PageFormat::negotiate(accept);
    match page::render(&exporter.registry, format) {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics page could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics page could not be written; see the log\n").into_response()
        }
    }
}

async fn pools_json(State(exporter): State<Exporter>) -> impl IntoResponse {
    let pools: Vec<_> = exporter.datastore.snapshots(Instant::now()).iter().map(json::PoolView::of).collect();
    axum::Json(serde_json::json!({ "pools": pools }))
}

async fn pool_json(State(exporter): State<Exporter>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let id = PoolId::new(&namespace, &name);
    match exporter.datastore.snapshot(&id, &Selector::everything(), Instant::now()) {
        Some(snapshot) => axum::Json(json::PoolView::of(&snapshot)).into_response(),
        None => {
            const NAMED: usize = 20;
            let known: Vec<_> = exporter.datastore.pool_ids().iter().take(NAMED).map(PoolId::to_string).collect();
            let message =
                format!("no pool {id}; known here: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") });
            (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({ "error": message }))).into_response()
        }
    }
}
