//! Failures in the form Kubernetes clients read: `metav1.Status`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

#[derive(Serialize)]
struct Status<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

/// What a failed request was about.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Details<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) group: &'a str,
    /// The resource, in spite of its name.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) kind: &'a str,
}

/// A failed request as `metav1.Status` JSON. `reason` is one of Kubernetes' machine-readable reasons
/// (`Unauthorized`, `Timeout`, …; left out when empty), `message` is shown to the user as it is.
pub fn failure(code: StatusCode, reason: &str, message: &str) -> Response {
    failure_about(code, reason, message, None)
}

/// [`failure`] with what it is about.
pub(crate) fn failure_about(code: StatusCode, reason: &str, message: &str, details: Option<Details<'_>>) -> Response {
    let status = Status {
        kind: "Status",
        api_version: "v1",
        metadata: Empty {},
        status: "Failure",
        message,
        reason,
        details,
        code: code.as_u16(),
    };
    let Ok(mut body) = serde_json::to_vec(&status) else {
        return code.into_response();
    };
    body.push(b'\n');
    let mut response = (code, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A plain-text answer that no browser takes for anything else.
pub(crate) fn plain(code: StatusCode, body: impl Into<String>) -> Response {
    let mut response = (code, body.into()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
