//! What the datastore knows, for Prometheus and for people.
//!
//! [`register`] adds the pools to a metrics registry, computed when the page is asked for: no value outlives what it was made of.
//! [`router`] serves
//!
//! - `/metrics`: everything in the registry, as Prometheus text or OpenMetrics by `Accept` ([`page`]);
//! - `/api/v1/pools`, `/api/v1/pools/{namespace}/{name}`: the same with endpoints, ages and causes, as JSON ([`json`]);
//! - `/api/v1/pools/{namespace}/{name}?watch=1`: the pool as a stream for other weirs ([`Streams`]).

pub mod json;
pub mod page;
mod pools;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use weir_datastore::{Datastore, PoolId, Selector};
use weir_serving::ConnectionInfo;

pub use pools::PoolSeries;
pub use stream::Streams;

/// Adds the pools of `datastore` to `registry`, with at most `endpoint_series` series per pool that name an endpoint (0: none).
/// The streams that [`router`] serves are counted there too.
pub fn register(registry: &mut Registry, datastore: Datastore, endpoint_series: usize) -> Streams {
    registry.register_collector(Box::new(PoolSeries::new(datastore, endpoint_series)));
    Streams::register(registry)
}

/// The exporter's routes; [`metrics_router`] has the first of them alone.
pub fn router(datastore: Datastore, registry: Arc<Registry>, streams: Streams) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/pools", get(pools_json))
        .route("/api/v1/pools/{namespace}/{name}", get(pool))
        .with_state(Exporter { datastore, registry, streams })
}

#[derive(Clone)]
struct Exporter {
    datastore: Datastore,
    registry: Arc<Registry>,
    streams: Streams,
}

/// The one route `/metrics`, for who serves no pools.
pub fn metrics_router(registry: Arc<Registry>) -> Router {
    let page = async |State(registry): State<Arc<Registry>>, headers: HeaderMap| page_of(&registry, &headers);
    Router::new().route("/metrics", get(page)).with_state(registry)
}

async fn metrics(State(exporter): State<Exporter>, headers: HeaderMap) -> Response {
    page_of(&exporter.registry, &headers)
}

fn page_of(registry: &Registry, headers: &HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = page::PageFormat::negotiate(accept);
    match page::render(registry, format) {
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

async fn pool(
    State(exporter): State<Exporter>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    connection: Option<Extension<ConnectionInfo>>,
) -> Response {
    let id = PoolId::new(&namespace, &name);
    match stream::is_asked_for(query.as_deref()) {
        Ok(true) => {
            let closing = connection.map(|Extension(connection)| connection.closing().clone());
            return exporter.streams.answer(&exporter.datastore, id, closing);
        }
        Ok(false) => {}
        Err(message) => return stream::refusal(StatusCode::BAD_REQUEST, &message),
    }
    match exporter.datastore.snapshot(&id, &Selector::everything(), Instant::now()) {
        Some(snapshot) => axum::Json(json::PoolView::of(&snapshot)).into_response(),
        None => {
            let message = no_pool(&exporter.datastore, &id);
            (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({ "error": message }))).into_response()
        }
    }
}

fn no_pool(datastore: &Datastore, id: &PoolId) -> String {
    const NAMED: usize = 20;
    let known: Vec<_> = datastore.pool_ids().iter().take(NAMED).map(PoolId::to_string).collect();
    format!("no pool {id}; known here: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })
}
