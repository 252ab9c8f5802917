//! From an HTTP request to its response.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prometheus_client::registry::Registry;
use serde::Serialize;
use weir_datastore::Datastore;
use weir_datastore::catalog::Family;
use weir_serving::{Caller, RequestLabels};

use crate::accept::{self, Form, Shape};
use crate::config::AdapterConfig;
use crate::custom::{self, Metric};
use crate::discovery::Discovery;
use crate::document::Document;
use crate::error::{ApiError, DOCUMENT_TYPES, VALUE_TYPES, shown};
use crate::groups::{GroupVersion, Groups};
use crate::metrics::AdapterMetrics;
use crate::openapi::OpenApi;
use crate::parameters::Parameters;
use crate::path::{Object, Route};
use crate::provider::Source;
use crate::query::Query;
use crate::table::Table;
use crate::troubles::Troubles;
use crate::wire::ValueList;
use crate::{EXTERNAL, names, protobuf, provider, yaml};

/// How long a document whose address has its hash in it may be kept: a year.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

struct Adapter {
    datastore: Datastore,
    groups: Groups,
    config: AdapterConfig,
    metrics: AdapterMetrics,
    troubles: Troubles,
    discovery: Discovery,
    openapi: OpenApi,
}

/// The API over `datastore`. It answers every path, those it does not know with 404 and a Status, so it cannot be merged with
/// another router that has a fallback. Its own metrics go into `registry`.
///
/// A request's [`Caller`] is read from its extensions, where authentication leaves it; without one it is anonymous.
pub fn router(datastore: Datastore, config: AdapterConfig, registry: &mut Registry) -> Router {
    let groups = config.groups();
    let adapter = Adapter {
        datastore,
        groups,
        config,
        metrics: AdapterMetrics::register(registry),
        troubles: Troubles::default(),
        discovery: Discovery::new(groups),
        openapi: OpenApi::new(groups),
    };
    Router::new().fallback(answer).with_state(Arc::new(adapter))
}

async fn answer(State(adapter): State<Arc<Adapter>>, request: Request) -> Response {
    let route = Route::read(request.uri().path(), adapter.groups);
    let labels = labels(&route);
    // The body is not looked at, and is no `Sync`.
    let (parts, _) = request.into_parts();
    let mut response = adapter.respond(&parts, route).await;
    response.extensions_mut().insert(labels);
    response
}

/// What the request is counted as: names of ours, never the request's.
fn labels(route: &Result<Route, ApiError>) -> RequestLabels {
    let (verb, group, version, resource) = match route {
        Ok(Route::External { metric, .. }) => {
            ("LIST", EXTERNAL.group, EXTERNAL.version, names::family(metric).map_or("unknown", |family| family.name))
        }
        Ok(Route::Custom { version, object, metric }) => {
            let metric = custom::metric(object.described.kind, metric).map_or("unknown", |metric| metric.name());
            ("GET", version.group, version.version, metric)
        }
        Ok(Route::Resources(version)) => ("GET", version.group, version.version, "discovery"),
        Ok(Route::Group(group)) => ("GET", group.name, "", "discovery"),
        Ok(Route::Groups) => ("GET", "", "", "discovery"),
        Ok(Route::OpenApiV2 | Route::OpenApiIndex | Route::OpenApi(_)) => ("GET", "", "", "openapi"),
        Ok(Route::Version) => ("GET", "", "", "version"),
        Err(_) => ("GET", "", "", "unknown"),
    };
    RequestLabels { verb, group, version, resource: resource.into() }
}

/// A request as it is answered.
struct Asking<'request> {
    parts: &'request http::request::Parts,
    pretty: bool,
}

impl Adapter {
    async fn respond(&self, parts: &http::request::Parts, route: Result<Route, ApiError>) -> Response {
        let parameters = Parameters::read(parts.uri.query().unwrap_or_default());
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let pretty = parameters.as_ref().is_ok_and(|parameters| parameters.is_pretty(user_agent));
        let asking = Asking { parts, pretty };
        let route = match route {
            Ok(route) => route,
            Err(error) => return asking.failure(&error),
        };
        let parameters = parameters.and_then(|parameters| allowed(&parts.method, &route, parameters));
        let accepted = || accept::values(&parts.headers).ok_or(ApiError::NotAcceptable { types: VALUE_TYPES });
        match (&route, parameters) {
            (Route::External { namespace, metric }, parameters) => {
                let family = names::family(metric);
                let values = async {
                    let (parameters, accepted) = (parameters?, accepted()?);
                    let values = self.external(namespace, metric, family, &parameters, &asking.caller()).await?;
                    Ok((values, accepted, parameters))
                };
                let response = self.written(&asking, values.await);
                self.metrics.external_requested(family.map(|family| family.name), response.status().as_u16());
                response
            }
            (Route::Custom { version, object, metric }, parameters) => {
                let known = custom::metric(object.described.kind, metric);
                let values = parameters.and_then(|parameters| {
                    let accepted = accepted()?;
                    let values = self.custom(version, object, metric, known, &parameters)?;
                    Ok((values, accepted, parameters))
                });
                let response = self.written(&asking, values);
                let (resource, name) = (object.described.resource, known.map(Metric::name));
                self.metrics.custom_requested(resource, name, response.status().as_u16());
                response
            }
            (_, Err(error)) => asking.failure(&error),
            (Route::Groups, Ok(_)) => {
                let mut response = match accept::discovery(&parts.headers) {
                    accept::Discovery::Aggregated(version) => match self.discovery.aggregated(version) {
                        Some(document) => document.unless_known(&parts.headers),
                        None => asking.document(Some(&self.discovery.groups)),
                    },
                    accept::Discovery::Groups(form) => self.discovery.groups.response(form, pretty),
                };
                response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
                response
            }
            (Route::Group(group), Ok(_)) => asking.document(self.discovery.group(group)),
            (Route::Resources(version), Ok(_)) => asking.document(self.discovery.resources(version)),
            (Route::Version, Ok(_)) => asking.document(Some(&self.discovery.version)),
            (Route::OpenApiV2, Ok(_)) if accept::openapi_protobuf(&parts.headers) => {
                let mut response = self.openapi.v2_protobuf.unless_known(&parts.headers);
                response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
                response
            }
            (Route::OpenApiV2, Ok(_)) => asking.openapi(Some(&self.openapi.v2), None),
            (Route::OpenApiIndex, Ok(_)) => asking.openapi(Some(&self.openapi.index), None),
            (Route::OpenApi(version), Ok(parameters)) => asking.openapi(self.openapi.v3(version), parameters.hash.as_deref()),
        }
    }

    async fn external(
        &self,
        namespace: &str,
        metric: &str,
        family: Option<&'static Family>,
        parameters: &Parameters,
        caller: &Caller,
    ) -> Result<ValueList, ApiError> {
        let query = Query::read(parameters.label_selector.as_deref().unwrap_or_default())?;
        let Some(family) = family else {
            let near = match names::near(metric).join(", ") {
                none if none.is_empty() => none,
                near => format!(", near it are {near}"),
            };
            let of = "inference pools".to_owned();
            return Err(ApiError::UnknownMetric { metric: shown(metric), of, near, list: EXTERNAL.name });
        };
        let asked = provider::Asked { namespace, metric, family, query: &query };
        let namespaces = provider::namespaces(self.source(), &asked, caller).await?;
        // Permission may have taken a while: the moment of the answer is after it.
        provider::answer(self.source(), &asked, &namespaces)
    }

    fn custom(
        &self,
        version: &'static GroupVersion,
        object: &Object,
        metric: &str,
        known: Option<Metric>,
        parameters: &Parameters,
    ) -> Result<ValueList, ApiError> {
        let asked = custom::Asked {
            version,
            object,
            metric,
            label_selector: parameters.label_selector.as_deref().unwrap_or_default(),
            metric_label_selector: parameters.metric_label_selector.as_deref().unwrap_or_default(),
            field_selector: parameters.field_selector.as_deref().unwrap_or_default(),
        };
        custom::answer(self.source(), &asked, known)
    }

    fn source(&self) -> Source<'_> {
        Source { datastore: &self.datastore, config: &self.config, now: self.config.clock.now() }
    }

    /// The values in the form that was asked for, or the failure.
    fn written(&self, asking: &Asking<'_>, values: Result<(ValueList, (Form, Shape), Parameters), ApiError>) -> Response {
        let (values, (form, shape), parameters) = match values {
            Ok(all) => all,
            Err(error) => {
                let request = asking.parts.uri.path_and_query().map_or("", |request| request.as_str());
                if let Some(code) = self.troubles.met(request, &error, self.config.clock.now().instant) {
                    self.metrics.troubled(code);
                }
                return asking.failure(&error);
            }
        };
        let body = match (form, shape) {
            (Form::Protobuf, _) => Some(protobuf::values(&values)),
            (form, Shape::List) => text(&values, form, asking.pretty),
            (form, Shape::Table(version)) => text(&Table::of(&values, version, parameters.without_objects), form, asking.pretty),
        };
        let Some(body) = body else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        for item in &values.items {
            self.metrics.gave(values.version.group, item.age.as_secs_f64());
        }
        let mut response = whole(StatusCode::OK, form, body);
        let warning = values.warning.and_then(|warning| HeaderValue::try_from(format!("299 - \"{warning}\"")).ok());
        if let Some(warning) = warning {
            response.headers_mut().insert(header::WARNING, warning);
        }
        response
    }
}

impl Asking<'_> {
    fn caller(&self) -> Caller {
        let caller = self.parts.extensions.get::<Caller>().cloned();
        caller.unwrap_or_else(|| Caller::new("system:anonymous", ["system:unauthenticated".to_owned()]))
    }

    /// A document of discovery: JSON unless YAML is asked for.
    fn document(&self, document: Option<&Document>) -> Response {
        match document {
            Some(document) => document.response(accept::document(&self.parts.headers), self.pretty),
            None => self.nothing_here(),
        }
    }

    /// An OpenAPI document. One that is asked for by the hash it has may be kept for ever.
    fn openapi(&self, document: Option<&Document>, hash: Option<&str>) -> Response {
        let Some(document) = document else { return self.nothing_here() };
        if !accept::json(&self.parts.headers) {
            return self.failure(&ApiError::NotAcceptable { types: DOCUMENT_TYPES });
        }
        let mut response = match hash {
            Some(hash) if !hash.is_empty() && hash != document.hash() => {
                let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
                let there = HeaderValue::try_from(format!("{}?hash={}", self.parts.uri.path(), document.hash()));
                if let Ok(there) = there {
                    response.headers_mut().insert(header::LOCATION, there);
                }
                response
            }
            _ => document.unless_known(&self.parts.headers),
        };
        if hash == Some(document.hash()) {
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
        }
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }

    /// A route without its document: there is none, since both are made of one table.
    fn nothing_here(&self) -> Response {
        self.failure(&ApiError::UnknownPath { path: shown(self.parts.uri.path()), served: "/apis".into() })
    }

    fn failure(&self, error: &ApiError) -> Response {
        let form = accept::failure(&self.parts.headers);
        let status = error.status();
        let body = match form {
            Form::Protobuf => Some(protobuf::status(&status)),
            form => text(&status, form, self.pretty),
        };
        let mut response = match body {
            Some(body) => whole(error.code(), form, body),
            None => error.code().into_response(),
        };
        let headers: &mut HeaderMap = response.headers_mut();
        match error.code() {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            StatusCode::FORBIDDEN => {
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            }
            _ => {}
        }
        response
    }
}

/// Reading is all that can be done, and all at once.
fn allowed(method: &Method, route: &Route, parameters: Parameters) -> Result<Parameters, ApiError> {
    let verb = match method {
        &Method::GET | &Method::HEAD if parameters.watch => "watch",
        &Method::GET | &Method::HEAD => return Ok(parameters),
        other => other.as_str(),
    };
    let (kind, group) = route.kind();
    Err(ApiError::Method { verb: shown(verb), kind, group })
}

/// An object as JSON or YAML, with a line's end.
fn text(object: &impl Serialize, form: Form, pretty: bool) -> Option<Vec<u8>> {
    if form == Form::Yaml {
        return yaml::document(object).ok().map(String::into_bytes);
    }
    let written = if pretty { serde_json::to_vec_pretty(object) } else { serde_json::to_vec(object) };
    let mut written = written.ok()?;
    written.push(b'\n');
    Some(written)
}

fn whole(code: StatusCode, form: Form, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    response
}
