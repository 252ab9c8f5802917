//! From an HTTP request to its response.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use prometheus_client::registry::Registry;
use serde::Serialize;
use weir_datastore::Datastore;
use weir_datastore::catalog::Family;
use weir_serving::RequestLabels;

use crate::GROUP;
use crate::accept::accepts_json;
use crate::config::AdapterConfig;
use crate::error::{ApiError, shown};
use crate::metrics::AdapterMetrics;
use crate::parameters::Parameters;
use crate::path::Route;
use crate::query::Query;
use crate::wire::{Group, GroupList, ResourceList, ValueList};
use crate::{names, provider};

struct Adapter {
    datastore: Datastore,
    config: AdapterConfig,
    metrics: AdapterMetrics,
}

/// The API over `datastore`. It answers every path, those it does not know with 404 and a Status, so it cannot be merged with
/// another router that has a fallback. Its own metrics go into `registry`.
pub fn router(datastore: Datastore, config: AdapterConfig, registry: &mut Registry) -> Router {
    let adapter = Adapter { datastore, config, metrics: AdapterMetrics::register(registry) };
    Router::new().fallback(answer).with_state(Arc::new(adapter))
}

async fn answer(State(adapter): State<Arc<Adapter>>, request: Request) -> Response {
    let route = Route::read(request.uri().path());
    let labels = labels(&route);
    let mut response = respond(&adapter, &request, route);
    response.extensions_mut().insert(labels);
    response
}

/// What the request is counted as: names of ours, never the request's.
fn labels(route: &Result<Route, ApiError>) -> RequestLabels {
    let (verb, resource) = match route {
        Ok(Route::Metric { metric, .. }) => ("LIST", names::family(metric).map_or("unknown", |family| family.name)),
        Ok(Route::Groups | Route::Group | Route::Resources) => ("GET", "discovery"),
        Err(_) => ("GET", "unknown"),
    };
    RequestLabels { verb, group: GROUP.group, version: GROUP.version, resource: resource.into() }
}

fn respond(adapter: &Adapter, request: &Request, route: Result<Route, ApiError>) -> Response {
    let parameters = Parameters::read(request.uri().query().unwrap_or_default());
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let pretty = parameters.as_ref().is_ok_and(|parameters| parameters.is_pretty(user_agent));
    let route = match route {
        Ok(route) => route,
        Err(error) => return failure(&error, pretty),
    };
    let parameters = parameters.and_then(|parameters| allowed(request.method(), &route, parameters));
    match (&route, parameters) {
        (Route::Metric { namespace, metric }, parameters) => {
            let family = names::family(metric);
            let values = parameters.and_then(|parameters| {
                if !accepts_json(request.headers()) {
                    return Err(ApiError::NotAcceptable);
                }
                adapter.values(namespace, metric, family, &parameters)
            });
            let response = match values {
                Ok(values) => success(&values, pretty),
                Err(error) => failure(&error, pretty),
            };
            adapter.metrics.requested(family.map(|family| family.name), response.status().as_u16());
            response
        }
        (_, Err(error)) => failure(&error, pretty),
        // Discovery is JSON whatever is asked for: a client that would rather have another form of it falls back to this one.
        (Route::Groups, Ok(_)) => success(&GroupList::new(), pretty),
        (Route::Group, Ok(_)) => success(&Group::new(), pretty),
        (Route::Resources, Ok(_)) => success(&ResourceList::new(), pretty),
    }
}

/// Reading is all that can be done, and all at once.
fn allowed(method: &Method, route: &Route, parameters: Parameters) -> Result<Parameters, ApiError> {
    let verb = match method {
        &Method::GET | &Method::HEAD if parameters.watch => "watch",
        &Method::GET | &Method::HEAD => return Ok(parameters),
        other => other.as_str(),
    };
    Err(ApiError::Method { verb: shown(verb), kind: route.kind() })
}

impl Adapter {
    fn values(
        &self,
        namespace: &str,
        metric: &str,
        family: Option<&'static Family>,
        parameters: &Parameters,
    ) -> Result<ValueList, ApiError> {
        let selector = parameters.label_selector.as_deref().unwrap_or_default();
        let query = Query::read(selector)?;
        let Some(family) = family else {
            let near = match names::near(metric).join(", ") {
                none if none.is_empty() => none,
                near => format!(", near it are {near}"),
            };
            return Err(ApiError::UnknownMetric { metric: shown(metric), near });
        };
        let asked = provider::Asked { namespace, metric, family, query: &query };
        let moment = self.config.clock.now();
        let answer = provider::answer(&self.datastore, &self.config, &asked, moment)?;
        for age in answer.ages {
            self.metrics.gave(age.as_secs_f64());
        }
        Ok(ValueList::new(answer.values))
    }
}

fn success(body: &impl Serialize, pretty: bool) -> Response {
    json(StatusCode::OK, body, pretty)
}

fn failure(error: &ApiError, pretty: bool) -> Response {
    let mut response = json(error.code(), &error.status(), pretty);
    if error.code() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn json(code: StatusCode, body: &impl Serialize, pretty: bool) -> Response {
    let written = if pretty { serde_json::to_vec_pretty(body) } else { serde_json::to_vec(body) };
    let Ok(mut written) = written else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    written.push(b'\n');
    (code, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], written).into_response()
}
