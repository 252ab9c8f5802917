//! Refusals in the OpenAI API's error shape.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::model::SubmitError;

/// Longest piece of a request that is repeated in an error message, in characters.
const ECHO_LIMIT: usize = 100;

/// An answer that is not a completion.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    /// The field that is wrong.
    param: Option<String>,
    message: String,
}

const INVALID_REQUEST: &str = "invalid_request_error";
/// What a client is told to wait before trying again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self { status, kind, code: None, param: None, message }
    }

    /// The body is not JSON, or no object.
    pub(super) fn bad_json(problem: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, format!("the request body must be a JSON object: {problem}"))
    }

    /// `field` is missing or wrong.
    pub(super) fn bad_field(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let field = field.into();
        let message = format!("{field}: {problem}");
        Self { param: Some(field), ..Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message) }
    }

    /// The body was not received: too large, or broken on the way.
    pub(super) fn unread_body(status: StatusCode, limit: usize) -> Self {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the request body is larger than {limit} bytes: shorten the prompt");
            return Self { code: Some("request_too_large"), ..Self::new(status, INVALID_REQUEST, message) };
        }
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "the request body ended early".into())
    }

    pub(super) fn unknown_model(asked: &str, served: &[&str]) -> Self {
        let message = format!("the model `{}` is not served here; served: {}", shorten(asked), served.join(", "));
        let error = Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message);
        Self { param: Some("model".into()), code: Some("model_not_found"), ..error }
    }

    pub(super) fn not_found(method: &Method, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, format!("no such path: {method} {}", shorten(path)))
    }

    pub(super) fn method_not_allowed(method: &Method, path: &str) -> Self {
        let message = format!("method {method} is not allowed for {}", shorten(path));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, message)
    }

    pub(super) fn starting() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "the model is still being loaded".into())
    }

    /// The replica stopped while it worked on the request.
    pub(super) fn stopped() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "the server stopped before the request was done".into())
    }

    pub(super) fn submit(error: &SubmitError, field: &str) -> Self {
        match error {
            SubmitError::QueueFull { .. } => {
                let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", format!("{error}: try again later"));
                Self { code: Some("queue_full"), ..refused }
            }
            SubmitError::TooLong { .. } => Self { code: Some("context_length_exceeded"), ..Self::bad_field(field, error) },
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code },
        });
        let mut response = (self.status, Json(body)).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(ECHO_LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_short_and_cut_between_characters() {
        let long = "é".repeat(ECHO_LIMIT + 1);
        assert_eq!(shorten(&long), format!("{}...", "é".repeat(ECHO_LIMIT)));
        assert_eq!(shorten("short"), "short");
    }
}
