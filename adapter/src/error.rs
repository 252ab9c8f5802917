//! Everything that can be wrong with a request, and the one map from there to HTTP and `metav1.Status`.
//!
//! A message is what its user reads in `kubectl describe hpa`: it names metric, pool and way out. No answer carries `Retry-After`:
//! the autoscaler's client would sleep and retry inside its loop instead of going on to the next object.

use http::StatusCode;
use thiserror::Error;
use weir_datastore::codes;
use weir_datastore::selector::SelectorError;

use crate::EXTERNAL;
use crate::quantity::QuantityError;
use crate::wire::{Details, Status};

/// Longest message in bytes: it becomes the text of an event.
const LONGEST_MESSAGE: usize = 4096;

/// Longest text of the caller's that a message repeats, in characters.
const LONGEST_SHOWN: usize = 128;

/// Most names in a list.
const MOST_LISTED: usize = 10;

/// Why a request has no value for an answer.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    #[error("the server could not find the requested resource: nothing is served at {path}, the metrics are at {served}")]
    UnknownPath { path: String, served: String },
    #[error(
        "invalid request path: {path} names no object: metrics of a namespace are at \
         /apis/GROUP/VERSION/namespaces/NAMESPACE/metrics/METRIC"
    )]
    InvalidPath { path: String },
    #[error("the URL cannot be decoded: {problem}: {part:?}")]
    MalformedUrl { part: String, problem: String },
    #[error("{verb} is not supported on resources of kind {kind:?}")]
    Method { verb: String, kind: String, group: &'static str },
    #[error("only the following media types are accepted: {types}")]
    NotAcceptable { types: &'static str },

    #[error("{0}")]
    Selector(#[from] SelectorError),
    #[error("the label selector has {length} bytes, at most {most} are read: select fewer pools at a time")]
    SelectorTooLong { length: usize, most: usize },
    #[error("the selector names {count} namespaces, at most {most} are looked at: select fewer at a time")]
    TooManyNamespaces { count: usize, most: usize },
    #[error("Metric label: {key:?} is not allowed: the allowed ones are {allowed}, and pod.KEY for the label KEY of pods")]
    LabelNotAllowed { key: String, allowed: String },
    #[error(
        "Object label: {key:?} is not allowed: the labels of InferencePools are not read, the allowed keys of labelSelector are name \
         and namespace"
    )]
    ObjectLabelNotAllowed { key: String },
    #[error("Label selector with operator DoesNotExist is not allowed: leave !{key} out")]
    DoesNotExist { key: String },
    #[error("{operator:?} isn't supported in label selectors: {requirement}")]
    NotALabelSelector { operator: &'static str, requirement: String },
    #[error("fieldSelector metadata.name doesn't match requested name")]
    FieldSelector,
    #[error("{asked}: a model is chosen once, with =: leave it out for all models together")]
    Model { asked: String },
    #[error(
        "{metric} is not measured by model: leave the selector {key} out, or ask for a quantile such as inference_pool_ttft_p90_seconds"
    )]
    NotByModel { metric: String, key: String },
    #[error("{asked}: a reducer is chosen once, with =, and is one of {known}")]
    Reducer { asked: String, known: String },
    #[error("Operation: {reducer:?} is not implemented: the reducers implemented are {known}")]
    ReducerNotImplemented { reducer: String, known: String },
    #[error(
        "{metric}.{group} is forbidden: the selector asks for {asked}, but the request is for namespace {namespace:?}: ask in the \
         pool's own namespace, or let the adapter allow selectors across namespaces", group = EXTERNAL.group
    )]
    OtherNamespace { metric: String, asked: String, namespace: String },
    #[error(
        "{metric}.{group} is forbidden: User {user:?} cannot list resource {metric:?} in API group {group:?} in {scope}",
        group = EXTERNAL.group
    )]
    NotPermitted { metric: String, user: String, scope: String },

    #[error("the server could not find the metric {metric} for {of}{near}: list all with kubectl get --raw /apis/{list}")]
    UnknownMetric { metric: String, of: String, near: String, list: &'static str },
    #[error(
        "the server could not find the metric {metric} for {of}: there are metrics of inferencepools.inference.networking.k8s.io and of \
         pods in a namespace, and of the namespace"
    )]
    UnknownResource { metric: String, of: String },
    #[error("the server could not find the metric {metric} for {asked}: {there}")]
    NoPool { metric: String, asked: String, there: String },
    #[error(
        "{metric} is a value per endpoint and {asked} matches {count} pools ({pools}), which the autoscaler would add up: choose \
         one with the selector name=POOL, or use {total}"
    )]
    SeveralPools { metric: String, asked: String, count: usize, pools: String, total: String },
    #[error(
        "{metric} of {count} pools ({pools}) is no one value for {asked}: choose one with the metric's selector name=POOL, or say how \
         they become one with reducer=REDUCE_MAX"
    )]
    NotOneValue { metric: String, asked: String, count: usize, pools: String },

    #[error("{metric} of {of} is not known: {cause}{since}")]
    Unknown { metric: String, of: String, cause: String, since: String },
    #[error("Internal error occurred: {metric} for {asked}: {source}")]
    NotAnAmount { metric: String, asked: String, source: QuantityError },
}

/// What values are written as.
pub(crate) const VALUE_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What an OpenAPI document is written as; of version 2 there is one in protobuf too.
pub(crate) const DOCUMENT_TYPES: &str = "application/json";

impl ApiError {
    pub(crate) fn code(&self) -> StatusCode {
        self.code_and_reason().0
    }

    /// What an operator has to mend, as docs/troubleshooting.md calls it; none for a caller that asks as no autoscaler does.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::UnknownMetric { .. } | Self::UnknownResource { .. } => Some(codes::HPA_METRIC_MISSPELT),
            Self::NoPool { .. } => Some(codes::HPA_SELECTS_NO_POOL),
            Self::UnknownPath { .. }
            | Self::InvalidPath { .. }
            | Self::MalformedUrl { .. }
            | Self::Method { .. }
            | Self::NotAcceptable { .. }
            | Self::FieldSelector
            | Self::NotPermitted { .. } => None,
            _ => Some(codes::HPA_METRIC_FAILED),
        }
    }

    /// The object in which Kubernetes' clients read the failure.
    pub(crate) fn status(&self) -> Status {
        let (code, reason) = self.code_and_reason();
        let details = match self {
            Self::Method { kind, group, .. } => Some(Details { group, kind: kind.clone() }),
            Self::OtherNamespace { metric, .. } | Self::NotPermitted { metric, .. } => {
                Some(Details { group: EXTERNAL.group, kind: metric.clone() })
            }
            _ => None,
        };
        let message = match self {
            // As Kubernetes does: this one ends up on web pages, with names that callers choose.
            Self::NotPermitted { .. } => self.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            _ => self.to_string(),
        };
        Status::failure(code.as_u16(), reason, cut(message), details)
    }

    fn code_and_reason(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidPath { .. }
            | Self::MalformedUrl { .. }
            | Self::Selector(_)
            | Self::SelectorTooLong { .. }
            | Self::TooManyNamespaces { .. }
            | Self::LabelNotAllowed { .. }
            | Self::ObjectLabelNotAllowed { .. }
            | Self::DoesNotExist { .. }
            | Self::NotALabelSelector { .. }
            | Self::FieldSelector
            | Self::Reducer { .. }
            | Self::Model { .. }
            | Self::NotByModel { .. }
            | Self::SeveralPools { .. }
            | Self::NotOneValue { .. } => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::OtherNamespace { .. } | Self::NotPermitted { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::UnknownPath { .. } | Self::UnknownMetric { .. } | Self::UnknownResource { .. } | Self::NoPool { .. } => {
                (StatusCode::NOT_FOUND, "NotFound")
            }
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NotAcceptable { .. } => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"),
            Self::NotAnAmount { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            // The reason is the one that GKE's adapter gives.
            Self::ReducerNotImplemented { .. } => (StatusCode::NOT_IMPLEMENTED, "BadRequest"),
            Self::Unknown { .. } => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }
}

/// A caller's text, short enough to be repeated.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first of `names`, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    let first = names.iter().take(MOST_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - "…".len()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_bounded() {
        let names: Vec<_> = (0..12).map(|number| format!("p{number}")).collect();
        assert_eq!(listed(&names[..0]), "");
        assert_eq!(listed(&names[..10]), "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9");
        assert_eq!(listed(&names), "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 and 2 more");
        assert_eq!(shown(&"é".repeat(128)), "é".repeat(128));
        assert_eq!(shown(&"é".repeat(129)), format!("{}…", "é".repeat(128)));
        assert_eq!(cut("x".repeat(4096)).len(), 4096);
        let long = cut("é".repeat(4096));
        assert!(long.len() <= 4096 && long.len() > 4090 && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn a_value_that_is_none_is_an_internal_error() {
        let error =
            ApiError::NotAnAmount { metric: "m".into(), asked: "a request".into(), source: QuantityError::NotAnAmount(f64::NAN) };
        assert_eq!(
            serde_json::to_string(&error.status()).unwrap(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Internal error occurred: m for a request: NaN is not a value that an autoscaler can be given","reason":"InternalError","code":500}"#
        );
    }
}
