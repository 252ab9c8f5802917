//! `/api/v1/pools/{namespace}/{name}/demand`: the number, its arithmetic and its evidence.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use weir_datastore::PoolId;
use weir_hpa::required::{Basis, Known, Learned, Level, Options};

use crate::ledger::{Ledger, Shown};
use crate::metrics::basis;

/// The one route, to be served beside the exporter's.
pub fn router(ledger: Ledger) -> Router {
    Router::new().route("/api/v1/pools/{namespace}/{name}/demand", get(demand)).with_state(ledger)
}

async fn demand(State(ledger): State<Ledger>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let id = PoolId::new(&namespace, &name);
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok();
    match ledger.show(&id, unix) {
        Some(shown) => Json(DemandView::of(&id, shown)).into_response(),
        None => {
            let message = format!("of pool {id} nothing was computed yet: GET /api/v1/pools lists the pools that are known here");
            (StatusCode::NOT_FOUND, Json(json!({ "error": message }))).into_response()
        }
    }
}

/// The demand of one pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DemandView {
    namespace: String,
    name: String,
    /// `inference_pool_required_replicas`; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// How it came about, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<BasisView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arithmetic: Option<Arithmetic>,
    options: OptionsView,
    /// What the servers are, by their pages: what is learned is true of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<String>,
    /// What is learned now, with its evidence: samples, busy seconds, starts.
    learned: Learned,
    kept: Kept,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BasisView {
    kind: &'static str,
    meaning: &'static str,
}

/// What the pool chose, or all pools have.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OptionsView {
    daily: bool,
    recurring: bool,
    spares: u32,
    utilisation: f64,
}

impl OptionsView {
    fn of(options: Options) -> Self {
        let Options { utilisation, daily, recurring, spares } = options;
        Self { daily, recurring, spares, utilisation }
    }
}

/// The numbers of one turn.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Arithmetic {
    age_seconds: f64,
    requests_per_second: f64,
    requests_per_second_measured: f64,
    rising: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<f64>,
    output_tokens: f64,
    /// Replica-seconds of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_seconds: Option<f64>,
    utilisation: f64,
    base: f64,
    drain: f64,
    daily: f64,
    /// The highest of the last minutes, which is rounded.
    held: f64,
    start_seconds: f64,
    every_endpoint_waits: bool,
    idle: bool,
}

/// Where what is learned is kept.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// In words; "nowhere" without a cluster or file.
    place: String,
    /// Delete it there, and it is learned anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Learned>,
    /// Why it is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

fn meaning(basis: Basis) -> &'static str {
    match basis {
        Basis::Full => "arrivals as the pickers count them, costs learned from full replicas",
        Basis::ServersOnly => {
            "no picker counts what arrives: arrivals as the servers' counters and queues show them, so a burst is seen when it queues, \
             and clients that gave up hide it"
        }
        Basis::CostsUnknown => "no replica was full yet: never more than there are, unless all of them wait for half a minute",
    }
}

impl DemandView {
    fn of(id: &PoolId, shown: Shown) -> Self {
        let Shown { level, reserve, age, options, servers, learned, kept, document, problem } = shown;
        let arithmetic = |known: &Known| Arithmetic {
            age_seconds: age.as_secs_f64(),
            requests_per_second: known.rate.expected,
            requests_per_second_measured: known.rate.measured,
            rising: known.rate.rising,
            prompt_tokens: known.prompt_tokens,
            output_tokens: known.output_tokens,
            request_seconds: known.costs.map(|costs| costs.work(known.prompt_tokens.unwrap_or_default(), known.output_tokens)),
            utilisation: options.utilisation,
            base: known.base,
            drain: known.drain,
            daily: known.daily,
            held: known.held,
            start_seconds: known.start_seconds,
            every_endpoint_waits: known.net,
            idle: known.idle,
        };
        let known = match &level {
            Level::Known(known) => Some(known),
            Level::Unknown(_) => None,
        };
        let (place, key) = match kept {
            Some((place, key)) => (place, key),
            None => ("nowhere: a restart begins anew".to_owned(), None),
        };
        Self {
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
            replicas: level.replicas().filter(|_| reserve.is_none()),
            unknown: match &level {
                Level::Known(_) => reserve,
                Level::Unknown(cause) => Some(cause.to_string()),
            },
            explanation: known.map(Known::to_string),
            basis: known.map(|known| BasisView { kind: basis(known.basis), meaning: meaning(known.basis) }),
            arithmetic: known.map(arithmetic),
            options: OptionsView::of(options),
            servers,
            learned,
            kept: Kept { place, key, document, problem },
        }
    }
}
