//! `edf-ordering-policy`

use std::time::Duration;

use tokio::time::Instant;

use super::Deadline;

/// The end of the time in the queue.
pub(super) fn deadline(now: Instant, ttl: Option<Duration>) -> Deadline {
    ttl.and_then(|ttl| now.checked_add(ttl)).map_or(Deadline::Never, Deadline::At)
}
