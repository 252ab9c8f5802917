//! Why a request is not placed, in the words of the Go picker.

use crate::flow::RETRY_NO_ENDPOINTS;
use crate::inference::{Code, Refusal};
use crate::scheduling::Unplaced;

/// Seconds after which a shed request is worth another try.
const RETRY_SHED: u32 = 1;
/// No endpoint is ready and in the subset; `why` none will be, as far as that is known.
pub(super) fn no_candidates(why: Option<&str>, retry_after: u32) -> Refusal {
    let mut message = "failed to find endpoint candidates for serving the request".to_owned();
    if let Some(why) = why {
        message.push_str(": ");
        message.push_str(why);
    }
    Refusal { code: Code::ServiceUnavailable, message, reason: Some("rejected-no-endpoints"), retry_after: Some(retry_after) }
}

/// There is no such pool.
pub(super) fn no_pool() -> Refusal {
    no_candidates(None, RETRY_NO_ENDPOINTS)
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
