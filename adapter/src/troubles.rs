//! What autoscalers ask for in vain, told in the log: an HPA's own Events are gone after an hour, and nobody watches them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::ApiError;

/// The same is told again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// Requests that are remembered.
const MOST: usize = 256;
/// Bytes of a request that are remembered and told.
const LONGEST: usize = 512;

/// Which failing requests were told of, and when.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<HashMap<(String, &'static str), Instant>>);

impl Troubles {
    /// `request` (a path with its query) failed; logged unless it was lately. Its code, where it is something to be mended.
    pub(crate) fn met(&self, request: &str, error: &ApiError, now: Instant) -> Option<&'static str> {
        let code = error.trouble()?;
        let request = &request[..request.floor_char_boundary(LONGEST)];
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        let key = (request.to_owned(), code);
        if told.contains_key(&key) {
            return Some(code);
        }
        if told.len() < MOST {
            told.insert(key, now);
            warn!(code, request, %error, "a metric was asked for and has no value");
        } else {
            debug!(code, request, %error, "a metric was asked for and has no value; too many are to tell of each");
        }
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use weir_datastore::codes;

    use super::*;

    fn unknown() -> ApiError {
        ApiError::Unknown { metric: "m".into(), of: "pool n/p".into(), cause: "none is ready".into(), since: String::new() }
    }

    #[test]
    fn each_request_is_told_of_once_and_memory_has_a_bound() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let known = || troubles.0.lock().unwrap().len();
        for number in 0..2 * MOST {
            assert_eq!(troubles.met(&format!("/{number}"), &unknown(), now), Some(codes::HPA_METRIC_FAILED));
        }
        assert_eq!(known(), MOST);
        troubles.met(&"é".repeat(LONGEST), &unknown(), now + AGAIN);
        assert_eq!(known(), 1, "what is long ago is forgotten");
    }

    #[test]
    fn a_caller_that_cannot_ask_is_no_trouble_of_ours() {
        assert_eq!(Troubles::default().met("/", &ApiError::FieldSelector, Instant::now()), None);
    }
}
