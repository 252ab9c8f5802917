//! Why a request is not placed, in the words of the Go picker.

use crate::inference::{Code, Refusal};
use crate::scheduling::Unplaced;

/// Seconds after which a shed request is worth another try.
const RETRY_SHED: u32 = 1;
/// Seconds after which a pool without endpoints is worth another try.
const RETRY_NO_ENDPOINTS: u32 = 5;

/// No endpoint is ready and in the subset.
pub(super) fn no_candidates() -> Refusal {
    Refusal {
        code: Code::ServiceUnavailable,
        message: "failed to find endpoint candidates for serving the request".to_owned(),
        reason: Some("rejected-no-endpoints"),
        retry_after: Some(RETRY_NO_ENDPOINTS),
    }
}

/// The pool is full and the request's priority below 0.
pub(super) fn shed() -> Refusal {
    Refusal {
        code: Code::ResourceExhausted,
        message: "system saturated, sheddable request dropped".to_owned(),
        reason: Some("rejected-saturated"),
        retry_after: Some(RETRY_SHED),
    }
}

/// An admitter refuses the request.
pub(super) fn denied(why: &str) -> Refusal {
    Refusal {
        code: Code::ResourceExhausted,
        message: format!("request cannot be admitted: {why}"),
        reason: Some("rejected-saturated"),
        retry_after: Some(RETRY_SHED),
    }
}

/// No endpoint was chosen.
pub(super) fn unplaced(unplaced: &Unplaced) -> Refusal {
    let message = format!("failed to find target endpoint: {}", unplaced.message);
    Refusal { code: unplaced.code, message, reason: None, retry_after: None }
}
