//! Why a request is not placed, in the words of the Go picker.

use crate::inference::{Code, Refusal};
use crate::scheduling::Selected;

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

/// A filter took every candidate away.
pub(super) fn nothing_left(selected: &Selected) -> Refusal {
    let by = selected.emptied_by.as_deref().unwrap_or("the profile");
    Refusal {
        code: Code::ResourceExhausted,
        message: format!("failed to find target endpoint: filter {by} left none"),
        reason: None,
        retry_after: None,
    }
}
