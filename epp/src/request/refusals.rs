//! Refusals of requests that cannot be read or kept, in the words of the Go picker where it has some.

use crate::{Code, Refusal};

/// 400 with this text.
pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { code: Code::BadRequest, message: message.into(), reason: None, retry_after: None }
}

/// 413: the body is longer than a body may be.
pub(crate) fn too_large(limit: usize) -> Refusal {
    let message = format!("request body is larger than {limit} bytes, the picker's limit");
    Refusal { code: Code::PayloadTooLarge, message, reason: None, retry_after: None }
}

/// 503: too many bytes wait for a pick already.
pub(crate) fn buffers_full() -> Refusal {
    Refusal {
        code: Code::ServiceUnavailable,
        message: "too many bytes of requests wait for an endpoint".into(),
        reason: Some("rejected-saturated"),
        retry_after: Some(1),
    }
}

/// 503: this picker ends; another one will have the request.
pub(crate) fn shutting_down() -> Refusal {
    Refusal {
        code: Code::ServiceUnavailable,
        message: "the picker is shutting down".into(),
        reason: Some("rejected-shutting-down"),
        retry_after: Some(1),
    }
}

/// 400: a gateway's messages make no request.
pub(crate) fn out_of_order() -> Refusal {
    bad_request("the gateway sent a body before the request's headers: is its ext_proc filter's request_header_mode SEND?")
}
