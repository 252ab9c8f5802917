//! `slo-deadline-ordering-policy`

use std::time::Duration;

use super::Deadline;
use crate::InferenceRequest;
use crate::flow::Entry;

/// Milliseconds to the first token that a client asks for: the newer name goes before the older.
pub(crate) const HEADERS: [&str; 2] = ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"];
/// A longer wait is no objective.
const LONGEST: f64 = 86_400_000.0;

/// When the first token is due.
pub(super) fn deadline(entry: &Entry) -> Deadline {
    entry.slo.and_then(|slo| entry.received.checked_add(slo)).map_or(Deadline::Never, Deadline::At)
}

/// The time to the first token that `request` asks for; none without a header, or with one that cannot be read.
pub(crate) fn slo_of(request: &InferenceRequest) -> Option<Duration> {
    let milliseconds: f64 = HEADERS.iter().find_map(|header| request.header(header))?.trim().parse().ok()?;
    (0.0..=LONGEST).contains(&milliseconds).then(|| Duration::from_secs_f64(milliseconds / 1000.0))
}
